"""Rows of any layout → a corpus: deduplicated items, checked images, and a list of what was rejected and why.

What it promises: memory does not grow with the rows (`Ledger`); every image is opened once, however many rows name it;
a row is taken whole or rejected whole, with its reason. Images stay where they are when all of them are plain files
under one root; as soon as one is not, all are copied into the corpus folder, by content.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from miner.importers.ledger import Answers, Entry, Ledger, copied_path
from miner.importers.pictures import Picture, Pictures, inspect
from miner.importers.published import Published, check_scores, write_scores
from miner.importers.rows import Pair, Rejected, Side, Unread, check_clean
from unijudge.corpus import CorpusManifest, content_key, write_corpus
from unijudge.errors import DataError
from unijudge.files import lease, publishing, scratch

SIDES_REMEMBERED = 16_384
"""Items that are found again without asking the ledger; closed lists repeat theirs a thousand times."""


class CorpusBuilder:
    """Collects rows."""

    def __init__(self, ledger: Ledger, pictures: Pictures, out: Path, *, scored: bool = False):
        self._ledger = ledger
        self._pictures = pictures
        self._out = out
        self._scored = scored
        self._items: dict[tuple[Side, str | None], tuple[int, str]] = {}
        self._rows = 0
        ledger.copied = pictures.root is None

    def add(self, row: Pair | Unread) -> None:
        """Takes one row, or notes why not."""
        self._rows += 1
        try:
            if isinstance(row, Unread):
                raise Rejected(row.reason)
            self._take(row)
        except Rejected as reason:
            self._ledger.reject(row.place, row.subset, str(reason))

    def _take(self, pair: Pair) -> None:
        if len(self._items) > SIDES_REMEMBERED:
            self._items.clear()
        query_id = pair.query_id or pair.place
        for name, value in [("query_id", query_id), ("subset", pair.subset)]:
            check_clean(name, value)
        query = self._entry("query", pair.query)
        if self._ledger.query_key(query_id) not in (None, query.key):
            raise Rejected(f"query_id {query_id!r} stands for another query already; ids must be unique")
        if self._scored or pair.scores is not None:
            check_scores(pair.scores, 1 + len(pair.negatives))
        negative_pool = pair.subset if pair.pooled else None
        groups = [
            ("positive", (pair.positive, *pair.more_positives), pair.subset),
            ("negative", pair.negatives, negative_pool),
            ("candidate", pair.candidates or (), pair.subset),
        ]
        entries = [
            self._entries(name, sides, pool) for name, sides, pool in groups
        ]  # all are checked before any is put
        positives, negatives, candidates = (
            [self._item(side, entry, pool) for side, entry in zip(sides, found, strict=True)]
            for (_, sides, pool), found in zip(groups, entries, strict=True)
        )
        answers = Answers([])
        answers.add(
            Answers(
                [item_id for _, item_id in positives],
                None if pair.candidates is None else [row for row, _ in candidates],
                None if pair.scores is None else _scored(pair.scores, positives[0], negatives),
            )
        )
        self._ledger.query(query_id, pair.subset, query, answers)

    def _entries(self, name: str, sides: tuple[Side, ...], pool: str | None) -> list[Entry | None]:
        """One for each side; None where the item is known."""
        return [
            None if (side, pool) in self._items else self._entry(f"{name} {number}" if number > 1 else name, side)
            for number, side in enumerate(sides, start=1)
        ]

    def _item(self, side: Side, entry: Entry | None, pool: str | None) -> tuple[int, str]:
        if entry is None:
            return self._items[side, pool]
        found = self._ledger.item(entry, pool)
        if not isinstance(side.image, bytes):
            self._items[side, pool] = found
        return found

    def _entry(self, name: str, side: Side) -> Entry:
        """The side, checked."""
        for value in (side.text, side.image):
            if isinstance(value, str):
                check_clean(name, value)
        if not side.image and not (side.text or "").strip():
            raise Rejected(f"{name}: neither text nor image")
        picture = self._picture(name, side.image) if side.image else None
        image = side.image if isinstance(side.image, str) else None
        key = content_key(side.text, picture.sha256 if picture else None)
        return Entry(key, side.text or None, image or None, picture)

    def _picture(self, name: str, image: str | bytes) -> Picture:
        known_as = image if isinstance(image, str) else hashlib.sha256(image).digest()
        found = self._ledger.picture(known_as)
        if found is None:
            found = self._open(image)
            self._ledger.remember(known_as, found)
        if isinstance(found, Rejected):
            raise Rejected(f"{name}: image {image if isinstance(image, str) else 'inside the row'}: {found}")
        return found

    def _open(self, image: str | bytes) -> Picture | Rejected:
        try:
            data, plain = self._pictures.read(image) if isinstance(image, str) else (image, False)
            picture = inspect(data, plain=plain)
        except Rejected as reason:
            return reason
        if not plain:
            self._copy(picture, data)
        return picture

    def _copy(self, picture: Picture, data: bytes) -> None:
        """By content: what an earlier import left there is this picture."""
        self._ledger.copied = True
        path = self._out / "images" / copied_path(picture.sha256, picture.ending)
        if not path.exists():
            with publishing(path) as draft:
                draft.write_bytes(data)

    def write(self, *, source: str, max_rejects: float) -> CorpusManifest:
        """Writes the corpus, and `rejects.jsonl` beside it.

        Raises:
            DataError: No row, or more than the share `max_rejects` was rejected: then only rejects.jsonl is written.
        """
        rejects = self._ledger.num_rejects
        with suppress(FileNotFoundError):
            (self._out / "corpus.json").unlink()
        with publishing(self._out / "rejects.jsonl") as draft, draft.open("w", encoding="utf-8") as file:
            file.writelines(self._ledger.rejects())
        if not self._rows:
            raise DataError(f"{source}: no rows; is this the right file or folder?")
        if rejects > max_rejects * self._rows:
            first = json.loads(next(self._ledger.rejects()))
            raise DataError(
                f"{rejects} of {self._rows} rows rejected, more than --max-rejects {max_rejects:g}; no corpus was "
                f"written. Reasons are in {self._out / 'rejects.jsonl'}; the first: {first['row']}: {first['reason']}"
            )
        root = self._pictures.root
        if root is None or self._ledger.copied:
            root = self._out / "images"
            self._copy_plain()
        return write_corpus(
            self._out, self._ledger.items(), self._ledger.queries(), images=root, rejects=rejects, source=source
        )

    def _copy_plain(self) -> None:
        for name, picture in self._ledger.plain_pictures():
            data, _ = self._pictures.read(name)
            if inspect(data, plain=True) != picture:
                raise DataError(f"{name}: changed while it was imported; import again")
            self._copy(picture, data)


def build(
    rows: Iterator[Pair | Unread],
    *,
    images: Path,
    out: Path,
    source: str,
    max_rejects: float,
    published: Published | None = None,
) -> CorpusManifest:
    """Imports all rows into a corpus folder; scores that came with them, into a score folder.

    Args:
        rows: What a reader yields.
        images: The root of the image names: a folder, which may hold zip files, or a zip file.
        out: The corpus folder.
        source: What the rows came from, for the manifest.
        max_rejects: Share of rejected rows above which no corpus is written.
        published: Where the scores of the rows go, and who gave them; every row must have some then.

    Raises:
        DataError: No rows, too many rejects, no such images, or the disk refused.
        FolderBusy: Another import writes there.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; give a folder to write the corpus into")
    if published is not None:
        published.check_free()
    with Pictures(images) as pictures, lease(out), scratch(out.with_name(f"{out.name}.import")) as path:
        try:
            with closing(Ledger(path)) as ledger:
                builder = CorpusBuilder(ledger, pictures, out, scored=published is not None)
                for row in rows:
                    builder.add(row)
                made = builder.write(source=source, max_rejects=max_rejects)
                if published is not None:
                    write_scores(published, made, ledger.scores)
        except sqlite3.OperationalError as error:
            raise DataError(f"{path}: cannot be written ({error}); free space there, then import again") from error
    return made


def _scored(
    scores: tuple[float, ...], positive: tuple[int, str], negatives: list[tuple[int, str]]
) -> list[tuple[str, float, bool]]:
    """Each item once, in order: under-filled rows repeat their negatives."""
    first: dict[str, tuple[str, float, bool]] = {}
    for number, ((_, item_id), score) in enumerate(zip([positive, *negatives], scores, strict=True)):
        first.setdefault(item_id, (item_id, score, number == 0))
    return list(first.values())
