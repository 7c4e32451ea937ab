"""The cells of a foreign row: conversion into a text, an image or an id, and the reason why a cell is rejected."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from unijudge.shown import shown

LONGEST_NUMBER = 256
"""The most bits of a number that may be an id."""
LARGEST_EXACT = 2**53
"""The largest integer below which every integer has an exact float."""

_TRUTHS = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}
"""The spellings of a boolean label in files, in lower case."""
_VALUES = re.compile(r"""'[^']*'?|"[^"]*"?|\{.*\}|\[.*\]|\(.*?\)|\d[\d,.]*""")
"""The parts of a reason that vary from row to row."""


class Rejected(Exception):
    """A row or its picture cannot be used. The message is the reason."""

    def __init__(self, reason: str, kind: str | None = None):
        """Takes the reason, and the kind of fault, by which rows are counted. The default is `kind_of(reason)`."""
        super().__init__(reason)
        self.kind = kind or kind_of(reason)


def kind_of(reason: str) -> str:
    """Returns a reason without the values of its row and without its cure.

    Example:
        >>> kind_of("score 1.5 is not a probability, 0 … 1"), kind_of("'a;b' is not a text. Give another")
        ('score … is not a probability, … … …', '… is not a text')
    """
    return _VALUES.sub("…", reason).partition(". ")[0]


@dataclass(frozen=True)
class Side:
    """A text and an image from a row. The image is a path, or the bytes of its file."""

    text: str | None
    image: str | bytes | None


@dataclass(frozen=True)
class Unreadable:
    """A cell of a table whose value cannot be read."""

    reason: str
    """The reason, with the name of the column."""


def image_of(cell: Any) -> str | bytes | None:
    """Returns the image of a cell: a path, the bytes of a file, or {bytes, path} of Hugging Face's Image feature.

    Raises:
        Rejected: The cell is something else, or a struct with neither bytes nor path.
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
    raise Rejected(f"{shown(cell)} is not an image. Expected a path, or a struct of bytes and path")


def present(cell: Any) -> Any:
    """Returns the cell, or None for NaN, which pandas writes for a missing value."""
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def id_of(cell: Any) -> str | None:
    """Returns the id in a cell: a text as in `text_of`, or a number or a UUID from a table or a database.

    Raises:
        Rejected: The cell is something else.

    Example:
        >>> id_of(7.0), id_of(Decimal("7")), id_of(None)
        ('7', '7', None)
    """
    if isinstance(cell, UUID):
        return str(cell)
    if (
        isinstance(cell, float | Decimal)
        and -LARGEST_EXACT <= cell <= LARGEST_EXACT
        and cell % 1 == 0
    ):
        return str(int(cell))
    return text_of(cell)


def truth_of(cell: Any) -> bool | None:
    """Returns a boolean label: True for 1, `true` and 1.0; False for 0, `false` and 0.0; None for anything else.

    Example:
        >>> truth_of("True"), truth_of(0.0), truth_of(float("nan")), truth_of(0.7)
        (True, False, None, None)
    """
    return _TRUTHS.get(str(cell).strip().lower())


def text_of(cell: Any) -> str | None:
    """Returns the text of a cell. An integer becomes its digits.

    Raises:
        Rejected: The cell is something else.
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
    raise Rejected(f"{shown(cell)} is not a text")


def check_clean(name: str, text: str) -> None:
    """Refuses a text that cannot be written as UTF-8 or used as a path.

    Raises:
        Rejected: The text has a lone surrogate or a NUL.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        clean = False
    else:
        clean = "\0" not in text
    if not clean:
        raise Rejected(f"{name}: a lone surrogate or a NUL in {shown(text)}")
