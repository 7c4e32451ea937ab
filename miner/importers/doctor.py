"""Predicts the result of an import, for `--dry-run` and for `unijudge check` of files that are not imported yet.

A prediction takes one pass and bounded memory, makes the same checks as an import, and writes nothing.
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
"""Number of reasons to report, the most frequent first."""
SAMPLE = 100
"""Number of rows to read for guessing a layout."""


@dataclass(frozen=True)
class Outlook:
    """The predicted result of an import."""

    rows: int
    rejects: int
    sizes: Mapping[str, int]
    """Kind → number that would be written, for queries, items and pictures."""
    reasons: Sequence[tuple[int, str, str]] = ()
    """The most frequent reasons of rejects: number of rows, and place and reason of the first row."""
    ignored: Mapping[str, Left] = field(default_factory=dict)
    """Kind → things of this kind that would be ignored."""
    refusal: str | None = None
    """The reason why nothing would be imported."""

    def lines(self) -> Iterator[str]:
        """Yields the prediction as lines of text."""
        read = _counted(self.rows - self.rejects, "rows")
        sizes = ", ".join(f"{name} {count:,}" for name, count in self.sizes.items())
        yield f"  read      {read}: {sizes}"
        yield f"  rejected  {_counted(self.rejects, 'rows')}"
        for count, place, reason in self.reasons:
            yield f"    {count:,} such as {place}: {reason}"

        ignored = []
        for kind, left in self.ignored.items():
            number = _counted(left.count, kind)
            ignored.append(f"{number} ({_first(left)})")
        yield f"  ignored   {'; '.join(ignored) or 'nothing'}"


def _counted(count: int, kind: str) -> str:
    """Returns a number of things as text, given their kind in the plural."""
    noun, *rest = kind.split(" ")
    if count == 1:
        noun = noun.removesuffix("s")
    return " ".join([f"{count:,}", noun, *rest])


def _first(left: Left) -> str:
    names = listed(left.names)
    return f"{names}, …" if left.count > len(left.names) else names


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
    """Runs the checks of `build` with the same arguments, and writes nothing. Without `out`, no output is checked.

    Raises:
        DataError: The import would fail before it reads a row.
    """
    if out is not None:
        older_corpus(out, source)
    if published is not None:
        published.check_free()
    with Pictures(images) as pictures, closing(Ledger(None)) as ledger:
        builder = CorpusBuilder(
            ledger, pictures, images, published=published, max_pixels=max_pixels, dry_run=True
        )
        try:
            for row in rows:
                builder.add(row)
            refusal = builder.refusal(source, max_rejects)
        except DataError as error:  # the rows before the error are reported too
            refusal = str(error)
        reasons = ledger.commonest(COMMONEST)
        return Outlook(
            builder.rows, ledger.num_rejects, ledger.sizes, reasons, builder.ignored, refusal
        )


@dataclass(frozen=True)
class Layout:
    """An importer with its default settings, for files of unknown layout."""

    read: Callable[[Sequence[Path]], Iterator[Row]]
    images: Callable[[Path], Path] = lambda place: place if is_folder(place) else place.parent
    """Returns the usual root of the images, given a file or folder."""
    max_rejects: float = 0.0
    """The default of `--max-rejects` in the importer's command."""


def _of_one(read: Callable[[Path], Iterator[Row]]) -> Callable[[Sequence[Path]], Iterator[Row]]:
    """Turns a reader of one file or folder into a reader of a list with one file or folder."""

    def read_single(places: Sequence[Path]) -> Iterator[Row]:
        if len(places) > 1:
            raise DataError(
                f"{places[1]}: this layout is a single file or folder. Give only {places[0]}"
            )
        return read(places[0])

    return read_single


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
"""Name of an importer's command → importer. The first importer reads any table."""


def guess(places: Sequence[Path]) -> str:
    """Returns the name of the importer that makes the most pairs of the first rows of some files.

    Raises:
        DataError: No importer makes a pair, or several importers make equally many pairs.
    """
    pairs_of: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for name, layout in LAYOUTS.items():
        try:
            pairs_of[name] = 0
            for row in islice(layout.read(places), SAMPLE):
                pairs_of[name] += (
                    isinstance(row, Pair) and _has_content(row.query) and _has_content(row.positive)
                )
        except DataError as error:
            reasons[name] = str(error)

    most = max(pairs_of.values())
    best = [name for name, pairs in pairs_of.items() if pairs == most]
    if not most:
        table = next(iter(LAYOUTS))
        reason = f" ({table}: {in_brief(reasons[table])})" if table in reasons else ""
        raise DataError(
            f"{places[0]}: is not a complete folder of unijudge, and no importer can read it{reason}. Run `unijudge "
            "mine import --help` to see the layouts"
        )
    if len(best) > 1:
        names = ", ".join(best)
        raise DataError(
            f"{places[0]}: may have one of several layouts: {names}. Try each with `unijudge mine import NAME`"
        )
    return best[0]


def _has_content(side: Side) -> bool:
    return bool(side.image) or not is_blank(side.text)
