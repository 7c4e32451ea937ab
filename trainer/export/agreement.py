"""Measures how much the numbers of an exported model differ from the numbers of the run, on some rows of the run.

One side is the base model with the adapter, which computes inputs together, as in training. The other side is the
exported model, opened again, which computes each input alone, as another library does. Both sides run on the CPU in the
dtype of the export.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from trainer.data.dataset import Example, Examples
from trainer.models.backbone import Backbone, open_backbone
from trainer.models.embedder import embed
from trainer.models.lora import open_whole
from trainer.models.settings import BackboneSettings
from trainer.training.settings import FinetuneSettings, RerankerSettings
from unijudge.errors import DataError, TrainingError
from unijudge.formats.corpus import Corpus
from unijudge.judging.prompt import Prompt
from unijudge.storage.files import file_sha256

ROWS = 16
"""The number of compared rows of the run. The query, the positive and the first negative of each row are compared."""
AGREEMENT_NOT_MEASURED = "The difference from the numbers of the run was not measured: {}."
GONE = "the training rows no longer exist or have changed"

Numbers = npt.NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class AgreementSample:
    """Some rows of a run, on which two models are compared."""

    rows: list[Example]
    prompt: Prompt | None
    """The prompt of a reranker. None for an embedder."""

    @torch.inference_mode()
    def measured(self, backbone: Backbone, *, together: bool) -> Numbers:
        """Returns an embedder's vectors, queries first, or a reranker's log-odds of the positives and the negatives."""
        if self.prompt is None:
            return self._vectors(backbone, together=together)
        return self._log_odds(backbone, self.prompt, together=together)

    def _vectors(self, backbone: Backbone, *, together: bool) -> Numbers:
        queries = [row.query for row in self.rows]
        positives = [row.candidates[0] for row in self.rows]
        negatives = [row.candidates[1] for row in self.rows]
        contents = [*queries, *positives, *negatives]
        batches = _batches(contents, together=together)
        vectors = [embed(backbone, batch) for batch in batches]
        return torch.cat(vectors).numpy()

    def _log_odds(self, backbone: Backbone, prompt: Prompt, *, together: bool) -> Numbers:
        encoder = backbone.inputs.encoder
        streams = []
        for index in (0, 1):
            for row in self.rows:
                parts = prompt.parts(row.query, row.candidates[index])
                streams.append(encoder.stream(parts))

        batches = _batches(streams, together=together)
        logits = torch.cat([backbone.next_token_logits(batch) for batch in batches])
        yes = logits[:, encoder.label_id(prompt.yes)]
        no = logits[:, encoder.label_id(prompt.no)]
        return (yes - no).numpy()

    def said(self, of_run: Numbers, exported: Numbers, dtype: str) -> str:
        """Returns the sentence about the differences for the model card."""
        rows = len(self.rows)
        gap = bound(float(np.abs(of_run - exported).max()))
        measured = f"Measured at export in {dtype}, on {rows} rows of the run, against the run's base and adapter"
        if self.prompt is not None:
            return f"{measured}: log-odds differ by at most {gap}."

        # The cosine is rounded down, because the sentence gives a lower bound.
        lowest = float((of_run * exported).sum(1).min())
        cosine = math.floor(lowest * 1e6) / 1e6
        is_same = _best(of_run, rows) == _best(exported, rows)
        same = int(is_same.sum())
        return (
            f"{measured}: components of vectors differ by at most {gap}, the cosine of two vectors of the same content "
            f"is {cosine:.6f} or more, and the nearest of {2 * rows} items is the same for {same} of {rows} queries."
        )


def _batches(inputs: list[T], *, together: bool) -> list[list[T]]:
    """Returns all inputs as one batch, or each input as a batch of its own."""
    if together:
        return [inputs]
    return [[one] for one in inputs]


def sample_of(settings: FinetuneSettings, fingerprints: dict[str, str]) -> AgreementSample | str:
    """Returns some evenly spread rows of a run, or the sentence for the card that says why no rows can be read.

    Args:
        settings: The settings of the run.
        fingerprints: The fingerprints of the inputs of the training.
    """
    try:
        corpus = Corpus(settings.corpus)
        if corpus.fingerprint != fingerprints.get("the corpus"):
            return AGREEMENT_NOT_MEASURED.format("the corpus has changed")
        if file_sha256(settings.triples / "triples.json") != fingerprints.get("the rows"):
            return AGREEMENT_NOT_MEASURED.format(GONE)
        examples = Examples(corpus, settings.triples, settings.num_negatives)
        indices = np.unique(np.linspace(0, len(examples) - 1, ROWS).astype(int))
        rows = [examples[int(index)] for index in indices]
    except (DataError, TrainingError):
        return AGREEMENT_NOT_MEASURED.format(GONE)
    return AgreementSample(
        rows, settings.prompt if isinstance(settings, RerankerSettings) else None
    )


def open_exported(settings: BackboneSettings, folder: Path, *, merged: bool) -> Backbone:
    """Opens the exported model with this program."""
    if merged:
        dtype = "bfloat16" if settings.dtype == "nf4" else settings.dtype
        update = {
            "name": str(folder),
            "revision": None,
            "adapter": None,
            "device": "cpu",
            "dtype": dtype,
        }
        return open_backbone(settings.model_copy(update=update))
    return open_whole(settings, folder)


def bound(gap: float) -> str:
    """Rounds a number up to two digits.

    Example:
        >>> bound(0.00310001), bound(0.0)
        ('0.0032', '0')
    """
    if not gap:
        return "0"
    digit = 10.0 ** (math.floor(math.log10(gap)) - 1)
    return f"{math.ceil(gap / digit) * digit:.2g}"


def _best(vectors: Numbers, queries: int) -> npt.NDArray[np.int64]:
    return (vectors[:queries] @ vectors[queries:].T).argmax(1)
