"""Reads labelled pairs from files: a query, a candidate, and whether the two match.

The layout is guessed from the first row of a file:

    pairs       query_text, query_image, candidate_text, candidate_image, label; optional: subset, kind
    mmeb        qry, qry_image_path, pos_text, pos_image_path, and neg_text, neg_image_path: one negative, or a list of
                negatives; also numbered, as in neg_text_1. The positive matches, the negatives do not
    sugarcrepe  filename, caption, negative_caption: the picture is the query; the kind is the file's name

An invalid row stops the reading: a measurement without some of the rows would be a different measurement.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unijudge.errors import DataError
from unijudge.foreign.cells import (
    Rejected,
    Side,
    check_clean,
    id_of,
    image_of,
    present,
    text_of,
    truth_of,
)
from unijudge.foreign.columns import Columns
from unijudge.foreign.json_rows import object_rows
from unijudge.foreign.layouts import MMEB_TRAIN, SUGARCREPE, sugarcrepe_row, without_marker
from unijudge.foreign.tables import ending_of, files_of, name_of, read_rows, shared_folder
from unijudge.judging.prompt import is_blank
from unijudge.shown import listed, shown

logger = logging.getLogger(__name__)

Format = Literal["pairs", "mmeb", "sugarcrepe"]
Cells = Mapping[str, Any]
"""The cells of a row: column → cell."""

CANDIDATE = {"candidate_text", "candidate_image"}
PAIRS = ("query_text", "query_image", *sorted(CANDIDATE), "label", "subset", "kind")
MMEB = frozenset(name for names in MMEB_TRAIN for name in names)
NEGATIVE = re.compile(r"neg_(?P<content>text|image_path|image)(?P<number>_\d{1,9})?")
"""The name of a column of negatives in MMEB's layout."""
SHARD = re.compile(r".+-\d+(-of-\d+)?")
"""The name of a file that is one part of a split of MMEB. The folder of such a file has the name of the subset."""


@dataclass(frozen=True)
class LabelledPair:
    """A pair with its label: whether the two sides match."""

    place: str
    """The file and the row, for messages: `CIRR/original-00000.parquet:17`. The path starts below the shared folder."""
    subset: str
    kind: str | None
    """The method that made a hard negative. None if the file does not name a method."""
    query: Side
    candidate: Side
    match: bool


def read_labelled(
    places: Sequence[Path], layout: Format | None = None, instruction: str | None = None
) -> list[LabelledPair]:
    """Returns the pairs of all files, in order and without duplicates.

    Args:
        places: Files, folders of files, or patterns.
        layout: The layout of all files. None: guessed for each file.
        instruction: For SugarCrepe, the text beside each picture.

    Raises:
        DataError: A file cannot be read or has an unknown layout; a row is invalid; two rows contradict each other;
            the files have no pair; or all pairs have the same label.
    """
    rows = 0
    pairs: dict[tuple[str, str | None, Side, Side], LabelledPair] = {}
    labels: dict[tuple[Side, Side], LabelledPair] = {}
    files = files_of(places)
    folder = shared_folder(files)
    for path in files:
        name = str(path)[len(folder) :].lstrip("/")
        for pair in _pairs_of(path, name, layout, instruction):
            # The same two sides cannot match in one row and differ in another.
            first = labels.setdefault((pair.query, pair.candidate), pair)
            if first.match != pair.match:
                raise DataError(
                    f"{folder or '.'}: {pair.place} and {first.place} have the same pair with different labels. Remove "
                    "one of the two rows"
                )
            pairs.setdefault((pair.subset, pair.kind, pair.query, pair.candidate), pair)
            rows += 1

    if rows > len(pairs):
        logger.info("%d of %d pairs are duplicates, which count once", rows - len(pairs), rows)
    _check_labels(places, list(pairs.values()))
    return list(pairs.values())


