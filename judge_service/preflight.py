"""What would stop a judge on this machine's GPUs, found before Ray and the engine start.

`judge serve` refuses to start with a fault; `judge doctor` lists them. It looks at this machine: on a cluster
(`address`) the GPUs are elsewhere, and each replica finds its own faults when it starts.
"""

import fnmatch
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from judge_service.backends.engine_options import LIBRARY_BYTES, MemoryEstimate, memory_share, step_tokens_of
from judge_service.backends.model_sizes import ModelSizes, load_sizes
from judge_service.gpus import GIB, Gpu, Gpus, has_cuda_vllm, visible_gpus
from judge_service.settings import ServiceSettings
from unijudge.errors import ModelError, SettingsError

OLDEST_CAPABILITY = (7, 5)
"""What the CUDA 13 builds of torch and vLLM hold kernels for."""
BFLOAT16_CAPABILITY = (8, 0)
PARALLEL_SIZES = (1, 2, 4, 8, 16)
SIXTEEN_BIT_METHODS = ("awq", "gptq", "fp8")
"""Ways of packing weights whose kernels in vLLM compute in float16 or bfloat16 alone."""


def check_machine(settings: ServiceSettings) -> None:
    """Returns if nothing here is known to stop the service.

    Raises:
        SettingsError: Something is: every fault is listed, each with its cure.
    """
    if found := list(faults(settings)):
        raise SettingsError("\n".join(found))


def faults(settings: ServiceSettings) -> Iterator[str]:
    """Everything that would stop the service, in words."""
    if settings.address is None and needs_gpu(settings):
        yield from gpu_faults(settings, visible_gpus())


def gpu_faults(settings: ServiceSettings, gpus: Gpus) -> Iterator[str]:
    """What would stop the service on these GPUs: faults of the machine, or else of chip, tools, memory and model."""
    machine = list(machine_faults(settings, gpus))
    yield from machine
    if machine:
        return
    gpu = gpus.found[0]
    if not runs_vllm(settings):
        yield from chip_faults(settings, gpu)
        return
    named = settings.model.name
    yield from engine_faults(settings, load_sizes(named, settings.model.revision) if named else None, gpu)


def check_engine(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu) -> None:
    """Returns if nothing about this replica's GPU is known to stop vLLM.

    Raises:
        ModelError: Something is: every fault is listed, each with its cure.
    """
    if found := list(engine_faults(settings, sizes, gpu)):
        raise ModelError("; ".join(found))


def engine_faults(settings: ServiceSettings, sizes: ModelSizes | None, gpu: Gpu) -> Iterator[str]:
    """What would stop vLLM on one GPU; of the model only where its sizes are known."""
    yield from chip_faults(settings, gpu)
    yield from tool_faults(settings)
    yield from memory_faults(settings, gpu)
    if sizes is not None:
        yield from model_faults(settings, sizes, gpu)


def passed_names(settings: ServiceSettings) -> list[str]:
    """The environment variables of this shell that replicas on a cluster get, by `pass_environment`."""
    patterns = settings.pass_environment
    return [name for name in sorted(os.environ) if any(fnmatch.fnmatchcase(name, one) for one in patterns)]


def runs_vllm(settings: ServiceSettings) -> bool:
    """Whether vLLM would run the model."""
    backend = settings.model.backend
    return backend == "vllm" or (backend == "auto" and importlib.util.find_spec("vllm") is not None)


def needs_gpu(settings: ServiceSettings) -> bool:
    """Whether the settings ask for a GPU, or the engine that would run is built for one."""
    if settings.model.backend == "scripted":
        return False
    asked = settings.gpus_per_replica > 0 or settings.model.device == "cuda"
    return asked or (runs_vllm(settings) and has_cuda_vllm())


def machine_faults(settings: ServiceSettings, gpus: Gpus) -> Iterator[str]:
    """GPUs that are asked for and not there, or there and not asked for."""
    if why := gpus.why_none():
        if runs_vllm(settings) and has_cuda_vllm():
            yield (
                f"vLLM is a CUDA build, and no GPU is visible: {why}. To use the CPU, set gpus_per_replica = 0, and "
                "install the extra judge-cpu or set model.backend = 'transformers'"
            )
        else:
            asked = f"gpus_per_replica = {settings.gpus_per_replica:g}, model.device = {settings.model.device!r}"
            yield f"{asked}: no GPU is visible: {why}. To use the CPU, set gpus_per_replica = 0 and device = 'auto'"
        return
    if not settings.gpus_per_replica:
        yield (
            "vLLM is a CUDA build, and no replica is given a GPU. Set gpus_per_replica = 1; to leave the GPUs alone, "
            "set model.backend = 'transformers'"
        )
        return
    # Ray gives a replica whole GPUs, or a share of one.
    per_gpu = int(1 / settings.gpus_per_replica) if settings.gpus_per_replica < 1 else 1
    room = len(gpus.found) * per_gpu // max(1, int(settings.gpus_per_replica))
    if settings.replicas > room:
        yield (
            f"replicas = {settings.replicas} with gpus_per_replica = {settings.gpus_per_replica:g}: this machine has "
            f"{len(gpus.found)} GPUs ({gpus.found[0].name}), enough for {room} replicas. Lower replicas, or join a "
            "cluster with address"
        )


