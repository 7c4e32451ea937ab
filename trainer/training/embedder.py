"""The training of the embedder: the student's similarities learn to agree with the judge's scores."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from trainer.data.collate import Batch, collate
from trainer.data.dataset import Example, Examples
from trainer.losses.contrastive import in_batch_contrast, infonce
from trainer.losses.distillation import js_divergence, kl, margin_mse, symmetric_kl
from trainer.losses.gather import gathered
from trainer.losses.gradcache import embed_in_chunks
from trainer.losses.settings import LossSettings
from trainer.losses.terms import Observed, Terms
from trainer.models.backbone import Backbone
from trainer.models.embedder import embed, stream_of
from trainer.models.input_formats import EMBEDDING_FILE, EmbeddingManifest
from trainer.training.diagnostics import labels_are_hard, observed, pool_is_covered, teacher_warning
from trainer.training.distributed import processes
from trainer.training.finetune import finetune
from trainer.training.settings import EmbedderSettings
from unijudge.modeling.chat_encoder import Stream

logger = logging.getLogger(__name__)

AGREEMENTS = {"symmetric_kl": symmetric_kl, "js": js_divergence, "kl": kl, "margin_mse": margin_mse}
"""The losses that learn from a judge's scores, by name."""
DISTRIBUTIONS = {"symmetric_kl", "js", "kl"}
"""The losses that turn a judge's scores into a distribution. `margin_mse` reads differences of scores instead."""


def train_embedder(settings: EmbedderSettings, report: Callable[[int, float], None]) -> Path:
    """Runs one training, or resumes it.

    Args:
        settings: The settings of the run.
        report: A function that is called with (step, loss) after each update.

    Returns:
        The folder of the adapter.

    Raises:
        UnijudgeError: The rows, the model or the settings do not match; or a loss was not finite.
    """
    with processes(settings.model.device, settings.out, settings.trackers) as accelerator:
        return finetune(settings, partial(EmbedderObjective, settings), report, accelerator).adapter


class EmbedderObjective:
    """The objective of the embedder: a loss over the similarities of each row's query and candidates."""

    questions = False

    def __init__(self, settings: EmbedderSettings, backbone: Backbone, rows: Examples):
        """Checks the rows, and warns if a student can learn little from these rows.

        Raises:
            DataError: The loss needs a judge's scores, but the rows have no scores.
        """
        if settings.loss.name in AGREEMENTS:
            rows.check_judged(f"loss.name = {settings.loss.name!r}")
        for doubt in _doubts(settings, rows):
            logger.warning("%s: %s", settings.triples, doubt)
        self._backbone, self._settings = backbone, settings
        self.beside = {
            EMBEDDING_FILE: EmbeddingManifest.of(settings.model, backbone.inputs.weights)
        }

    def collate(self, examples: Sequence[Example], _step: int) -> Batch:
        """Makes a batch, checks its inputs, and decodes its images. The decoded images are kept."""
        batch = collate(examples)
        for content in (*batch.queries, *batch.candidates):
            stream_of(self._backbone, content)
        return batch

    def loss(self, batch: Batch) -> Terms:
        """Returns the loss of a batch, as `loss_of` computes it."""
        chunk_size = self._settings.gradcache_chunk_size
        return loss_of(self._backbone, self._settings.loss, batch, gradcache_chunk_size=chunk_size)

    def streams(self, batch: Batch) -> list[list[Stream]]:
        """Returns the inputs of a batch as one list, or as a list for each chunk (GradCache)."""
        streams = [
            stream_of(self._backbone, content) for content in (*batch.queries, *batch.candidates)
        ]
        size = self._settings.gradcache_chunk_size or len(streams)
        return [streams[start : start + size] for start in range(0, len(streams), size)]

    def longest(self, example: Example) -> int:
        """Returns the number of tokens of the longest content among the query and the candidates of a row."""
        contents = (example.query, *example.candidates)
        return max(self._backbone.length(content) for content in contents)


def _doubts(settings: EmbedderSettings, rows: Examples) -> list[str]:
    """Returns the warnings about rows from which a student can learn little."""
    temperature = settings.loss.teacher_temperature
    doubts = []
    if settings.loss.name in AGREEMENTS:
        doubts.append(teacher_warning(rows.teacher_NK, temperature))
    if settings.loss.name in DISTRIBUTIONS:
        doubts.append(labels_are_hard(rows.teacher_NK, temperature))
    if rows.at_random or settings.loss.in_batch_weight:
        doubts.append(pool_is_covered(settings, rows.pools()))
    return [doubt for doubt in doubts if doubt is not None]


def loss_of(
    backbone: Backbone, settings: LossSettings, batch: Batch, *, gradcache_chunk_size: int = 0
) -> Terms:
    """Returns the terms of the loss of one batch, and the observed values of its rows.

    The hidden states of all inputs are kept for the backward pass. With `gradcache_chunk_size`, only the hidden states
    of that many inputs are kept at the same time.
    """
    contents = [*batch.queries, *batch.candidates]
    if gradcache_chunk_size:
        vectors = embed_in_chunks(backbone, contents, gradcache_chunk_size)
    else:
        vectors = embed(backbone, contents)
    return terms_of(settings, batch, *vectors.split([len(batch.queries), len(batch.candidates)]))


def terms_of(
    settings: LossSettings, batch: Batch, queries_BD: Tensor, candidates_UD: Tensor
) -> Terms:
    """Returns the same terms for a batch whose contents are already embedded.

    With several processes, each process returns the mean over its own rows. The update averages the gradients of these
    means.
    """
    if settings.in_batch_weight:
        batch, candidates_UD = gathered(batch, candidates_UD)
    batch = batch.to(queries_BD.device)
    similarities_BU = queries_BD @ candidates_UD.T
    own_BU, all_BU = (~batch.masked_BU(in_batch=others) for others in (False, True))
    same = {"temperature": settings.student_temperature, "weights_B": batch.weights_B}
    terms: dict[str, Tensor | Observed] = {}
    if settings.name == "infonce":
        terms["infonce"] = infonce(similarities_BU, batch.target_B, ~own_BU, **same)
    else:
        terms[settings.name] = _agreement(settings, batch, similarities_BU)
    if settings.in_batch_weight:
        terms["in_batch"] = settings.in_batch_weight * in_batch_contrast(
            similarities_BU, own_BU, all_BU, **same
        )
    return terms | observed(settings, similarities_BU.gather(1, batch.columns_BK), batch.teacher_BK)


def _agreement(settings: LossSettings, batch: Batch, similarities_BU: Tensor) -> Tensor:
    assert batch.teacher_BK is not None  # noqa: S101  `Examples.check_judged`, before the first step
    return AGREEMENTS[settings.name](
        similarities_BU.gather(1, batch.columns_BK),
        batch.teacher_BK,
        student_temperature=settings.student_temperature,
        teacher_temperature=settings.teacher_temperature,
        weights_B=batch.weights_B,
    )