def sampled(pairs: Sequence[LabelledPair], size: int, seed: int) -> list[LabelledPair]:
    """Draws at most `size` queries of each subset uniformly, and returns all of their pairs, in order."""
    # Subset → its distinct queries, in order.
    queries: dict[str, dict[Side, None]] = {}
    for pair in pairs:
        queries.setdefault(pair.subset, {})[pair.query] = None

    rng = np.random.default_rng(seed)
    chosen: set[tuple[str, Side]] = set()
    for subset, distinct in queries.items():
        ordered = list(distinct)
        drawn = rng.permutation(len(ordered))[:size]
        chosen |= {(subset, ordered[index]) for index in drawn}
    return [pair for pair in pairs if (pair.subset, pair.query) in chosen]


def _check_labels(places: Sequence[Path], pairs: Sequence[LabelledPair]) -> None:
    name = str(places[0]) if len(places) == 1 else f"{places[0]} and {len(places) - 1} more"
    matches = sum(pair.match for pair in pairs)
    if not pairs:
        raise DataError(f"{name}: has no rows. Give a file of labelled pairs")
    if matches == len(pairs):
        raise DataError(
            f"{name}: all {matches:,} pairs match, so ROC-AUC is undefined. Add pairs that do not match"
        )
    if not matches:
        raise DataError(
            f"{name}: none of {len(pairs):,} pairs matches, so ROC-AUC is undefined. Add pairs that match"
        )


def _pairs_of(
    path: Path, name: str, layout: Format | None, instruction: str | None
) -> Iterator[LabelledPair]:
    """Yields the pairs of one file. `name` stands for the file in `LabelledPair.place`."""
    # The first row decides the layout. A file without rows has no pairs.
    is_object = _is_object_of_rows(path)
    _, first = ("", {}) if is_object else next(read_rows(path), (0, None))
    if first is None:
        return
    if layout is None:
        layout = "sugarcrepe" if is_object else _guessed(path, first)
    if layout == "pairs" and "label" not in first:
        raise DataError(
            f"{path}: has no column 'label'. Add this column: 1 if query and candidate match, else 0"
        )

    columns = _columns(layout)
    for number, row in object_rows(path) if is_object else read_rows(path, columns):
        try:
            yield from _made(layout, row, path, f"{name}:{number}", instruction)
        except Rejected as reason:
            raise DataError(f"{path}:{number}: {reason}. Correct the row or remove it") from reason
    columns.tell_unknown(path)


def _is_object_of_rows(path: Path) -> bool:
    """Whether a JSON file is an object whose values are rows, as in the published SugarCrepe files."""
    if ending_of(path) != ".json":
        return False
    try:
        _, first = next(object_rows(path), ("", None))
    except DataError:  # `read_rows` reads an array, and reports a missing file
        return False
    return isinstance(first, dict) and not first.keys().isdisjoint(SUGARCREPE)


def _guessed(path: Path, row: Cells) -> Format:
    """Guesses the layout of a file from the columns of its first row.

    Raises:
        DataError: The layout is unknown.
    """
    if not CANDIDATE.isdisjoint(row):
        return "pairs"
    if "qry" in row:
        return "mmeb"
    if set(SUGARCREPE) <= row.keys():
        return "sugarcrepe"
    raise DataError(
        f"{path}: unknown layout ({listed(list(row)) or 'no columns'}). Use the columns of a file of pairs "
        f"({', '.join(PAIRS)}), of MMEB with negatives (qry, …, neg_text, neg_image_path), or of SugarCrepe "
        f"({', '.join(SUGARCREPE)})"
    )


def _columns(layout: Format) -> Columns:
    match layout:
        case "pairs":
            return Columns(PAIRS.__contains__, ", ".join(PAIRS))
        case "mmeb":
            return Columns(
                lambda name: name in MMEB or NEGATIVE.fullmatch(name) is not None,
                ", ".join(sorted(MMEB)),
            )
        case "sugarcrepe":
            return Columns(SUGARCREPE.__contains__, ", ".join(SUGARCREPE))


