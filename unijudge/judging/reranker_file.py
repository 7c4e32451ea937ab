"""judging.json beside the weights of a trained reranker: its prompt and its pixel budget in training."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from unijudge.judging.prompt import Prompt
from unijudge.storage.files import read_json

JUDGING_FILE = "judging.json"
JUDGE_MIN_PIXELS = 4 * 28 * 28
JUDGE_MAX_PIXELS = 300 * 28 * 28
"""The default pixel budget of a judge, which is also the default of a reranker in training."""


class JudgingManifest(BaseModel):
    """The settings with which a reranker was trained. With other settings its scores change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt
    min_pixels: int
    max_pixels: int
    base: str | None = None
    """The weights under the adapter, as a hub revision or a digest; None if the folder holds the full weights."""


def served_otherwise(folder: Path, prompt: Prompt, min_pixels: int, max_pixels: int) -> list[str]:
    """Returns a sentence for each setting of a service that differs from the training of its reranker.

    A model without judging.json gets no sentence.

    Args:
        folder: The folder of the model.
        prompt: The prompt of the service.
        min_pixels: The lower bound of the service's pixel budget.
        max_pixels: The upper bound of the service's pixel budget.

    Raises:
        DataError: judging.json cannot be read.
    """
    if not (folder / JUDGING_FILE).is_file():
        return []
    trained = read_json(folder / JUDGING_FILE, JudgingManifest)
    found = [
        f"model.{name} = {value}, but {folder} was trained with {wanted}, so it sees pictures in another size than in "
        f"training. Set model.{name} = {wanted}"
        for name, value, wanted in [
            ("min_pixels", min_pixels, trained.min_pixels),
            ("max_pixels", max_pixels, trained.max_pixels),
        ]
        if value != wanted
    ]
    found += [
        f"prompt.{name} differs from the training of {folder}. Set it to {str(wanted)[:60]!r}"
        for name, wanted in trained.prompt
        if getattr(prompt, name) != wanted
    ]
    return found
