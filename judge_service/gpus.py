"""Which GPUs this process may use, and why none, where there is none.

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
MIB = 2**20
GIB = 2**30


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
    """The version of NVIDIA's kernel module; None where it is not loaded."""
    found: tuple[Gpu, ...]
    problem: str
    """Why no GPU can be used, as torch says; empty where one can."""

    def why_none(self) -> str:
        """Why no GPU is visible, and what would help. Empty where one is visible."""
        if self.found:
            return ""
        if self.cuda is None:
            return "torch is a CPU build. To use a GPU, install the extra judge"
        if "too old" in self.problem:
            return (
                f"the NVIDIA driver {self.driver or ''} is too old for CUDA {self.cuda}. "
                f"Install driver {OLDEST_DRIVER} or newer on this machine"
            )
        if self.driver is None:
            return (
                f"torch is built for CUDA {self.cuda}, and no NVIDIA driver is loaded here. Install driver "
                f"{OLDEST_DRIVER} or newer; give a container its GPUs with `docker run --gpus all`"
            )
        return (
            f"the NVIDIA driver {self.driver} is loaded, but this process sees no GPU ({self.problem}). Check "
            "CUDA_VISIBLE_DEVICES; give a container its GPUs with `docker run --gpus all`"
        )


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


def has_cuda_vllm() -> bool:
    """Whether the vLLM that is installed is built for CUDA. A CPU build has another name, or `cpu` in its version."""
    try:
        return "cpu" not in version("vllm")
    except PackageNotFoundError:
        return False


def driver_version(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The version of NVIDIA's kernel module; None where it is not loaded.

    Example:
        >>> driver_version(Path("/nowhere")) is None
        True
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    version = re.search(r"Kernel Module(?: for \S+)?\s+([0-9.]+)", text)
    return version.group(1) if version else None


def _probe() -> Gpus:
    import torch

    if torch.version.cuda is None:
        return Gpus(None, None, (), "torch is a CPU build")
    found = []
    problem = ""
    try:
        torch.cuda.init()
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            free_bytes, memory_bytes = torch.cuda.mem_get_info(index)
            capability = (properties.major, properties.minor)
            found.append(Gpu(properties.name, memory_bytes, free_bytes, capability))
    except RuntimeError as error:
        problem = (str(error).strip().splitlines() or ["no message"])[0]
    return Gpus(torch.version.cuda, None, tuple(found), problem)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_probe())) + "\n")
