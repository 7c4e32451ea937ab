"""The columns of a foreign table: which ones a reader knows, and which ones it ignores."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unijudge.errors import DataError
from unijudge.shown import listed, shown

FORGOTTEN_ABOVE = 1000
"""The most names of unknown columns that are remembered."""

logger = logging.getLogger(__name__)

Numbered = Iterator[tuple[int, dict[str, Any]]]
"""Rows, each with its number or the line where it begins."""


@dataclass
class Columns:
    """The known columns of a reader, and the unknown columns in its files."""

    is_known: Callable[[str], bool]
    expected: str
    """The known columns, in words."""
    strict: bool = False
    """Whether an unknown column is an error."""
    unknown: dict[str, None] = field(default_factory=dict)

    def known_of(self, path: Path, names: Sequence[str]) -> list[str]:
        """Returns the known columns of `names`, and remembers the unknown columns.

        Raises:
            DataError: A column is unknown and `strict` is set, or no column is known.
        """
        known = [name for name in names if self.is_known(name)]
        if len(known) == len(names):
            return known
        unknown = [name for name in names if not self.is_known(name)]
        if self.strict or not known:
            kind = "unknown columns" if known else "none of its columns is known:"
            raise DataError(f"{path}: {kind} {listed(unknown)}. Known columns: {self.expected}")
        if len(self.unknown) < FORGOTTEN_ABOVE:
            self.unknown.update(dict.fromkeys(filter(None, unknown)))
        return known

    def tell_unknown(self, place: object) -> None:
        """Logs the unknown columns in a single line."""
        if self.unknown:
            names = listed(list(self.unknown))
            logger.warning(
                "%s: ignored columns: %s. Known columns: %s", place, names, self.expected
            )


def check_distinct(path: Path, names: Sequence[str]) -> None:
    """Checks that no column name appears twice.

    Raises:
        DataError: A column is duplicate, and one of the two would be lost.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{path}: duplicate column {shown(twice[0])}. Rename or remove one of the two"
        )
