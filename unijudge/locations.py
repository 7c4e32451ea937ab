"""Where a file or folder lies: on a disk, or in any store that fsspec knows."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from unijudge.errors import SettingsError


def locate(place: str | Path) -> Path:
    """A path, or the URL of a folder on any store that fsspec knows (`s3://`, `gs://`, …), as something path-like.

    What a URL becomes has the methods of a `Path` and passes for one everywhere here; it is none, so `isinstance` says
    which it is. Listings are never cached: other processes write too.

    Raises:
        SettingsError: No such kind of URL, or its library is not installed.
        ValueError: Neither a text nor a path.
    """
    if not isinstance(place, str | Path) and not hasattr(place, "fs"):
        raise ValueError(f"expected a path or a URL, found {place!r}; quote it if it is a name")
    if place == "":
        raise ValueError("expected a path or a URL, found nothing")
    if not isinstance(place, str) or "://" not in place:
        return Path(place)
    from upath import UPath

    try:
        found: Any = UPath(place, use_listings_cache=False)
        return Path(found.path) if found.protocol in ("", "file", "local") else found
    except (ImportError, ValueError) as error:
        raise SettingsError(f"{place}: this kind of URL cannot be opened here ({error})") from error


Location = Annotated[Path, PlainValidator(locate), PlainSerializer(str)]
"""A setting that takes a path or a URL."""


def is_local(path: Path) -> bool:
    """Whether a path lies in a file system, not in an object store."""
    return isinstance(path, Path)