def tool_faults(settings: ServiceSettings) -> Iterator[str]:
    """Compilers that the engine calls while it starts."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        yield (
            "C compiler: none is installed, and Triton, a part of vLLM, compiles a small driver when it starts. "
            "Install gcc (on Debian and Ubuntu: apt install gcc libc6-dev), or set CC to a compiler"
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        yield (
            f"Python headers: {header} is missing, and Triton needs it. Install python3-dev (on Debian and Ubuntu), or "
            "use a Python that brings its headers"
        )
    wanted = [
        name
        for name, chosen in (
            ("engine.sampler = 'flashinfer'", settings.engine.sampler == "flashinfer"),
            ("engine.attention = 'FLASHINFER'", settings.engine.attention == "FLASHINFER"),
        )
        if chosen
    ]
    if wanted and not (os.environ.get("CUDA_HOME") or shutil.which("nvcc")):
        yield (
            f"{' and '.join(wanted)}: FlashInfer compiles kernels with nvcc, and there is none. Install the CUDA "
            "toolkit, or leave the setting out"
        )


def chip_faults(settings: ServiceSettings, gpu: Gpu) -> Iterator[str]:
    """What this kind of GPU cannot compute."""
    capability = ".".join(map(str, gpu.capability))
    if gpu.capability < OLDEST_CAPABILITY:
        yield (
            f"{gpu.name}: compute capability {capability}, and the CUDA 13 builds of torch and vLLM need "
            f"{'.'.join(map(str, OLDEST_CAPABILITY))}. Use a newer GPU"
        )
    elif settings.model.dtype == "bfloat16" and gpu.capability < BFLOAT16_CAPABILITY:
        yield (
            f"model.dtype = 'bfloat16': {gpu.name} has compute capability {capability}, and bfloat16 needs "
            f"{'.'.join(map(str, BFLOAT16_CAPABILITY))}. Set model.dtype = 'float16'"
        )


def memory_faults(settings: ServiceSettings, gpu: Gpu) -> Iterator[str]:
    """Memory that the replicas of one GPU do not have together, or that another process holds."""
    share = memory_share(settings)
    neighbours = int(1 / settings.gpus_per_replica) if 0 < settings.gpus_per_replica < 1 else 1
    if neighbours * share > 1:
        yield (
            f"engine.gpu_memory_utilization = {share:g}: gpus_per_replica = {settings.gpus_per_replica:g} puts "
            f"{neighbours} replicas on one GPU, and each would take that share of the whole GPU. Set at most "
            f"{int(100 / neighbours) / 100:g}, or leave the setting out"
        )
    elif share * gpu.memory_bytes + LIBRARY_BYTES > gpu.free_bytes:
        possible = max(0, int(100 * (gpu.free_bytes - LIBRARY_BYTES) / gpu.memory_bytes) / 100)
        yield (
            f"engine.gpu_memory_utilization = {share:g}: that is {share * gpu.memory_bytes / GIB:.1f} GiB of {gpu}. "
            f"Set at most {possible:g}, or stop what uses the GPU"
        )


def model_faults(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu) -> Iterator[str]:
    """A model that this GPU, or this number of them, cannot hold or compute."""
    if sizes.heads % settings.tensor_parallel_size:
        yield (
            f"tensor_parallel_size = {settings.tensor_parallel_size}: the model's {sizes.heads} attention heads cannot "
            "be split into that many equal parts. Set a divisor"
        )
        return
    if sizes.quantisation in SIXTEEN_BIT_METHODS and settings.model.dtype == "float32":
        yield (
            f"model.dtype = 'float32': the weights are packed by {sizes.quantisation}, whose kernels compute in "
            "sixteen bits. Set model.dtype = 'bfloat16', or 'float16' where the model's card says so"
        )
        return
    memory = plan_on(settings, sizes, gpu)
    if memory.cache < 0:
        yield f"{settings.model.name} does not fit a {gpu.name}: {memory}. {_more_memory(settings, sizes, gpu)}"


def plan_on(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu) -> MemoryEstimate:
    """What one GPU of a replica would hold."""
    return step_tokens_of(settings, sizes, gpu)[1]


def _more_memory(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu) -> str:
    """The smallest number of such GPUs that holds the model, as a sentence."""
    for parts in PARALLEL_SIZES:
        split = settings.model_copy(update={"tensor_parallel_size": parts, "gpus_per_replica": float(parts)})
        if sizes.heads % parts == 0 and plan_on(split, sizes, gpu).fits:
            return f"Set tensor_parallel_size = {parts} and gpus_per_replica = {parts}, or take a smaller model"
    return "Take a smaller or a quantised model"
