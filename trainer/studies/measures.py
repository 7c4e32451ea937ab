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
from unijudge.formats.rankings import read_rankings
from unijudge.storage.files import read_json, read_text

Floats = npt.NDArray[np.float64]
_LINE = TypeAdapter(dict[str, float])
TENTH = 10
NEARLY = 0.95


class Tree(RootModel[dict[str, Any]]):
    """Any JSON object."""


class NoNumber(DataError):
    """A file is whole, but has not the number that a study measures."""


@dataclass(frozen=True)
class CellReading:
    """One measure of one cell."""

    value: float
    by_query: Mapping[str, Floats] | None = None
    """Subset → for each query in order, 1 where its first item is right. Of rankings only."""


RowKey = tuple[str, tuple[tuple[str, str], ...]]
"""The step, and the axes' labels without the seed: the same for all seeds. The step is empty where a measure is of one
step: measures of one training stand in one row."""


def row_of(cell: Cell, measure: Measure) -> RowKey:
    """Where a cell stands in a table."""
    labels = tuple((axis, label) for axis, label in cell.labels.items() if axis != SEED)
    return cell.step if len(measure.steps) > 1 else "", labels


def read_measure(measure: Measure, cells: Sequence[Cell], out: Path) -> dict[RowKey, dict[int, CellReading]]:
    """RowKey → seed → what was measured, for the cells that are done.

    A cell without the number has no reading if another cell has one: a training without lists has no listwise loss.

    Raises:
        DataError: A file is missing or torn, or no cell has such a number.
    """
    found: dict[RowKey, dict[int, CellReading]] = defaultdict(dict)
    missing: NoNumber | None = None
    for cell in cells:
        if cell.step not in measure.steps:
            continue
        try:
            found[row_of(cell, measure)][cell.seed] = _read(measure, out / cell.name / measure.file)
        except NoNumber as error:
            missing = missing or error
    if missing is not None and not found:
        raise missing
    return dict(found)


def _read(measure: Measure, path: Path) -> CellReading:
    if path.suffix == ".parquet":
        return _precision(path)
    key = measure.key or ""
    if path.suffix == ".jsonl":
        return CellReading(_of_lines(path, key, measure.of))
    value = _at(read_json(path, Tree).root, key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise NoNumber(f"{path}: has no number at {key}. Correct `key` in the study's file")
    return CellReading(float(value))


def _precision(path: Path) -> CellReading:
    """precision@1: the mean over subsets."""
    firsts: dict[str, list[float]] = defaultdict(list)
    for ranking in read_rankings(path):
        firsts[ranking.subset].append(float(ranking.gold_rank == 1))
    by_query = {subset: np.array(values) for subset, values in sorted(firsts.items())}
    return CellReading(float(np.mean([values.mean() for values in by_query.values()])), by_query)


def _of_lines(path: Path, key: str, of: str) -> float:
    values = []
    for line in read_text(path).splitlines():
        try:
            values.append(_LINE.validate_json(line).get(key))
        except ValidationError as error:
            raise DataError(f"{path}: a line is no object of numbers. Train again, or measure another file") from error
    numbers = np.array([value for value in values if value is not None])
    if not len(numbers):
        raise NoNumber(f"{path}: no line has {key}. Correct `key` in the study's file")
    some = max(1, len(numbers) // TENTH)
    if of == "steps_to_95":
        return float(_steps_to_95(numbers, some))
    if of == "largest":
        return float(numbers.max())
    if of == "deviation":
        return float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    return float((numbers[:some] if of == "first" else numbers[-some:]).mean())


def _steps_to_95(numbers: Floats, some: int) -> int:
    """Lines after which a running mean has gone 95 % of the way from the first tenth's mean to the last tenth's.

    Example:
        >>> _steps_to_95(np.array([1.0, 0.5, 0.0, 0.0, 0.0]), 1)
        3
    """
    means = np.convolve(numbers, np.ones(some) / some, mode="valid")
    way = means[-1] - means[0]
    if way == 0:
        return some
    return int(np.argmax((means - means[0]) / way >= NEARLY)) + some


def _at(value: Any, key: str) -> Any:
    """What stands at a dotted place of a tree."""
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value
