"""finished.jsonl: the finished steps of a study, with all numbers that the report needs but without the outputs.

`unijudge study report` writes this file into the folder of results. A copy of the file in the folder of results on
another machine resumes the study there: a step of the file does not run again, except if an unfinished step needs its
output.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.studies.measures import CellReading, Floats
from unijudge.errors import DataError
from unijudge.storage.files import publish_text, read_text
from unijudge.storage.stores import exists

FINISHED = "finished.jsonl"


class RightQueries(BaseModel):
    """The queries of a subset whose first item is right, as bits in the order of the queries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queries: int = Field(ge=1)
    bits: str = Field(pattern="^([0-9a-f]{2})+$")
    """Hexadecimal digits. The first query is the highest bit of the first byte."""

    @classmethod
    def of(cls, right: Floats) -> "RightQueries":
        """Packs an array of ones and zeros, of shape (queries,).

        Example:
            >>> RightQueries.of(np.array([1.0, 0.0, 1.0]))
            RightQueries(queries=3, bits='a0')
        """
        packed = np.packbits(right.astype(bool))
        return cls(queries=len(right), bits=packed.tobytes().hex())

    def array(self) -> Floats:
        """Returns the array of ones and zeros, of shape (queries,).

        Example:
            >>> RightQueries(queries=3, bits="a0").array()
            array([1., 0., 1.])
        """
        packed = np.frombuffer(bytes.fromhex(self.bits), np.uint8)
        return np.unpackbits(packed, count=self.queries).astype(np.float64)


class FinishedMeasure(BaseModel):
    """The value of a measure in a finished step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    right: dict[str, RightQueries] | None = None
    """Subset → its right queries. Only for rankings."""

    @classmethod
    def of(cls, reading: CellReading) -> "FinishedMeasure":
        """Packs a reading."""
        if reading.by_query is None:
            return cls(value=reading.value)
        right = {subset: RightQueries.of(values) for subset, values in reading.by_query.items()}
        return cls(value=reading.value, right=right)

    def reading(self) -> CellReading:
        """Returns the reading."""
        if self.right is None:
            return CellReading(self.value)
        by_query = {subset: packed.array() for subset, packed in self.right.items()}
        return CellReading(self.value, by_query)


class FinishedStep(BaseModel):
    """A line of finished.jsonl: a finished run of a step, and its measures."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="finished step of a study")

    name: str
    """The name of the cell, such as `student/k=8,seed=0`."""
    digest: str
    seconds: float
    created: str
    """The UTC time at which the step ended."""
    measures: dict[str, FinishedMeasure | None] = {}
    """Measure → its value, or None if the output lacks the number."""


def read_finished(folder: Path) -> dict[str, FinishedStep]:
    """Returns name → finished step. Empty if the folder has no finished.jsonl.

    Raises:
        DataError: A line is damaged.
    """
    path = folder / FINISHED
    if not exists(path):
        return {}
    steps = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        try:
            step = FinishedStep.model_validate_json(line)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise DataError(
                f"{path}:{number}: not a finished step ({reason}). Delete this line, so that its step runs again"
            ) from error
        steps[step.name] = step
    return steps


def write_finished(folder: Path, steps: Iterable[FinishedStep]) -> None:
    """Writes finished.jsonl, one line for each step, sorted by name."""
    ordered = sorted(steps, key=lambda step: step.name)
    lines = [step.model_dump_json(exclude_none=False) + "\n" for step in ordered]
    publish_text(folder / FINISHED, "".join(lines))
