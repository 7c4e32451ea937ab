"""Builds a corpus from rows of any layout: deduplicated items, checked images, and a list of rejected rows.

Memory does not grow with the number of rows (see `Ledger`). A row is imported or rejected as a whole, with a reason.
"""

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path

from miner.importers.building.existing_corpus import log_replaced, older_corpus
from miner.importers.building.imported_images import ImportedImages
from miner.importers.building.ledger import Answers, ImportedContent, Ledger
from miner.importers.building.pair import Ignored, Left, Pair, Pooled, Row, Unread
from miner.importers.building.published_scores import PublishedScores, check_scores, write_scores
from unijudge.alike import normal
from unijudge.content import content_key
from unijudge.errors import DataError
from unijudge.foreign.cells import Rejected, Side, check_clean, kind_of
from unijudge.foreign.pictures import NO_SUCH_FILE, ForeignPicture, Pictures
from unijudge.formats.corpus import CorpusManifest, write_corpus
from unijudge.images.decoding import MAX_PIXELS
from unijudge.judging.prompt import is_blank
from unijudge.shown import shown, shown_name
from unijudge.storage.files import publishing, scratch
from unijudge.storage.leases import lease
from unijudge.storage.locations import locate

logger = logging.getLogger(__name__)

SIDES_REMEMBERED = 16_384
"""Items in the cache in front of the ledger. Closed lists repeat their items a thousand times."""

LONGEST_REMEMBERED = 1000
"""Largest number of characters of a text in the cache."""

Checked = tuple[Side, str | None, ImportedContent | None]
"""A side, its pool and its content; the content is None for an item in the cache."""


