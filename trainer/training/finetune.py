"""The steps that all trainings share: read the rows, add a LoRA to a frozen model, open the run, train in one loop."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from pydantic import BaseModel

from trainer.data.dataset import Example, Examples
from trainer.data.sampler import BatchSampler
from trainer.losses.terms import Terms
from trainer.models.backbone import Backbone, open_backbone
from trainer.models.fsdp import shard_frozen
from trainer.models.lengths import rows_that_fit
from trainer.models.lora import Adapter, add_lora
from trainer.models.out_of_memory import DeviceMemory, out_of_memory_named
from trainer.models.pretrained import base_weights, device_of
from trainer.training.loop import MicroBatch, batches_each, fit, parts_of
from trainer.training.memory import TrainingMemory, training_memory, will_not_fit
from trainer.training.memory_advice import training_cures
from trainer.training.report import write_report
from trainer.training.run_folder import OWN, Run
from trainer.training.settings import FinetuneSettings
from unijudge.errors import DataError, SettingsError
from unijudge.formats.corpus import Corpus, CorpusManifest
from unijudge.modeling.chat_encoder import Stream
from unijudge.settings import overrides_of
from unijudge.storage.files import file_sha256, read_json
from unijudge.storage.outputs import check_folder

logger = logging.getLogger(__name__)

SAMPLE_BATCHES = 4
"""The number of batches from the start of the run from which the need for memory is estimated."""

B = TypeVar("B")


class Objective(Protocol[B]):
    """The goal of a training: how rows become batches, and the loss of a batch."""

    questions: bool
    """Whether each input is a question, with logits over the vocabulary."""

    @property
    def beside(self) -> Mapping[str, BaseModel]:
        """The files next to the weights that describe how the model reads its inputs."""
        ...

    def collate(self, examples: Sequence[Example], step: int) -> B:
        """Makes one batch. Threads call this method while the model works on the previous batch."""
        ...

    def loss(self, batch: B) -> Terms:
        """Returns the mean loss of a batch."""
        ...

    def streams(self, batch: B) -> list[list[Stream]]:
        """Returns the inputs of a batch in groups. The backward pass keeps one group at the same time."""
        ...

    def longest(self, example: Example) -> int:
        """Returns the number of tokens of the longest input that a row produces, without the tokens of its images."""
        ...


def finetune(
    settings: FinetuneSettings,
    objective_of: Callable[[Backbone, Examples], Objective[B]],
    report: Callable[[int, float], None],
    accelerator: Accelerator,
) -> Run:
    """Trains an adapter, or resumes its training. Does nothing if the training is finished.

    Args:
        settings: The settings of the run.
        objective_of: A function that returns the objective for the opened model and the rows.
        report: A function that the first process calls with (step, loss) after each update.
        accelerator: The processes of the job. The first process holds the lease of the run's folder.

    Raises:
        UnijudgeError: The rows, the model or the settings do not match; or a loss was not finite.
    """
    if settings.model.adapter is not None:
        raise SettingsError(
            "model.adapter: a training starts a new adapter. Merge the old adapter into a model, or leave "
            "model.adapter out"
        )
    batches_each(settings.gradient_accumulation_steps, accelerator)
    inputs = {
        "the corpus": read_json(settings.corpus / "corpus.json", CorpusManifest).fingerprint,
        "the rows": file_sha256(settings.triples / "triples.json"),
        "the base model": base_weights(settings.model),
    }
    if settings.warmup_steps >= settings.max_steps:
        logger.warning(
            "warmup_steps = %d, max_steps = %d: the training never reaches learning_rate. Lower warmup_steps",
            settings.warmup_steps,
            settings.max_steps,
        )
    if (settings.out / "settings.json").exists():
        run = Run(settings.out, settings, inputs)
        if run.adapter.exists():
            # The process was killed.
            if accelerator.is_main_process and not (run.folder / "report.html").exists():
                write_report([run.folder], run.folder / "report.html")
            return run
    else:
        check_folder(settings.out, OWN)
    device = device_of(settings.model.device)
    if settings.gradient_checkpointing == "auto":
        settings = settings.model_copy(update={"gradient_checkpointing": device.type == "cuda"})
    with out_of_memory_named(
        device, lambda: f"{settings.out}: the training", lambda: _cures(settings)
    ):
        return _train(settings, inputs, objective_of, report, accelerator)


def _train(
    settings: FinetuneSettings,
    inputs: Mapping[str, str],
    objective_of: Callable[[Backbone, Examples], Objective[B]],
    report: Callable[[int, float], None],
    accelerator: Accelerator,
) -> Run:
    """Opens the rows and the model, estimates the memory, and trains. The caller has checked settings and inputs."""
    examples = Examples(Corpus(settings.corpus), settings.triples, settings.num_negatives)
    backbone = open_backbone(settings.model)
    torch.manual_seed(settings.seed)
    add_lora(backbone, settings.lora)
    if settings.gradient_checkpointing:
        backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
    objective = objective_of(backbone, examples)
    examples = rows_that_fit(settings.triples, examples, settings.model, objective.longest)
    order = _order(settings, examples)

    task = _FinetuneTask(settings, backbone, objective, examples)

    # Only the first process runs the measured block, so the measurement comes before FSDP splits the weights. Free
    # memory is read afterwards, when the weights have their final size.
    need = None
    if accelerator.is_main_process and DeviceMemory.of(backbone.device) is not None:
        sample = islice(
            parts_of(order, range(1, settings.max_steps + 1), accelerator), SAMPLE_BATCHES
        )
        need = task.memory_of(sample)
    if accelerator.distributed_type == DistributedType.FSDP:
        shard_frozen(backbone)
    if need is not None:
        task.warn_of_memory(need)

    # Last, so that a model or rows with an error leave no folder behind.
    with accelerator.main_process_first():
        run = Run(settings.out, settings, inputs)
    if accelerator.is_main_process:
        run.note_versions()
    accelerator.init_trackers(
        "unijudge", dict(line.split("=", 1) for line in overrides_of(settings))
    )
    fit(task, order, run, settings, report, accelerator)
    if accelerator.is_main_process:
        write_report([run.folder], run.folder / "report.html")
    return run


class _FinetuneTask(Generic[B]):
    """The task of a training loop: the rows of a selection, and the adapter that learns from these rows."""

    def __init__(
        self,
        settings: FinetuneSettings,
        backbone: Backbone,
        objective: Objective[B],
        examples: Examples,
    ) -> None:
        self.model = backbone.model
        adapter = Adapter(backbone.model, objective.beside)
        self.save, self.load = adapter.save, adapter.load
        self.loss = objective.loss
        self._settings, self._backbone, self._objective, self._examples = (
            settings,
            backbone,
            objective,
            examples,
        )

    def batch(self, rows: Sequence[int], step: int) -> B:
        """Makes one batch. An error about an input names the row of the input."""
        examples = [self._examples[row] for row in rows]
        try:
            return self._objective.collate(examples, step)
        except DataError as error:
            for row, example in zip(rows, examples, strict=True):
                try:
                    self._objective.collate([example], step)
                except DataError as fault:
                    query_id = self._examples.query_id(row)
                    raise DataError(f"the row of query {query_id!r}: {fault}") from error
            raise

    def guard(self, part: MicroBatch, batch: B) -> AbstractContextManager[None]:
        """Returns a context for the passes of one batch, in which an out-of-memory error names the batch's size."""

        def doing() -> str:
            inputs, tokens = 0, 0
            for streams in self._objective.streams(batch):
                inputs += len(streams)
                tokens += sum(self._backbone.padded_tokens(streams))
            return f"step {part.step}: {len(part.rows)} rows, {inputs} inputs, {tokens:,} tokens, padding included"

        return out_of_memory_named(self._backbone.device, doing, lambda: _cures(self._settings))

    def memory_of(self, parts: Iterable[MicroBatch]) -> TrainingMemory:
        """Returns the memory that the largest of some batches will need."""
        batches = [self.batch(part.rows.tolist(), part.step) for part in parts]
        return training_memory(
            self._backbone,
            [self._objective.streams(batch) for batch in batches],
            checkpointing=self._settings.gradient_checkpointing is True,
            questions=self._objective.questions,
        )

    def warn_of_memory(self, need: TrainingMemory) -> None:
        """Warns if the free memory of the device is less than the estimate."""
        memory = DeviceMemory.of(self._backbone.device)
        doubt = will_not_fit(need, memory, _cures(self._settings)) if memory else None
        if doubt is not None:
            logger.warning("%s", doubt)


def _cures(settings: FinetuneSettings) -> list[str]:
    return training_cures(settings, checkpointing=settings.gradient_checkpointing is True)


def _order(settings: FinetuneSettings, examples: Examples) -> BatchSampler:
    groups = examples.groups
    if settings.batch_strategy != "homogeneous":
        groups = np.zeros(len(examples), np.int64)
    return BatchSampler(
        groups,
        batch_size=settings.batch_size,
        accumulation_steps=settings.gradient_accumulation_steps,
        seed=settings.seed,
    )
