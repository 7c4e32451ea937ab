"""Finds the faults that would stop a judge on this machine, before Ray and the engine start.

`judge serve` does not start with a fault. `judge doctor` lists all faults. Only the GPUs of this machine are checked.
On a cluster (`address`), each replica checks its own GPU when it starts.
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

from judge_service.backends.engine_arguments import argument_faults
from judge_service.backends.engine_options import (
    MemoryEstimate,
    memory_share,
    replicas_on_a_gpu,
    step_tokens_of,
)
from judge_service.backends.model_sizes import ModelSizes, load_sizes
from judge_service.gpus import GIB, Gpu, Gpus, has_cuda_vllm, visible_gpus
from judge_service.settings import ServiceSettings
from unijudge.errors import ModelError, SettingsError
from unijudge.logs import log_folder
from unijudge.shown import shown, shown_name

OLDEST_CAPABILITY = (7, 5)
"""The lowest compute capability for which the CUDA 13 builds of torch and vLLM have kernels."""
SIXTEEN_BIT_CAPABILITY = (8, 0)
"""The lowest compute capability for bfloat16, and for vLLM's FLASH_ATTN and FLASHINFER."""
CUDA_FOLDER = Path("/usr/local/cuda")
"""The folder in which NVIDIA's packages install the toolkit."""
PARALLEL_SIZES = (1, 2, 4, 8, 16)
SIXTEEN_BIT_METHODS = ("awq", "gptq", "fp8")
"""Quantisation methods whose kernels in vLLM only compute in float16 or bfloat16."""
LEAST_FREE = 64 * 2**20
"""Bytes that the temporary folder needs. Ray writes a tenth of this at its start."""
LEAST_FILES, GOOD_FILES = 256, 65536
"""The smallest and the recommended limit of open files of a process. With 64, Ray's processes die at their start."""
LONGEST_TEMPORARY = 39
"""The longest path of the temporary folder, in bytes. A socket's name may have 107 in Linux, and Ray's part has 68."""


def check_free(host: str, port: int) -> None:
    """Checks that the service can listen on this port. Ray would silently share a port with a judge of the same user.

    Raises:
        SettingsError: Another program listens on the port, or this machine does not have the host's address.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as error:
        cure = "Another judge may use this port. Set another host or port"
        raise SettingsError(f"cannot listen on {host}:{port} ({error.strerror}). {cure}") from error


def check_machine(settings: ServiceSettings) -> None:
    """Checks that this machine has no known fault that would stop the service.

    Raises:
        SettingsError: The machine has faults. The message lists all faults, each with its cure.
    """
    if settings.address is not None:
        if faults := list(engine_setting_faults(settings)):
            raise SettingsError("\n".join(faults))
        return
    log_folder(settings.log_folder)
    faults = [*process_faults(), *temporary_faults(), *engine_setting_faults(settings)]
    if needs_gpu(settings):
        faults += gpu_faults(settings, visible_gpus())
    if faults:
        raise SettingsError("\n".join(faults))


def engine_setting_faults(settings: ServiceSettings) -> Iterator[str]:
    """Yields the faults of the additional arguments of vLLM's engine."""
    arguments = settings.engine.arguments
    if arguments and settings.model.backend in ("transformers", "scripted"):
        yield (
            f"engine.{shown_name(next(iter(arguments)))}: is an argument of vLLM, and model.backend is "
            f"{settings.model.backend!r}. Remove this setting, or set model.backend = 'vllm'"
        )
        return
    yield from argument_faults(settings.engine)


