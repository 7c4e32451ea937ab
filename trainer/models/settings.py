"""The settings of a model, and of what of it is trained."""

from typing import Literal

from pydantic import Field

from unijudge.images.decoding import MAX_PIXELS
from unijudge.images.image_processing import Resize
from unijudge.settings import Settings
from unijudge.storage.locations import LocalPath, ModelName

Encoding = Literal["chat", "vlm2vec", "lamra", "unime"]
OnLong = Literal["error", "truncate", "skip"]
Attention = Literal["auto", "sdpa", "flash_attention_2"]


class BackboneSettings(Settings):
    """The model, and how it sees its inputs."""

    name: ModelName = ""
    """A Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL, LLaVA-NeXT or LLaVA-OneVision, in the layout of transformers: a hub
    name, or a folder. Required."""
    revision: str | None = None
    """The commit of a hub model."""
    adapter: LocalPath | None = None
    """A LoRA adapter to put on top: the folder `adapter` of a run. Not for training, which starts a new one."""
    dtype: Literal["float32", "bfloat16", "nf4"] = "float32"
    """Of the frozen weights; an adapter is always trained in float32. `nf4` is four bits a weight (QLoRA, arXiv
    2305.14314) of the language model, computed in bfloat16: it needs a GPU and the package bitsandbytes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs. Of several processes each takes a GPU of its own."""
    attention: Attention = "auto"
    """Of the vision tower; the language model has `sdpa`, torch's own. `auto`: `flash_attention_2` for Qwen's models
    where the package flash-attn is installed, on a GPU and not in float32; elsewhere `sdpa`."""
    encoding: Encoding = "chat"
    """How an embedder reads a text and an image: `chat`, a user's turn in the model's chat template, up to its answer;
    `vlm2vec`, the strings of the released checkpoints of VLM2Vec and UniME-V2 (Qwen's models, LLaVA-OneVision), and of
    LLaVA-NeXT, by which UniME (v1) is measured on MMEB; `lamra`, the prompts of LamRA-Ret (Qwen2-VL, Qwen2.5-VL; with
    max_pixels = 235200); `unime`, those of UniME (v1) for retrieval, for an image alone or a text alone (LLaVA-NeXT,
    LLaVA-OneVision). A reranker always has the judge's prompt."""
    resize: Resize = "keep"
    """`keep` keeps the aspect ratio of images; `square`, as in UniME-V2, squashes each to the largest square within
    max_pixels, here 672 × 672. Embedders only."""
    min_pixels: int = Field(4 * 28 * 28, gt=0)
    """Smaller images are scaled up to this many pixels; `square` has one size alone."""
    max_pixels: int = Field(576 * 28 * 28, gt=0)
    """Larger images are scaled down to this many pixels. 28 × 28 are one token of Qwen2-VL and Qwen2.5-VL, 32 × 32 of
    Qwen3-VL; the other families cut what is left into tiles of their own, of up to some thousand tokens in all."""
    max_tokens: int = Field(4096, gt=0)
    """Longest input, in tokens."""
    on_long: OnLong = "error"
    """A longer input: `error` ends the job before it begins, with the number of such texts and the longest; `truncate`
    cuts the end of its text, so that picture and template stay whole (embedders only); `skip` leaves it out: it gets no
    vector, and so is no candidate and asks nothing, or its row is not trained on (never in a benchmark)."""
    batch_tokens: int = Field(16384, gt=0)
    """How many tokens run at once, padding included; lower it when memory runs out. A training keeps the hidden
    states of a whole batch for its backward pass: there lower `batch_size`."""
    vision_cache_mb: int = Field(1024, ge=0)
    """Main memory, in MiB, for what a frozen vision tower made of pictures: it does not see these again. 0 keeps
    nothing."""
    max_source_pixels: int = Field(MAX_PIXELS, gt=0)
    """Width × height beyond which an image is not even decoded."""


class LoraSettings(Settings):
    """What is trained: low-rank updates of the language model's linear layers (arXiv 2106.09685)."""

    rank: int = Field(16, gt=0)
    """Width of the updates."""
    alpha: int = Field(64, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On the input of the updates. UniME-V2's script has 0.1."""
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    """Names of the linear layers, in the language model only; the vision tower stays frozen."""
    dora: bool = False
    """Learn the length of each row of a weight apart from its direction (DoRA, arXiv 2402.09353), as UniME-V2's script
    does and its paper does not say."""
    init: Literal["default", "gaussian"] = "default"
    """How the updates' first matrix begins: `default` is PEFT's (Kaiming uniform); UniME-V2's script has `gaussian`.
    The second matrix begins at zero, so the update does."""


class RerankerLoraSettings(LoraSettings):
    """What is trained: as for the embedder, with UniME-V2's sizes for the reranker."""

    rank: int = Field(128, gt=0)
    """Width of the updates."""
    alpha: int = Field(256, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """On the input of the updates."""
