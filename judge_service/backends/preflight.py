"""What would stop a judge on this machine, found before Ray and the engine start.

`judge serve` refuses to start with a fault; `judge doctor` lists them. Of GPUs it looks at those of this machine: on a
cluster (`address`) they are elsewhere, and each replica finds the faults of its own GPU when it starts.
"""

import fnmatch
import importlib.util
import math
import os
import resource
import shutil
import socket
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from judge_service.backends.engine_options import MemoryEstimate, memory_share, replicas_on_a_gpu, step_tokens_of
from judge_service.backends.model_sizes import ModelSizes, load_sizes
from judge_service.gpus import GIB, Gpu, Gpus, has_cuda_vllm, visible_gpus
from judge_service.settings import ServiceSettings
from unijudge.errors import ModelError, SettingsError
from unijudge.logs import log_folder
from unijudge.shown import shown

OLDEST_CAPABILITY = (7, 5)
"""What the CUDA 13 builds of torch and vLLM hold kernels for."""
SIXTEEN_BIT_CAPABILITY = (8, 0)
"""The oldest chips that compute bfloat16, and that vLLM's FLASH_ATTN and FLASHINFER run on."""
CUDA_FOLDER = Path("/usr/local/cuda")
"""Where NVIDIA's packages put the toolkit."""
PARALLEL_SIZES = (1, 2, 4, 8, 16)
SIXTEEN_BIT_METHODS = ("awq", "gptq", "fp8")
"""Ways of packing weights whose kernels in vLLM compute in float16 or bfloat16 alone."""
LEAST_FREE = 64 * 2**20
"""Bytes of the temporary folder, where a Ray that has just started has written a tenth of that."""
LEAST_FILES, GOOD_FILES = 256, 65536
"""Of one process: with 64 Ray's processes die while they start."""
LONGEST_TEMPORARY = 39
"""Bytes of the folder of temporary files: Linux gives the name of a socket 107, and Ray's own part of it has 68."""


def check_free(host: str, port: int) -> None:
    """Returns if the service can listen there. Ray would share a port with another judge of the same user, silently.

    Raises:
        SettingsError: Another program listens there, or the host is not one of this machine.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}:{port} ({error.strerror}); is another judge running there? Set host or port"
        ) from error


def check_machine(settings: ServiceSettings) -> None:
    """Returns if nothing here is known to stop the service.

    Raises:
        SettingsError: Something is: every fault is listed, each with its cure.
    """
    if settings.address is not None:
        return
    log_folder(settings.log_folder)
    found = [*process_faults(), *temporary_faults()]
    found += gpu_faults(settings, visible_gpus()) if needs_gpu(settings) else []
    if found:
        raise SettingsError("\n".join(found))


def process_faults() -> Iterator[str]:
    """What the shell does to its processes, so that Ray would not start, or would die."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < LEAST_FILES:
        yield (
            f"ulimit -n {most}: Ray needs {LEAST_FILES} open files at least, and a service one more for each "
            f"connection. Raise the limit: ulimit -n {GOOD_FILES}"
        )
    if sys.flags.optimize > 1:
        yield "PYTHONOPTIMIZE = 2: leaves out the texts of programs, which Ray reads. Unset it, or set it to 1"


def temporary_faults() -> Iterator[str]:
    """What Ray cannot do with the folder that the environment names for temporary files."""
    name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    folder = Path(os.environ.get(name) or "/tmp")  # noqa: S108  Ray's own choice
    if not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
        yield f"{name} = {shown(str(folder))}: is no folder that this user may write. Set {name} to one, such as /tmp"
    elif len(os.fsencode(folder)) > LONGEST_TEMPORARY:
        yield (
            f"{name} = {shown(str(folder))}: has {len(os.fsencode(folder))} letters, and Ray's sockets below it have "
            f"room for {LONGEST_TEMPORARY}. Set RAY_TMPDIR to a shorter folder, such as /tmp"
        )
    elif (free := shutil.disk_usage(folder).free) < LEAST_FREE:
        yield (
            f"{name} = {shown(str(folder))}: has {free / 2**20:.0f} MiB free, and Ray's logs and sockets need "
            f"{LEAST_FREE / 2**20:.0f}. Free space there, or set RAY_TMPDIR to another folder"
        )
    sessions = folder / "ray"
    if os.path.lexists(sessions) and not (sessions.is_dir() and os.access(sessions, os.W_OK | os.X_OK)):
        yield (
            f"{shown(str(sessions))}: is where Ray keeps its sessions, and no folder that this user may write: another "
            "user's Ray made it. Have it opened (chmod 1777), or set RAY_TMPDIR to a folder of your own"
        )


