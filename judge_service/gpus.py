"""Lists the GPUs that this process can use, or the reason why none is visible. Also measures the free main memory.

A child process queries torch and ends. So the caller uses no GPU memory, and can still fork.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from unijudge.errors import ModelError

PROBE_TIMEOUT_S = 120
OLDEST_DRIVER = "580"
"""The first driver that supports CUDA 13, for which torch 2.13 is built."""
GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Gpu:
    """A GPU."""

    name: str
    memory_bytes: int
    free_bytes: int
    """The memory that no process uses."""
    capability: tuple[int, int]
    """NVIDIA's number for the instructions of a chip, such as (9, 0) for an H100."""

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.memory_bytes / GIB:.0f} GiB, {self.free_bytes / GIB:.0f} GiB free)"
        )


@dataclass(frozen=True)
class Gpus:
    """The GPUs that torch sees."""

    cuda: str | None
    """The CUDA version for which torch is built. None for a CPU build."""
    driver: str | None
    """The version of NVIDIA's kernel module. None if the module is not loaded, or if a container hides the module."""
    found: tuple[Gpu, ...]
    problem: str
    """torch's message about unusable GPUs. Empty if all GPUs are usable."""

    def why_none(self) -> str:
        """Returns the reason why no GPU is visible, with its cure. Empty if a GPU is visible."""
        if self.found:
            return ""
        if self.cuda is None:
            return "torch is a CPU build. To use a GPU, install the extra judge"
        reason = f"torch is built for CUDA {self.cuda}, and sees no GPU ({self.problem})"
        if "too old" in self.problem:
            installed = f" (this machine has {self.driver})" if self.driver else ""
            return f"{reason}. Install NVIDIA driver {OLDEST_DRIVER} or newer{installed}"
        container = "In a container, use `docker run --gpus all`"
        if self.driver is None:
            return f"{reason}. Install NVIDIA driver {OLDEST_DRIVER} or newer. {container}"
        return f"{reason}. Check CUDA_VISIBLE_DEVICES. {container}"


def visible_gpus() -> Gpus:
    """Lists the GPUs in a child process.

    Raises:
        ModelError: The child process hangs or dies: for example, torch is not installed, or a driver is broken.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-m", "judge_service.gpus"],
            check=False,
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"GPUs: torch did not list them within {PROBE_TIMEOUT_S} s. Check `nvidia-smi`, and reset a GPU that hangs"
        ) from error

    # The last line of a traceback is the error.
    lines = child.stdout.strip().splitlines()
    if child.returncode or not lines:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(
            f"GPUs: torch cannot list them ({last[:200]}). Check `nvidia-smi` and `import torch`"
        )

    # Libraries may print other lines before the report.
    report = json.loads(lines[-1])
    found = tuple(Gpu(**gpu | {"capability": tuple(gpu["capability"])}) for gpu in report["found"])
    return Gpus(report["cuda"], driver_version(), found, report["problem"])


def current_gpu(*, required: bool) -> Gpu | None:
    """Returns the first GPU that this process can use. None if no GPU is visible and no GPU is required.

    Raises:
        ModelError: A GPU is required and no GPU is visible, or the GPUs cannot be listed.
    """
    import torch

    gpus = visible_gpus() if torch.version.cuda else _probe()  # a CPU build needs no child process
    if required and not gpus.found:
        raise ModelError(
            f"the settings request a GPU, and this process sees none: {gpus.why_none()}"
        )
    return gpus.found[0] if gpus.found else None


def has_cuda_torch() -> bool:
    """Whether the installed torch is built for CUDA."""
    return _is_cuda_build("torch")


def has_cuda_vllm() -> bool:
    """Whether the installed vLLM is built for CUDA. A CPU build has another name, or `cpu` in its version."""
    return _is_cuda_build("vllm")


def _is_cuda_build(package: str) -> bool:
    try:
        return "cpu" not in version(package)
    except PackageNotFoundError:
        return False


def driver_version(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Returns the version of NVIDIA's kernel module. None if the module is not loaded, or if a container hides it.

    Example:
        >>> driver_version(Path("/nowhere")) is None
        True
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"Kernel Module(?: for \S+)?\s+([0-9.]+)", text)
    return match.group(1) if match else None


def available_bytes() -> int:
    """Returns the main memory that a new process can use, within the container's limit."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = next(
        int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")
    )

    # Without a control group there is no limit.
    try:
        limit = (CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        figures = dict(
            line.split()
            for line in (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        )
    except OSError:
        return available
    if limit == "max":
        return available

    # The cache of recently read files counts as used, but Linux frees this cache when a process needs the memory.
    return min(available, int(limit) - used + int(figures.get("inactive_file", 0)))


def _probe() -> Gpus:
    import torch

    if torch.version.cuda is None:
        return Gpus(None, None, (), "torch is a CPU build")
    found: list[Gpu] = []
    problems: list[str] = []
    try:
        torch.cuda.init()
        count = torch.cuda.device_count()
    except RuntimeError as error:
        return Gpus(torch.version.cuda, None, (), _first_line(error))
    for index in range(count):
        try:
            found.append(_gpu(index))
        except RuntimeError as error:
            # The GPU is broken, or another process uses the GPU exclusively.
            problems.append(f"GPU {index}: {_first_line(error)}")
    return Gpus(torch.version.cuda, None, tuple(found), "; ".join(problems))


def _gpu(index: int) -> Gpu:
    import torch

    properties = torch.cuda.get_device_properties(index)
    free_bytes, memory_bytes = torch.cuda.mem_get_info(index)
    # Main memory is shared, and the cache of recently read files counts as used.
    if properties.is_integrated:
        free_bytes = min(memory_bytes, max(free_bytes, available_bytes()))
    return Gpu(properties.name, memory_bytes, free_bytes, (properties.major, properties.minor))


def _first_line(error: RuntimeError) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_probe())) + "\n")
