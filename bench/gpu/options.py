"""The options of a measurement, and the sizes of its steps, on a GPU and in a dry run on a CPU."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from judge_service.settings import EngineSettings, ModelSettings, ServiceSettings


@dataclass(frozen=True)
class Scale:
    """The sizes of all steps."""

    min_pixels: int
    max_pixels: int
    max_tokens: int
    parity_queries: int
    """Number of queries with 14 pairs each."""
    verify_queries: int
    judge_images: int
    """Number of queries with 12 images as candidates."""
    judge_texts: int
    """Number of queries with 50 texts as candidates."""
    judge_seconds: float
    """Seconds after which no further query is started."""
    image_side: int
    """Width and height of the judge's images, in pixels."""
    product_size: int
    """Rows and columns of the matrices whose product is measured."""
    training_batches: int
    training_pixels: int
    search_items: int
    search_queries: int
    search_width: int


ON_A_GPU = Scale(
    min_pixels=4 * 28 * 28, max_pixels=300 * 28 * 28, max_tokens=4096, parity_queries=40, verify_queries=3,
    judge_images=64, judge_texts=40, judge_seconds=12, image_side=448, product_size=8192,
    training_batches=4, training_pixels=672 * 672, search_items=262_144, search_queries=1024, search_width=1536,
)  # fmt: skip
DRY = Scale(
    min_pixels=56 * 56, max_pixels=112 * 112, max_tokens=1024, parity_queries=2, verify_queries=1,
    judge_images=2, judge_texts=1, judge_seconds=5, image_side=56, product_size=256,
    training_batches=1, training_pixels=56 * 56, search_items=2048, search_queries=16, search_width=32,
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """The options of a measurement."""

    dry_run: bool
    """Whether all models are tiny and run on the CPU."""
    model: str
    """A checkpoint for the judge: a hub name or a folder. If empty, a model with random weights is created."""
    size: str
    """Size of the created models: `3b` or `7b`."""
    scratch: str
    """A folder for the created models."""
    logs: str
    """A folder for the output of the cases."""
    limit_s: float
    """Time limit of one case, in seconds."""

    @property
    def scale(self) -> Scale:
        """The sizes of all steps."""
        return DRY if self.dry_run else ON_A_GPU

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The device of all models."""
        return "cpu" if self.dry_run else "cuda"

    @property
    def judge_folder(self) -> Path:
        """The folder of the judge's created model."""
        return Path(self.scratch) / "judge"

    @property
    def training_folder(self) -> Path:
        """The folder of the trainer's model."""
        return Path(self.scratch) / "training"

    def as_json(self) -> dict[str, Any]:
        """Returns the options as JSON values, for the process of a case."""
        return asdict(self)


def service_settings(
    options: Options,
    backend: Literal["auto", "vllm", "transformers"],
    *,
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
    head_dtype: Literal["float32", "model"] = "float32",
    graphs: Literal["off", "piecewise"] = "off",
    memory_share: float | None = None,
    own_process: bool | None = None,
) -> ServiceSettings:
    """Returns the settings of a judge with the measured model.

    Args:
        options: The options of the measurement.
        backend: The backend that runs the model.
        dtype: The dtype of the weights.
        head_dtype: The dtype of the logits.
        graphs: Whether vLLM compiles the model and records graphs.
        memory_share: Share of the GPU memory for vLLM; None for the service's default.
        own_process: Whether vLLM's engine runs in a separate process; None: only on a GPU.
    """
    scale = options.scale
    model = ModelSettings(
        name=options.model or str(options.judge_folder),
        backend=backend,
        dtype=dtype,
        head_dtype=head_dtype,
        device=options.device,
        min_pixels=scale.min_pixels,
        max_pixels=scale.max_pixels,
        max_tokens=scale.max_tokens,
    )
    return ServiceSettings(
        model=model,
        engine=EngineSettings(
            graphs=graphs, gpu_memory_utilization=memory_share, multiprocessing=own_process
        ),
        gpus_per_replica=0 if options.dry_run else 1,
        cpus_per_replica=1 if options.dry_run else 4,
        log_folder=Path(options.logs).absolute(),
    )
