"""The settings of embedding, training and evaluation: one TOML file each, `--example` prints it."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from unijudge.files import Location, is_local
from unijudge.images import MAX_PIXELS
from unijudge.prompt import Prompt
from unijudge.settings import Settings


class BackboneSettings(Settings):
    """The model, and how it sees its inputs."""

    name: str = ""
    """A Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL, LLaVA-NeXT or LLaVA-OneVision, in the layout of transformers: a hub
    name, or a folder. Required."""
    revision: str | None = None
    """The commit of a hub model."""
    adapter: Path | None = None
    """A LoRA adapter to put on top: the folder `adapter` of a run. Not for training, which starts a new one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the frozen weights; an adapter is always trained in float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs."""
    min_pixels: int = Field(4 * 28 * 28, gt=0)
    """Smaller images are scaled up to this many pixels."""
    max_pixels: int = Field(576 * 28 * 28, gt=0)
    """Larger images are scaled down to this many pixels. 28 × 28 are one token of Qwen2-VL and Qwen2.5-VL, 32 × 32 of
    Qwen3-VL; the other families cut what is left into tiles of their own, of up to some thousand tokens in all."""
    max_tokens: int = Field(4096, gt=0)
    """Longest input, in tokens; a longer one is an error, never cut."""
    max_source_pixels: int = Field(MAX_PIXELS, gt=0)
    """Width × height beyond which an image is not even decoded."""


class EmbedSettings(Settings):
    """One embedding of a whole corpus."""

    corpus: Location
    """The corpus folder (`mine import`)."""
    out: Location
    """The folder of vectors."""
    model: BackboneSettings = BackboneSettings()
    batch_size: int = Field(32, gt=0)
    """Inputs at once."""
    dtype: Literal["float16", "float32"] = "float16"
    """Of the stored vectors."""


class LoraSettings(Settings):
    """What is trained: low-rank updates of the language model's linear layers (arXiv 2106.09685)."""

    rank: int = Field(16, gt=0)
    """Width of the updates."""
    alpha: int = Field(64, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On the input of the updates. UniME-V2's script has 0.1."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers, in the language model only; the vision tower stays frozen."""


class LossSettings(Settings):
    """What the embedder learns from a row's positive and negatives."""

    name: Literal["symmetric_kl", "js", "infonce"] = "symmetric_kl"
    """`symmetric_kl`: UniME-V2's formula; `js`: the true Jensen-Shannon divergence; `infonce`: hard labels."""
    student_temperature: float = Field(0.02, gt=0)
    """Divides cosine similarities."""
    teacher_temperature: float = Field(0.02, gt=0)
    """Divides judge scores. At 0.02 nearly every target is one-hot; a larger one makes softer targets."""
    in_batch: bool = True
    """`infonce` only: the other rows' candidates are negatives too, but for known positives of the row."""


class LoopSettings(Settings):
    """How long and how fast to train."""

    steps: int = Field(2000, gt=0)
    """Updates."""
    batch_size: int = Field(8, gt=0)
    """Rows at once."""
    accumulate: int = Field(1, gt=0)
    """Batches in an update."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak; reached after `warmup_steps`, falls linearly to 0."""
    warmup_steps: int = Field(200, ge=0)
    """Updates until the peak."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    save_every_steps: int = Field(200, gt=0)
    """Updates between checkpoints."""
    seed: int = 42
    """Of the order of rows and of the new weights."""


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
    negatives: int = Field(8, gt=0)
    """Negatives of each row: the first ones stored."""

    @field_validator("out")
    @classmethod
    def _on_a_disk(cls, out: Path) -> Path:
        if not is_local(out):
            raise ValueError(f"{out} is in an object store; checkpoints are written to a local disk: give a folder")
        return out


class EmbedderSettings(FinetuneSettings):
    """One training of the embedder."""

    loss: LossSettings = LossSettings()


class RerankerLossSettings(Settings):
    """What the reranker learns from a row. Each term is a mean of its own, so the weights say what they seem to."""

    pairwise: float = Field(1.0, ge=0)
    """Weight of Yes for the positive and No for a negative, in the judge's own prompt."""
    listwise: float = Field(1.0, ge=0)
    """Weight of the number of the positive in a list of candidates."""
    hardest: int = Field(1, gt=0)
    """A pair's negative is drawn from this many with the highest judge scores; 1 as in UniME-V2."""
    list_size_min: int = Field(2, ge=2, le=9)
    """Shortest list, the positive counted; its size is drawn evenly."""
    list_size_max: int = Field(6, ge=2, le=9)
    """Longest list; UniME-V2 has 6."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.list_size_min > self.list_size_max:
            raise ValueError(f"list_size_min = {self.list_size_min} is more than list_size_max = {self.list_size_max}")
        if not self.pairwise and not self.listwise:
            raise ValueError("pairwise and listwise are both 0: nothing would be learned")
        return self


class RerankerLoraSettings(LoraSettings):
    """What is trained: as for the embedder, with UniME-V2's sizes for the reranker."""

    rank: int = Field(128, gt=0)
    """Width of the updates."""
    alpha: int = Field(256, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """On the input of the updates."""


class RerankerSettings(FinetuneSettings):
    """One training of the reranker; `model` is the judge that it starts from."""

    lora: RerankerLoraSettings = RerankerLoraSettings()
    loss: RerankerLossSettings = RerankerLossSettings()
    prompt: Prompt = Prompt()


class RerankSettings(Settings):
    """One reranking of an evaluation's best items."""

    corpus: Location
    """The corpus that was evaluated."""
    rankings: Location
    """The folder of `train evaluate`."""
    out: Location
    """The folder for metrics.json and rankings.parquet."""
    service: str = "http://127.0.0.1:8000"
    """Where the judge service listens; it may serve a judge as it comes, or a trained reranker (its folder merged/)."""
    key_file: Path | None = None
    """A file that holds the service's bearer key, where it wants one."""
    top: int = Field(10, gt=1)
    """Items of each ranking that are judged; the others keep their places after them."""
    in_flight: int = Field(16, gt=0)
    """Queries that wait for the service at once."""


class EvaluateSettings(Settings):
    """One evaluation of a corpus' vectors."""

    corpus: Location
    """The corpus: queries, their positives, and candidates."""
    vectors: Location
    """Its vectors (`train embed`)."""
    out: Location
    """The folder for metrics.json and rankings.parquet."""
    pool: Literal["subset", "global"] = "subset"
    """Queries without a closed list are ranked against their subset's items, or against all."""
    cutoffs: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (5, 10)
    """The k of recall@k; nDCG is taken at the last."""
    keep: int = Field(10, gt=0)
    """Items of each ranking to write."""
