"""What a benchmark declares: its sets, where each is looked for, and how many queries it was published with.

A set becomes a corpus by a command of `unijudge mine import`, the one reader of its layout.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from unijudge.storage.listing import all_files, matching
from unijudge.storage.stores import is_file


@dataclass(frozen=True)
class Average:
    """The plain mean over sets, or over averages."""

    name: str
    of: tuple[str, ...]
    """Names of subsets, or of averages before it."""


@dataclass(frozen=True)
class BenchmarkSet:
    """What is imported, embedded and measured as one; it holds one subset or several."""

    name: str
    layout: str
    """The command of `unijudge mine import`."""
    source: str
    """Its first argument, under the root of the data."""
    files: str
    """A pattern under the root; one file at least must be there."""
    images: tuple[str, ...]
    """Where its images may be: patterns under the root; the first that is there is taken."""
    queries: Mapping[str, int]
    """Subset → queries, as published."""
    options: tuple[str, ...] = ()
    """Of the command."""
    named_from: str | None = None
    """The folder under the root that image names are relative to; the place of the images itself if none."""
    instructed: bool = True
    """Whether an instruction is put beside each image; MMEB's texts hold their own."""

    def found(self, root: Path) -> tuple[Path | None, list[str]]:
        """Where its images are, and what is not there."""
        lacking = [] if matching(root, self.files) else [str(root / self.files)]
        images = next((place for pattern in self.images for place in matching(root, pattern)), None)
        if images is None:
            lacking.append(" or ".join(str(root / pattern) for pattern in self.images))
        return images, lacking

    def has_rows(self, root: Path) -> bool:
        """Whether its files of rows are there; its pictures may not be."""
        return bool(matching(root, self.files))

    def pictures_digest(self, root: Path) -> str:
        """Changes when a file among its pictures does, by its name, size or time."""
        images = self._image_root(root)
        return _digest([] if images is None else [images, *all_files(images)])

    def source_digest(self, root: Path) -> str:
        """Changes when a file of rows does, by its name, size or time; images are known by their content."""
        return _digest({*matching(root, self.files), root / self.source})

    def words(self, root: Path, out: Path, instruction: str) -> list[str]:
        """The command that makes its corpus, after `unijudge`."""
        beside = ["--instruction", instruction] if self.instructed and instruction else []
        places = [str(root / self.source), str(out), "--images", str(self._image_root(root))]
        return ["mine", "import", self.layout, *places, *self.options, *beside]

    def _image_root(self, root: Path) -> Path | None:
        """What its image names are relative to."""
        return root / self.named_from if self.named_from else self.found(root)[0]


def _digest(paths: Iterable[Path]) -> str:
    """Over the names, sizes and times of files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        if is_file(path):
            found = path.stat()
            digest.update(f"{path}\0{found.st_size}\0{getattr(found, 'st_mtime_ns', 0)}\n".encode())
    return digest.hexdigest()
