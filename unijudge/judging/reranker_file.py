"""judging.json, beside the weights of a trained reranker: how it was asked, and how it saw pictures."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from unijudge.judging.prompt import Prompt
from unijudge.storage.files import read_json

JUDGING_FILE = "judging.json"
JUDGE_MIN_PIXELS = 4 * 28 * 28
JUDGE_MAX_PIXELS = 300 * 28 * 28
"""The budget of pictures that a judge has by default, and so a reranker, who is one, in training."""


class JudgingManifest(BaseModel):
    """What a reranker was trained with; served otherwise its scores are others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt
    min_pixels: int
    max_pixels: int
    base: str | None = None
    """The weights that its adapter was trained on: a hub revision, or a digest; None where its own lie beside it."""


def served_otherwise(folder: Path, prompt: Prompt, min_pixels: int, max_pixels: int) -> list[str]:
    """What of a service's settings is not what its reranker was trained with, a sentence each; none of another model.

    Args:
        folder: Of the model.
        prompt: What the service asks.
        min_pixels: Its budget of pictures.
        max_pixels: The same.

    Raises:
        DataError: judging.json cannot be read.
    """
    if not (folder / JUDGING_FILE).is_file():
        return []
    trained = read_json(folder / JUDGING_FILE, JudgingManifest)
    found = [
        f"model.{name} = {value}, but {folder} was trained with {wanted}: it sees pictures otherwise than it "
        f"learned to; set model.{name} = {wanted}"
        for name, value, wanted in [
            ("min_pixels", min_pixels, trained.min_pixels),
            ("max_pixels", max_pixels, trained.max_pixels),
        ]
        if value != wanted
    ]
    found += [
        f"prompt.{name} is not what {folder} was trained with ({str(wanted)[:60]!r}); set it so"
        for name, wanted in trained.prompt
        if getattr(prompt, name) != wanted
    ]
    return found