def _made(
    layout: Format, row: Any, path: Path, place: str, instruction: str | None
) -> Iterable[LabelledPair]:
    """Returns the pairs of one row.

    Raises:
        Rejected: The row is invalid.
    """
    if layout == "sugarcrepe":
        return _of_sugarcrepe(row, name_of(path), place, instruction)
    cells = {name: present(cell) for name, cell in row.items()}
    if layout == "pairs":
        return [_of_pairs(cells, row, name_of(path), place)]
    return _of_mmeb(cells, path, place)


def _of_pairs(cells: Cells, row: Cells, table: str, place: str) -> LabelledPair:
    for name in ("subset", "kind"):
        check_clean(name, id_of(cells.get(name)) or "")
    match = truth_of(row.get("label"))
    if match is None:
        raise Rejected(f"label {shown(row.get('label'))} is neither 1 (a match) nor 0")
    return LabelledPair(
        place,
        subset=id_of(cells.get("subset")) or table,
        kind=id_of(cells.get("kind")) or None,
        query=_side("the query", text_of(cells.get("query_text")), cells.get("query_image")),
        candidate=_side(
            "the candidate", text_of(cells.get("candidate_text")), cells.get("candidate_image")
        ),
        match=match,
    )


def _first(cells: Cells, names: Sequence[str]) -> Any:
    """Returns the cell of the first of these columns that the row has."""
    return next((cells[name] for name in names if name in cells), None)


def _of_mmeb(cells: Cells, path: Path, place: str) -> Iterator[LabelledPair]:
    query_text, query_image, positive_text, positive_image = (
        _first(cells, names) for names in MMEB_TRAIN
    )
    subset = path.absolute().parent.name if SHARD.fullmatch(name_of(path)) else name_of(path)
    query = _side("qry", _plain(query_text), query_image)
    yield LabelledPair(
        place, subset, None, query, _side("pos", _plain(positive_text), positive_image), match=True
    )
    for text, image in _negatives(cells):
        if not is_blank(text) or image:
            yield LabelledPair(place, subset, None, query, _side("neg", text, image), match=False)


def _negatives(cells: Cells) -> Iterator[tuple[str, Any]]:
    """Yields the text and the picture of each negative of a row. Both are empty in subsets without negatives."""
    # Number of the column → "text" or "image" → its cells.
    numbers: dict[str, dict[str, list[Any]]] = {}
    for name, cell in cells.items():
        column = NEGATIVE.fullmatch(name)
        if column is None:
            continue
        content = "text" if column["content"] == "text" else "image"
        of_number = numbers.setdefault(column["number"] or "", {})
        of_number[content] = cell if isinstance(cell, list) else [cell]

    for of_number in numbers.values():
        texts = of_number.get("text", [])
        images = of_number.get("image", [])
        for text, image in zip_longest(texts, images):
            yield _plain(text), image


def _of_sugarcrepe(
    row: Any, name: str, place: str, instruction: str | None
) -> Iterator[LabelledPair]:
    picture, caption, negative = sugarcrepe_row(row)
    query = Side(instruction, picture)
    yield LabelledPair(place, "sugarcrepe", None, query, Side(caption, None), match=True)
    yield LabelledPair(place, "sugarcrepe", name, query, Side(negative, None), match=False)


def _plain(cell: Any) -> str:
    return without_marker(text_of(present(cell)))


def _side(what: str, text: str | None, image: Any) -> Side:
    """Returns one side of a pair.

    Raises:
        Rejected: Text and picture are both missing, the text cannot be stored, or the cell is not a picture.
    """
    side = Side(text or None, image_of(image) or None)
    check_clean(what, side.text or "")
    if is_blank(side.text) and side.image is None:
        raise Rejected(f"{what} has neither a text nor a picture")
    return side
