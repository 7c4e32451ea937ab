"""A random sample of judged pairs for a person to label, and the file in which the labels come back.

The sample is drawn evenly over the judge's scores, and without regard to what a selection made of a pair: a fit to it
holds for all pairs. Overrides are of another kind: a person overrides what the judge got wrong.
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
"""A query's id and subset, and an item's id."""


def digest_of(pairs: Sequence[Pair]) -> str:
    """Sixteen hex digits of a sample of pairs, in any order: a browser keeps what was said about this one."""
    return hashlib.sha256(json.dumps(sorted(pairs)).encode()).hexdigest()[:16]


class Label(BaseModel):
    """What a person says of one pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_id: str
    item_id: str
    match: bool


class LabelFile(BaseModel):
    """The file. The page of `mine inspect` writes it, `mine calibrate` reads it."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="file of labels")

    version: Literal[1] = 1
    corpus: str
    """Fingerprint of the corpus."""
    judge: str
    """The digest of the identity of the judge whose scores the sample was drawn from."""
    seed: int
    sampled: int
    """Pairs of the sample, labelled or not."""
    labels: list[Label]


class LabelSample:
    """At most `size` pairs with a verdict, about as many of each tenth of the scores."""

    def __init__(self, size: int, seed: int):
        """Holds nothing yet."""
        self._size = size
        self._sample: Sample[Pair] = Sample(size, seed, [str(place) for place in range(SAMPLE_BINS)])

    def add(self, query: JudgedQuery) -> None:
        """Takes the pairs of one query, its positives too."""
        for one in (*query.positives, *query.candidates) if self._size else ():
            if one.log_odds is not None:
                place = min(int(PLAIN.score(one) * SAMPLE_BINS), SAMPLE_BINS - 1)
                pair = (query.query_id, query.subset, one.item_id)
                self._sample.put(f"{query.query_id}/{one.item_id}", str(place), pair)

    def pairs(self) -> list[Pair]:
        """What is held, in a random order that is the same on every run."""
        return self._sample.shuffled()


def read_label_file(path: Path, corpus: str) -> LabelFile:
    """Reads the labels that a page exported.

    Args:
        path: The file.
        corpus: Fingerprint of the corpus that it must belong to.

    Raises:
        DataError: It holds overrides, or is no file of labels, or belongs to another corpus.
    """
    if _holds_overrides(path):
        raise DataError(
            f"{path}: holds overrides, and a person overrides what the judge got wrong, so a fit to them would be "
            "biased. Label the random sample of the same page (`label a random sample`), and give the labels that it "
            "exports"
        )
    read = read_json(path, LabelFile)
    if read.corpus != corpus:
        raise DataError(
            f"{path}: was made for corpus {read.corpus[:12]}, not for {corpus[:12]}; give the labels that this corpus' "
            "page exported"
        )
    return read


def _holds_overrides(path: Path) -> bool:
    try:
        read_json(path, Overrides)
    except DataError:
        return False
    return True