def check_engine(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu) -> None:
    """Returns if nothing about this replica's GPU is known to stop vLLM.

    Raises:
        ModelError: Something is: every fault is listed, each with its cure.
    """
    if found := list(engine_faults(settings, sizes, gpu)):
        raise ModelError("; ".join(found))


def gpu_faults(settings: ServiceSettings, gpus: Gpus) -> Iterator[str]:
    """What would stop the service on these GPUs: faults of the machine, or else of each GPU that it will use."""
    machine = list(machine_faults(settings, gpus))
    yield from machine
    if machine:
        return
    name = settings.model.name
    sizes = load_sizes(name, settings.model.revision) if runs_vllm(settings) and name else None
    # Ray hands out the first GPUs first.
    used = gpus.found[: math.ceil(settings.replicas * settings.gpus_per_replica)]
    of_each: list[str] = []
    for gpu in used:
        of_each += engine_faults(settings, sizes, gpu) if runs_vllm(settings) else chip_faults(settings, gpu)
    yield from dict.fromkeys(of_each)  # GPUs of one kind have the same faults


def engine_faults(settings: ServiceSettings, sizes: ModelSizes | None, gpu: Gpu) -> Iterator[str]:
    """What would stop vLLM on one GPU; of the model only where its sizes are known."""
    yield from chip_faults(settings, gpu)
    yield from tool_faults(settings)
    yield from memory_faults(settings, gpu)
    if sizes is not None:
        yield from model_faults(settings, sizes, gpu)


def passed_names(settings: ServiceSettings) -> list[str]:
    """The environment variables of this shell that replicas on a cluster get, by `pass_environment`."""
    names: set[str] = set()
    for pattern in settings.pass_environment:
        names.update(fnmatch.filter(os.environ, pattern))
    return sorted(names)


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
    """GPUs that are asked for and missing, or visible and not asked for."""
    vllm_needs_gpu = runs_vllm(settings) and has_cuda_vllm()
    if why := gpus.why_none():
        if vllm_needs_gpu:
            yield (
                f"vLLM is a CUDA build, and no GPU is visible: {why}. To use the CPU, set gpus_per_replica = 0, and "
                "install the extra judge-cpu or set model.backend = 'transformers'"
            )
        else:
            asked = f"gpus_per_replica = {settings.gpus_per_replica:g}, model.device = {settings.model.device!r}"
            yield f"{asked}: no GPU is visible: {why}. To use the CPU, set gpus_per_replica = 0 and device = 'auto'"
        return
    if vllm_needs_gpu and settings.model.device == "cpu":
        yield (
            "model.device = 'cpu': vLLM is a CUDA build and needs a GPU. Leave model.device out, or set "
            "model.backend = 'transformers'"
        )
    elif not settings.gpus_per_replica:
        yield (
            "gpus_per_replica = 0: the judge needs a GPU, and no replica is given one. Set gpus_per_replica = 1; to "
            "leave the GPUs alone, set model.backend = 'transformers' and model.device = 'cpu'"
        )
    else:
        yield from _crowding(settings, gpus)


