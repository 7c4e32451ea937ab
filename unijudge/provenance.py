"""What made a folder: the program's version, the command, when, on what; beside it stand its inputs' fingerprints.

It is the field `made` of a manifest, and never part of a plan: a job that goes on at another minute, or by another
version of the program, is the same job, so `made` is left out wherever manifests are compared or hashed.
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
"""The fields that are no part of a plan."""
USER = re.compile(
    r"""
    ([a-zA-Z][\w.+-]{0,30})://  (?:
        [^/\s"'<>:@]* : (?!\d+(?:[/"',\]]|$|\s)) (?: (?!://)\S )* @   # user:password; a port is none
        | [^/\s"'<>]* @                                               # a user or a token alone
    )""",
    re.VERBOSE,
)
"""The beginning of a URL up to the last @ of its word: a password may hold an @, a slash or a quote too."""
BARE_USER = re.compile(r"""(^|[\s"'=<(\[])[^\s"'=<>(\[:/@]+:(?!//)(?!\d+(?:[/"',\]]|$|\s))(?:(?!://)\S)*@(?=[\w\[])""")
"""The same where the scheme was forgotten."""
MACHINE_PATHS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (r"(^|=)(?:file://)?(/.*)$", r'(")(?:file://)?(/[^"]*)', r"(')(?:file://)?(/[^']*)")
)
"""A whole path of a machine: a word of a command, the value of a setting, or what stands in quotes."""
NO_USER = ("abfs", "abfss", "wasb", "wasbs", "github")
"""Schemes whose @ parts a container or a repository from its place."""


class Provenance(BaseModel):
    """Who made this folder, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unijudge: str
    """The program's version."""
    command: str
    """The command line that was typed; passwords inside URLs are left out."""
    settings: dict[str, Any] | None = None
    """All of the command's settings, where it takes some, and the manifest does not hold them anyway."""
    created: str
    """UTC, to the second; of the first run, where several made the folder."""
    python: str
    platform: str

    def published(self) -> "Provenance":
        """The same without what the folders of one machine are called."""
        words = [without_places(word) for word in shlex.split(self.command)]
        return self.model_copy(update={"command": shlex.join(words), "settings": without_places_in(self.settings)})

    @classmethod
    def now(cls, settings: BaseModel | None = None) -> "Provenance":
        """Of what this process begins to write at this moment."""
        words = [Path(sys.argv[0]).name, *sys.argv[1:]]
        return cls(
            unijudge=version("unijudge"),
            # Word by word: quoting would put more quotes into a password.
            command=shlex.join(map(without_passwords, words)),
            settings=None if settings is None else without_passwords_in(settings.model_dump(mode="json")),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            python=platform.python_version(),
            platform=platform.platform(),
        )


class Beginning(BaseModel):
    """settings.json: what a training run began with."""

    model_config = ConfigDict(title="run's settings")

    settings: dict[str, Any]
    inputs: dict[str, str]
    """Name → digest of everything that is trained on."""
    made: Provenance | None = None


class Versions(RootModel[dict[str, str]]):
    """environment.json: library → the version under which a run was trained, or several in order."""

    model_config = ConfigDict(title="run's environment")


def differences(found: BaseModel, wanted: BaseModel) -> list[str]:
    """The names of the fields in which two manifests differ; when and by whom they were made is none."""
    return [name for name, value in found if name not in MADE and value != getattr(wanted, name)]


def without_passwords(text: str) -> str:
    """A text whose URLs name no user and no password.

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
    """The same of every text in a mapping or a list."""
    return _each_text(without_passwords, value)


def without_places(word: str) -> str:
    """A word of a command or a setting, whole paths shortened to their last part.

    Example:
        >>> [without_places(word) for word in ("/home/o'neil/a b", 'scores=["/data/x", "s3://bucket/y"]', "a/b")]
        ['a b', 'scores=["x", "s3://bucket/y"]', 'a/b']
    """
    for pattern in MACHINE_PATHS:
        word = pattern.sub(lambda found: found[1] + PurePosixPath(found[2]).name, word)
    return word


def without_places_in(value: Any) -> Any:
    """The same of every text in a mapping or a list."""
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
