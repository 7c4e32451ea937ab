"""Locations of files and folders: on a disk, or in any store that fsspec supports.

`str(location)` contains host and port but never user and password, so that it may be written, printed and published.
`address(location)` is the complete URL, for another process that must open the location.
"""

import errno
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    PlainValidator,
    SerializationInfo,
)

from unijudge.errors import SettingsError
from unijudge.provenance import without_passwords
from unijudge.shown import shown

LONGEST_PATH, LONGEST_PART = 1000, 255
"""The most characters of a path, and the most bytes of a part of a path."""
WITH_HOST = (
    "s3",
    "s3a",
    "gs",
    "gcs",
    "az",
    "abfs",
    "abfss",
    "hf",
    "http",
    "https",
    "ssh",
    "sftp",
    "ftp",
    "smb",
)
"""Schemes of URLs that name a bucket or a host."""
ONE_SLASH = re.compile(rf"({'|'.join(WITH_HOST)}|hdfs|webhdfs|memory):/(?!/)")
"""A URL that lost a slash because a program treated it as a path. Here it would become a local folder."""
WHOLE = {"locations": "whole"}
"""The context of a `model_dump` for another process, which writes locations as complete URLs."""


def locate(place: str | Path) -> Path:
    """Returns a location for a path, or for a URL of any store that fsspec supports (`s3://`, `gs://`, …).

    A URL becomes a `UPath`, which has the methods of a `Path` but is not a subclass; `is_local` tells them apart. A
    listing is never cached, because other processes write too. The paths `.` and `..` are resolved, so that every path
    has a name.

    Raises:
        SettingsError: The scheme is unknown, its library is not installed, or the URL holds secrets that would be
            shown.
        ValueError: `place` is neither a string nor a path.
    """
    if not isinstance(place, str | Path) and not hasattr(type(place), "fs"):
        raise ValueError(
            f"expected a path or a URL, found {shown(place)}. Quote it if it is a name"
        )
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
        if found.protocol in ("", "file", "local"):
            return Path(found.path)
        return _told_safely(found, place)
    except (ImportError, ValueError) as error:
        reason = without_passwords(str(error))
        raise SettingsError(
            f"{without_passwords(place)}: this kind of URL cannot be opened here ({reason})"
        ) from error


def at_home(place: Any) -> Any:
    """Expands a leading `~` to the home folder: a shell does not expand it in a settings file or after `key=`.

    Raises:
        ValueError: This user's home is not known.
    """
    if not isinstance(place, str | Path) or not str(place).startswith("~"):
        return place
    whole = os.path.expanduser(place)  # noqa: PTH111  Path.expanduser raises where the home folder is not known
    if whole.partition("/")[0] == "~":
        raise ValueError(
            f"{shown(place)}: this user has no home folder here. Write the full path, or set HOME"
        )
    return whole


def _check_name(place: str) -> None:
    """Refuses a path or a URL that no disk and no store accepts.

    Raises:
        ValueError: The name is too long, or has invalid characters.
    """
    scheme, _, rest = place.rpartition("://")
    origin = rest.partition("/")[0] if scheme else ""
    if (
        len(place) > LONGEST_PATH
        or max(len(os.fsencode(part)) for part in rest.split("/")) > LONGEST_PART
    ):
        raise ValueError(
            f"{shown(place)} is too long for the name of a file or a folder. Give a shorter name"
        )
    if lost := ONE_SLASH.match(place):
        raise ValueError(f"{shown(place)} has one slash where a URL has two. Write {lost[1]}://…")
    if scheme in WITH_HOST and not origin:
        raise ValueError(f"{shown(place)} names no bucket or host. Write {scheme}://NAME/…")
    if "\0" in place or any(letter.isspace() for letter in origin):
        raise ValueError(
            f"{shown(place)} holds a character that no name may have. Remove this character"
        )
    if not place.isascii() and place.encode(errors="ignore").decode() != place:
        if sys.getfilesystemencoding() != "utf-8":
            raise ValueError(
                f"{shown(place)}: the locale of this shell is not UTF-8, so non-ASCII names cannot be read. Set "
                "PYTHONUTF8=1, or LC_ALL=C.UTF-8"
            )
        raise ValueError(f"{shown(place)} is not UTF-8. Rename the file or the folder")


