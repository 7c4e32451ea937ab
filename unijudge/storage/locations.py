"""Where a file or folder lies: on a disk, or in any store that fsspec knows.

What a location is called has one form, `str(location)`: host and port stand in it, user and password never, so that it
may be written, printed and published. `address(location)` is the whole URL, for another process that must open it.
"""

import errno
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator, SerializationInfo

from unijudge.errors import SettingsError
from unijudge.provenance import without_passwords
from unijudge.shown import shown

LONGEST_PATH, LONGEST_PART = 1000, 255
"""Characters of a path, and bytes of one of its parts."""
WITH_HOST = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "http", "https", "ssh", "sftp", "ftp", "smb")
"""Kinds of URLs that name a bucket or a host."""
ONE_SLASH = re.compile(rf"({'|'.join(WITH_HOST)}|hdfs|webhdfs|memory):/(?!/)")
"""A URL that a program took for a path, and so wrote anew: it would be a folder here."""
WHOLE = {"locations": "whole"}
"""The context of a `model_dump` for another process: locations as URLs that can be opened there."""


def locate(place: str | Path) -> Path:
    """A path, or the URL of a folder on any store that fsspec knows (`s3://`, `gs://`, …), as something path-like.

    What a URL becomes has the methods of a `Path` and passes for one everywhere here; it is none, so `isinstance` says
    which it is. Listings are never cached: other processes write too. A path has a name: `.` and `..` become whole.

    Raises:
        SettingsError: No such kind of URL, its library is not installed, or it holds secrets that would be shown.
        ValueError: Neither a text nor a path.
    """
    if not isinstance(place, str | Path) and not hasattr(type(place), "fs"):
        raise ValueError(f"expected a path or a URL, found {shown(place)}; quote it if it is a name")
    if not isinstance(place, str | Path):
        return place
    if place == "":
        raise ValueError("expected a path or a URL, found nothing")
    place = at_home(place)
    _check_name(str(place))
    if not isinstance(place, str) or "://" not in place:
        path = Path(place)
        return path.resolve() if path.name in ("", "..") else path
    _check_secrets(place)
    from upath import UPath

    try:
        found: Any = UPath(place, use_listings_cache=False)
        return Path(found.path) if found.protocol in ("", "file", "local") else _told_safely(found, place)
    except (ImportError, ValueError) as error:
        reason = without_passwords(str(error))
        raise SettingsError(f"{without_passwords(place)}: this kind of URL cannot be opened here ({reason})") from error


def at_home(place: Any) -> Any:
    """A name in which a leading `~` is a user's home: no shell has replaced it in a file of settings or after `key=`.

    Raises:
        ValueError: This user's home is not known.
    """
    if not isinstance(place, str | Path) or not str(place).startswith("~"):
        return place
    whole = os.path.expanduser(place)  # noqa: PTH111  a home that is not known is no error of its own there
    if whole.partition("/")[0] == "~":
        raise ValueError(f"{shown(place)}: this user has no home folder here; write the whole path, or set HOME")
    return whole


def _check_name(place: str) -> None:
    """Refuses what no disk and no store takes for a name.

    Raises:
        ValueError: It is too long, or holds what is no letter.
    """
    scheme, _, rest = place.rpartition("://")
    origin = rest.partition("/")[0] if scheme else ""
    if len(place) > LONGEST_PATH or max(len(os.fsencode(part)) for part in rest.split("/")) > LONGEST_PART:
        raise ValueError(f"{shown(place)} is longer than the name of a file or a folder may be")
    if lost := ONE_SLASH.match(place):
        raise ValueError(f"{shown(place)} has one slash where a URL has two; write {lost[1]}://…")
    if scheme in WITH_HOST and not origin:
        raise ValueError(f"{shown(place)} names no bucket or host; write {scheme}://NAME/…")
    if "\0" in place or any(letter.isspace() for letter in origin):
        raise ValueError(f"{shown(place)} holds a letter that no name may have")
    if not place.isascii() and place.encode(errors="ignore").decode() != place:
        if sys.getfilesystemencoding() != "utf-8":
            raise ValueError(
                f"{shown(place)}: the locale of this shell is not UTF-8, so names in other letters cannot be read; set "
                "PYTHONUTF8=1, or LC_ALL=C.UTF-8"
            )
        raise ValueError(f"{shown(place)} is no UTF-8; rename the file or the folder")