def _crowding(settings: ServiceSettings, gpus: Gpus) -> Iterator[str]:
    """More replicas than the GPUs have room for: Ray gives a replica whole GPUs, or a share of one."""
    if settings.gpus_per_replica < 1:
        room = len(gpus.found) * int(1 / settings.gpus_per_replica)
    else:
        room = len(gpus.found) // int(settings.gpus_per_replica)
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
            "C compiler: not installed, and Triton, a part of vLLM, compiles a small driver when it starts. Install "
            "gcc (on Debian and Ubuntu: apt install gcc libc6-dev), or set CC to a compiler"
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        yield (
            f"Python headers: {header} is missing, and Triton needs it. Install python3-dev (on Debian and Ubuntu), or "
            "use a Python that brings its headers"
        )
    wanted = []
    if settings.engine.sampler == "flashinfer":
        wanted.append("engine.sampler = 'flashinfer'")
    if settings.engine.attention == "FLASHINFER":
        wanted.append("engine.attention = 'FLASHINFER'")
    if wanted and not _has_flashinfer_kernels():
        yield (
            f"{' and '.join(wanted)}: FlashInfer compiles kernels with nvcc, which is not installed. Install the CUDA "
            "toolkit, or leave the setting out"
        )


def _has_flashinfer_kernels() -> bool:
    """Whether FlashInfer finds nvcc where it looks for it, or brings its kernels ready-made."""
    toolkit = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or shutil.which("nvcc")
    found = bool(toolkit) or (CUDA_FOLDER / "bin" / "nvcc").is_file()
    return found or importlib.util.find_spec("flashinfer_cubin") is not None


def chip_faults(settings: ServiceSettings, gpu: Gpu) -> Iterator[str]:
    """What this kind of GPU cannot compute."""
    capability = f"{gpu.name} has compute capability {'.'.join(map(str, gpu.capability))}"
    attention = settings.engine.attention
    kernels = f"engine.attention = {attention!r}"
    if gpu.capability < OLDEST_CAPABILITY:
        oldest = ".".join(map(str, OLDEST_CAPABILITY))
        yield f"{capability}, and the CUDA 13 builds of torch and vLLM need {oldest}. Use a newer GPU"
    elif settings.model.dtype == "bfloat16" and gpu.capability < SIXTEEN_BIT_CAPABILITY:
        yield f"model.dtype = 'bfloat16': {capability}, and bfloat16 needs 8.0. Set model.dtype = 'float16'"
    elif attention in ("FLASH_ATTN", "FLASHINFER"):
        if gpu.capability < SIXTEEN_BIT_CAPABILITY:
            yield f"{kernels}: {capability}, and these kernels need 8.0. Leave the setting out"
        elif settings.model.dtype == "float32":
            yield f"{kernels}: these kernels compute in sixteen bits. Set model.dtype = 'bfloat16'"


def memory_faults(settings: ServiceSettings, gpu: Gpu) -> Iterator[str]:
    """Memory that the replicas of one GPU do not have together, or that another process holds."""
    share = memory_share(settings)
    neighbours = replicas_on_a_gpu(settings)
    if neighbours * share > 1:
        yield (
            f"engine.gpu_memory_utilization = {share:g}: gpus_per_replica = {settings.gpus_per_replica:g} puts "
            f"{neighbours} replicas on one GPU, and each would take that share of the whole GPU. Set at most "
            f"{int(100 / neighbours) / 100:g}, or leave the setting out"
        )
    elif share * gpu.memory_bytes > gpu.free_bytes:
        possible = int(100 * gpu.free_bytes / gpu.memory_bytes) / 100
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
    memory = _memory_on(settings, sizes, gpu)
    if memory.cache < 0:
        yield f"{settings.model.name} does not fit a {gpu.name}: {memory}. {_more_memory(settings, sizes, gpu)}"


def _memory_on(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu) -> MemoryEstimate:
    return step_tokens_of(settings, sizes, gpu)[1]


def _more_memory(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu) -> str:
    """The smallest number of such GPUs that holds the model, as a sentence."""
    for parts in PARALLEL_SIZES:
        split = settings.model_copy(update={"tensor_parallel_size": parts, "gpus_per_replica": float(parts)})
        if sizes.heads % parts == 0 and _memory_on(split, sizes, gpu).fits:
            return f"Set tensor_parallel_size = {parts} and gpus_per_replica = {parts}, or take a smaller model"
    return "Take a smaller or a quantised model"
