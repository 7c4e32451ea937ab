"""Triplets and n-tuples as sentence-transformers trains on them, in Parquet, JSONL or CSV.

Columns: `anchor` or `query`; `positive`; `negative`, or `negative_1` to `negative_n`; optionally `scores` or `label`,
a list with the teacher's probability of the positive, then of each negative. A `label` that is one number says whether
the two match: a row with 1 is a pair, and a row with 0, a labelled mismatch, is rejected. A cell is a text, an image
({bytes, path} or bytes), or both ({text, image}, each plain or a list of at most one, as `mine export` writes them). A
negative that is null or empty is absent, and so is its score.

Scores become a score folder where one is asked for; else they are only checked.

Source: the dataset formats of the sentence-transformers documentation, and of its mine_hard_negatives.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from miner.importers.published import scores_of
from miner.importers.rows import Pair, Rejected, Side, Unread, image_of, readable, text_of
from miner.importers.tables import read_rows
from unijudge.errors import DataError

NEGATIVE = re.compile(r"negative(?:_(\d+))?")
KNOWN = "anchor or query, positive, negative or negative_1 …, scores or label"


def read_tuples(path: Path, subset: str | None = None) -> Iterator[Pair | Unread]:
    """Yields the rows of one file; `subset` names them, default: the file's name.

    Raises:
        DataError: Another ending, unreadable, or columns that are not known.
    """
    for number, row in enumerate(read_rows(path), start=1):
        for name in row:
            if name not in ("anchor", "query", "positive", "scores", "label") and not NEGATIVE.fullmatch(name):
                raise DataError(f"{path}:{number}: unknown column {name!r}; known are {KNOWN}")
        for names in (("anchor", "query"), ("scores", "label")):
            if set(names) <= set(row):
                raise DataError(f"{path}:{number}: has both {names[0]!r} and {names[1]!r}; keep one of them")
        yield readable(_pair, row, f"{path.name}:{number}", subset or path.stem)


def _pair(row: dict[str, Any], place: str, subset: str) -> Pair:
    for names in (("anchor", "query"), ("positive",)):
        if not any(row.get(name) for name in names):
            raise Rejected(f"has no {' or '.join(names)}; expected {KNOWN}")
    columns = sorted((name for name in row if NEGATIVE.fullmatch(name)), key=_number)
    there = [number for number, name in enumerate(columns) if row[name]]
    return Pair(
        place,
        subset,
        query=_side(row.get("anchor") or row.get("query")),
        positive=_side(row["positive"]),
        negatives=tuple(_side(row[columns[number]]) for number in there),
        scores=_scores(row, len(columns), there),
    )


def _side(cell: Any) -> Side:
    match cell:
        case str():
            return Side(cell, None)
        case dict() if cell and set(cell) <= {"text", "image"}:
            return Side(text_of(_only(cell.get("text"))), image_of(_only(cell.get("image"))))
    return Side(None, image_of(cell))


def _only(value: Any) -> Any:
    """What stands in a list of at most one."""
    if not isinstance(value, list):
        return value
    if len(value) > 1:
        raise Rejected(f"{len(value)} texts or images in one cell; expected one of each, or none")
    return value[0] if value else None


def _scores(row: dict[str, Any], negatives: int, there: list[int]) -> tuple[float, ...] | None:
    """The positive's, then those of the negatives that are there; in CSV they stand as a JSON list."""
    given = row.get("scores", row.get("label"))
    if isinstance(given, str) and given:
        try:
            given = json.loads(given)
        except json.JSONDecodeError as error:
            raise Rejected(f"scores {given[:40]!r} are not a JSON list") from error
    if given in (None, "", []):
        return None
    if row.get("label") is not None and given in (0, 1):  # a number, true or false
        if not given:
            raise Rejected(f"label {given}: a labelled mismatch, so the two are no pair")
        return None
    if not isinstance(given, list):
        raise Rejected(f"scores {given!r}: expected a list, the positive's first")
    if len(given) != 1 + negatives:
        raise Rejected(f"{len(given)} scores for a positive and {negatives} columns of negatives")
    return scores_of([given[0], *(given[1 + number] for number in there)])


def _number(column: str) -> int:
    match = NEGATIVE.fullmatch(column)
    return int(match[1] or 0) if match else 0
