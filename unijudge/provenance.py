"""The provenance of a folder: the program's version, the command, the time, and the machine.

Provenance is the field `made` of a manifest. A job that is resumed later, or by another version of the program, is the
same job, so `made` is ignored in comparisons and hashes of manifests.
"""

import platform
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel

MADE = {"made"}
"""The fields that do not belong to a plan."""
USER = re.compile(
    r"""
    ([a-zA-Z][\w.+-]{0,30})://  (?:
        [^/\s"'<>:@]* : (?!\d+(?:[/"',\]]|$|\s)) (?: (?!://)\S )* @   # user:password, but not host:port
        | [^/\s"'<>]* @                                               # a user or a token alone
    )""",
    re.VERBOSE,
)
"""The beginning of a URL up to the last @ of the word, since a password may contain an @, a slash or a quote."""
BARE_USER = re.compile(
    r"""(^|[\s"'=<(\[])[^\s"'=<>(\[:/@]+:(?!//)(?!\d+(?:[/"',\]]|$|\s))(?:(?!://)\S)*@(?=[\w\[])"""
)
"""The same for a URL without its scheme."""
MACHINE_PATHS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(^|=)(?:file://)?(/.*)$",
        r'(")(?:file://)?(/[^"]*)',
        r"(')(?:file://)?(/[^']*)",
    )
)
"""An absolute path: a word of a command, the value of a setting, or a text in quotes."""
NO_USER = ("abfs", "abfss", "wasb", "wasbs", "github")
"""Schemes whose @ separates a container or a repository from its host."""


class Provenance(BaseModel):
    """The program, command and machine that made a folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unijudge: str
    """The program's version."""
    command: str
    """The typed command line, without passwords inside URLs."""
    settings: dict[str, Any] | None = None
    """All settings of the command; None if the command has no settings, or the manifest holds them elsewhere."""
    created: str
    """The UTC time of the first run, to the second."""
    python: str
    platform: str

    def published(self) -> "Provenance":
        """Returns a copy without the folders of this machine."""
        words = [without_places(word) for word in shlex.split(self.command)]
        return self.model_copy(
            update={"command": shlex.join(words), "settings": without_places_in(self.settings)}
        )

    @classmethod
    def now(cls, settings: BaseModel | None = None) -> "Provenance":
        """Returns the provenance of an output that this process begins to write now."""
        words = [Path(sys.argv[0]).name, *sys.argv[1:]]
        kept = None
        if settings is not None:
            kept = without_passwords_in(settings.model_dump(mode="json"))
        return cls(
            unijudge=version("unijudge"),
            # Passwords are removed word by word, because quoting would add quotes to a password.
            command=shlex.join(map(without_passwords, words)),
            settings=kept,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            python=platform.python_version(),
            platform=platform.platform(),
        )


class Beginning(BaseModel):
    """settings.json of a training run: the settings and the inputs at its beginning."""

    model_config = ConfigDict(title="run's settings")

    settings: dict[str, Any]
    inputs: dict[str, str]
    """Name → digest of each training input."""
    made: Provenance | None = None


class Versions(RootModel[dict[str, str]]):
    """environment.json of a training run: library → its version, or several versions in order."""

    model_config = ConfigDict(title="run's environment")


def differences(found: BaseModel, wanted: BaseModel) -> list[str]:
    """Returns the names of the fields in which two manifests differ, ignoring provenance."""
    return [name for name, value in found if name not in MADE and value != getattr(wanted, name)]


def without_passwords(text: str) -> str:
    """Removes users and passwords from the URLs in a text.

    Example:
        >>> without_passwords("service=https://me:s@cret@judge:8000/v1 s3://bucket/a@b")
        'service=https://judge:8000/v1 s3://bucket/a@b'
        >>> without_passwords("me:secret@judge:8000")
        'judge:8000'
    """
    if "@" not in text:
        return text
    safe = USER.sub(lambda found: found[0] if found[1] in NO_USER else f"{found[1]}://", text)
    return BARE_USER.sub(lambda found: found[1], safe)


def without_passwords_in(value: Any) -> Any:
    """Applies `without_passwords` to every text in a mapping or a list."""
    return _each_text(without_passwords, value)


def without_places(word: str) -> str:
    """Shortens absolute paths in a word of a command or a setting to their last part.

    Example:
        >>> [without_places(word) for word in ("/home/o'neil/a b", 'scores=["/data/x", "s3://bucket/y"]', "a/b")]
        ['a b', 'scores=["x", "s3://bucket/y"]', 'a/b']
    """
    for pattern in MACHINE_PATHS:
        word = pattern.sub(lambda found: found[1] + PurePosixPath(found[2]).name, word)
    return word


def without_places_in(value: Any) -> Any:
    """Applies `without_places` to every text in a mapping or a list."""
    return _each_text(without_places, value)


def _each_text(change: Callable[[str], str], value: Any) -> Any:
    match value:
        case str():
            return change(value)
        case Mapping():
            return {name: _each_text(change, inner) for name, inner in value.items()}
        case list():
            return [_each_text(change, inner) for inner in value]
        case _:
            return value