def process_faults() -> Iterator[str]:
    """Yields limits and options of this shell with which Ray would not start, or would die."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < LEAST_FILES:
        yield (
            f"ulimit -n {limit}: Ray needs at least {LEAST_FILES} open files, and the service one more for each "
            f"connection. Raise the limit: ulimit -n {GOOD_FILES}"
        )
    if sys.flags.optimize > 1:
        yield "PYTHONOPTIMIZE = 2: Python removes docstrings, which Ray reads. Unset PYTHONOPTIMIZE, or set it to 1"


def temporary_faults() -> Iterator[str]:
    """Yields faults of the temporary folder that Ray would use."""
    name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    folder = Path(os.environ.get(name) or "/tmp")  # noqa: S108  Ray's default
    shown_folder = f"{name} = {shown(str(folder))}"
    if not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
        yield f"{shown_folder}: is not a writable folder. Set {name} to a writable folder, such as /tmp"
    elif len(os.fsencode(folder)) > LONGEST_TEMPORARY:
        yield (
            f"{shown_folder}: the path has {len(os.fsencode(folder))} bytes, and Ray's sockets allow "
            f"{LONGEST_TEMPORARY}. Set RAY_TMPDIR to a shorter path, such as /tmp"
        )
    elif (free := shutil.disk_usage(folder).free) < LEAST_FREE:
        yield (
            f"{shown_folder}: has {free / 2**20:.0f} MiB free, and Ray's logs and sockets need "
            f"{LEAST_FREE / 2**20:.0f}. Free some space, or set RAY_TMPDIR to another folder"
        )

    # The user who starts Ray first owns the folder of all sessions.
    sessions = folder / "ray"
    if os.path.lexists(sessions) and not (
        sessions.is_dir() and os.access(sessions, os.W_OK | os.X_OK)
    ):
        yield (
            f"{shown(str(sessions))}: Ray needs this folder for its sessions, and you may not write to it: Ray of "
            "another user created it. Ask this user to run chmod 1777, or set RAY_TMPDIR to your own folder"
        )


def check_engine(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu) -> None:
    """Checks that this replica's GPU has no known fault that would stop vLLM.

    Raises:
        ModelError: vLLM would not start. The message lists all faults, each with its cure.
    """
    if faults := list(engine_faults(settings, sizes, gpu)):
        raise ModelError("; ".join(faults))


def gpu_faults(settings: ServiceSettings, gpus: Gpus) -> Iterator[str]:
    """Yields the faults of the machine. If the machine has no fault, yields the faults of each GPU to be used."""
    machine = list(machine_faults(settings, gpus))
    if machine:
        yield from machine
        return
    name = settings.model.name
    sizes = load_sizes(name, settings.model.revision) if runs_vllm(settings) and name else None

    # Ray assigns GPUs in order.
    used = gpus.found[: math.ceil(settings.replicas * settings.gpus_per_replica)]
    faults: list[str] = []
    for gpu in used:
        if runs_vllm(settings):
            faults += engine_faults(settings, sizes, gpu)
        else:
            faults += chip_faults(settings, gpu)
    yield from dict.fromkeys(faults)  # GPUs of the same kind have the same faults


def engine_faults(settings: ServiceSettings, sizes: ModelSizes | None, gpu: Gpu) -> Iterator[str]:
    """Yields the faults that would stop vLLM on a GPU. Without sizes, the model is not checked."""
    yield from chip_faults(settings, gpu)
    yield from tool_faults(settings)
    yield from memory_faults(settings, gpu)
    if sizes is not None:
        yield from model_faults(settings, sizes, gpu)


def passed_names(settings: ServiceSettings) -> list[str]:
    """Returns the environment variables of this shell that replicas on a cluster get (`pass_environment`)."""
    names: set[str] = set()
    for pattern in settings.pass_environment:
        names.update(fnmatch.filter(os.environ, pattern))
    return sorted(names)


def runs_vllm(settings: ServiceSettings) -> bool:
    """Whether vLLM would run the model."""
    backend = settings.model.backend
    return backend == "vllm" or (backend == "auto" and importlib.util.find_spec("vllm") is not None)


def needs_gpu(settings: ServiceSettings) -> bool:
    """Whether the settings request a GPU, or the installed engine needs a GPU."""
    if settings.model.backend == "scripted":
        return False
    requested = settings.gpus_per_replica > 0 or settings.model.device == "cuda"
    return requested or (runs_vllm(settings) and has_cuda_vllm())


def machine_faults(settings: ServiceSettings, gpus: Gpus) -> Iterator[str]:
    """Yields the faults if a required GPU is missing, or if no replica requests a GPU."""
    vllm_needs_gpu = runs_vllm(settings) and has_cuda_vllm()
    if reason := gpus.why_none():
        if vllm_needs_gpu:
            yield (
                f"vLLM is a CUDA build, and no GPU is visible: {reason}. To use the CPU, set gpus_per_replica = 0, and "
                "install the extra judge-cpu or set model.backend = 'transformers'"
            )
        else:
            request = f"gpus_per_replica = {settings.gpus_per_replica:g}, model.device = {settings.model.device!r}"
            cure = "To use the CPU, set gpus_per_replica = 0 and model.device = 'auto'"
            yield f"{request}: no GPU is visible: {reason}. {cure}"
        return

    # GPUs are visible, but the settings do not use them.
    if vllm_needs_gpu and settings.model.device == "cpu":
        yield (
            "model.device = 'cpu': vLLM is a CUDA build and needs a GPU. Remove model.device, or set "
            "model.backend = 'transformers'"
        )
    elif not settings.gpus_per_replica:
        yield (
            "gpus_per_replica = 0: the judge needs a GPU, and no replica requests a GPU. Set gpus_per_replica = 1. To "
            "use the CPU, set model.backend = 'transformers' and model.device = 'cpu'"
        )
    else:
        yield from _crowding(settings, gpus)


def _crowding(settings: ServiceSettings, gpus: Gpus) -> Iterator[str]:
    """Yields a fault if the GPUs are too few. Ray gives a replica whole GPUs, or a share of one GPU."""
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
    """Yields missing compilers and headers that the engine needs at its start."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        yield (
            "C compiler: not installed, and Triton, a part of vLLM, compiles a small driver when it starts. Install "
            "gcc (on Debian and Ubuntu: apt install gcc libc6-dev), or set CC to a compiler"
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        yield (
            f"Python headers: Triton needs {header}, which is missing. Install python3-dev (on Debian and Ubuntu), or "
            "use a Python that includes its headers"
        )

    # Only FlashInfer compiles CUDA code.
    flashinfer = []
    if settings.engine.sampler == "flashinfer":
        flashinfer.append("engine.sampler = 'flashinfer'")
    if settings.engine.attention == "FLASHINFER":
        flashinfer.append("engine.attention = 'FLASHINFER'")
    if flashinfer and not _has_flashinfer_kernels():
        yield (
            f"{' and '.join(flashinfer)}: FlashInfer compiles kernels with nvcc, which is not installed. Install the "
            "CUDA toolkit, or remove the setting"
        )


