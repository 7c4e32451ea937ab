"""Draws a random sample of judged pairs for a person to label, and reads the file of labels that the page exports.

The sample is drawn evenly over the judge's scores and ignores the outcome of a selection, so that a fit to the labels
is valid for all pairs. Overrides are different: a person overrides pairs that the judge got wrong.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from miner.inspection.sample import Sample
from miner.selection.overrides import Overrides
from unijudge.errors import DataError
from unijudge.formats.scores import JudgedQuery
from unijudge.formats.triples import Scale
from unijudge.storage.files import read_json

SAMPLE_BINS = 10
PLAIN = Scale()

Pair = tuple[str, str, str]
"""The id and the subset of a query, and the id of an item."""


def digest_of(pairs: Sequence[Pair]) -> str:
    """Returns sixteen hex digits that identify a sample of pairs in any order, for the storage of a browser."""
    return hashlib.sha256(json.dumps(sorted(pairs)).encode()).hexdigest()[:16]


class Label(BaseModel):
    """A person's label of one pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_id: str
    item_id: str
    match: bool


class LabelFile(BaseModel):
    """The file of labels. The page of `mine inspect` writes this file, and `mine calibrate` reads it."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="file of labels")

    version: Literal[1] = 1
    corpus: str
    """The fingerprint of the corpus."""
    judge: str
    """The digest of the identity of the judge whose scores the sample was drawn from."""
    seed: int
    sampled: int
    """Number of pairs of the sample, with or without a label."""
    labels: list[Label]


class LabelSample:
    """A sample of at most `size` pairs with a verdict, spread evenly over ten bins of scores."""

    def __init__(self, size: int, seed: int):
        """Starts with an empty sample."""
        self._size = size
        self._sample: Sample[Pair] = Sample(
            size, seed, [str(number) for number in range(SAMPLE_BINS)]
        )

    def add(self, query: JudgedQuery) -> None:
        """Adds the pairs of one query, positives and candidates."""
        if not self._size:
            return
        for judged in (*query.positives, *query.candidates):
            if judged.log_odds is not None:
                number = min(int(PLAIN.score(judged) * SAMPLE_BINS), SAMPLE_BINS - 1)
                pair = (query.query_id, query.subset, judged.item_id)
                self._sample.put(f"{query.query_id}/{judged.item_id}", str(number), pair)

    def pairs(self) -> list[Pair]:
        """Returns the sampled pairs in a random order that is the same on every run."""
        return self._sample.shuffled()


def read_label_file(path: Path, corpus: str) -> LabelFile:
    """Reads the labels that a page exported.

    Args:
        path: The file.
        corpus: The fingerprint of the corpus that the file must belong to.

    Raises:
        DataError: The file holds overrides, is no file of labels, or belongs to a different corpus.
    """
    if _holds_overrides(path):
        raise DataError(
            f"{path}: holds overrides of pairs that the judge got wrong, so a fit to them would be biased. Label the "
            "random sample on the same page (`label a random sample`), and give the exported labels"
        )
    read = read_json(path, LabelFile)
    if read.corpus != corpus:
        raise DataError(
            f"{path}: was made for corpus {read.corpus[:12]}, not for {corpus[:12]}. Give the labels that this corpus' "
            "page exported"
        )
    return read


def _holds_overrides(path: Path) -> bool:
    try:
        read_json(path, Overrides)
    except DataError:
        return False
    return True
