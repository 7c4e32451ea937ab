"""The settings of a model and of its LoRA adapter."""

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
    """The settings of a model and of its inputs."""

    name: ModelName = ""
    """The model: a hub name or a folder in the layout of transformers. Supported are Qwen2-VL, Qwen2.5-VL, Qwen3-VL,
    InternVL, LLaVA-NeXT and LLaVA-OneVision. Required."""
    revision: str | None = None
    """The commit of a hub model."""
    adapter: LocalPath | None = None
    """The LoRA adapter to load on top of the model: the folder `adapter` of a run. Not for training, which starts a new
    adapter."""
    dtype: Literal["float32", "bfloat16", "nf4"] = "float32"
    """The dtype of the frozen weights. An adapter is always trained in float32. `nf4` stores the language model with
    four bits per weight (QLoRA, arXiv 2305.14314) and computes in bfloat16. `nf4` needs a GPU and the package
    bitsandbytes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device of the model. If a job has several processes, each process uses a separate GPU."""
    attention: Attention = "auto"
    """The attention of the vision tower. The language model always uses torch's `sdpa`. `auto`: `flash_attention_2` for
    Qwen models on a GPU in a dtype other than float32 if the package flash-attn is installed, otherwise `sdpa`."""
    encoding: Encoding = "chat"
    """How an embedder reads a text and an image. `chat`: a user's turn in the model's chat template, up to the start of
    the answer. `vlm2vec`: the strings of the released VLM2Vec and UniME-V2 checkpoints (Qwen models, LLaVA-OneVision),
    and the strings of LLaVA-NeXT with which UniME (v1) is measured on MMEB. `lamra`: the prompts of LamRA-Ret
    (Qwen2-VL, Qwen2.5-VL; with max_pixels = 235200). `unime`: the retrieval prompts of UniME (v1) for an image alone or
    a text alone (LLaVA-NeXT, LLaVA-OneVision). A reranker always uses the judge's prompt."""
    resize: Resize = "keep"
    """How images are resized. `keep` keeps the aspect ratio. `square` distorts each image to the largest square within
    max_pixels, by default 672 × 672, as in UniME-V2. Embedders only."""
    min_pixels: int = Field(4 * 28 * 28, gt=0)
    """Smallest number of pixels in an image. Smaller images are scaled up. Without effect on `square`, which has one
    size."""
    max_pixels: int = Field(576 * 28 * 28, gt=0)
    """Largest number of pixels in an image. Larger images are scaled down. A token of Qwen2-VL or Qwen2.5-VL covers
    28 × 28 pixels, a token of Qwen3-VL 32 × 32 pixels. The other families cut the scaled image into tiles, which take
    up to some thousand tokens in total."""
    max_tokens: int = Field(4096, gt=0)
    """Number of tokens in the longest allowed input."""
    on_long: OnLong = "error"
    """What happens to an input longer than `max_tokens`. `error`: the job stops before it starts and reports the number
    of long texts and the longest texts. `truncate`: the end of the text is cut off, but the image and the template stay
    complete (embedders only). `skip`: the input is left out. A skipped item is never a candidate, a skipped query
    has no ranking, and a row with a skipped input is not trained on. A benchmark does not allow `skip`."""
    batch_tokens: int = Field(16384, gt=0)
    """Number of tokens in one forward pass, padding included. Lower this value if memory runs out. A training keeps the
    hidden states of a whole batch for the backward pass, so in a training lower `batch_size` instead."""
    vision_cache_mb: int = Field(1024, ge=0)
    """Size of the main-memory cache for image features of a frozen vision tower, in MiB. The vision tower does not run
    again on a cached image. 0: no cache."""
    max_source_pixels: int = Field(MAX_PIXELS, gt=0)
    """Largest width × height of an image file. A larger image is an error and is not decoded."""


class LoraSettings(Settings):
    """The settings of LoRA: low-rank updates of the language model's linear layers (arXiv 2106.09685)."""

    rank: int = Field(16, gt=0)
    """Rank of the updates."""
    alpha: int = Field(64, gt=0)
    """Scale of the updates. Each update is multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the input of the updates. The script of UniME-V2 uses 0.1."""
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    """Names of the linear layers with updates. Only layers of the language model count. The vision tower stays
    frozen."""
    dora: bool = False
    """Whether the length of each row of a weight is learned separately from its direction (DoRA, arXiv 2402.09353). The
    script of UniME-V2 does this; the paper of UniME-V2 does not mention it."""
    init: Literal["default", "gaussian"] = "default"
    """Initial values of the first matrix of an update. `default`: the initialisation of PEFT (Kaiming uniform). The
    script of UniME-V2 uses `gaussian`. The second matrix is zero at first, so every update starts at zero."""


class RerankerLoraSettings(LoraSettings):
    """The settings of a reranker's LoRA. The defaults are the sizes of UniME-V2's reranker."""

    rank: int = Field(128, gt=0)
    """Rank of the updates."""
    alpha: int = Field(256, gt=0)
    """Scale of the updates. Each update is multiplied by alpha / rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the input of the updates."""
