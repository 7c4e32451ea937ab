"""Reads the training data of sentence-transformers: triplets, n-tuples, labelled pairs and labelled lists.

The columns have the names of the library's documentation:

* a query: `anchor`, `query`, `question`, …
* a positive: `positive`, `answer`, `passage`, `documents`, …
* negatives: `negative`, or `negative_1` to `negative_n`. A negative that is null or empty is ignored with its score.
* optional scores or labels: `scores`, `score`, `labels` or `label`.

A list of scores holds the teacher's score of the positive, then of each negative. A label of a pair is a number: 1 for
a match and 0 for a labelled mismatch. Labelled mismatches are left out and counted separately from rejected rows. A
single number between 0 and 1 does not decide whether a pair matches, so its row is rejected. For a list of documents
there is a list of labels: 1 for documents that answer the query, and 0 for negatives.

A cell is a text, an image ({bytes, path} or bytes), or both ({text, image}, each a value or a list of at most one, as
`mine export` writes them).

Scores are written to a score folder on request, and otherwise only checked. Probabilities count as the scores of a
judge. See `building/published_scores.py`.

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
from unijudge.foreign.columns import Columns
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


def read_tuples(
    places: Path | Sequence[Path], subset: str | None = None, *, strict: bool = False
) -> Iterator[Row]:
    """Yields the rows of one or more files.

    Args:
        places: Files, folders of files, or patterns.
        subset: The subset of all rows, by default the name of the file or of the files' folder.
        strict: Whether unknown columns are an error.

    Raises:
        DataError: A file has an unknown ending, cannot be read, has no known column, or two columns of the same kind.
    """
    columns = Columns(
        _is_known, f"{KNOWN} (and the other names of the library's documentation)", strict
    )
    yield from table_rows(places, columns, partial(_pair, named=subset))


def _is_known(name: str) -> bool:
    return (
        name in (*QUERY_COLUMNS, *POSITIVE_COLUMNS, *SCORE_COLUMNS)
        or NEGATIVE_COLUMN.fullmatch(name) is not None
    )


def _pair(row: dict[str, Any], place: str, table: str, *, named: str | None) -> Pair:
    subset = named or table
    _check_one_of_each(row, place)
    query, positive = _of(row, QUERY_COLUMNS), _of(row, POSITIVE_COLUMNS)
    for cell, names in ((query, "anchor or query"), (positive, "positive")):
        if not cell and not isinstance(cell, int):
            raise Rejected(f"has no {names}. The expected columns are {KNOWN}")
    label = _parsed(_of(row, SCORE_COLUMNS))
    if isinstance(positive, list) and isinstance(label, list):
        return _labelled_list(query, positive, label, place, subset)

    # Empty negatives are left out, and `_scores` leaves out their scores.
    columns = sorted((name for name in row if NEGATIVE_COLUMN.fullmatch(name)), key=_number)
    present = [number for number, name in enumerate(columns) if row[name]]
    return Pair(
        place,
        subset,
        query=_side(query),
        positive=_side(positive),
        negatives=tuple(_side(row[columns[number]]) for number in present),
        scores=_scores(label, len(columns), present),
    )


def _check_one_of_each(row: dict[str, Any], place: str) -> None:
    for names in (QUERY_COLUMNS, POSITIVE_COLUMNS, SCORE_COLUMNS):
        present = [name for name in names if name in row]
        if len(present) > 1:
            raise DataError(
                f"{place}: has both columns {present[0]!r} and {present[1]!r}. Keep only one of them"
            )


def _of(row: dict[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if name in row), None)


def _labelled_list(
    query: Any, documents: list[Any], labels: list[Any], place: str, subset: str
) -> Pair:
    if len(documents) != len(labels):
        raise Rejected(
            f"has {len(documents)} documents and {len(labels)} labels, but needs a label for each document"
        )
    if any(label not in (0, 1) for label in labels):
        raise Rejected(
            f"labels {shown(labels)} of a list of documents are not all 1 (a match) or 0 (a negative)"
        )
    positives = [
        _side(document) for document, label in zip(documents, labels, strict=True) if label
    ]
    negatives = [
        _side(document) for document, label in zip(documents, labels, strict=True) if not label
    ]
    if not positives:
        raise Mismatch("no document is labelled as a match")
    first, *more = positives
    return Pair(
        place, subset, _side(query), first, more_positives=tuple(more), negatives=tuple(negatives)
    )


def _side(cell: Any) -> Side:
    match cell:
        case str() | int():
            return Side(text_of(cell), None)
        case dict() if cell and set(cell) <= {"text", "image"}:
            return Side(text_of(_only(cell.get("text"))), image_of(_only(cell.get("image"))))
        case [_, _, *_]:
            raise Rejected(
                f"has {len(cell)} documents in one cell, but no list of labels, 1 or 0, for them"
            )
    return Side(None, image_of(cell))


def _only(value: Any) -> Any:
    """Returns the element of a list of at most one element, or a value that is no list."""
    if not isinstance(value, list):
        return value
    if len(value) > 1:
        raise Rejected(
            f"has {len(value)} texts or images in one cell, but a cell may hold only one of each"
        )
    return value[0] if value else None


def _parsed(cell: Any) -> Any:
    """Returns scores or labels. In CSV, lists are written as JSON."""
    if isinstance(cell, Unreadable):
        raise Rejected(cell.reason)
    if not isinstance(cell, str) or not cell:
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"scores {shown(cell)} are not a JSON list") from error


def _scores(given: Any, negatives: int, present: list[int]) -> tuple[float, ...] | None:
    """Returns the score of the positive, then the scores of the negatives that are present.

    Args:
        given: The cell of scores or labels.
        negatives: Number of columns of negatives.
        present: Numbers of the columns with a negative, from 0.
    """
    if given in (None, "", []):
        return None
    if isinstance(given, int | float) and given in (0, 1):  # or true and false
        if not given:
            raise Mismatch(f"label {given}: a labelled mismatch is not a pair")
        return None
    if isinstance(given, int | float):
        raise Rejected(
            f"score {shown(given)} does not decide whether the pair matches. Expected 0, 1 or a list"
        )
    if not isinstance(given, list):
        raise Rejected(
            f"scores {shown(given)} are not a list that begins with the positive's score"
        )
    if len(given) != 1 + negatives:
        raise Rejected(
            f"has {len(given)} scores, but a positive and {negatives} columns of negatives"
        )
    negative_scores = [given[1 + number] for number in present]
    return scores_of([given[0], *negative_scores])


def _number(column: str) -> int:
    match = NEGATIVE_COLUMN.fullmatch(column)
    return int(match[1] or 0) if match else 0