def _has_flashinfer_kernels() -> bool:
    """Whether FlashInfer can find nvcc, or has compiled kernels."""
    names_toolkit = bool(os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"))
    has_nvcc = names_toolkit or shutil.which("nvcc") or (CUDA_FOLDER / "bin" / "nvcc").is_file()
    if has_nvcc:
        return True
    compiled = importlib.util.find_spec("flashinfer_cubin")
    return compiled is not None


def chip_faults(settings: ServiceSettings, gpu: Gpu) -> Iterator[str]:
    """Yields the settings that this kind of GPU cannot compute."""
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
            yield f"{kernels}: {capability}, and these kernels need 8.0. Remove the setting"
        elif settings.model.dtype == "float32":
            yield f"{kernels}: these kernels compute in 16 bits. Set model.dtype = 'bfloat16'"


def memory_faults(settings: ServiceSettings, gpu: Gpu) -> Iterator[str]:
    """Yields a fault if the replicas of a GPU together need too much memory, or if other processes use the memory."""
    share = memory_share(settings)
    neighbours = replicas_on_a_gpu(settings)
    if neighbours * share > 1:
        yield (
            f"engine.gpu_memory_utilization = {share:g}: gpus_per_replica = {settings.gpus_per_replica:g} puts "
            f"{neighbours} replicas on one GPU, and each would use this share of the whole GPU. Set at most "
            f"{int(100 / neighbours) / 100:g}, or remove the setting"
        )
    elif share * gpu.memory_bytes > gpu.free_bytes:
        possible = int(100 * gpu.free_bytes / gpu.memory_bytes) / 100
        yield (
            f"engine.gpu_memory_utilization = {share:g}: the engine would use {share * gpu.memory_bytes / GIB:.1f} GiB "
            f"of {gpu}. Set at most {possible:g}, or stop the other programs on the GPU"
        )


def model_faults(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu) -> Iterator[str]:
    """Yields a fault if the model does not fit these GPUs, or if vLLM cannot compute the model on them."""
    if sizes.heads % settings.tensor_parallel_size:
        yield (
            f"tensor_parallel_size = {settings.tensor_parallel_size}: the model's {sizes.heads} attention heads cannot "
            f"be split into this number of equal parts. Set a divisor of {sizes.heads}"
        )
        return
    sizes = sizes.quantised(settings.engine.arguments.get("quantization"))
    if sizes.quantisation in SIXTEEN_BIT_METHODS and settings.model.dtype == "float32":
        yield (
            f"model.dtype = 'float32': the weights are quantised with {sizes.quantisation}, whose kernels compute in "
            "16 bits. Set model.dtype = 'bfloat16', or 'float16' if the model card requires float16"
        )
        return
    memory = _memory_on(settings, sizes, gpu)
    if memory.cache < 0:
        yield f"{settings.model.name} does not fit a {gpu.name}: {memory}. {_more_memory(settings, sizes, gpu)}"


def _memory_on(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu) -> MemoryEstimate:
    _, memory = step_tokens_of(settings, sizes, gpu)
    return memory


def _more_memory(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu) -> str:
    """Returns the cure: the smallest number of GPUs of this kind on which the model fits."""
    for parts in PARALLEL_SIZES:
        split = settings.model_copy(
            update={"tensor_parallel_size": parts, "gpus_per_replica": float(parts)}
        )
        if sizes.heads % parts == 0 and _memory_on(split, sizes, gpu).fits:
            return f"Set tensor_parallel_size = {parts} and gpus_per_replica = {parts}, or choose a smaller model"
    return "Choose a smaller or a quantised model"
