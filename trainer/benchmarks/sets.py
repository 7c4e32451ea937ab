"""What a benchmark declares: its sets, where each is looked for, and how many queries it was published with.

A set becomes a corpus by a command of `unijudge mine import`, the one reader of its layout.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


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
    """Where its images may be, under the root: the first that is there is taken."""
    queries: Mapping[str, int]
    """Subset → queries, as published."""
    options: tuple[str, ...] = ()
    """Of the command."""
    instructed: bool = True
    """Whether an instruction is put beside each image; MMEB's texts hold their own."""

    def found(self, root: Path) -> tuple[Path | None, list[str]]:
        """Where its images are, and what is not there."""
        lacking = [] if any(root.glob(self.files)) else [str(root / self.files)]
        images = next((root / name for name in self.images if (root / name).exists()), None)
        if images is None:
            lacking.append(" or ".join(str(root / name) for name in self.images))
        return images, lacking

    def words(self, root: Path, out: Path, instruction: str) -> list[str]:
        """The command that makes its corpus, after `unijudge`."""
        images, _ = self.found(root)
        beside = ["--instruction", instruction] if self.instructed and instruction else []
        places = [str(root / self.source), str(out), "--images", str(images)]
        return ["mine", "import", self.layout, *places, *self.options, *beside]
