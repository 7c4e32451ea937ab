"""Which GPUs this process may use, or why it sees none; and how much main memory is free.

A child process asks torch and ends: the caller opens no GPU itself, so it holds no memory there and may still fork.
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
"""The first driver that runs CUDA 13, which torch 2.13 is built for."""
GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    name: str
    memory_bytes: int
    free_bytes: int
    """What no process has taken yet."""
    capability: tuple[int, int]
    """NVIDIA's number for the instructions of a chip, such as (9, 0) for an H100."""

    def __str__(self) -> str:
        return f"{self.name} ({self.memory_bytes / GIB:.0f} GiB, {self.free_bytes / GIB:.0f} GiB free)"


@dataclass(frozen=True)
class Gpus:
    """What torch sees."""

    cuda: str | None
    """The CUDA version that torch is built for; None for a CPU build."""
    driver: str | None
    """The version of NVIDIA's kernel module; None where it is not loaded, or a container hides it."""
    found: tuple[Gpu, ...]
    problem: str
    """Why a GPU cannot be used, in torch's words; empty where all can."""

    def why_none(self) -> str:
        """Why no GPU is visible, and what would help. Empty where one is visible."""
        if self.found:
            return ""
        if self.cuda is None:
            return "torch is a CPU build. To use a GPU, install the extra judge"
        built = f"torch is built for CUDA {self.cuda}, and sees no GPU ({self.problem})"
        if "too old" in self.problem:
            here = f"; this machine has {self.driver}" if self.driver else ""
            return f"{built}. Install NVIDIA driver {OLDEST_DRIVER} or newer{here}"
        if self.driver is None:
            return (
                f"{built}. Install NVIDIA driver {OLDEST_DRIVER} or newer; give a container its GPUs with `docker run "
                "--gpus all`"
            )
        return f"{built}. Check CUDA_VISIBLE_DEVICES; give a container its GPUs with `docker run --gpus all`"


def visible_gpus() -> Gpus:
    """Asks torch in a child process.

    Raises:
        ModelError: The child hangs or dies, as where torch is not installed or a driver is broken.
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
            f"GPUs: torch did not list them within {PROBE_TIMEOUT_S} s. Look at `nvidia-smi`; restart a GPU that hangs"
        ) from error
    lines = child.stdout.strip().splitlines()
    if child.returncode or not lines:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(f"GPUs: torch cannot list them ({last[:200]}). Look at `nvidia-smi` and `import torch`")
    report = json.loads(lines[-1])
    found = tuple(Gpu(**gpu | {"capability": tuple(gpu["capability"])}) for gpu in report["found"])
    return Gpus(report["cuda"], driver_version(), found, report["problem"])


def current_gpu(*, required: bool) -> Gpu | None:
    """The first GPU that this process may use; None where no GPU is visible and none is required.

    Raises:
        ModelError: One is required, and none is visible; or the GPUs cannot be listed.
    """
    import torch

    gpus = visible_gpus() if torch.version.cuda else _probe()  # a CPU build has nothing to ask
    if required and not gpus.found:
        raise ModelError(f"a GPU is asked for, and this process sees none: {gpus.why_none()}")
    return gpus.found[0] if gpus.found else None


def has_cuda_torch() -> bool:
    """Whether the torch that is installed is built for CUDA."""
    return _is_cuda_build("torch")


def has_cuda_vllm() -> bool:
    """Whether the vLLM that is installed is built for CUDA. A CPU build has another name, or `cpu` in its version."""
    return _is_cuda_build("vllm")


def _is_cuda_build(package: str) -> bool:
    try:
        return "cpu" not in version(package)
    except PackageNotFoundError:
        return False


def driver_version(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The version of NVIDIA's kernel module; None where it is not loaded, or a container hides it.

    Example:
        >>> driver_version(Path("/nowhere")) is None
        True
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"Kernel Module(?: for \S+)?\s+([0-9.]+)", text)
    return found.group(1) if found else None


def available_bytes() -> int:
    """The main memory that Linux would give to a new process, within the container's limit."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    try:
        limit = (CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        figures = dict(line.split() for line in (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
    except OSError:
        return available
    if limit == "max":
        return available
    # Files that were read lately count as used, and Linux drops them when a process needs the memory.
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
        except RuntimeError as error:  # one that is in use by a single process, or broken
            problems.append(f"GPU {index}: {_first_line(error)}")
    return Gpus(torch.version.cuda, None, tuple(found), "; ".join(problems))


def _gpu(index: int) -> Gpu:
    import torch

    properties = torch.cuda.get_device_properties(index)
    free_bytes, memory_bytes = torch.cuda.mem_get_info(index)
    if properties.is_integrated:  # it shares the main memory, where files that were read lately count as used
        free_bytes = min(memory_bytes, max(free_bytes, available_bytes()))
    return Gpu(properties.name, memory_bytes, free_bytes, (properties.major, properties.minor))


def _first_line(error: RuntimeError) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_probe())) + "\n")
