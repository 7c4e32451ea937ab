"""The measures of a study's cells: a number for each run, and for rankings also a number for each query."""

from collections import defaultdict
from collections.abc import Mapping
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
    """A valid file lacks the number that a study measures."""


@dataclass(frozen=True)
class CellReading:
    """The value of one measure in one cell."""

    value: float
    by_query: Mapping[str, Floats] | None = None
    """Subset → for each query in order, 1 if the first item is right, otherwise 0. Only for rankings."""


RowKey = tuple[str, tuple[tuple[str, str], ...]]
"""The row of a table: the step, and the labels of the axes without the seed, so that all seeds share a row. If a
measure reads only one step, the step is empty, so that all measures of a training share a row."""


def row_of(cell: Cell, measure: Measure) -> RowKey:
    """Returns the row of a cell in the table."""
    labels = tuple((axis, label) for axis, label in cell.labels.items() if axis != SEED)
    return cell.step if len(measure.steps) > 1 else "", labels


def read_measure(measure: Measure, output: Path) -> CellReading:
    """Reads the number that a measure names in the output of a cell.

    Raises:
        NoNumber: The file lacks the number.
        DataError: The file is missing or damaged.
    """
    path = output / measure.file
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
    """Returns the precision@1 of rankings, as the mean over subsets."""
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
            raise DataError(
                f"{path}: a line is not an object of numbers. Train again, or set another file"
            ) from error
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
    """Returns the number of lines after which a running mean has covered 95 % of its total change.

    The total change is the mean of the last tenth of the lines minus the mean of the first tenth.

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
    """Returns the value at a dotted key of nested objects and lists, or None if the key does not exist.

    Example:
        >>> _at({"figures": [{"roc_auc": 0.9}]}, "figures.0.roc_auc"), _at({"figures": []}, "figures.0")
        (0.9, None)
    """
    for part in key.split("."):
        if isinstance(value, list):
            value = dict(zip(map(str, range(len(value))), value, strict=True))
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value
