"""scores.parquet of `judge bench`: a judge's answers on labelled pairs, by which two judges can be compared."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from unijudge.formats.tables import Table
from unijudge.judging.verdicts import PairError, Verdict


@dataclass(frozen=True)
class LabelledScore:
    """A labelled pair, with the judge's two log-probabilities or an error."""

    place: str
    """The file and the row from which the pair was read."""
    subset: str
    kind: str | None
    match: bool
    query_key: bytes
    """16-byte content hash: `unijudge.content.content_key`."""
    query_text: str | None
    query_image: str | None
    """The name of the query's picture; None if the row embeds the picture, or has no picture."""
    candidate_key: bytes
    candidate_text: str | None
    candidate_image: str | None
    yes_logprob: float | None = None
    no_logprob: float | None = None
    argmax_is_label: bool | None = None
    error: str | None = None
    """`code: message` if the pair has no verdict."""

    @property
    def answer(self) -> Verdict | PairError:
        """Returns the judge's verdict or error."""
        if self.yes_logprob is None or self.no_logprob is None:
            code, _, message = (self.error or "").partition(": ")
            return PairError(code=code, message=message)
        return Verdict(
            yes_logprob=self.yes_logprob,
            no_logprob=self.no_logprob,
            argmax_is_label=bool(self.argmax_is_label),
        )


LABELLED_SCORES = Table(
    "labelled scores",
    1,
    pa.schema(
        [
            ("place", pa.string()),
            ("subset", pa.string()),
            ("kind", pa.string()),
            ("match", pa.bool_()),
            ("query_key", pa.binary(16)),
            ("query_text", pa.string()),
            ("query_image", pa.string()),
            ("candidate_key", pa.binary(16)),
            ("candidate_text", pa.string()),
            ("candidate_image", pa.string()),
            ("yes_logprob", pa.float64()),
            ("no_logprob", pa.float64()),
            ("argmax_is_label", pa.bool_()),
            ("error", pa.string()),
        ]
    ),
    {
        "kind", "query_text", "query_image", "candidate_text", "candidate_image", "yes_logprob", "no_logprob",
        "argmax_is_label", "error",
    },
)  # fmt: skip


def write_labelled(path: Path, rows: Iterable[LabelledScore]) -> None:
    """Writes a complete file."""
    LABELLED_SCORES.write(path, map(asdict, rows))


def read_labelled(path: Path) -> Iterator[LabelledScore]:
    """Yields the rows of a file.

    Raises:
        DataError: The file cannot be read, or is of another kind.
    """
    return (LabelledScore(**row) for row in LABELLED_SCORES.read(path))