def _check_secrets(url: str) -> None:
    """Refuses secrets that cannot be kept apart from a location's name: in a chain of URLs, and in a query."""
    bare, question, _ = url.partition("?")
    web = bare.rpartition("::")[2].startswith(("http://", "https://", "webdav+http"))
    if "::" in url and without_passwords(url) != url:
        raise SettingsError(
            f"{without_passwords(bare)}: a chain of URLs may hold no user or password, since its whole text is shown "
            "and written; give it without, and the credentials in fsspec's own configuration"
        )
    if question and web:
        raise SettingsError(
            f"{without_passwords(bare)}: a location may have no query (?…): it may hold a secret, and names of files "
            "are put behind it; give it without, and the credentials as user and password or in fsspec's own "
            "configuration"
        )


def address(location: Path) -> str:
    """The path, or the whole URL, with user and password where it was given with them: never to be shown or stored."""
    return str(getattr(location, "address", location))


def _serialised(location: Path | None, info: SerializationInfo) -> str | None:
    if location is None:
        return None
    return address(location) if info.context == WHOLE else without_passwords(str(location))


Location = Annotated[Path, PlainValidator(locate), PlainSerializer(_serialised)]
"""A setting that takes a path or a URL."""
LocalPath = Annotated[Path, BeforeValidator(at_home)]
"""A setting that takes a path of this machine."""
ModelName = Annotated[str, AfterValidator(at_home)]
"""A setting that takes a hub name, or a folder."""


def is_local(path: Path) -> bool:
    """Whether a path lies in a file system, not in an object store."""
    return isinstance(path, Path)


def check_regular(path: Path) -> None:
    """Refuses what is no regular file on a disk: a device or a pipe may never end.

    Raises:
        OSError: It is there, and is none.
    """
    if is_local(path) and path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "no regular file")


def inside_store(folder: Path, url: str) -> Path:
    """What a URL in a folder's manifest names; in the folder's own store, as the user who opened the folder."""
    found: Any = locate(url)
    mine: Any = folder
    same = not is_local(folder) and getattr(mine, "origin", None) == url.partition("://")[2].partition("/")[0]
    return mine.with_segments(found.path) if same and mine.protocol == found.protocol else found


def _told_safely(found: Any, url: str) -> Any:
    """A store's path whose text is the URL as it was given, user and password aside.

    The library's own text lacks the host of hdfs, sftp, smb and others, and holds the password of https.
    """
    scheme, _, rest = url.partition("://")
    origin, slash, path = rest.partition("/")
    base, tail = str(found).rstrip("/"), f"{slash}{path}".rstrip("/")
    if "::" in url or not base.endswith(tail):  # a chain of stores
        return found
    start = base[: len(base) - len(tail)].rstrip("/")
    start = f"{start}//" if start.endswith(":") else start
    given, shown = f"{scheme}://{origin}", without_passwords(f"{scheme}://{origin}")
    if start == given == shown:
        return found
    kind: Any = type(found)
    return _safe_kind(kind, start, shown, given)(found.path, protocol=found.protocol, **found.storage_options)


@cache
def _safe_kind(kind: Any, start: str, shown: str, full: str) -> Any:
    """A kind of path in one store, of which the library's text begins with `start`."""
    from upath import UPath

    def plain(cls: Any, *_: object, **__: object) -> Any:  # the library would look for the kind of the URL's scheme
        return object.__new__(cls)

    def text(self: Any, begin: str = shown) -> str:
        base: str = kind.__str__(self)
        if self._relative_base is not None:
            return base
        return f"{begin}/{base[len(start) :].lstrip('/')}"

    def shown_kind(self: Any) -> str:
        return f"{kind.__name__}({str(self)!r})"

    def resolved(self: Any, strict: bool = False) -> Any:  # that of https asks the text's own URL, without the user
        return UPath.resolve(self, strict=strict)

    def reduced(self: Any) -> Any:
        return locate, (self.address,)

    members = {
        "__slots__": (),
        "__new__": plain,
        "__str__": text,
        "__repr__": shown_kind,
        "__reduce__": reduced,
        "resolve": resolved,
        "address": property(lambda self: text(self, full)),
        "origin": shown.partition("://")[2],
    }
    return type(kind)(f"Safe{kind.__name__}", (kind,), members)