def _check_secrets(url: str) -> None:
    """Refuses secrets that cannot be removed from a location's name: those in a chain of URLs, and those in a query."""
    bare, question, _ = url.partition("?")
    web = bare.rpartition("::")[2].startswith(("http://", "https://", "webdav+http"))
    if "::" in url and without_passwords(url) != url:
        raise SettingsError(
            f"{without_passwords(bare)}: a chain of URLs may hold no user or password, since the URL is shown and "
            "written. Remove them, and give the credentials in fsspec's own configuration"
        )
    if question and web:
        raise SettingsError(
            f"{without_passwords(bare)}: a location may have no query (?…), since a query may hold a secret, and file "
            "names are appended to the URL. Remove the query, and give the credentials as user and password or in "
            "fsspec's own configuration"
        )


def address(location: Path) -> str:
    """Returns the path, or the complete URL. The URL may hold user and password: never show or store it."""
    return str(getattr(location, "address", location))


def _serialised(location: Path | None, info: SerializationInfo) -> str | None:
    if location is None:
        return None
    return address(location) if info.context == WHOLE else without_passwords(str(location))


Location = Annotated[Path, PlainValidator(locate), PlainSerializer(_serialised)]
"""A setting that takes a path or a URL."""
LocalPath = Annotated[Path, BeforeValidator(at_home)]
"""A setting that takes a path on this machine."""
ModelName = Annotated[str, AfterValidator(at_home)]
"""A setting that takes a hub name or a folder."""


def is_local(path: Path) -> bool:
    """Whether a path lies in a file system, not in an object store."""
    return isinstance(path, Path)


def check_regular(path: Path) -> None:
    """Refuses a device or a pipe on a disk, because reading it may never end.

    Raises:
        OSError: The path exists, and is neither a regular file nor a folder.
    """
    if is_local(path) and path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "no regular file")


def inside_store(folder: Path, url: str) -> Path:
    """Returns the location of a URL in a folder's manifest, with the folder's credentials if both are in one store."""
    found: Any = locate(url)
    mine: Any = folder
    same = (
        not is_local(folder)
        and getattr(mine, "origin", None) == url.partition("://")[2].partition("/")[0]
    )
    return mine.with_segments(found.path) if same and mine.protocol == found.protocol else found


def _told_safely(found: Any, url: str) -> Any:
    """Returns a store's path whose text is the given URL without user and password.

    The library's own text lacks the host for hdfs, sftp, smb and others, and contains the password for https.
    """
    scheme, _, rest = url.partition("://")
    origin, slash, path = rest.partition("/")
    base = str(found).rstrip("/")
    tail = f"{slash}{path}".rstrip("/")
    if "::" in url or not base.endswith(tail):  # a chain of stores
        return found

    # The beginning of the library's text, and the beginning of the given URL without and with the password.
    start = base.removesuffix(tail).rstrip("/")
    if start.endswith(":"):
        start += "//"
    given = f"{scheme}://{origin}"
    shown = without_passwords(given)
    if start == given == shown:
        return found
    kind: Any = type(found)
    return _safe_kind(kind, start, shown, given)(
        found.path, protocol=found.protocol, **found.storage_options
    )


@cache
def _safe_kind(kind: Any, start: str, shown: str, full: str) -> Any:
    """Returns a subclass of `kind` for one store. In its text form, `shown` replaces the beginning `start`."""
    from upath import UPath

    # The library would choose a class by the URL's scheme.
    def plain(cls: Any, *_: object, **__: object) -> Any:
        return object.__new__(cls)

    def text(self: Any, begin: str = shown) -> str:
        base: str = kind.__str__(self)
        if self._relative_base is not None:
            return base
        return f"{begin}/{base[len(start) :].lstrip('/')}"

    def shown_kind(self: Any) -> str:
        return f"{kind.__name__}({str(self)!r})"

    # The https class would request the text, without the user.
    def resolved(self: Any, strict: bool = False) -> Any:
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
