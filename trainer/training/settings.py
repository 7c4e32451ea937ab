"""The settings of the two trainings: one TOML file each, `--example` prints it."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from trainer.losses.settings import LossSettings, RerankerLossSettings
from trainer.models.settings import BackboneSettings, LoraSettings, RerankerLoraSettings
from unijudge.judging.prompt import Prompt
from unijudge.judging.reranker_file import JUDGE_MAX_PIXELS, JUDGE_MIN_PIXELS
from unijudge.settings import Settings
from unijudge.storage.locations import Location, is_local


class LoopSettings(Settings):
    """How long and how fast to train."""

    max_steps: int = Field(2000, gt=0)
    """Updates."""
    batch_size: int = Field(8, gt=0)
    """Rows at once, on one process."""
    gradient_accumulation_steps: int = Field(1, gt=0)
    """Batches in an update. Several processes share them out, so it is a multiple of their number; an update is the
    same on any number of them, unless the loss looks across rows (`loss.in_batch_weight`)."""
    batch_strategy: Literal["mixed", "homogeneous"] = "mixed"
    """`mixed`: any rows make a batch; `homogeneous`: rows of one subset do. Either way every row once an epoch."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak; reached after `warmup_steps`, falls linearly to 0."""
    warmup_steps: int = Field(200, ge=0)
    """Updates until the peak."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    save_steps: int = Field(200, gt=0)
    """Updates between checkpoints."""
    seed: int = Field(42, ge=0)
    """Of the order of rows, of dropout and of the new weights."""
    workers: int = Field(2, ge=0)
    """Threads of each process that read and prepare batches ahead of the model; 0: none."""


class FinetuneSettings(LoopSettings):
    """One training of an adapter."""

    corpus: Location
    """The corpus of the training rows."""
    triples: Location
    """The training rows (`mine select`)."""
    out: Location
    """The run's folder, on a local disk. An interrupted run goes on from its last checkpoint."""
    model: BackboneSettings = BackboneSettings()
    lora: LoraSettings = LoraSettings()
    num_negatives: int = Field(8, gt=0)
    """Negatives of each row: the first ones stored."""
    gradient_checkpointing: Literal["auto", True, False] = "auto"
    """Compute hidden states again in the backward pass instead of keeping them: far less memory, a third more work.
    `auto`: true on a GPU, false on a CPU. It changes no gradient, so a run may go on with the other."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where metrics are sent beside metrics.jsonl, which is always written. Each is a package of its own."""

    @field_validator("out")
    @classmethod
    def _on_a_disk(cls, out: Path) -> Path:
        if not is_local(out):
            raise ValueError(f"{out} is in an object store; checkpoints are written to a local disk: give a folder")
        return out


class EmbedderSettings(FinetuneSettings):
    """One training of the embedder."""

    loss: LossSettings = LossSettings()
    gradcache_chunk_size: int = Field(0, ge=0)
    """Inputs whose hidden states are kept at once (GradCache, arXiv 2101.06983): a batch of any size fits, and each of
    its inputs is computed twice. 0: those of the whole batch. Only with `loss.in_batch_weight`."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.gradcache_chunk_size and not self.loss.in_batch_weight:
            raise ValueError(
                "gradcache_chunk_size is for in-batch negatives (loss.in_batch_weight): without them rows do not "
                "interact, so a smaller batch_size and a larger gradient_accumulation_steps do the same, and "
                "compute nothing twice"
            )
        return self


class RerankerBackboneSettings(BackboneSettings):
    """The judge that a reranker starts from: it sees pictures as the judge service does."""

    min_pixels: int = Field(JUDGE_MIN_PIXELS, gt=0)
    """Smaller images are scaled up to this many pixels, as in the service that will serve it."""
    max_pixels: int = Field(JUDGE_MAX_PIXELS, gt=0)
    """Larger images are scaled down to this many pixels, as in the service that will serve it; 28 × 28 are one token of
    Qwen2-VL and Qwen2.5-VL."""


class RerankerSettings(FinetuneSettings):
    """One training of the reranker; `model` is the judge that it starts from."""

    model: RerankerBackboneSettings = RerankerBackboneSettings()

    lora: RerankerLoraSettings = RerankerLoraSettings()
    loss: RerankerLossSettings = RerankerLossSettings()
    prompt: Prompt = Prompt()

    @field_validator("model")
    @classmethod
    def _reads_as_a_judge(cls, model: RerankerBackboneSettings) -> RerankerBackboneSettings:
        if (model.encoding, model.resize) != ("chat", "keep"):
            raise ValueError(
                "encoding and resize are an embedder's; a reranker reads as the judge does: leave them out"
            )
        if model.on_long == "truncate":
            raise ValueError(
                "on_long = 'truncate' is an embedder's; a judge service refuses a question that is too long, and so "
                "would never ask what is learned of a cut one: take 'skip'"
            )
        return model
