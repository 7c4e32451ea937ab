"""What was measured in the cells of a study: one number for each run; of rankings, one for each query too."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import RootModel, TypeAdapter, ValidationError

from trainer.studies.cells import Cell
from trainer.studies.study import SEED, Measure
from unijudge.errors import DataError
from unijudge.files import read_json, read_text
from unijudge.rankings import read_rankings

Floats = npt.NDArray[np.float64]
_LINE = TypeAdapter(dict[str, float])
TENTH = 10


class Tree(RootModel[dict[str, Any]]):
    """Any JSON object."""


@dataclass(frozen=True)
class Reading:
    """One measure of one cell."""

    value: float
    by_query: Mapping[str, Floats] | None = None
    """Subset → for each query in order, 1 where its first item is right. Of rankings only."""


Row = tuple[str, tuple[tuple[str, str], ...]]
"""The step, and the axes' labels without the seed: the same for all seeds."""


def row_of(cell: Cell) -> Row:
    """Where a cell stands in a table."""
    return cell.step, tuple((axis, label) for axis, label in cell.labels.items() if axis != SEED)


def read_measure(measure: Measure, cells: Sequence[Cell], out: Path) -> dict[Row, dict[int, Reading]]:
    """Row → seed → what was measured, for the cells that are done.

    Raises:
        DataError: A file is missing or torn, or has no such number.
    """
    found: dict[Row, dict[int, Reading]] = defaultdict(dict)
    for cell in cells:
        if cell.step in measure.steps:
            found[row_of(cell)][cell.seed] = _read(measure, out / cell.name / measure.file)
    return dict(found)


def _read(measure: Measure, path: Path) -> Reading:
    if path.suffix == ".parquet":
        return _precision(path)
    key = measure.key or ""
    if path.suffix == ".jsonl":
        return Reading(_of_lines(path, key, measure.of))
    value = _at(read_json(path, Tree).root, key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise DataError(f"{path}: has no number at {key}. Correct `key` in the study's file")
    return Reading(float(value))


def _precision(path: Path) -> Reading:
    """precision@1: the mean over subsets."""
    firsts: dict[str, list[float]] = defaultdict(list)
    for ranking in read_rankings(path):
        firsts[ranking.subset].append(float(ranking.gold_rank == 1))
    by_query = {subset: np.array(values) for subset, values in sorted(firsts.items())}
    return Reading(float(np.mean([values.mean() for values in by_query.values()])), by_query)


def _of_lines(path: Path, key: str, of: str) -> float:
    values = []
    for line in read_text(path).splitlines():
        try:
            values.append(_LINE.validate_json(line).get(key))
        except ValidationError as error:
            raise DataError(f"{path}: a line is no object of numbers. Train again, or measure another file") from error
    numbers = np.array([value for value in values if value is not None])
    if not len(numbers):
        raise DataError(f"{path}: no line has {key}. Correct `key` in the study's file")
    some = max(1, len(numbers) // TENTH)
    if of == "largest":
        return float(numbers.max())
    if of == "deviation":
        return float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    return float((numbers[:some] if of == "first" else numbers[-some:]).mean())


def _at(value: Any, key: str) -> Any:
    """What stands at a dotted place of a tree."""
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value
