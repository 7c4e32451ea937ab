"""What all trainings have in common: rows of a selection, a LoRA on a frozen model, a run's folder, one loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from trainer.backbone import Adapter, Backbone, add_lora, open_backbone
from trainer.encodings import EmbeddingManifest
from trainer.examples import Example, Examples
from trainer.loop import Terms, fit
from trainer.runs import Run
from trainer.training_settings import FinetuneSettings
from unijudge.corpus import Corpus, CorpusManifest
from unijudge.errors import SettingsError
from unijudge.files import file_sha256, read_json

B = TypeVar("B")


@dataclass(frozen=True)
class Objective(Generic[B]):
    """What a training wants of a model."""

    collate: Callable[[Sequence[Example], int], B]
    """Rows and the step → one batch."""
    loss: Callable[[B], Terms]
    """The mean loss of a batch."""
    embedding: EmbeddingManifest | None = None
    """How an embedder reads its inputs: written beside its weights."""


def finetune(
    settings: FinetuneSettings,
    objective_of: Callable[[Backbone], Objective[B]],
    report: Callable[[int, float], None],
) -> Run:
    """Trains an adapter, or goes on with it, or finds it done. The caller holds the lease of the run's folder.

    Args:
        settings: The run.
        objective_of: What to learn, for the model that was opened.
        report: Is called with (step, loss) after each update.

    Raises:
        UnijudgeError: The rows, the model or the settings do not fit; or a loss was not finite.
    """
    if settings.model.adapter is not None:
        raise SettingsError(
            "model.adapter: a training starts a new adapter; merge the old one into a model, or leave it out"
        )
    inputs = {
        "the corpus": read_json(settings.corpus / "corpus.json", CorpusManifest).fingerprint,
        "the rows": file_sha256(settings.triples / "triples.json"),
    }
    run = Run(settings.out, settings, inputs)
    if run.adapter.exists():
        return run
    examples = Examples(Corpus(settings.corpus), settings.triples, settings.negatives)
    backbone = open_backbone(settings.model)
    torch.manual_seed(settings.seed)
    add_lora(backbone, settings.lora)
    objective = objective_of(backbone)
    fit(
        backbone.model,
        len(examples),
        lambda rows, step: objective.collate([examples[row] for row in rows], step),
        lambda _, batch: objective.loss(batch),
        run,
        settings,
        Adapter(backbone.model, objective.embedding),
        report,
    )
    return run