class CorpusBuilder:
    """Collects the rows of an import."""

    def __init__(
        self,
        ledger: Ledger,
        pictures: Pictures,
        out: Path,
        *,
        published: PublishedScores | None,
        max_pixels: int,
        dry_run: bool = False,
    ):
        """Starts without rows. With `dry_run`, no images are copied."""
        self._ledger = ledger
        self._out = out
        self._published = published
        self.images = ImportedImages(ledger, pictures, out, max_pixels=max_pixels, dry_run=dry_run)
        self._items: dict[tuple[Side, str | None], tuple[int, str]] = {}
        self.rows = 0
        self._mismatches = 0
        """Number of rows that are labelled as mismatches."""
        self.ignored: dict[str, Left] = {}
        """Kind → ignored things of this kind."""
        self._first_fault: str | None = None
        """Place and reason of the first rejected row that is no labelled mismatch."""
        self.strange_score: float | None = None
        """The first score that is no probability."""

    def add(self, row: Row) -> None:
        """Imports one row, or records why it is rejected."""
        if isinstance(row, Ignored):
            self.ignored.setdefault(row.kind, Left()).add(row.name)
            return
        self.rows += 1
        try:
            if isinstance(row, Unread):
                self._mismatches += row.is_mismatch
                raise Rejected(row.reason)
            if isinstance(row, Pooled):
                self._pool(row)
            else:
                self._take(row)
        except Rejected as reason:
            if not isinstance(row, Unread) or not row.is_mismatch:
                self._first_fault = self._first_fault or f"{row.place}: {reason}"
            self._ledger.reject(row.place, row.subset, reason)

    def _pool(self, row: Pooled) -> None:
        check_clean("subset", row.subset)
        (checked,) = self._checked("item", (row.item,), row.subset)
        self._item(checked)

    def _take(self, pair: Pair) -> None:
        if len(self._items) > SIDES_REMEMBERED:
            self._items.clear()
        query_id = pair.query_id or pair.place
        check_clean("query_id", query_id)
        check_clean("subset", pair.subset)
        query = self._check("query", pair.query)
        known = self._ledger.query(query_id)
        if known is not None and known.key != query.key:
            raise Rejected(
                f"query_id {shown(query_id)} is already the id of a different query. Ids must be unique"
            )
        if self._published is not None or pair.scores is not None:
            self._check_scores(pair)

        # All sides are checked before any side becomes an item, so that a rejected row leaves no items behind.
        checked_positives = self._checked(
            "positive", (pair.positive, *pair.more_positives), pair.subset
        )
        checked_negatives = self._checked(
            "negative", pair.negatives, pair.subset if pair.pooled else None
        )
        checked_candidates = self._checked("candidate", pair.candidates or (), pair.subset)
        positives = [self._item(checked) for checked in checked_positives]
        negatives = [self._item(checked) for checked in checked_negatives]
        candidates = [self._item(checked) for checked in checked_candidates]

        answers = Answers(
            list(dict.fromkeys(item_id for _, item_id in positives)),
            None if pair.candidates is None else list(dict.fromkeys(row for row, _ in candidates)),
            None if pair.scores is None else _by_item(pair.scores, [positives[0], *negatives]),
        )
        if known is None:
            self._ledger.add_query(query_id, pair.subset, query, answers)
        else:
            self._ledger.add_answers(known, answers)

    def _check_scores(self, pair: Pair) -> None:
        strange = check_scores(pair.scores, 1 + len(pair.negatives))
        if (
            strange is not None
            and self._published is not None
            and self._published.only_probabilities
        ):
            raise Rejected(f"score {strange!r} is not a probability, 0 … 1")
        if self.strange_score is None:
            self.strange_score = strange

    def _checked(self, name: str, sides: tuple[Side, ...], pool: str | None) -> list[Checked]:
        checked: list[Checked] = []
        for number, side in enumerate(sides, start=1):
            if (side, pool) in self._items:
                checked.append((side, pool, None))
            else:
                label = f"{name} {number}" if number > 1 else name
                checked.append((side, pool, self._check(label, side)))
        return checked

    def _item(self, checked: Checked) -> tuple[int, str]:
        """Returns the row number and the id of an item."""
        side, pool, content = checked
        row_and_id = (
            self._items[side, pool] if content is None else self._ledger.item(content, pool)
        )
        if not isinstance(side.image, bytes) and len(side.text or "") <= LONGEST_REMEMBERED:
            self._items[side, pool] = row_and_id
        return row_and_id

    def _check(self, name: str, side: Side) -> ImportedContent:
        """Checks a side, and returns its content."""
        for value in (side.text, side.image):
            if isinstance(value, str):
                check_clean(name, value)
        if not side.image and is_blank(side.text):
            raise Rejected(f"{name}: has neither a text nor an image")
        picture = self._picture(name, side.image) if side.image else None
        key = content_key(normal(side.text), picture.sha256 if picture else None)
        return ImportedContent(key, side.text or None, picture)

    def _picture(self, name: str, image: str | bytes) -> ForeignPicture:
        image_name = shown_name(image) if isinstance(image, str) else "inside the row"
        picture = self.images.of(image)
        if isinstance(picture, Rejected):
            raise Rejected(
                f"{name}: image {image_name}: {picture}", f"{kind_of(name)}: image: {picture.kind}"
            )
        return picture

    def refusal(self, source: str, max_rejects: float) -> str | None:
        """Returns the reason why no corpus is made of the rows, or None if a corpus is made."""
        left_out = self._ledger.num_rejects
        rejects = left_out - self._mismatches
        if not self.rows:
            return f"{source}: has no rows. Check that this is the right file or folder"
        if left_out < self.rows and rejects <= max_rejects * self.rows:
            return None
        limit = f"more than --max-rejects {max_rejects:g}"
        if left_out == self.rows:
            limit = "so no row is left"
        labelled = (
            f" and {self._mismatches} labelled mismatches left out" if self._mismatches else ""
        )
        return f"{rejects} of {self.rows} rows rejected{labelled}, {limit}"

    def write(self, *, source: str, max_rejects: float) -> CorpusManifest:
        """Writes the corpus, and a file `rejects.jsonl` with the rejected rows and the labelled mismatches.

        Raises:
            DataError: No row is left, or the share of rejected rows is above `max_rejects`. Then only rejects.jsonl is
                written.
        """
        rejects = self._ledger.num_rejects - self._mismatches
        with (
            publishing(self._out / "rejects.jsonl") as draft,
            draft.open("w", encoding="utf-8") as file,
        ):
            file.writelines(self._ledger.rejects())
        if refusal := self.refusal(source, max_rejects):
            if not self.rows:
                raise DataError(refusal)
            line = json.loads(next(self._ledger.rejects()))
            first = self._first_fault or f"{line['row']}: {line['reason']}"
            names = ""
            if NO_SUCH_FILE in first:
                names = f". The names of images begin at {self.images.root} (--images)"
            raise DataError(
                f"{refusal}. No corpus was written. The first reason is {first}{names}. Correct the rows that "
                f"{self._out / 'rejects.jsonl'} lists, or raise --max-rejects"
            )
        if self._mismatches:
            logger.info(
                "%s: %d of %d rows are labelled mismatches, which are not pairs. They are listed in rejects.jsonl",
                self._out, self._mismatches, self.rows,
            )  # fmt: skip

        # Without its manifest, an earlier corpus is invalid while its files are overwritten.
        with suppress(FileNotFoundError):
            (self._out / "corpus.json").unlink()
        root = self.images.final_root()
        return write_corpus(
            self._out,
            self._ledger.items(),
            self._ledger.queries(),
            images=root,
            rejects=rejects,
            source=source,
        )


