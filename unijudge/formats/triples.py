"""A folder of training rows: part-00000.parquet … (a query, its positive and its chosen negatives), triples.json last.

`mine select` writes the folder, and the trainer reads it. It stores log-probabilities, not saturated scores, so that
soft labels can be made at any temperature. In a cascade, a row may hold verdicts of two judges, each with a separate
scale. Their scores are comparable only if both judges were calibrated.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from unijudge.errors import DataError
from unijudge.formats.parts import PART, part_path
from unijudge.formats.scores import JUDGED, UNKNOWN, Judged
from unijudge.formats.tables import Table
from unijudge.judging.verdicts import sigmoid
from unijudge.provenance import Provenance
from unijudge.storage.files import names_in, publish_json, read_json

ROWS_IN_PART = 65_536


class Scale(BaseModel):
    """The conversion of a judge's log-odds into scores: sigmoid(slope · log_odds + intercept).

    Example:
        >>> Scale(slope=0.5).score(Judged("a", bytes(16), 0, 0.5, yes_logprob=-1.0, no_logprob=-1.0))
        0.5
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: float = Field(1.0, gt=0)
    intercept: float = 0.0

    def score(self, judged: Judged) -> float:
        """Returns the score of a judged pair, in (0, 1).

        Raises:
            ValueError: The pair has no verdict.
        """
        if judged.log_odds is None:
            raise ValueError(f"item {judged.item_id!r} has no verdict: {judged.error}")
        return sigmoid(self.slope * judged.log_odds + self.intercept)


@dataclass(frozen=True)
class Negative(Judged):
    """A chosen candidate, and the reason of the choice."""

    beta: float | None = None
    """The margin β below the positive's score at which the candidate survived; None if no judge decided."""
    duplicate: bool = False
    """Whether the row already has this candidate, which is repeated to fill the row."""
    fallback: bool = False
    """Whether the candidate was drawn at random because no candidate survived. As in the paper, its label is 1."""
    judge: int = 0
    """The judge of the log-probabilities, as an index of the manifest's `scales`."""
    overruled: bool = False
    """Whether a person decided that the candidate does not answer the query, with or without a verdict."""

    def label(self, scales: Sequence[Scale]) -> float | None:
        """Returns the soft label, in [0, 1], or None without a verdict.

        The label is the judge's score, except that it is 1 for a fallback, as in the paper, and 0 if a person overruled
        the judge.
        """
        if self.fallback:
            return 1.0
        if self.overruled:
            return 0.0
        return None if self.log_odds is None else scales[self.judge].score(self)


@dataclass(frozen=True)
class Extra(Judged):
    """An additional positive, which a training uses only if it is asked to."""

    judge: int = 0
    """The judge of the log-probabilities, as an index of the manifest's `scales`."""
    affirmed: bool = False
    """Whether a person decided that the candidate is a match, with or without a verdict."""

    def label(self, scales: Sequence[Scale]) -> float | None:
        """Returns the soft label, in (0, 1]: 1 if a person affirmed the match, else the score, or None if unjudged."""
        if self.affirmed:
            return 1.0
        return None if self.log_odds is None else scales[self.judge].score(self)


@dataclass(frozen=True)
class Triple:
    """A training row. Selection writes it, and the trainer reads it."""

    query_id: str
    subset: str
    positive: Judged
    negatives: list[Negative]
    extra_positives: list[Extra] = field(default_factory=list)
    """Candidates that score at least as high as the positive, or that a person affirmed as a match."""
    suspect: bool = False
    """Whether the judge doubts the positive."""
    weight: float = 1.0
    """The weight of the row in the loss, 0 … 1."""
    positive_judge: int = 0
    """The judge of the positive's log-probabilities, as an index of the manifest's `scales`."""
    positive_affirmed: bool = False
    """Whether a person affirmed the positive as a match, with or without a verdict. Its label is 1 then."""

    def labels(self, scales: Sequence[Scale]) -> list[float | None]:
        """Returns the soft labels, in [0, 1], of the positive and the negatives, in order; None if unjudged."""
        positive = Extra(
            **vars(self.positive), judge=self.positive_judge, affirmed=self.positive_affirmed
        )
        return [positive.label(scales), *(negative.label(scales) for negative in self.negatives)]

    @property
    def judges(self) -> set[int]:
        """Returns the judges of the labels. Scores of two judges are comparable only if both were calibrated."""
        unchanged = [
            negative
            for negative in self.negatives
            if not negative.fallback and not negative.overruled
        ]
        judged_positive = set() if self.positive_affirmed else {self.positive_judge}
        return judged_positive | {
            negative.judge for negative in unchanged if negative.log_odds is not None
        }


