"""The declaration of a benchmark: its sets, the paths of their data, and their published numbers of queries.

A command of `unijudge mine import` turns a set into a corpus. Only this command reads the layout of the set.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from unijudge.storage.listing import all_files, matching
from unijudge.storage.stores import is_file


@dataclass(frozen=True)
class Average:
    """A plain mean over subsets or over other averages."""

    name: str
    of: tuple[str, ...]
    """The names of subsets, or of averages that are declared earlier."""


@dataclass(frozen=True)
class BenchmarkSet:
    """A unit of import, embedding and measurement. A set has one or several subsets."""

    name: str
    layout: str
    """The command of `unijudge mine import`."""
    source: str
    """The first argument of the command, relative to the root of the data."""
    files: str
    """A pattern of files under the root. At least one file must match."""
    images: tuple[str, ...]
    """Patterns of images under the root. The first pattern with a match is used."""
    queries: Mapping[str, int]
    """Subset → published number of queries."""
    options: tuple[str, ...] = ()
    """The options of the command."""
    named_from: str | None = None
    """The folder under the root to which image names are relative. None: the first match of `images`."""
    instructed: bool = True
    """Whether an instruction is added to each image. The texts of MMEB already include an instruction."""

    def found(self, root: Path) -> tuple[Path | None, list[str]]:
        """Returns the path of the images, and the patterns without a match."""
        lacking = []
        if not matching(root, self.files):
            lacking.append(str(root / self.files))
        for pattern in self.images:
            if paths := matching(root, pattern):
                return paths[0], lacking
        lacking.append(" or ".join(str(root / pattern) for pattern in self.images))
        return None, lacking

    def has_rows(self, root: Path) -> bool:
        """Returns whether the files with the rows exist, with or without the images."""
        return bool(matching(root, self.files))

    def pictures_digest(self, root: Path) -> str:
        """Returns a digest over the names, sizes and times of the image files."""
        images = self._image_root(root)
        return _digest([] if images is None else [images, *all_files(images)])

    def source_digest(self, root: Path) -> str:
        """Returns a digest over the names, sizes and times of the files with the rows. Images have content hashes."""
        return _digest({*matching(root, self.files), root / self.source})

    def words(self, root: Path, out: Path, instruction: str) -> list[str]:
        """Returns the arguments of `unijudge` that import the set."""
        words = ["mine", "import", self.layout, str(root / self.source), str(out)]
        words += ["--images", str(self._image_root(root))]
        words += self.options
        if self.instructed and instruction:
            words += ["--instruction", instruction]
        return words

    def _image_root(self, root: Path) -> Path | None:
        """Returns the folder to which image names are relative."""
        return root / self.named_from if self.named_from else self.found(root)[0]


def _digest(paths: Iterable[Path]) -> str:
    """Returns a digest over the names, sizes and times of files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        if is_file(path):
            status = path.stat()
            digest.update(
                f"{path}\0{status.st_size}\0{getattr(status, 'st_mtime_ns', 0)}\n".encode()
            )
    return digest.hexdigest()
