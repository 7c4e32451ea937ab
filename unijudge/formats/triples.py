"""A folder of training rows: triples.json last, part-00000.parquet …; a query, its positive, its chosen negatives.

`mine select` writes it; the trainer reads it. Log-probabilities travel along, never a saturated score, so that soft
labels can be made at any temperature. In a cascade a row may hold the words of two judges, each with its own scale:
their scores are comparable only where both were calibrated.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from unijudge.errors import DataError
from unijudge.formats.scores import JUDGED, UNKNOWN, Judged
from unijudge.formats.tables import Table
from unijudge.judging.verdicts import sigmoid
from unijudge.provenance import Provenance
from unijudge.storage.files import names_in, publish_json, read_json

ROWS_IN_PART = 65_536


class Scale(BaseModel):
    """How one judge's log-odds become scores: sigmoid(slope · log_odds + intercept).

    Example:
        >>> Scale(slope=0.5).score(Judged("a", bytes(16), 0, 0.5, yes_logprob=-1.0, no_logprob=-1.0))
        0.5
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: float = Field(1.0, gt=0)
    intercept: float = 0.0

    def score(self, judged: Judged) -> float:
        """The score of a judged pair, in (0, 1).

        Raises:
            ValueError: The pair has no verdict.
        """
        if judged.log_odds is None:
            raise ValueError(f"item {judged.item_id!r} has no verdict: {judged.error}")
        return sigmoid(self.slope * judged.log_odds + self.intercept)


@dataclass(frozen=True)
class Negative(Judged):
    """A chosen candidate, and how it came to be chosen."""

    beta: float | None = None
    """The margin under the positive's score at which it survived; None where no judge decided."""
    duplicate: bool = False
    """It stands in the row already, and fills it up."""
    fallback: bool = False
    """Nothing survived; it was drawn at random, and a teacher's score of 1 is what the paper gives it."""
    judge: int = 0
    """Whose log-probabilities these are: a place in the manifest's `scales`."""
    overruled: bool = False
    """A person says that it does not answer the query, whatever the judge says, or without a verdict."""

    def label(self, scales: Sequence[Scale]) -> float | None:
        """Its soft label, in [0, 1]; None where nobody judged.

        The judge's score; but 1 for a fallback, as the paper has it, and 0 where a person overruled the judge.
        """
        if self.fallback:
            return 1.0
        if self.overruled:
            return 0.0
        return None if self.log_odds is None else scales[self.judge].score(self)


@dataclass(frozen=True)
class Extra(Judged):
    """A further positive: offered, never trained on unasked."""

    judge: int = 0
    """Whose log-probabilities these are: a place in the manifest's `scales`."""
    affirmed: bool = False
    """A person calls it a match, whatever the judge says, or without a verdict."""

    def label(self, scales: Sequence[Scale]) -> float | None:
        """Its soft label, in (0, 1]: 1 where a person calls it a match, else its score; None where nobody judged."""
        if self.affirmed:
            return 1.0
        return None if self.log_odds is None else scales[self.judge].score(self)


@dataclass(frozen=True)
class Triple:
    """One training row. Selection writes it, the trainer reads it."""

    query_id: str
    subset: str
    positive: Judged
    negatives: list[Negative]
    extra_positives: list[Extra] = field(default_factory=list)
    """Candidates that the judge holds for at least as good as the positive, or that a person calls a match."""
    suspect: bool = False
    """The judge does not believe in the positive."""
    weight: float = 1.0
    """Of the row in the loss, 0 … 1."""
    positive_judge: int = 0
    """Whose log-probabilities the positive's are: a place in the manifest's `scales`."""
    positive_affirmed: bool = False
    """A person calls the positive a match: its label is 1, whatever the judge says, or without a verdict."""

    def labels(self, scales: Sequence[Scale]) -> list[float | None]:
        """The soft labels in [0, 1] of the positive and of the negatives, in order; None where nobody judged."""
        positive = Extra(**vars(self.positive), judge=self.positive_judge, affirmed=self.positive_affirmed)
        return [positive.label(scales), *(negative.label(scales) for negative in self.negatives)]

    @property
    def judges(self) -> set[int]:
        """Whose scores its labels are; of two judges, they are comparable only where both were calibrated."""
        asked = [one for one in self.negatives if not one.fallback and not one.overruled and one.log_odds is not None]
        judged_positive = set() if self.positive_affirmed else {self.positive_judge}
        return judged_positive | {one.judge for one in asked}


