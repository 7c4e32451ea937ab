"""The settings of the two trainings. Each training reads one TOML file, and `--example` prints that file."""

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
    """The settings of the training loop."""

    max_steps: int = Field(2000, gt=0)
    """Number of updates in the whole training."""
    batch_size: int = Field(8, gt=0)
    """Number of rows in a batch. A process runs one batch at a time."""
    gradient_accumulation_steps: int = Field(1, gt=0)
    """Number of batches in an update. The processes share these batches, so the number must be a multiple of the number
    of processes. The number of processes does not change an update, unless the loss compares rows with each other
    (`loss.in_batch_weight`)."""
    batch_strategy: Literal["mixed", "homogeneous"] = "mixed"
    """How rows form batches. `mixed`: a batch holds any rows. `homogeneous`: a batch holds rows of one subset. Both
    strategies use every row once in an epoch."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate. The rate rises for `warmup_steps` updates to this peak, then falls linearly to 0."""
    warmup_steps: int = Field(200, ge=0)
    """Number of updates before the learning rate reaches its peak."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Largest norm of the gradient. A gradient with a larger norm is scaled down to this norm."""
    save_steps: int = Field(200, gt=0)
    """Number of updates between two checkpoints."""
    seed: int = Field(42, ge=0)
    """Random seed of the order of rows, of dropout and of the new weights."""
    workers: int = Field(2, ge=0)
    """Number of threads in each process that read and prepare the next batches while the model runs. 0: batches are
    prepared without threads."""


class FinetuneSettings(LoopSettings):
    """The settings of one training of an adapter."""

    corpus: Location
    """The folder of the corpus that holds the contents of the training rows."""
    triples: Location
    """The folder of the training rows, written by `mine select`."""
    out: Location
    """The folder of the run, on a local disk. An interrupted run resumes from its last checkpoint."""
    model: BackboneSettings = BackboneSettings()
    lora: LoraSettings = LoraSettings()
    num_negatives: int = Field(8, gt=0)
    """Number of negatives of each row. Training uses the first stored negatives of a row."""
    gradient_checkpointing: Literal["auto", True, False] = "auto"
    """Whether the backward pass computes hidden states again instead of keeping them. This takes far less memory and a
    third more work. `auto`: true on a GPU, false on a CPU. The setting changes no gradient, so a run may resume with
    another value."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Trackers that receive the metrics. The file metrics.jsonl is always written as well. Each tracker is a separate
    package."""

    @field_validator("out")
    @classmethod
    def _on_a_disk(cls, out: Path) -> Path:
        if not is_local(out):
            raise ValueError(
                f"{out} is in an object store, but checkpoints need a local disk. Give a local folder"
            )
        return out


class EmbedderSettings(FinetuneSettings):
    """The settings of one training of the embedder."""

    loss: LossSettings = LossSettings()
    gradcache_chunk_size: int = Field(0, ge=0)
    """Number of inputs whose hidden states are kept at the same time (GradCache, arXiv 2101.06983). A batch of any size
    then fits into memory, but each input is computed twice. 0: the hidden states of the whole batch are kept. Only with
    `loss.in_batch_weight`."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.gradcache_chunk_size and not self.loss.in_batch_weight:
            raise ValueError(
                "gradcache_chunk_size needs in-batch negatives (loss.in_batch_weight): otherwise rows do not interact, "
                "and GradCache would compute each input twice without benefit. Set gradcache_chunk_size = 0, lower "
                "batch_size and raise gradient_accumulation_steps"
            )
        return self


class RerankerBackboneSettings(BackboneSettings):
    """The settings of the judge that becomes the reranker. The default image sizes are those of a judge service."""

    min_pixels: int = Field(JUDGE_MIN_PIXELS, gt=0)
    """Smallest number of pixels in an image. Smaller images are scaled up, as in the service that will serve the
    reranker."""
    max_pixels: int = Field(JUDGE_MAX_PIXELS, gt=0)
    """Largest number of pixels in an image. Larger images are scaled down, as in the service that will serve the
    reranker. A token of Qwen2-VL or Qwen2.5-VL covers 28 × 28 pixels."""


class RerankerSettings(FinetuneSettings):
    """The settings of one training of the reranker. `model` is the judge from which the training starts."""

    model: RerankerBackboneSettings = RerankerBackboneSettings()

    lora: RerankerLoraSettings = RerankerLoraSettings()
    loss: RerankerLossSettings = RerankerLossSettings()
    prompt: Prompt = Prompt()

    @field_validator("prompt")
    @classmethod
    def _has_the_layout_of_the_list(cls, prompt: Prompt) -> Prompt:
        if prompt.preset != "unime-v2":
            raise ValueError(
                f"preset = {prompt.preset!r} is for judging only: training, lists and export use the layout of "
                "UniME-V2. Leave preset out"
            )
        return prompt

    @field_validator("model")
    @classmethod
    def _reads_as_a_judge(cls, model: RerankerBackboneSettings) -> RerankerBackboneSettings:
        if (model.encoding, model.resize) != ("chat", "keep"):
            raise ValueError(
                "encoding and resize are settings of an embedder, but a reranker reads its inputs as a judge does. "
                "Leave encoding and resize out"
            )
        if model.on_long == "truncate":
            raise ValueError(
                "on_long = 'truncate' is a setting of an embedder. A judge service rejects a question that is too "
                "long, so the reranker would learn from cut questions that no service asks. Set on_long = 'skip'"
            )
        return model
