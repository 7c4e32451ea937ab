"""What the engine prints goes to a file; when the engine dies, its cause is found there, with a cure.

vLLM's engine runs in processes of its own. When one dies, its parent hears only that it died: the cause stands in what
the process printed.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

FILES_KEPT = 20
"""Logs that stay in the folder; older ones are removed when a new one begins."""
LONGEST_CAUSE = 300
"""Characters of a cause in a message."""

_PREFIX = re.compile(r"^(\([^)]*pid=\d+\)\s*)?((ERROR|WARNING|INFO|DEBUG)\s+\S+\s+\S+\s+\[[^\]]*\]\s?)?")
_EXCEPTION = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\w*)(?::\s*(.*))?$")
_SECONDARY = re.compile(r"Engine core initialization failed|EngineDeadError|EngineCore encountered")

CURES = (
    (r"Failed to find C compiler", "install gcc and its headers, or set CC to a compiler"),
    (r"Python\.h", "install the headers of Python (python3-dev on Debian and Ubuntu)"),
    (r"[Nn]inja|nvcc|CUDA_HOME", "set engine.sampler = 'torch' and engine.attention = 'FLASH_ATTN', or install nvcc"),
    (r"Free memory on device", "lower engine.gpu_memory_utilization, or stop what else uses the GPU"),
    (
        r"out of memory|OutOfMemory",
        "lower engine.batched_tokens or model.max_sequences, or split the model with tensor_parallel_size",
    ),
    (
        r"KV cache|cache blocks",
        "lower model.max_tokens or engine.batched_tokens, or raise engine.gpu_memory_utilization",
    ),
    (r"driver on your system is too old|driver version is insufficient", "install a newer NVIDIA driver"),
    (r"unquantized lm_head", "set model.head_dtype = 'model'"),
    (
        r"[Ss]afetensor|HeaderToo|MetadataIncomplete|incomplete metadata|deserializ|following weights were not initial",
        "the weights are damaged or incomplete: download the model again",
    ),
    (
        r"size mismatch|exceeds dimension size|shape|[Nn]o module or parameter named",
        "weights and config.json do not fit: download them again",
    ),
)
"""What a cause says (a regular expression) → what helps."""


def new_log(folder: Path | None) -> Path:
    """A file for one engine's log, in a folder that keeps the newest ones.

    Args:
        folder: Where; None: `unijudge-logs` in the temporary folder.
    """
    chosen = folder or Path(tempfile.gettempdir()) / f"unijudge-logs-{os.getuid()}"
    chosen.mkdir(parents=True, exist_ok=True)
    for old in sorted(chosen.glob("engine-*.log"))[: -(FILES_KEPT - 1)]:
        old.unlink(missing_ok=True)
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    path = chosen / f"engine-{started}-{os.getpid()}.log"
    path.touch()
    return path


@contextlib.contextmanager
def printing_to(log: Path) -> Iterator[None]:
    """While it lasts, all that this process prints goes to the file, and so does what it starts, for good.

    Works on the file descriptors, since engines are other processes and partly other languages.
    """
    saved = [os.dup(number) for number in (1, 2)]
    try:
        with log.open("ab", buffering=0) as file:
            for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
                stream.flush()
                os.dup2(file.fileno(), number)
        yield
    finally:
        for stream, number, old in ((sys.stdout, 1, saved[0]), (sys.stderr, 2, saved[1])):
            stream.flush()
            os.dup2(old, number)
            os.close(old)


def cause_in(text: str) -> str:
    r"""The first error of a log: what follows is about its consequences. Empty where the log holds none.

    Example:
        >>> cause_in("(EngineCore pid=7) ERROR 11-29 20:00:00 [core.py:9] ValueError: no room\nRuntimeError: failed")
        'ValueError: no room'
    """
    for line in text.splitlines():
        bare = _PREFIX.sub("", line.rstrip())
        if _EXCEPTION.match(bare) and not _SECONDARY.search(bare):
            return bare
    return ""


def explained(error: BaseException, log: Path) -> str:
    """Why an engine died: the cause, its cure, and the file that holds the rest.

    Args:
        error: What the parent heard.
        log: What the engine printed.
    """
    heard = str(error).strip() or type(error).__name__
    text = log.read_text(encoding="utf-8", errors="replace")
    cause = heard if not _SECONDARY.search(heard) else cause_in(text) or heard
    line = " ".join(cause.split())[:LONGEST_CAUSE]
    cure = next((cure for pattern, cure in CURES if re.search(pattern, cause)), "the log holds the whole error")
    return f"{line.rstrip('.')}. {cure[0].upper()}{cure[1:]}. Log: {log}"
