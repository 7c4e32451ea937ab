"""What an engine prints while it starts goes to a file. When the engine dies, the file holds the cause.

vLLM's engine runs in processes of its own. Their parent learns that one died, and not why: the process printed why.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from unijudge.logs import log_folder, new_file

FILES_KEPT = 20
"""Logs of ended processes that stay in the folder; older ones are removed when a new one begins."""
LONGEST_CAUSE = 300
"""Characters of a cause in a message."""

_NAME = re.compile(r"engine-\d{8}T\d{6}(?:\.\d+)?-(\d+)\.log")
_PREFIX = re.compile(
    r"^(\([^)]*pid=\d+\)\s?)?((ERROR|WARNING|INFO|DEBUG)\s+\S+\s+\S+\s+\[[^\]]*\]\s?)?(\[rank\d+\]:\s?)?"
)
_TRACEBACK = "Traceback (most recent call last):"
_FATAL = "fatal error"
"""vLLM's words for the death of an engine that had started."""
_SECONDARY = re.compile(
    r"Engine core initialization failed|EngineDeadError|EngineCore encountered|WorkerProc initialization failed"
    r"|was ended by "
)

CURES = (
    (
        r"'EngineCore\w*': -9|SIGKILL",
        "the system killed the engine, most likely since main memory ran out: lower replicas, or add memory",
    ),
    (r"Failed to find C compiler", "install gcc and its headers, or set CC to a compiler"),
    (r"Python\.h", "install the headers of Python (python3-dev on Debian and Ubuntu)"),
    (r"[Nn]inja|nvcc|CUDA_HOME", "set engine.sampler = 'torch' and engine.attention = 'FLASH_ATTN', or install nvcc"),
    (r"Free memory on device", "lower engine.gpu_memory_utilization, or stop what else uses the GPU"),
    (
        r"out of memory|OutOfMemory",
        "lower engine.max_num_batched_tokens or model.max_num_seqs, or split the model with tensor_parallel_size",
    ),
    (
        r"KV cache|cache blocks",
        "lower model.max_tokens or engine.max_num_batched_tokens, or raise engine.gpu_memory_utilization",
    ),
    (r"driver on your system is too old|driver version is insufficient", "install a newer NVIDIA driver"),
    (r"unquantized lm_head", "set model.head_dtype = 'model'"),
    (
        r"[Ss]afetensor|HeaderToo|MetadataIncomplete|incomplete metadata|deserializ|following weights were not initial",
        "the weights are damaged or incomplete: download the model again",
    ),
    (
        r"size mismatch|exceeds dimension size|[Nn]o module or parameter named",
        "weights and config.json do not fit: download them again",
    ),
)
"""What a cause says (a regular expression) → what helps."""
SAID_ELSEWHERE = (r"Python\.h: No such file",)
"""Signs that a compiler prints before the error that names only its command."""


def new_log(folder: Path | None) -> Path:
    """A file for one engine's log, in a folder that keeps the newest ones.

    Args:
        folder: The setting `log_folder`.

    Raises:
        SettingsError: The folder cannot be written.
    """
    chosen = log_folder(folder)
    ended = [path for path in sorted(chosen.glob("engine-*.log")) if _has_ended(path)]
    for old in ended[: -(FILES_KEPT - 1)]:
        old.unlink(missing_ok=True)
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    # An error may name what was judged, so nobody else reads it.
    return new_file(chosen, f"engine-{started}-{os.getpid()}.log")


def _has_ended(log: Path) -> bool:
    """Whether it is the log of an engine whose process has ended; other people's files are not."""
    name = _NAME.fullmatch(log.name)
    return name is not None and not Path(f"/proc/{name.group(1)}").exists()


@contextlib.contextmanager
def printing_to(log: Path) -> Iterator[None]:
    """Sends what this process prints to a file until the block ends; processes that start meanwhile keep the file.

    It works on file descriptors, since engines are other processes and partly written in other languages.
    """
    saved = [os.dup(number) for number in (1, 2)]
    try:
        with open(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), "ab", buffering=0) as file:  # noqa: PTH123
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
    r"""The first error of a log that is not a consequence of another one. Empty where the log holds no error.

    Example:
        >>> cause_in("Traceback (most recent call last):\n  File 'x.py'\nValueError: no room\nRuntimeError: failed")
        'ValueError: no room'
    """
    lines = [_PREFIX.sub("", line.rstrip()) for line in text.splitlines()]
    # What a running engine printed before its death is about other requests.
    deaths = [number for number, line in enumerate(lines) if _FATAL in line]
    inside = False
    for line in lines[deaths[-1] if deaths else 0 :]:
        if line.startswith(_TRACEBACK):
            inside = True
        elif inside and line and not line[0].isspace():
            inside = False
            if not _SECONDARY.search(line):
                return line
    return ""


def explained(error: BaseException, log: Path, *, had_started: bool = False) -> str:
    """Why an engine died: the cause, its cure, and the file that holds the rest.

    Args:
        error: What the parent learned.
        log: What the engine printed; it may be gone.
        had_started: Whether it died at work: errors of single requests may then stand in its log, and are no cause.
    """
    heard = str(error).strip() or type(error).__name__
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    told = "" if had_started and _FATAL not in text else cause_in(text)
    cause = heard if not _SECONDARY.search(heard) else told or heard
    line = " ".join(cause.split())[:LONGEST_CAUSE]
    elsewhere = [match.group() for sign in SAID_ELSEWHERE if (match := re.search(sign, text))]
    searched = "\n".join([*elsewhere, cause])
    cure = next((cure for pattern, cure in CURES if re.search(pattern, searched)), "the log holds the whole error")
    return f"{line.rstrip('.')}. {cure[0].upper()}{cure[1:]}. Log: {log}"
