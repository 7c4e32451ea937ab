"""Trains the embedder: the student's similarities learn to agree with the judge's scores."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from trainer.backbone import Backbone
from trainer.collate import Batch, collate
from trainer.embedder import embed
from trainer.encodings import EmbeddingManifest
from trainer.finetune import Objective, finetune
from trainer.losses import infonce, js_divergence, symmetric_kl
from trainer.training_settings import EmbedderSettings, LossSettings
from unijudge.errors import TrainingError
from unijudge.leases import lease


def train_embedder(settings: EmbedderSettings, report: Callable[[int, float], None]) -> Path:
    """Runs one training, or goes on with it.

    Args:
        settings: The run.
        report: Is called with (step, loss) after each update.

    Returns:
        The folder of the adapter.

    Raises:
        UnijudgeError: The rows, the model or the settings do not fit; or a loss was not finite.
    """

    def objective(backbone: Backbone) -> Objective[Batch]:
        return Objective(
            lambda examples, _: collate(examples),
            lambda batch: {settings.loss.name: loss_of(backbone, settings.loss, batch)},
            EmbeddingManifest.of(settings.model),
        )

    with lease(settings.out):
        run = finetune(settings, objective, report)
        return run.adapter


def loss_of(backbone: Backbone, settings: LossSettings, batch: Batch) -> Tensor:
    """The loss of one batch.

    Raises:
        TrainingError: The loss needs a judge's scores, and a row has none.
    """
    queries_BD, candidates_UD = embed(backbone, batch.queries), embed(backbone, batch.candidates)
    similarities_BU = queries_BD @ candidates_UD.T
    device = similarities_BU.device
    weights_B = batch.weights_B.to(device)
    if settings.name == "infonce":
        return infonce(
            similarities_BU,
            batch.target_B.to(device),
            batch.masked_BU(in_batch=settings.in_batch).to(device),
            temperature=settings.student_temperature,
            weights_B=weights_B,
        )
    if batch.teacher_BK is None:
        raise TrainingError(
            f"loss.name = {settings.name!r} needs a judge's scores, but these rows were selected without one; set "
            "loss.name = 'infonce', or select with a preset that keeps judged candidates"
        )
    divergence = {"symmetric_kl": symmetric_kl, "js": js_divergence}[settings.name]
    return divergence(
        similarities_BU.gather(1, batch.columns_BK.to(device)),
        batch.teacher_BK.to(device),
        student_temperature=settings.student_temperature,
        teacher_temperature=settings.teacher_temperature,
        weights_B=weights_B,
    )