NEGATIVE = [
    *JUDGED,
    ("beta", pa.float32()),
    ("duplicate", pa.bool_()),
    ("fallback", pa.bool_()),
    ("judge", pa.int8()),
    ("overruled", pa.bool_()),
]

TRIPLES = Table(
    "triples",
    5,
    pa.schema(
        [
            ("query_id", pa.string()),
            ("subset", pa.string()),
            ("positive", pa.struct(JUDGED)),
            ("negatives", pa.list_(pa.struct(NEGATIVE))),
            ("extra_positives", pa.list_(pa.struct([*JUDGED, ("judge", pa.int8()), ("affirmed", pa.bool_())]))),
            ("suspect", pa.bool_()),
            ("weight", pa.float32()),
            ("positive_judge", pa.int8()),
            ("positive_affirmed", pa.bool_()),
        ]
    ),
    {*UNKNOWN, "beta"},
)


class TripleManifest(BaseModel):
    """triples.json: how the rows were chosen. Written last: a folder that has it is whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[5] = 5
    corpus: str
    """Fingerprint of the corpus."""
    scores: str
    """sha256 of the score folder's manifest."""
    large_scores: str | None = None
    """In a cascade, the same of the second judge's folder."""
    selection: dict[str, Any]
    """The settings of the selection."""
    scales: tuple[Scale, ...] = (Scale(),)
    """How scores were made of log-odds, one for each judge; readers who make scores do the same."""
    calibrated: bool = False
    """Whether a fitted calibration stands behind all scales: if not, scores of two judges are not comparable."""
    fold_case: bool = True
    """Whether texts that differ in letter case or blanks alone were the same, and are so for the batch of a row."""
    rows: int
    negatives_in_row: int
    statistics: dict[str, float]
    """What the selection printed."""
    made: Provenance | None = None

    def check_corpus(self, folder: Path, corpus: str) -> None:
        """Refuses another corpus than that of the rows.

        Args:
            folder: Of this manifest, for the message.
            corpus: Fingerprint of the corpus that is given.

        Raises:
            DataError: It is another one.
        """
        if self.corpus != corpus:
            source = self.selection.get("corpus", "one")
            raise DataError(
                f"{folder}: was selected from another corpus than the one given: from {source} with the fingerprint "
                f"{self.corpus[:12]}, and this one has {corpus[:12]}; give that one"
            )


PART = re.compile(r"part-\d{5,}\.parquet")
"""What a part is called."""


def write_triples(folder: Path, triples: Iterable[Triple]) -> int:
    """Writes the parts, in order, and returns the number of rows. `finish_triples` makes the folder whole."""
    count = 0
    stream = iter(triples)
    for part, first in enumerate(stream):  # a part begins where a row is left for it
        rows = chain([first], islice(stream, ROWS_IN_PART - 1))
        count += TRIPLES.write(folder / f"part-{part:05d}.parquet", map(_plain, rows))
    return count


def _plain(triple: Triple) -> dict[str, Any]:
    """A row for its table; `asdict` copies every value, which takes longer than to select them."""
    negatives = [vars(one) for one in triple.negatives]
    extra = [vars(one) for one in triple.extra_positives]
    return vars(triple) | {"positive": vars(triple.positive), "negatives": negatives, "extra_positives": extra}


def finish_triples(folder: Path, manifest: TripleManifest) -> None:
    """Publishes the manifest: the folder is whole."""
    publish_json(folder / "triples.json", manifest)


def read_triples(folder: Path, corpus: str) -> Iterator[Triple]:
    """Yields every row.

    Args:
        folder: What `mine select` wrote.
        corpus: Fingerprint of the corpus that the rows must belong to.

    Raises:
        DataError: The folder is not whole, is torn or foreign, or belongs to another corpus.
    """
    manifest = read_json(folder / "triples.json", TripleManifest)
    manifest.check_corpus(folder, corpus)
    found = 0
    for name in sorted(filter(PART.fullmatch, names_in(folder))):
        for row in TRIPLES.read(folder / name):
            found += 1
            row["positive"] = Judged(**row["positive"])
            row["negatives"] = [Negative(**negative) for negative in row["negatives"]]
            row["extra_positives"] = [Extra(**judged) for judged in row["extra_positives"]]
            yield Triple(**row)
    if found != manifest.rows:
        raise DataError(f"{folder}: {found} rows, but triples.json says {manifest.rows}; select again")
