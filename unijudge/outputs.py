"""What may lie where an output is to go: no command replaces what it did not make.

A file of the command's own kind is replaced; a folder may hold what the command itself writes. Anything else is
refused, before the work begins.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from pydantic import BaseModel, ValidationError

from unijudge.errors import DataError
from unijudge.files import DRAFT_SUFFIX, names_in
from unijudge.refused import unreadable

NAMED = 3
"""Names of strange files in a message."""


def check_file(path: Path, is_own: Callable[[bytes], bool], what: str) -> None:
    """Refuses to replace a file that is not of the command's own kind.

    Args:
        path: What will be written.
        is_own: Whether a file's bytes are of that kind.
        what: Its name in words.

    Raises:
        DataError: Something else is there, or it cannot be read.
    """
    if not path.exists():
        return
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the name of a file")
    try:
        own = is_own(path.read_bytes())
    except Exception as error:  # each store has its own family of errors
        raise unreadable(path, error) from error
    if not own:
        raise DataError(f"{path}: is there already, and is no {what}; give another file, or move this one away")


def is_json_of(kind: type[BaseModel]) -> Callable[[bytes], bool]:
    """Whether bytes are the JSON of a model: for `check_file`."""

    def fits(data: bytes) -> bool:
        try:
            kind.model_validate_json(data)
        except ValidationError:
            return False
        return True

    return fits


def check_folder(folder: Path, own: Collection[str] = ()) -> None:
    """Refuses to write into a folder that holds something else than files of these names.

    Args:
        folder: Where the files go; it need not exist.
        own: What the command writes there; none: the folder must be empty. A draft of a killed run is its own too.

    Raises:
        DataError: It is a file, or holds something else: that is named.
    """
    if folder.is_file():
        raise DataError(f"{folder}: is a file; give a folder")
    if strange := sorted(name for name in names_in(folder) if name.removesuffix(DRAFT_SUFFIX) not in own):
        more = f" and {len(strange) - NAMED} more" if len(strange) > NAMED else ""
        raise DataError(
            f"{folder}: holds {', '.join(strange[:NAMED])}{more} already, which would be mixed with what is written; "
            "give another folder, or move that away"
        )
