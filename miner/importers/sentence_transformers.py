"""Triplets, n-tuples and labelled pairs and lists as sentence-transformers trains on them, in any file of rows.

Columns, by the names of its documentation: a query (`anchor`, `query`, `question`, …); what answers it (`positive`,
`answer`, `passage`, `documents`, …); `negative`, or `negative_1` to `negative_n`; optionally `scores`, `score`,
`labels` or `label`: a list with the teacher's score of the positive, then of each negative. A label that is one number
says whether the two match: a row with 1 is a pair, and a row with 0, a labelled mismatch, is left out and counted apart
from what is rejected. A single score in between says neither, and its row is rejected. With a list of documents stands
a list of labels: those with 1 answer the query, those with 0 are negatives. A cell is a text, an image ({bytes, path}
or bytes), or both ({text, image}, each plain or a list of at most one, as `mine export` writes them). A negative that
is null or empty is absent, and so is its score.

Scores become a score folder where one is asked for; else they are only checked. Probabilities are taken for a judge's;
see `building/published_scores.py`.

Source: the dataset formats of the sentence-transformers documentation, and of its mine_hard_negatives.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from miner.importers.building.pair import Mismatch, Pair, Row
from miner.importers.building.published_scores import scores_of
from miner.importers.tables import table_rows
from unijudge.errors import DataError
from unijudge.foreign.cells import Rejected, Side, Unreadable, image_of, text_of
from unijudge.foreign.tables import Columns
from unijudge.shown import shown

QUERY_COLUMNS = ("anchor", "query", "question", "sentence1", "sentence_A")
POSITIVE_COLUMNS = (
    "positive",
    "answer",
    "passage",
    "response",
    "document",
    "documents",
    "docs",
    "sentence2",
    "sentence_B",
)
SCORE_COLUMNS = ("scores", "label", "labels", "score")
NEGATIVE_COLUMN = re.compile(r"negative(?:_(\d{1,9}))?")
KNOWN = "anchor or query, positive, negative or negative_1 …, scores or label"


def read_tuples(places: Path | Sequence[Path], subset: str | None = None, *, strict: bool = False) -> Iterator[Row]:
    """Yields the rows of one or more files.

    Args:
        places: Files, folders of files, or patterns.
        subset: Their name; default: the file's name, or that of the files' folder.
        strict: Whether columns that are not known are an error.

    Raises:
        DataError: Another ending, unreadable, no column that is known, or two of one kind.
    """
    columns = Columns(_is_known, f"{KNOWN} (and the other names of the library's documentation)", strict)
    yield from table_rows(places, columns, partial(_pair, named=subset))


def _is_known(name: str) -> bool:
    return name in (*QUERY_COLUMNS, *POSITIVE_COLUMNS, *SCORE_COLUMNS) or NEGATIVE_COLUMN.fullmatch(name) is not None


def _pair(row: dict[str, Any], place: str, table: str, *, named: str | None) -> Pair:
    subset = named or table
    _check_one_of_each(row, place)
    query, positive, label = (_of(row, names) for names in (QUERY_COLUMNS, POSITIVE_COLUMNS, SCORE_COLUMNS))
    for cell, names in ((query, "anchor or query"), (positive, "positive")):
        if not cell and not isinstance(cell, int):
            raise Rejected(f"has no {names}; expected {KNOWN}")
    label = _parsed(label)
    if isinstance(positive, list) and isinstance(label, list):
        return _labelled_list(query, positive, label, place, subset)
    columns = sorted((name for name in row if NEGATIVE_COLUMN.fullmatch(name)), key=_number)
    there = [number for number, name in enumerate(columns) if row[name]]
    return Pair(
        place,
        subset,
        query=_side(query),
        positive=_side(positive),
        negatives=tuple(_side(row[columns[number]]) for number in there),
        scores=_scores(label, len(columns), there),
    )


def _check_one_of_each(row: dict[str, Any], place: str) -> None:
    for names in (QUERY_COLUMNS, POSITIVE_COLUMNS, SCORE_COLUMNS):
        there = [name for name in names if name in row]
        if len(there) > 1:
            raise DataError(f"{place}: has both {there[0]!r} and {there[1]!r}; keep one of them")


def _of(row: dict[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if name in row), None)


def _labelled_list(query: Any, documents: list[Any], labels: list[Any], place: str, subset: str) -> Pair:
    if len(documents) != len(labels):
        raise Rejected(f"{len(documents)} documents and {len(labels)} labels; expected one for each")
    if any(label not in (0, 1) for label in labels):
        raise Rejected(f"labels {shown(labels)} of a list of documents: expected 1 where one matches, and 0")
    right = [_side(one) for one, label in zip(documents, labels, strict=True) if label]
    wrong = [_side(one) for one, label in zip(documents, labels, strict=True) if not label]
    if not right:
        raise Mismatch("no document is labelled a match")
    return Pair(place, subset, _side(query), right[0], more_positives=tuple(right[1:]), negatives=tuple(wrong))


def _side(cell: Any) -> Side:
    match cell:
        case str() | int():
            return Side(text_of(cell), None)
        case dict() if cell and set(cell) <= {"text", "image"}:
            return Side(text_of(_only(cell.get("text"))), image_of(_only(cell.get("image"))))
        case [_, _, *_]:
            raise Rejected(f"{len(cell)} documents in one cell; with such a list stands a list of labels, 1 and 0")
    return Side(None, image_of(cell))


def _only(value: Any) -> Any:
    """What stands in a list of at most one."""
    if not isinstance(value, list):
        return value
    if len(value) > 1:
        raise Rejected(f"{len(value)} texts or images in one cell; expected one of each, or none")
    return value[0] if value else None


def _parsed(cell: Any) -> Any:
    """Scores or labels; in CSV they stand as a JSON list."""
    if isinstance(cell, Unreadable):
        raise Rejected(cell.reason)
    if not isinstance(cell, str) or not cell:
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"scores {shown(cell)} are not a JSON list") from error


def _scores(given: Any, negatives: int, there: list[int]) -> tuple[float, ...] | None:
    """The positive's, then those of the negatives that are there."""
    if given in (None, "", []):
        return None
    if isinstance(given, int | float) and given in (0, 1):  # or true and false
        if not given:
            raise Mismatch(f"label {given}: a labelled mismatch, so the two are no pair")
        return None
    if isinstance(given, int | float):
        raise Rejected(f"score {shown(given)}: one number does not say whether the two match; expected 0, 1 or a list")
    if not isinstance(given, list):
        raise Rejected(f"scores {shown(given)}: expected a list, the positive's first")
    if len(given) != 1 + negatives:
        raise Rejected(f"{len(given)} scores for a positive and {negatives} columns of negatives")
    return scores_of([given[0], *(given[1 + number] for number in there)])


def _number(column: str) -> int:
    match = NEGATIVE_COLUMN.fullmatch(column)
    return int(match[1] or 0) if match else 0
