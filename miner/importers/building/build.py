"""Rows of any layout → a corpus: deduplicated items, checked images, and a list of what was rejected and why.

What it promises: memory does not grow with the rows (`Ledger`); every image is opened once, however many rows name it;
a row is taken whole or rejected whole, with its reason. Images stay where they are when all of them are plain files
under one root; as soon as one is not, or where they are on a disk and the corpus in an object store, all are copied
into the corpus folder, by content. Copies that an import made before it failed stay, and serve the next one.
"""

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path

from miner.importers.building.existing_corpus import older_corpus, tell_replaced
from miner.importers.building.ledger import Answers, ImportedContent, Ledger, copied_path
from miner.importers.building.pair import Ignored, Left, Pair, Pooled, Row, Unread
from miner.importers.building.published_scores import PublishedScores, check_scores, write_scores
from unijudge.alike import normal
from unijudge.content import content_key
from unijudge.errors import DataError
from unijudge.foreign.cells import Rejected, Side, check_clean, kind_of
from unijudge.foreign.pictures import ForeignPicture, Pictures, check_name, inspect_picture
from unijudge.formats.corpus import CorpusManifest, write_corpus
from unijudge.images.decoding import MAX_PIXELS
from unijudge.judging.prompt import is_blank
from unijudge.shown import shown, shown_name
from unijudge.storage.files import file_sha256, publishing, scratch
from unijudge.storage.leases import lease
from unijudge.storage.locations import is_local, locate
from unijudge.storage.stores import exists

logger = logging.getLogger(__name__)

SIDES_REMEMBERED = 16_384
"""Items that are found again without asking the ledger; closed lists repeat theirs a thousand times."""

LONGEST_REMEMBERED = 1000
"""Characters of a text that is remembered so."""

Checked = tuple[Side, str | None, ImportedContent | None]
"""A side, its pool, and what it is; None where the item is remembered."""


