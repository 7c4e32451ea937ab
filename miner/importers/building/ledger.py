"""What an import must remember, in a temporary SQLite file: its memory does not grow with the rows.

Items and queries come out again in the order in which they first appeared.
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
    """An item or a query, as it is put down."""

    key: bytes
    """Of its normal text and its picture: entries with the same key are one."""
    text: str | None
    picture: ForeignPicture | None

    @property
    def columns(self) -> tuple[str | None, str | None, str | None, str | None]:
        """Text, image, sha256, ending."""
        known = (self.picture.path, self.picture.sha256, self.picture.ending) if self.picture else (None, None, None)
        return (self.text, *known)


@dataclass(frozen=True)
class Answers:
    """What a query has been given so far."""

    positives: list[str]
    """Item ids."""
    candidates: list[int] | None = None
    """Item rows: a closed list."""
    scores: dict[str, float] | None = None
    """Item id → published score, of positives and negatives."""

    @classmethod
    def joined(cls, rows: Sequence["Answers"]) -> "Answers":
        """Of several rows, each thing once, in order; of an item that has two scores, the first stays."""
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
    """A query that was put down before."""

    row: int
    key: bytes


class Ledger:
    """The file. One transaction that is never committed: nobody reads it after the import."""

    def __init__(self, path: Path | None):
        """Opens a file at `path`, or for None one without a name, which SQLite keeps among the temporary files."""
        self._db = sqlite3.connect(path or "", isolation_level=None)
        self._db.executescript(SCHEMA)
        self.copied = False
        """Whether images are copied beside the corpus, because one was not a plain file."""

    def close(self) -> None:
        """Lets go of the file."""
        self._db.close()

    def item(self, entry: ImportedContent, pool: str | None) -> tuple[int, str]:
        """Finds or makes an item, and joins it to a pool. Returns its row number and its id."""
        made = self._db.execute(
            "INSERT OR IGNORE INTO items (key, pools, text, image, sha256, ending) VALUES (?, ?, ?, ?, ?, ?)",
            (entry.key, json.dumps([] if pool is None else [pool]), *entry.columns),
        )
        select = "SELECT row, pools, text, sha256 FROM items WHERE key = ?"
        row, found, text, sha256 = self._db.execute(select, (entry.key,)).fetchone()
        if not made.rowcount and pool is not None and pool not in (pools := json.loads(found)):
            self._db.execute("UPDATE items SET pools = ? WHERE row = ?", (json.dumps([*pools, pool]), row))
        return row - 1, content_key(text, sha256).hex()

    def query(self, query_id: str) -> Known | None:
        """The query that bears an id, if there is one."""
        known = self._db.execute("SELECT row, key FROM queries WHERE query_id = ?", (query_id,)).fetchone()
        return known and Known(*known)

    def add_query(self, query_id: str, subset: str, entry: ImportedContent, answers: Answers) -> None:
        """Puts down a query."""
        self._db.execute(
            "INSERT INTO queries (query_id, key, subset, text, image, sha256, ending, answers) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (query_id, entry.key, subset, *entry.columns, json.dumps(vars(answers))),
        )

    def add_answers(self, known: Known, more: Answers) -> None:
        """Puts down what another row answers to a query; all are joined when they are read."""
        self._db.execute("INSERT INTO more (query, answers) VALUES (?, ?)", (known.row, json.dumps(vars(more))))

    def picture(self, name: str | bytes) -> ForeignPicture | Rejected | None:
        """What was found under a name, or under the sha256 of bytes that have none; None before it was opened."""
        known = self._db.execute("SELECT sha256, ending, path, reason FROM pictures WHERE name = ?", (name,)).fetchone()
        if known is None:
            return None
        return ForeignPicture(*known[:3]) if known[3] is None else Rejected(known[3])

    def remember(self, name: str | bytes, found: ForeignPicture | Rejected) -> None:
        """Keeps what was found under a name."""
        if isinstance(found, ForeignPicture):
            good = (name, found.sha256, found.ending, found.path)
            self._db.execute("INSERT INTO pictures (name, sha256, ending, path) VALUES (?, ?, ?, ?)", good)
        else:
            self._db.execute("INSERT INTO pictures (name, reason) VALUES (?, ?)", (name, str(found)))

    def reject(self, place: str, subset: str, reason: Rejected) -> None:
        """Notes a row that cannot be used."""
        line = json.dumps({"row": place, "subset": shown_name(subset), "reason": str(reason)}, ensure_ascii=False)
        # A lone surrogate is written as JSON writes it.
        clean = (text.encode("utf-8", "backslashreplace").decode() for text in (line, reason.kind))
        self._db.execute("INSERT INTO rejects (line, kind) VALUES (?, ?)", tuple(clean))

    def rejects(self) -> Iterator[str]:
        """The lines of rejects.jsonl."""
        for (line,) in self._db.execute("SELECT line FROM rejects ORDER BY row"):
            yield line + "\n"

    @property
    def num_rejects(self) -> int:
        """How many rows were noted as unusable."""
        return int(self._db.execute("SELECT COUNT(*) FROM rejects").fetchone()[0])

    def commonest(self, most: int) -> list[tuple[int, str, str]]:
        """The commonest kinds of rejects: how many there are of each, and place and reason of the first."""
        select = (
            "SELECT found.rows, line FROM "
            "(SELECT COUNT(*) AS rows, MIN(row) AS first FROM rejects GROUP BY kind) AS found "
            "JOIN rejects ON row = first ORDER BY rows DESC, first LIMIT ?"
        )
        found = [(count, json.loads(line)) for count, line in self._db.execute(select, (most,))]
        return [(count, first["row"], first["reason"]) for count, first in found]

    @property
    def sizes(self) -> dict[str, int]:
        """How many queries, items and distinct pictures were put down."""
        select = (
            "SELECT (SELECT COUNT(*) FROM queries), (SELECT COUNT(*) FROM items), (SELECT COUNT(*) FROM ("
            "SELECT sha256 FROM queries WHERE sha256 NOT NULL UNION SELECT sha256 FROM items WHERE sha256 NOT NULL))"
        )
        return dict(zip(("queries", "items", "pictures"), self._db.execute(select).fetchone(), strict=True))

    def plain_pictures(self) -> Iterator[tuple[str, ForeignPicture]]:
        """Name and finding of every good picture that is a file under the root."""
        select = "SELECT path, sha256, ending FROM pictures WHERE path IS NOT NULL"
        for path, sha256, ending in self._db.execute(select):
            yield path, ForeignPicture(sha256, ending, path)

    def items(self) -> Iterator[Item]:
        """Every item, by row number."""
        select = "SELECT pools, text, image, sha256, ending FROM items ORDER BY row"
        for pools, text, *image in self._db.execute(select):
            item_id = content_key(text, image[1]).hex()
            yield Item(item_id, tuple(json.loads(pools)), text, self._path(*image), image[1])

    def queries(self) -> Iterator[Query]:
        """Every query, in order of first appearance."""
        select = "SELECT row, answers, query_id, subset, text, image, sha256, ending FROM queries ORDER BY row"
        for row, given, query_id, subset, text, *image in self._db.execute(select):
            answers = self._answers(row, given)
            closed = None if answers.candidates is None else tuple(answers.candidates)
            yield Query(query_id, subset, tuple(answers.positives), text, self._path(*image), image[1], closed)

    def scored(self) -> Iterator[tuple[str, str, bytes, Answers]]:
        """Id, subset, content hash and answers of every query, in the same order."""
        select = "SELECT row, answers, query_id, subset, text, sha256 FROM queries ORDER BY row"
        for row, given, query_id, subset, text, sha256 in self._db.execute(select):
            yield query_id, subset, content_key(text, sha256), self._answers(row, given)

    def _answers(self, row: int, given: str) -> Answers:
        more = self._db.execute("SELECT answers FROM more WHERE query = ? ORDER BY row", (row,))
        texts = [given, *(found for (found,) in more)]
        return Answers.joined([Answers(**json.loads(text)) for text in texts])

    def _path(self, image: str | None, sha256: str | None, ending: str | None) -> str | None:
        return copied_path(sha256, ending or "") if sha256 and self.copied else image


def copied_path(sha256: str, ending: str) -> str:
    """Where a copied picture lies under the image root: 256 folders, so that none grows too large."""
    return f"{sha256[:2]}/{sha256}.{ending}"
