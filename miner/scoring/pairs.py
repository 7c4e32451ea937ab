"""The pairs of each query in a scoring job, from a search for candidates or from the band of a first judge."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from miner.selection.annotations import Words
from miner.selection.platt import calibration_of
from miner.selection.resolve import OverrideMap, at_most
from miner.settings import CascadeSettings
from unijudge.errors import DataError
from unijudge.formats.candidates import CandidateFolder
from unijudge.formats.corpus import Corpus
from unijudge.formats.scores import Judged, JudgedQuery, ScoreManifest, read_shard
from unijudge.formats.triples import Scale
from unijudge.storage.files import read_json


@dataclass(frozen=True)
class CandidatePair:
    """One item to judge for a query."""

    row: int
    """The row of the item in items.parquet."""
    similarity: float | None
    """The cosine of query and item; None if published scores do not contain it."""
    rank: int | None
    """The rank among the candidates, from 0; None for a positive."""


@dataclass(frozen=True)
class QueryPairs:
    """One query with its items to judge: its positives, then its candidates."""

    row: int
    """The row of the query in queries.parquet."""
    asked: list[CandidatePair]


class PairSource(Protocol):
    """The interface of a source of pairs."""

    def of(self, rows: range) -> list[QueryPairs]:
        """Returns the pairs of some queries, in order."""
        ...


class SearchedPairs:
    """The pairs of a search: the nearest items below the positive."""

    def __init__(self, corpus: Corpus, candidates: CandidateFolder, k: int):
        """Uses the first k candidates of each query in a complete folder."""
        self._corpus = corpus
        self._candidates = candidates
        self._k = k

    def of(self, rows: range) -> list[QueryPairs]:
        """See `PairSource.of`."""
        questions = []
        for row, near in zip(rows, self._candidates.of(rows), strict=True):
            positives = zip(
                self._corpus.positives(row).tolist(), near.positive_similarities, strict=True
            )
            candidates = enumerate(
                zip(near.items[: self._k], near.similarities[: self._k], strict=True)
            )
            asked = [CandidatePair(item, value, None) for item, value in positives]
            questions.append(
                QueryPairs(
                    row,
                    asked
                    + [CandidatePair(item, value, rank) for rank, (item, value) in candidates],
                )
            )
        return questions


class CascadePairs:
    """The pairs of a cascade's second step: candidates that the first judge scored near the cut, and positives.

    A query without such a candidate has no pairs.
    """

    def __init__(self, corpus: Corpus, band: CascadeSettings):
        """Reads the first folder's manifest.

        Raises:
            DataError: The first folder is incomplete or of a different corpus, or the calibration is of a different
                judge.
        """
        assert band.scores is not None  # noqa: S101  every caller checks this
        self._corpus, self._band, self._folder = corpus, band, band.scores
        self.manifest = read_json(self._folder / "manifest.json", ScoreManifest)
        self.scale = Scale(slope=1 / band.log_odds_divisor)
        if band.calibration is not None:
            self.scale = calibration_of([self.manifest], [band.calibration])[0] or self.scale
        if self.manifest.corpus != corpus.fingerprint:
            raise DataError(
                f"{self._folder}: was scored from another corpus than {corpus.folder}. Give the corpus of the scores"
            )
        if missing := self.manifest.parts.missing(self._folder):
            raise DataError(
                f"{self._folder}: {len(missing)} shards are missing. Complete this first step of the cascade with the "
                "same `mine score`"
            )
        # A search leaves out items that cannot be negatives, but published scores contain them.
        self._words = (
            Words(corpus, self.manifest, (), None) if self.manifest.vectors is None else None
        )

    def of(self, rows: range) -> list[QueryPairs]:
        """See `PairSource.of`."""
        return [
            self._question(row, first) for row, first in zip(rows, self._read(rows), strict=True)
        ]

    def _read(self, rows: range) -> Iterator[JudgedQuery]:
        size = self.manifest.shard_size
        for shard in range(rows.start // size, (rows.stop - 1) // size + 1):
            for row, judged in zip(
                self.manifest.parts.rows_of(shard),
                read_shard(self._folder, self.manifest, shard),
                strict=True,
            ):
                if row in rows:
                    yield judged

    def _question(self, row: int, first: JudgedQuery) -> QueryPairs:
        ruled_out: OverrideMap = {}
        if self._words is not None:
            ruled_out = self._words.of(
                first.query_id, [], [one.item_id for one in first.candidates]
            )
        near = in_band(first, self._band.beta, self._band.width, self.scale)
        unsure = [one for one in near if one.item_id not in ruled_out]
        if not unsure:
            return QueryPairs(row, [])
        # Published scores have no ranks.
        places = {one.item_id: place for place, one in enumerate(first.candidates)}
        asked: list[tuple[Judged, int | None]] = [(one, None) for one in first.positives]
        asked += [(one, places[one.item_id] if one.rank is None else one.rank) for one in unsure]
        return QueryPairs(
            row,
            [
                CandidatePair(self._corpus.row_of[one.item_id], one.similarity, rank)
                for one, rank in asked
            ],
        )


def in_band(query: JudgedQuery, beta: float, width: float, scale: Scale) -> list[Judged]:
    """Returns the candidates whose score lies within `width` of the cut σ⁺ − β, and candidates without a score.

    If no positive has a score, there is no cut, and all candidates are returned.

    Args:
        query: The query with the first judge's scores.
        beta: The margin β, on the scale of scores.
        width: The largest distance from the cut, on the scale of scores.
        scale: The scale that turns log-odds into scores. It must be the scale of the later selection.
    """
    positives = [
        scale.score(positive) for positive in query.positives if positive.log_odds is not None
    ]
    if not positives:
        return query.candidates
    cut = max(positives) - beta
    return [
        one
        for one in query.candidates
        if one.log_odds is None or at_most(abs(scale.score(one) - cut), width)
    ]