NEGATIVE_FIELDS = [
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
            ("negatives", pa.list_(pa.struct(NEGATIVE_FIELDS))),
            (
                "extra_positives",
                pa.list_(pa.struct([*JUDGED, ("judge", pa.int8()), ("affirmed", pa.bool_())])),
            ),
            ("suspect", pa.bool_()),
            ("weight", pa.float32()),
            ("positive_judge", pa.int8()),
            ("positive_affirmed", pa.bool_()),
        ]
    ),
    {*UNKNOWN, "beta"},
)


class TripleManifest(BaseModel):
    """triples.json: the selection of the rows. It is written last, so a folder with this file is complete."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[5] = 5
    corpus: str
    """The fingerprint of the corpus."""
    scores: str
    """The sha256 of the score folder's manifest."""
    large_scores: str | None = None
    """The sha256 of the manifest of the second judge's score folder, in a cascade."""
    selection: dict[str, Any]
    """The settings of the selection."""
    scales: tuple[Scale, ...] = (Scale(),)
    """The conversion of log-odds into scores for each judge, which readers must apply too."""
    calibrated: bool = False
    """Whether all scales were fitted by a calibration. If not, scores of two judges are not comparable."""
    fold_case: bool = True
    """Whether texts that differ only in case or whitespace count as duplicates, in the selection and in a batch."""
    rows: int
    negatives_in_row: int
    statistics: dict[str, float]
    """The statistics that the selection printed."""
    made: Provenance | None = None

    def check_corpus(self, folder: Path, corpus: str) -> None:
        """Refuses another corpus than the corpus of the rows.

        Args:
            folder: The folder of this manifest, for the message.
            corpus: The fingerprint of the given corpus.

        Raises:
            DataError: The rows belong to another corpus.
        """
        if self.corpus != corpus:
            source = self.selection.get("corpus", "an unknown path")
            raise DataError(
                f"{folder}: was selected from another corpus: from {source} with the fingerprint {self.corpus[:12]}, "
                f"but the given corpus has {corpus[:12]}. Give the corpus of the selection"
            )


def write_triples(folder: Path, triples: Iterable[Triple]) -> int:
    """Writes the parts, in order, and returns the number of rows. `finish_triples` then completes the folder."""
    count = 0
    stream = iter(triples)
    for part, first in enumerate(stream):  # a part begins where a row is left for it
        rows = chain([first], islice(stream, ROWS_IN_PART - 1))
        count += TRIPLES.write(part_path(folder, part), map(_plain, rows))
    return count


def _plain(triple: Triple) -> dict[str, Any]:
    """Converts a row for its table. `asdict` would be slower, because it copies every value."""
    negatives = [vars(negative) for negative in triple.negatives]
    extra = [vars(judged) for judged in triple.extra_positives]
    return vars(triple) | {
        "positive": vars(triple.positive),
        "negatives": negatives,
        "extra_positives": extra,
    }


def finish_triples(folder: Path, manifest: TripleManifest) -> None:
    """Publishes the manifest, which completes the folder."""
    publish_json(folder / "triples.json", manifest)


def read_triples(folder: Path, corpus: str) -> Iterator[Triple]:
    """Yields every row.

    Args:
        folder: A folder that `mine select` wrote.
        corpus: The fingerprint of the corpus to which the rows must belong.

    Raises:
        DataError: The folder is incomplete, damaged or foreign, or belongs to another corpus.
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
        raise DataError(
            f"{folder}: {found} rows, but triples.json says {manifest.rows}. Select again"
        )