def build(
    rows: Iterator[Row],
    *,
    images: Path,
    out: Path,
    source: str,
    max_rejects: float,
    published: PublishedScores | None = None,
    max_pixels: int = MAX_PIXELS,
) -> CorpusManifest:
    """Imports all rows into a corpus folder, and the scores of the rows into a score folder.

    Args:
        rows: The rows of a reader.
        images: The root of the image names: a zip file, or a folder, which may hold zip files.
        out: The corpus folder. An earlier corpus of the same source in the folder is overwritten.
        source: The absolute path of the source of the rows, for the manifest.
        max_rejects: Share of rejected rows above which no corpus is written.
        published: The score folder and the source of the scores. If given, every row must have scores.
        max_pixels: Largest width × height of an image. Larger images are rejected without decoding.

    Raises:
        DataError: There are no rows, too many rows are rejected, the images do not exist, `out` holds something else,
            or the disk cannot be written.
        FolderBusy: Another import writes to the folder.
    """
    out = locate(out)
    older = older_corpus(out, source)
    if published is not None:
        published.check_free()
    first = list(islice(rows, 1))  # a missing file is reported before anything is written
    with Pictures(images) as pictures, lease(out), _ledger(out) as ledger:
        builder = CorpusBuilder(ledger, pictures, out, published=published, max_pixels=max_pixels)
        for row in chain(first, rows):
            builder.add(row)
        made = builder.write(source=source, max_rejects=max_rejects)
        if published is not None:
            write_scores(published, made, ledger.scored, builder.strange_score)
    if older is not None:
        log_replaced(out, older, made)
    repaired = builder.images.repaired
    if repaired:
        logger.warning("%s: %d copied images were damaged and were copied again", out, repaired)
    return made


@contextmanager
def _ledger(out: Path) -> Iterator[Ledger]:
    """Yields a ledger in a temporary file next to the output, which has room for it, and removes it at the end."""
    with scratch(out.with_name(f"{out.name}.import")) as path:
        try:
            with closing(Ledger(path)) as ledger:
                yield ledger
        except sqlite3.OperationalError as error:
            raise DataError(
                f"{path}: cannot be written ({error}). Free space there, then import again"
            ) from error


def _by_item(scores: tuple[float, ...], items: list[tuple[int, str]]) -> dict[str, float]:
    """Returns item id → its first score. Rows with too few negatives repeat some negatives."""
    first: dict[str, float] = {}
    for (_, item_id), score in zip(items, scores, strict=True):
        first.setdefault(item_id, score)
    return first
