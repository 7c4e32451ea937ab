"""What an import would make of files: `--dry-run`, and `unijudge check` of files that are not imported yet.

What it promises: one pass, the same checks as of an import, bounded memory; nothing is written beside the output.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from miner.importers.building.build import CorpusBuilder
from miner.importers.building.existing_corpus import older_corpus
from miner.importers.building.ledger import Ledger
from miner.importers.building.pair import Left, Pair, Row
from miner.importers.building.published_scores import PublishedScores
from miner.importers.karpathy import read_karpathy
from miner.importers.mmeb import read_mmeb, read_mmeb_eval
from miner.importers.pairs import read_pairs
from miner.importers.sentence_transformers import read_tuples
from miner.importers.sharegpt4v import read_sharegpt4v
from miner.importers.sugarcrepe import read_sugarcrepe
from miner.importers.unime import read_unime
from miner.importers.urban1k import read_urban1k
from unijudge.errors import DataError
from unijudge.foreign.cells import Side
from unijudge.foreign.pictures import Pictures
from unijudge.images.decoding import MAX_PIXELS
from unijudge.judging.prompt import is_blank
from unijudge.shown import in_brief, listed
from unijudge.storage.stores import is_folder

COMMONEST = 5
"""Reasons that are named."""
SAMPLE = 100
"""Rows by which a layout is known."""


@dataclass(frozen=True)
class Outlook:
    """What an import would make of its rows."""

    rows: int
    rejects: int
    sizes: Mapping[str, int]
    """What of → how many would be written."""
    reasons: Sequence[tuple[int, str, str]] = ()
    """The commonest: how many rows have it; of the first of these, where it stands and why it is rejected."""
    ignored: Mapping[str, Left] = field(default_factory=dict)
    """By their kinds."""
    refusal: str | None = None
    """Why nothing would be imported."""

    def lines(self) -> Iterator[str]:
        """For people."""
        sizes = ", ".join(f"{name} {count:,}" for name, count in self.sizes.items())
        yield f"  read      {_counted(self.rows - self.rejects, 'rows')}: {sizes}"
        yield f"  rejected  {_counted(self.rejects, 'rows')}"
        for count, place, reason in self.reasons:
            yield f"    {count:,} as {place}: {reason}"
        ignored = [f"{_counted(left.count, kind)} ({_first(left)})" for kind, left in self.ignored.items()]
        yield f"  ignored   {'; '.join(ignored) or 'nothing'}"


def _counted(count: int, kind: str) -> str:
    """A number of things, whose kind is named in the plural."""
    first, *rest = kind.split(" ")
    return f"{count:,} {' '.join([first.removesuffix('s') if count == 1 else first, *rest])}"


def _first(left: Left) -> str:
    return listed(left.names) + (", …" if left.count > len(left.names) else "")


def dry_run(
    rows: Iterator[Row],
    *,
    images: Path,
    out: Path | None,
    source: str,
    max_rejects: float,
    published: PublishedScores | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Outlook:
    """Does what `build` does, with the same arguments, and writes nothing; without `out`, no output is looked at.

    Raises:
        DataError: The import would be refused before it reads a row.
    """
    if out is not None:
        older_corpus(out, source)
    if published is not None:
        published.check_free()
    with Pictures(images) as pictures, closing(Ledger(None)) as ledger:
        builder = CorpusBuilder(ledger, pictures, images, published=published, max_pixels=max_pixels, dry_run=True)
        try:
            for row in rows:
                builder.add(row)
            refusal = builder.refusal(source, max_rejects)
        except DataError as error:  # the rows before it are told nevertheless
            refusal = str(error)
        reasons = ledger.commonest(COMMONEST)
        return Outlook(builder.rows, ledger.num_rejects, ledger.sizes, reasons, builder.ignored, refusal)


@dataclass(frozen=True)
class Layout:
    """An importer, as it reads files of which nothing else is known."""

    read: Callable[[Sequence[Path]], Iterator[Row]]
    images: Callable[[Path], Path] = lambda place: place if is_folder(place) else place.parent
    """Where the pictures of files lie, as a rule."""
    max_rejects: float = 0.0
    """As of its command."""


def _of_one(read: Callable[[Path], Iterator[Row]]) -> Callable[[Sequence[Path]], Iterator[Row]]:
    """A reader of one file or folder, for a list of them."""

    def read_only(places: Sequence[Path]) -> Iterator[Row]:
        if len(places) > 1:
            raise DataError(f"{places[1]}: is one too many; this layout is one file or one folder")
        return read(places[0])

    return read_only


LAYOUTS = {
    "pairs": Layout(read_pairs, max_rejects=0.01),
    "sentence-transformers": Layout(read_tuples, max_rejects=0.01),
    "mmeb": Layout(_of_one(read_mmeb), max_rejects=0.01),
    "mmeb-eval": Layout(_of_one(read_mmeb_eval)),
    "unime": Layout(_of_one(read_unime), max_rejects=0.01),
    "karpathy": Layout(_of_one(read_karpathy)),
    "sharegpt4v": Layout(_of_one(read_sharegpt4v)),
    "urban1k": Layout(_of_one(read_urban1k), lambda place: place / "image"),
    "sugarcrepe": Layout(_of_one(read_sugarcrepe)),
}
"""By their commands. The first one reads any table."""


def guess(places: Sequence[Path]) -> str:
    """The importer that reads some files: the one that makes most pairs of their first rows.

    Raises:
        DataError: None does, or several do alike.
    """
    found: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for name, layout in LAYOUTS.items():
        try:
            found[name] = 0
            for row in islice(layout.read(places), SAMPLE):
                found[name] += isinstance(row, Pair) and _is_told(row.query) and _is_told(row.positive)
        except DataError as error:
            reasons[name] = str(error)
    most = max(found.values())
    best = [name for name, count in found.items() if count == most]
    if not most:
        table = next(iter(LAYOUTS))
        why = f" ({table}: {in_brief(reasons[table])})" if table in reasons else ""
        raise DataError(
            f"{places[0]}: not a folder of unijudge, or not finished, and no importer reads it{why}; "
            "`unijudge mine import --help` names the layouts"
        )
    if len(best) > 1:
        names = ", ".join(best)
        raise DataError(f"{places[0]}: may be of several layouts: {names}; try each with `unijudge mine import NAME`")
    return best[0]


def _is_told(side: Side) -> bool:
    return bool(side.image) or not is_blank(side.text)
