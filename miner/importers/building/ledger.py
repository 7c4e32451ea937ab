"""Stores the state of an import in a temporary SQLite file, so that memory does not grow with the number of rows.

Items and queries are read back in the order in which they first appeared.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unijudge.content import content_key
from unijudge.foreign.cells import Rejected
from unijudge.foreign.pictures import ForeignPicture
from unijudge.formats.corpus import Item, Query
from unijudge.shown import shown_name

SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA cache_size = -16384;
CREATE TABLE items (row INTEGER PRIMARY KEY, key BLOB UNIQUE, pools, text, image, sha256, ending);
CREATE TABLE queries (
    row INTEGER PRIMARY KEY, query_id TEXT UNIQUE, key BLOB, subset, text, image, sha256, ending, answers
);
CREATE TABLE more (row INTEGER PRIMARY KEY, query INTEGER, answers);
CREATE INDEX more_of_query ON more (query, row);
CREATE TABLE pictures (name PRIMARY KEY, sha256, ending, path, reason) WITHOUT ROWID;
CREATE TABLE rejects (row INTEGER PRIMARY KEY, line TEXT, kind TEXT);
BEGIN;
"""


@dataclass(frozen=True)
class ImportedContent:
    """The content of an item or a query."""

    key: bytes
    """The hash of the normalized text and the image. Entries with the same key are duplicates."""
    text: str | None
    picture: ForeignPicture | None

    @property
    def columns(self) -> tuple[str | None, str | None, str | None, str | None]:
        """The columns text, image, sha256 and ending."""
        if self.picture is None:
            return self.text, None, None, None
        return self.text, self.picture.path, self.picture.sha256, self.picture.ending


@dataclass(frozen=True)
class Answers:
    """The answers to a query in one or more rows."""

    positives: list[str]
    """Item ids."""
    candidates: list[int] | None = None
    """Item rows of the closed list; None without a closed list."""
    scores: dict[str, float] | None = None
    """Item id → published score, of positives and negatives."""

    @classmethod
    def joined(cls, rows: Sequence["Answers"]) -> "Answers":
        """Joins the answers of several rows, in order and without duplicates. The first score of an item is kept."""
        if len(rows) == 1:
            return rows[0]
        positives = dict.fromkeys(item for row in rows for item in row.positives)
        candidates = dict.fromkeys(item for row in rows for item in row.candidates or ())
        scores: dict[str, float] = {}
        for row in rows:
            for item, score in (row.scores or {}).items():
                scores.setdefault(item, score)
        return cls(list(positives), list(candidates) or None, scores or None)


@dataclass(frozen=True)
class Known:
    """A query that an earlier row has stored."""

    row: int
    key: bytes


