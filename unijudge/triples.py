"""A folder of training rows: triples.json last, part-00000.parquet …; a query, its positive, its chosen negatives.

`mine select` writes it; the trainer reads it. Log-probabilities travel along, never a saturated score, so that soft
labels can be made at any temperature.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from unijudge.errors import DataError
from unijudge.files import publish_json, read_json
from unijudge.scores import JUDGED, Judged
from unijudge.tables import Table

ROWS_IN_PART = 65_536


@dataclass(frozen=True)
class Negative(Judged):
    """A chosen candidate, and how it came to be chosen."""

    beta: float | None = None
    """The margin under the positive's score at which it survived; None where no judge decided."""
    duplicate: bool = False
    """It stands in the row already, and fills it up."""
    fallback: bool = False
    """Nothing survived; it was drawn at random, and a teacher's score of 1 is what the paper gives it."""


@dataclass(frozen=True)
class Triple:
    """One training row. Selection writes it, the trainer reads it."""

    query_id: str
    subset: str
    positive: Judged
    negatives: list[Negative]
    extra_positives: list[Judged] = field(default_factory=list)
    """Candidates that the judge holds for at least as good as the positive; offered, never trained on unasked."""
    suspect: bool = False
    """The judge does not believe in the positive."""
    weight: float = 1.0
    """Of the row in the loss, 0 … 1."""


TRIPLES = Table(
    "triples",
    2,
    pa.schema(
        [
            ("query_id", pa.string()),
            ("subset", pa.string()),
            ("positive", pa.struct(JUDGED)),
            (
                "negatives",
                pa.list_(
                    pa.struct([*JUDGED, ("beta", pa.float32()), ("duplicate", pa.bool_()), ("fallback", pa.bool_())])
                ),
            ),
            ("extra_positives", pa.list_(pa.struct(JUDGED))),
            ("suspect", pa.bool_()),
            ("weight", pa.float32()),
        ]
    ),
)


class TripleManifest(BaseModel):
    """triples.json: how the rows were chosen. Written last: a folder that has it is whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    corpus: str
    """Fingerprint of the corpus."""
    scores: str
    """sha256 of the score folder's manifest."""
    selection: dict[str, Any]
    """The settings of the selection."""
    log_odds_divisor: float = 1.0
    """By which log-odds were divided before scores were compared; readers who make scores do the same."""
    rows: int
    negatives_in_row: int
    statistics: dict[str, float]
    """What the selection printed."""


def write_triples(folder: Path, triples: Iterable[Triple]) -> int:
    """Writes the parts, in order, and returns the number of rows. `finish_triples` makes the folder whole."""
    count = part = 0
    stream = iter(triples)
    while block := list(islice(stream, ROWS_IN_PART)):
        count += TRIPLES.write(folder / f"part-{part:05d}.parquet", (asdict(triple) for triple in block))
        part += 1
    return count


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
    if manifest.corpus != corpus:
        raise DataError(f"{folder}: was selected from another corpus than the one given; give that one")
    found = 0
    for path in sorted(folder.glob("part-*.parquet")):
        for row in TRIPLES.read(path):
            found += 1
            row["positive"] = Judged(**row["positive"])
            row["negatives"] = [Negative(**negative) for negative in row["negatives"]]
            row["extra_positives"] = [Judged(**judged) for judged in row["extra_positives"]]
            yield Triple(**row)
    if found != manifest.rows:
        raise DataError(f"{folder}: {found} rows, but triples.json says {manifest.rows}; select again")
