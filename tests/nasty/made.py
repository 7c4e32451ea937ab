"""The files of an import before it begins, and the rows of every layout."""

from dataclasses import dataclass, field
from pathlib import Path

from tests.nasty.layouts import Layout

ROWS = (("café.jpg", "one street"), ("b.jpg", "two\u2028 streets  in rain"))
"""A picture's name and its caption; the second caption holds what some readers take for a line's end."""
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
"""A pointer of Git LFS in the place of a file."""


@dataclass
class Made:
    """The files of an import before it begins."""

    layout: Layout
    source: Path
    """What the importer is given."""
    images: Path
    text: list[Path] = field(default_factory=list)
    """The files of the source that are text."""
    more: list[Path] = field(default_factory=list)
    """Other sources."""


def query_column(made: Made) -> str:
    return made.layout.query or made.layout.picture


def new_folder(made: Made) -> Path:
    folder = made.source.parent / "rows"
    folder.mkdir()
    return folder
