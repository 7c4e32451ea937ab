"""The cells of a row that a stranger wrote: what is a text, an image, an id; and why one cannot be used."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from unijudge.shown import shown

LONGEST_NUMBER = 256
"""Bits of a number that is taken for an id."""
LARGEST_EXACT = 2**53
"""Above it two whole numbers may be the same float."""

_TRUTHS = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}
"""What a label looks like in any file, in small letters."""
_VALUES = re.compile(r"""'[^']*'?|"[^"]*"?|\{.*\}|\[.*\]|\(.*?\)|\d[\d,.]*""")
"""In a reason: what was found in one row, and is different in the next."""


class Rejected(Exception):
    """This row, or a picture of it, cannot be used; the message says why."""

    def __init__(self, reason: str, kind: str | None = None):
        """Takes the reason, and what it has in common with the same fault of other rows; default: see `kind_of`."""
        super().__init__(reason)
        self.kind = kind or kind_of(reason)


def kind_of(reason: str) -> str:
    """A reason without the values of its row and without its cure.

    Example:
        >>> kind_of("score 1.5 is not a probability, 0 … 1"), kind_of("'a;b' is no text; give another")
        ('score … is not a probability, … … …', '… is no text')
    """
    return _VALUES.sub("…", reason).partition(";")[0]


@dataclass(frozen=True)
class Side:
    """A text and an image, as a row names them: the image by its path, or as the bytes of its file."""

    text: str | None
    image: str | bytes | None


@dataclass(frozen=True)
class Unreadable:
    """A cell of a table that is no value."""

    reason: str
    """Names the column."""


def image_of(cell: Any) -> str | bytes | None:
    """An image cell: a path, the bytes of a file, or {bytes, path} as Hugging Face's Image feature writes it.

    Raises:
        Rejected: It is none of these, or a struct with neither.
    """
    match present(cell):
        case None:
            return None
        case str() | bytes():
            return cell
        case {"bytes": bytes(data)} if data:
            return data
        case {"path": str(path)} if path:
            return path
        case dict() if cell and set(cell) <= {"bytes", "path"}:
            raise Rejected("an image struct with neither bytes nor path")
        case [one] if not isinstance(one, list):
            return image_of(one)
        case Unreadable():
            raise Rejected(cell.reason)
    raise Rejected(f"{shown(cell)} is no image; expected a path, or a struct of bytes and path")


def present(cell: Any) -> Any:
    """A cell; None where pandas wrote NaN, since it had no value."""
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def id_of(cell: Any) -> str | None:
    """A cell that names something: as `text_of`, or a number or UUID as tables and databases hold ids.

    Raises:
        Rejected: It is something else.

    Example:
        >>> id_of(7.0), id_of(Decimal("7")), id_of(None)
        ('7', '7', None)
    """
    if isinstance(cell, UUID):
        return str(cell)
    if isinstance(cell, float | Decimal) and -LARGEST_EXACT <= cell <= LARGEST_EXACT and cell % 1 == 0:
        return str(int(cell))
    return text_of(cell)


def truth_of(cell: Any) -> bool | None:
    """What a label says: True for 1, `true` and 1.0, False for 0, `false` and 0.0; None for anything else.

    Example:
        >>> truth_of("True"), truth_of(0.0), truth_of(float("nan")), truth_of(0.7)
        (True, False, None, None)
    """
    return _TRUTHS.get(str(cell).strip().lower())


def text_of(cell: Any) -> str | None:
    """A text cell; a whole number is its digits.

    Raises:
        Rejected: It is something else.
    """
    match present(cell):
        case None:
            return None
        case str():
            return cell
        case bool():
            pass
        case int() if cell.bit_length() <= LONGEST_NUMBER:
            return str(cell)
        case Unreadable():
            raise Rejected(cell.reason)
    raise Rejected(f"{shown(cell)} is no text")


def check_clean(name: str, text: str) -> None:
    """Refuses what cannot be written as UTF-8, or named as a path.

    Raises:
        Rejected: It cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        clean = False
    else:
        clean = "\0" not in text
    if not clean:
        raise Rejected(f"{name}: a lone surrogate or a NUL in {shown(text)}")
