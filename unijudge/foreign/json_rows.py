"""A reader of JSON files of any size, value by value: only a window of the file is in memory.

If the text is truncated or not JSON, the error names the row. ijson also reads value by value, but trusts its file: 40
KB of nested brackets take 1 GB (version 3.6; twice the depth takes four times as much), and a duplicate key passes.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from unijudge.errors import DataError
from unijudge.shown import shown
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.texts import NO_UTF_8, TORN, open_text

WINDOW = 2**20
"""Characters in one read."""
LONGEST_ROW = 2**24
"""The most characters of a row. A longer row counts as broken, so that a missing bracket costs little memory."""

_BLANK = re.compile(r"[ \t\n\r]*")


def distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds a JSON object for `object_pairs_hook`, since the standard library silently drops a duplicate key.

    Raises:
        ValueError: The object has a duplicate key.
    """
    keys_and_values = dict(pairs)
    if len(keys_and_values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"duplicate key {shown(twice)}")
    return keys_and_values


_DECODER = json.JSONDecoder(object_pairs_hook=distinct_keys)


def array_rows(path: Path, key: str | None = None) -> Iterator[Any]:
    """Yields the elements of a file's array, or of the array under a key of its object.

    Raises:
        DataError: The file cannot be read, is truncated, or holds no such array.
    """
    with _reading(path) as text:
        if key is None:
            yield from text.array()
        else:
            found = False
            for name in text.names():
                if name == key:
                    found = True
                    yield from text.array()
                else:
                    text.value()
            if not found:
                raise DataError(f"{path}: has no key {key!r}. Check that this is the right file")
        text.end()


def object_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields each key and value of a file's object, in order.

    Raises:
        DataError: The file cannot be read, is truncated, or holds no object.
    """
    with _reading(path) as text:
        for name in text.names():
            text.row += 1
            yield name, text.value()
        text.end()


@contextmanager
def _reading(path: Path) -> Iterator["_Text"]:
    try:
        with open_text(path) as file:
            yield _Text(path, file)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 ({in_one_line(error)}). {NO_UTF_8}") from error
    except TORN as error:
        raise DataError(
            f"{path}: cannot be read as JSON ({in_one_line(error)}). Download the file again"
        ) from error


class _Text:
    """A window over a file that only moves forward."""

    def __init__(self, path: Path, file: IO[str]):
        self._path = path
        self._file = file
        self._window = ""
        self._at = 0
        self.row = 0

    def array(self) -> Iterator[Any]:
        """Yields the elements of the array that begins here."""
        self._take("[")
        if self._peek() == "]":
            self._take("]")
            return
        mark = ","
        while mark == ",":
            self.row += 1
            yield self.value()
            mark = self._take(",]")

    def names(self) -> Iterator[str]:
        """Yields the keys of the object that begins here. The caller must read the value after each key."""
        self._take("{")
        if self._peek() == "}":
            self._take("}")
            return
        mark = ","
        while mark == ",":
            name = self.value()
            if not isinstance(name, str):
                raise self._torn(f"expected a key, found {shown(name)}")
            self._take(":")
            yield name
            mark = self._take(",}")

    def value(self) -> Any:
        """Returns the value that begins here."""
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._window, self._at)
            except json.JSONDecodeError as error:
                if len(self._window) - self._at > LONGEST_ROW or not self._more():
                    raise self._torn(error.msg) from error
            except (RecursionError, ValueError) as error:
                # Nested too deeply, or a number of too many digits.
                raise self._torn(str(error)) from error
            else:
                # A number may continue in the next window.
                if end < len(self._window) or not self._more():
                    self._at = end
                    return value

    def end(self) -> None:
        """Checks that only whitespace follows."""
        if found := self._peek():
            raise self._torn(f"{found!r} after the end")

    def _take(self, marks: str) -> str:
        found = self._peek()
        if not found or found not in marks:
            expected = " or ".join(marks)
            raise self._torn(f"expected {expected}, found {found or 'the end'}")
        self._at += 1
        return found

    def _peek(self) -> str:
        """Returns the next character that is not whitespace, or an empty text at the end."""
        while True:
            match = _BLANK.match(self._window, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        kept = self._window[self._at :]
        read = self._file.read(max(WINDOW, len(kept)))
        self._window, self._at = kept + read, 0
        return bool(read)

    def _torn(self, reason: str) -> DataError:
        where = f"row {self.row}" if self.row else "its beginning"
        return DataError(
            f"{self._path}: broken at {where} ({reason}). The file was not used. Download it again"
        )