class CorpusBuilder:
    """Collects rows."""

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
        """Takes no row yet; with `dry_run` it will copy no picture."""
        self._ledger = ledger
        self._pictures = pictures
        self._out = out
        self._dry_run = dry_run
        self._published = published
        self._max_pixels = max_pixels
        self._items: dict[tuple[Side, str | None], tuple[int, str]] = {}
        self.rows = 0
        self._mismatches = 0
        """Rows that say that their two sides do not match."""
        self.ignored: dict[str, Left] = {}
        """By their kinds."""
        self._first_fault: str | None = None
        """Of the others that were rejected: where, and why."""
        self.mended = 0
        """Copied pictures of an earlier import that were damaged, and are whole again."""
        self.strange_score: float | None = None
        """One that is no probability."""
        ledger.copied = pictures.root is None or (is_local(pictures.root) and not is_local(out))

    def add(self, row: Row) -> None:
        """Takes one row, or notes why not."""
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
            raise Rejected(f"query_id {shown(query_id)} stands for another query already; ids must be unique")
        if self._published is not None or pair.scores is not None:
            self._check_scores(pair)
        # All sides are checked before any becomes an item: a rejected row leaves nothing behind.
        positives = self._checked("positive", (pair.positive, *pair.more_positives), pair.subset)
        negatives = self._checked("negative", pair.negatives, pair.subset if pair.pooled else None)
        candidates = self._checked("candidate", pair.candidates or (), pair.subset)
        right = [self._item(one) for one in positives]
        wrong = [self._item(one) for one in negatives]
        closed = [self._item(one) for one in candidates]
        answers = Answers(
            list(dict.fromkeys(item_id for _, item_id in right)),
            None if pair.candidates is None else list(dict.fromkeys(row for row, _ in closed)),
            None if pair.scores is None else _by_item(pair.scores, [right[0], *wrong]),
        )
        if known is None:
            self._ledger.add_query(query_id, pair.subset, query, answers)
        else:
            self._ledger.add_answers(known, answers)

    def _check_scores(self, pair: Pair) -> None:
        strange = check_scores(pair.scores, 1 + len(pair.negatives))
        if strange is not None and self._published is not None and self._published.only_probabilities:
            raise Rejected(f"score {strange!r} is not a probability, 0 … 1")
        self.strange_score = strange if self.strange_score is None else self.strange_score

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
        """Row number and id."""
        side, pool, entry = checked
        found = self._items[side, pool] if entry is None else self._ledger.item(entry, pool)
        if not isinstance(side.image, bytes) and len(side.text or "") <= LONGEST_REMEMBERED:
            self._items[side, pool] = found
        return found

    def _check(self, name: str, side: Side) -> ImportedContent:
        """The side, checked."""
        for value in (side.text, side.image):
            if isinstance(value, str):
                check_clean(name, value)
        if not side.image and is_blank(side.text):
            raise Rejected(f"{name}: neither text nor image")
        picture = self._picture(name, side.image) if side.image else None
        key = content_key(normal(side.text), picture.sha256 if picture else None)
        return ImportedContent(key, side.text or None, picture)

    def _picture(self, name: str, image: str | bytes) -> ForeignPicture:
        called = shown_name(image) if isinstance(image, str) else "inside the row"
        found = self._known(image)
        if isinstance(found, Rejected):
            raise Rejected(f"{name}: image {called}: {found}", f"{kind_of(name)}: image: {found.kind}")
        return found

    def _known(self, image: str | bytes) -> ForeignPicture | Rejected:
        """What is found under a name, or in bytes; each is opened once."""
        try:
            if isinstance(image, str):
                check_name(image)
        except Rejected as reason:
            return reason
        known_as = image if isinstance(image, str) else hashlib.sha256(image).digest()
        found = self._ledger.picture(known_as)
        if found is None:
            found = self._open(image)
            self._ledger.remember(known_as, found)
        return found

    def _open(self, image: str | bytes) -> ForeignPicture | Rejected:
        try:
            data, path = self._pictures.read(image) if isinstance(image, str) else (image, None)
            picture = inspect_picture(data, path, self._max_pixels)
        except Rejected as reason:
            return reason
        if path is None:
            self._copy(picture, data)
        return picture

    def _copy(self, picture: ForeignPicture, data: bytes) -> None:
        """By content: what an earlier import left there is this picture, unless it was damaged since."""
        self._ledger.copied = True
        if self._dry_run:
            return
        path = self._out / "images" / copied_path(picture.sha256, picture.ending)
        there = exists(path)
        if there and file_sha256(path) == picture.sha256:
            return
        with publishing(path) as draft:
            draft.write_bytes(data)
        self.mended += there

    def refusal(self, source: str, max_rejects: float) -> str | None:
        """Why no corpus is made of the rows; None where one is."""
        left_out = self._ledger.num_rejects
        rejects = left_out - self._mismatches
        if not self.rows:
            return f"{source}: no rows; is this the right file or folder?"
        if left_out < self.rows and rejects <= max_rejects * self.rows:
            return None
        limit = "so none is left" if left_out == self.rows else f"more than --max-rejects {max_rejects:g}"
        labelled = f" and {self._mismatches} labelled mismatches" if self._mismatches else ""
        return f"{rejects} of {self.rows} rows rejected{labelled}, {limit}"

    def write(self, *, source: str, max_rejects: float) -> CorpusManifest:
        """Writes the corpus, and `rejects.jsonl` beside it, in which labelled mismatches stand too.

        Raises:
            DataError: No row is left, or more than the share `max_rejects` was rejected: only rejects.jsonl is written.
        """
        rejects = self._ledger.num_rejects - self._mismatches
        with publishing(self._out / "rejects.jsonl") as draft, draft.open("w", encoding="utf-8") as file:
            file.writelines(self._ledger.rejects())
        if refusal := self.refusal(source, max_rejects):
            if not self.rows:
                raise DataError(refusal)
            line = json.loads(next(self._ledger.rejects()))
            first = self._first_fault or f"{line['row']}: {line['reason']}"
            raise DataError(
                f"{refusal}; no corpus was written. Reasons are in {self._out / 'rejects.jsonl'}; the first: {first}"
            )
        if self._mismatches:
            logger.info(
                "%s: %d of %d rows are labelled mismatches: they are no pairs, and stand in rejects.jsonl",
                self._out, self._mismatches, self.rows,
            )  # fmt: skip
        with suppress(FileNotFoundError):  # from here on the older corpus goes
            (self._out / "corpus.json").unlink()
        root = self._pictures.root
        if root is None or self._ledger.copied:
            root = self._out / "images"
            self._copy_plain()
        return write_corpus(
            self._out, self._ledger.items(), self._ledger.queries(), images=root, rejects=rejects, source=source
        )

    def _copy_plain(self) -> None:
        for name, picture in self._ledger.plain_pictures():
            try:
                data, _ = self._pictures.read(name)
            except Rejected as reason:
                raise DataError(f"{name}: gone while it was imported ({reason}); import again") from reason
            if hashlib.sha256(data).hexdigest() != picture.sha256:
                raise DataError(f"{name}: changed while it was imported; import again")
            self._copy(picture, data)


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
    """Imports all rows into a corpus folder; scores that came with them, into a score folder.

    Args:
        rows: What a reader yields.
        images: The root of the image names: a folder, which may hold zip files, or a zip file.
        out: The corpus folder; it may hold an older corpus of the same source, which is replaced.
        source: What the rows came from, for the manifest: a whole path, or two sources could have one name.
        max_rejects: Share of rejected rows above which no corpus is written.
        published: Where the scores of the rows go, and who gave them; every row must have some then.
        max_pixels: Largest width × height of a picture; larger ones are rejected, undecoded.

    Raises:
        DataError: No rows, too many rejects, no such images, `out` holds something else, or the disk refused.
        FolderBusy: Another import writes there.
    """
    out = locate(out)
    older = older_corpus(out, source)
    if published is not None:
        published.check_free()
    first = list(islice(rows, 1))  # a file that is not there is named before anything is written
    with Pictures(images) as pictures, lease(out), _ledger(out) as ledger:
        builder = CorpusBuilder(ledger, pictures, out, published=published, max_pixels=max_pixels)
        for row in chain(first, rows):
            builder.add(row)
        made = builder.write(source=source, max_rejects=max_rejects)
        if published is not None:
            write_scores(published, made, ledger.scored, builder.strange_score)
    if older is not None:
        tell_replaced(out, older, made)
    if builder.mended:
        logger.warning("%s: %d copied pictures were damaged, and are whole again", out, builder.mended)
    return made


@contextmanager
def _ledger(out: Path) -> Iterator[Ledger]:
    """Beside the output, where there is room for it; gone after the import."""
    with scratch(out.with_name(f"{out.name}.import")) as path:
        try:
            with closing(Ledger(path)) as ledger:
                yield ledger
        except sqlite3.OperationalError as error:
            raise DataError(f"{path}: cannot be written ({error}); free space there, then import again") from error


def _by_item(scores: tuple[float, ...], items: list[tuple[int, str]]) -> dict[str, float]:
    """Each item once: under-filled rows repeat their negatives."""
    first: dict[str, float] = {}
    for (_, item_id), score in zip(items, scores, strict=True):
        first.setdefault(item_id, score)
    return first