class Ledger:
    """The SQLite file. Its single transaction is never committed, because no other process reads the file."""

    def __init__(self, path: Path | None):
        """Opens a file at `path`. For None, SQLite uses an unnamed temporary file."""
        self._db = sqlite3.connect(path or "", isolation_level=None)
        self._db.executescript(SCHEMA)
        self.copied = False
        """Whether all images are copied into the corpus folder, because one image is not a plain file."""

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def item(self, entry: ImportedContent, pool: str | None) -> tuple[int, str]:
        """Finds or adds an item, and adds the item to a pool. Returns its row number and its id."""
        added = self._db.execute(
            "INSERT OR IGNORE INTO items (key, pools, text, image, sha256, ending) VALUES (?, ?, ?, ?, ?, ?)",
            (entry.key, json.dumps([] if pool is None else [pool]), *entry.columns),
        )
        select = "SELECT row, pools, text, sha256 FROM items WHERE key = ?"
        row, stored_pools, text, sha256 = self._db.execute(select, (entry.key,)).fetchone()
        if not added.rowcount and pool is not None:
            pools = json.loads(stored_pools)
            if pool not in pools:
                self._db.execute(
                    "UPDATE items SET pools = ? WHERE row = ?", (json.dumps([*pools, pool]), row)
                )
        return row - 1, content_key(text, sha256).hex()

    def query(self, query_id: str) -> Known | None:
        """Returns the stored query with an id, or None."""
        known = self._db.execute(
            "SELECT row, key FROM queries WHERE query_id = ?", (query_id,)
        ).fetchone()
        return known and Known(*known)

    def add_query(
        self, query_id: str, subset: str, entry: ImportedContent, answers: Answers
    ) -> None:
        """Stores a query."""
        self._db.execute(
            "INSERT INTO queries (query_id, key, subset, text, image, sha256, ending, answers) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (query_id, entry.key, subset, *entry.columns, json.dumps(vars(answers))),
        )

    def add_answers(self, known: Known, more: Answers) -> None:
        """Stores the answers of a further row to a query. All answers are joined when the query is read."""
        self._db.execute(
            "INSERT INTO more (query, answers) VALUES (?, ?)", (known.row, json.dumps(vars(more)))
        )

    def picture(self, name: str | bytes) -> ForeignPicture | Rejected | None:
        """Returns the image with a name, or with the sha256 of its bytes; None if it was not opened before."""
        known = self._db.execute(
            "SELECT sha256, ending, path, reason FROM pictures WHERE name = ?", (name,)
        ).fetchone()
        if known is None:
            return None
        return ForeignPicture(*known[:3]) if known[3] is None else Rejected(known[3])

    def remember(self, name: str | bytes, found: ForeignPicture | Rejected) -> None:
        """Stores an image, or the reason for rejecting the image, under a name."""
        if isinstance(found, ForeignPicture):
            columns = (name, found.sha256, found.ending, found.path)
            self._db.execute(
                "INSERT INTO pictures (name, sha256, ending, path) VALUES (?, ?, ?, ?)", columns
            )
        else:
            self._db.execute(
                "INSERT INTO pictures (name, reason) VALUES (?, ?)", (name, str(found))
            )

    def reject(self, place: str, subset: str, reason: Rejected) -> None:
        """Stores a rejected row and the reason."""
        line = json.dumps(
            {"row": place, "subset": shown_name(subset), "reason": str(reason)}, ensure_ascii=False
        )
        # UTF-8 cannot encode a lone surrogate, so it is written as a JSON escape.
        encoded = tuple(
            text.encode("utf-8", "backslashreplace").decode() for text in (line, reason.kind)
        )
        self._db.execute("INSERT INTO rejects (line, kind) VALUES (?, ?)", encoded)

    def rejects(self) -> Iterator[str]:
        """Yields the lines of rejects.jsonl."""
        for (line,) in self._db.execute("SELECT line FROM rejects ORDER BY row"):
            yield line + "\n"

    @property
    def num_rejects(self) -> int:
        """The number of rejected rows, including labelled mismatches."""
        return int(self._db.execute("SELECT COUNT(*) FROM rejects").fetchone()[0])

    def commonest(self, most: int) -> list[tuple[int, str, str]]:
        """Returns the most frequent kinds of rejects: number of rows, and place and reason of the first row."""
        select = (
            "SELECT found.rows, line FROM "
            "(SELECT COUNT(*) AS rows, MIN(row) AS first FROM rejects GROUP BY kind) AS found "
            "JOIN rejects ON row = first ORDER BY rows DESC, first LIMIT ?"
        )
        kinds = [(count, json.loads(line)) for count, line in self._db.execute(select, (most,))]
        return [(count, first["row"], first["reason"]) for count, first in kinds]

    @property
    def sizes(self) -> dict[str, int]:
        """The numbers of queries, items and distinct images."""
        select = (
            "SELECT (SELECT COUNT(*) FROM queries), (SELECT COUNT(*) FROM items), (SELECT COUNT(*) FROM ("
            "SELECT sha256 FROM queries WHERE sha256 NOT NULL UNION SELECT sha256 FROM items WHERE sha256 NOT NULL))"
        )
        return dict(
            zip(("queries", "items", "pictures"), self._db.execute(select).fetchone(), strict=True)
        )

    def plain_pictures(self) -> Iterator[tuple[str, ForeignPicture]]:
        """Yields name and image, for every image that is a plain file under the root."""
        select = "SELECT path, sha256, ending FROM pictures WHERE path IS NOT NULL"
        for path, sha256, ending in self._db.execute(select):
            yield path, ForeignPicture(sha256, ending, path)

    def items(self) -> Iterator[Item]:
        """Yields every item, in order of row numbers."""
        select = "SELECT pools, text, image, sha256, ending FROM items ORDER BY row"
        for pools, text, image, sha256, ending in self._db.execute(select):
            key = content_key(text, sha256)
            path = self._path(image, sha256, ending)
            yield Item(key.hex(), tuple(json.loads(pools)), text, path, sha256)

    def queries(self) -> Iterator[Query]:
        """Yields every query, in order of first appearance."""
        select = "SELECT row, answers, query_id, subset, text, image, sha256, ending FROM queries ORDER BY row"
        for row, given, query_id, subset, text, image, sha256, ending in self._db.execute(select):
            answers = self._answers(row, given)
            positives = tuple(answers.positives)
            closed = None if answers.candidates is None else tuple(answers.candidates)
            path = self._path(image, sha256, ending)
            yield Query(query_id, subset, positives, text, path, sha256, closed)

    def scored(self) -> Iterator[tuple[str, str, bytes, Answers]]:
        """Yields id, subset, content hash and answers of every query, in order of first appearance."""
        select = "SELECT row, answers, query_id, subset, text, sha256 FROM queries ORDER BY row"
        for row, given, query_id, subset, text, sha256 in self._db.execute(select):
            key = content_key(text, sha256)
            yield query_id, subset, key, self._answers(row, given)

    def _answers(self, row: int, given: str) -> Answers:
        answers = [Answers(**json.loads(given))]
        select = "SELECT answers FROM more WHERE query = ? ORDER BY row"
        for (text,) in self._db.execute(select, (row,)):
            answers.append(Answers(**json.loads(text)))
        return Answers.joined(answers)

    def _path(self, image: str | None, sha256: str | None, ending: str | None) -> str | None:
        return copied_path(sha256, ending or "") if sha256 and self.copied else image


def copied_path(sha256: str, ending: str) -> str:
    """Returns the path of a copied image under the image root. Images are spread over 256 folders."""
    return f"{sha256[:2]}/{sha256}.{ending}"
