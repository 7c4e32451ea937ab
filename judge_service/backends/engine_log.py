"""Writes the output of an engine to a log file, and finds the cause of the engine's death in this file.

vLLM's engine runs in separate processes. The parent process only learns that a process died. The reason is in the
output of this process.
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
"""The number of logs that the folder keeps. A new log removes the oldest logs of ended processes."""
LONGEST_CAUSE = 300
"""The largest number of characters of a cause in a message."""

_NAME = re.compile(r"engine-\d{8}T\d{6}(?:\.\d+)?-(\d+)\.log")
_PREFIX = re.compile(
    r"^(\([^)]*pid=\d+\)\s?)?((ERROR|WARNING|INFO|DEBUG)\s+\S+\s+\S+\s+\[[^\]]*\]\s?)?(\[rank\d+\]:\s?)?"
)
_TRACEBACK = "Traceback (most recent call last):"
_FATAL = "fatal error"
"""vLLM's phrase for the death of a running engine."""
_SECONDARY = re.compile(
    r"Engine core initialization failed|EngineDeadError|EngineCore encountered|WorkerProc initialization failed"
    r"|was ended by "
)

CURES = (
    (
        r"'EngineCore\w*': -9|SIGKILL",
        "the system killed the engine, probably because main memory ran out: lower replicas, or add memory",
    ),
    (r"Failed to find C compiler", "install gcc and its headers, or set CC to a compiler"),
    (r"Python\.h", "install the headers of Python (python3-dev on Debian and Ubuntu)"),
    (
        r"[Nn]inja|nvcc|CUDA_HOME",
        "set engine.sampler = 'torch' and engine.attention = 'FLASH_ATTN', or install nvcc",
    ),
    (
        r"Free memory on device",
        "lower engine.gpu_memory_utilization, or stop other programs on the GPU",
    ),
    (
        r"out of memory|OutOfMemory",
        "lower engine.max_num_batched_tokens or model.max_num_seqs, or split the model with tensor_parallel_size",
    ),
    (
        r"KV cache|cache blocks",
        "lower model.max_tokens or engine.max_num_batched_tokens, or raise engine.gpu_memory_utilization",
    ),
    (
        r"driver on your system is too old|driver version is insufficient",
        "install a newer NVIDIA driver",
    ),
    (r"unquantized lm_head", "set model.head_dtype = 'model'"),
    (
        r"[Ss]afetensor|HeaderToo|MetadataIncomplete|incomplete metadata|deserializ|following weights were not initial",
        "the weights are damaged or incomplete: download the model again",
    ),
    (
        r"size mismatch|exceeds dimension size|[Nn]o module or parameter named",
        "the weights do not match config.json: download the model again",
    ),
)
"""A regular expression for a cause → the cure."""
SAID_ELSEWHERE = (r"Python\.h: No such file",)
"""Regular expressions for output of a compiler. The error after this output only names the compiler's command."""


def new_log(folder: Path | None) -> Path:
    """Creates the log file of an engine, and removes the oldest logs of the folder.

    Args:
        folder: The setting `log_folder`.

    Raises:
        SettingsError: The folder is not writable.
    """
    chosen = log_folder(folder)
    ended = [path for path in sorted(chosen.glob("engine-*.log")) if _has_ended(path)]
    for old in ended[: -(FILES_KEPT - 1)]:
        old.unlink(missing_ok=True)
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    # Errors may quote judged texts, so `new_file` lets no other user read the log.
    return new_file(chosen, f"engine-{started}-{os.getpid()}.log")


def _has_ended(log: Path) -> bool:
    """Whether a file is the log of an engine whose process has ended. False for all other files."""
    name = _NAME.fullmatch(log.name)
    return name is not None and not Path(f"/proc/{name.group(1)}").exists()


@contextlib.contextmanager
def printing_to(log: Path) -> Iterator[None]:
    """Sends the output of this process to a file until the block ends. Processes started in the block keep the file.

    File descriptors are redirected, since engines are other processes and are partly written in other languages.
    """
    saved = [os.dup(number) for number in (1, 2)]
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        with open(descriptor, "ab", buffering=0) as file:  # noqa: PTH123
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
    r"""Returns the first error of a log that is not a consequence of another error. Empty if the log has no error.

    Example:
        >>> cause_in("Traceback (most recent call last):\n  File 'x.py'\nValueError: no room\nRuntimeError: failed")
        'ValueError: no room'
    """
    lines = [_PREFIX.sub("", line.rstrip()) for line in text.splitlines()]

    # Errors before the death of a running engine are errors of single requests.
    deaths = [number for number, line in enumerate(lines) if _FATAL in line]
    first = deaths[-1] if deaths else 0

    # The error is the first line after a traceback that is not indented.
    inside = False
    for line in lines[first:]:
        if line.startswith(_TRACEBACK):
            inside = True
        elif inside and line and not line[0].isspace():
            inside = False
            if not _SECONDARY.search(line):
                return line
    return ""


def explained(error: BaseException, log: Path, *, had_started: bool = False) -> str:
    """Returns the reason of an engine's death: the cause, its cure, and the path of the log.

    Args:
        error: The error in the parent process.
        log: The log of the engine. The file may be missing.
        had_started: Whether the engine died after its start. Then the log may contain errors of single requests, which
            are not the cause.
    """
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""

    # Most errors of the parent only report the death. Then the log has the cause.
    cause = str(error).strip() or type(error).__name__
    log_has_cause = not had_started or _FATAL in text
    if _SECONDARY.search(cause) and log_has_cause:
        cause = cause_in(text) or cause

    # The sign of a cure can be in the cause or in the output of a compiler before the cause.
    signs = [match.group() for sign in SAID_ELSEWHERE if (match := re.search(sign, text))]
    searched = "\n".join([*signs, cause])
    cure = "the log has the whole error"
    for pattern, known_cure in CURES:
        if re.search(pattern, searched):
            cure = known_cure
            break

    line = " ".join(cause.split())[:LONGEST_CAUSE]
    return f"{line.rstrip('.')}. {cure[0].upper()}{cure[1:]}. Log: {log}"
