"""Trains the embedder: the student's similarities learn to agree with the judge's scores."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.backbone import Adapter, Backbone, add_lora, open_backbone
from trainer.collate import Batch, collate
from trainer.embedder import embed
from trainer.examples import Examples
from trainer.loop import fit
from trainer.losses import infonce, js_divergence, symmetric_kl
from trainer.runs import Run
from trainer.settings import LossSettings, TrainSettings
from unijudge.corpus import Corpus, CorpusManifest
from unijudge.errors import SettingsError, TrainingError
from unijudge.files import file_sha256, lease, read_json


def train_embedder(settings: TrainSettings, report: Callable[[int, float], None]) -> Path:
    """Runs one training, or goes on with it.

    Args:
        settings: The run.
        report: Is called with (step, loss) after each update.

    Returns:
        The folder of the adapter.

    Raises:
        UnijudgeError: The rows, the model or the settings do not fit; or a loss was not finite.
    """
    if settings.model.adapter is not None:
        raise SettingsError(
            "model.adapter: a training starts a new adapter; merge the old one into a model, or leave it out"
        )
    with lease(settings.out):
        inputs = {
            "the corpus": read_json(settings.corpus / "corpus.json", CorpusManifest).fingerprint,
            "the rows": file_sha256(settings.triples / "triples.json"),
        }
        run = Run(settings.out, settings, inputs)
        if run.adapter.exists():
            return run.adapter
        examples = Examples(Corpus(settings.corpus), settings.triples, settings.negatives)
        backbone = open_backbone(settings.model)
        torch.manual_seed(settings.seed)
        add_lora(backbone, settings.lora)
        fit(
            backbone.model,
            len(examples),
            lambda rows: collate([examples[row] for row in rows]),
            partial(loss_of, backbone, settings.loss),
            run,
            settings,
            Adapter(backbone.model),
            report,
        )
        return run.adapter


def loss_of(backbone: Backbone, settings: LossSettings, _: nn.Module, batch: Batch) -> Tensor:
    """The loss of one batch.

    Raises:
        TrainingError: The loss needs a judge's scores, and a row has none.
    """
    queries_BD, candidates_UD = embed(backbone, batch.queries), embed(backbone, batch.candidates)
    similarities_BU = queries_BD @ candidates_UD.T
    device = similarities_BU.device
    if settings.name == "infonce":
        return infonce(
            similarities_BU,
            batch.target_B.to(device),
            batch.masked_BU(in_batch=settings.in_batch).to(device),
            temperature=settings.student_temperature,
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
    )
