"""What is asked about each query: its positives and its candidates, from a search or from another judge's doubts."""

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
    """One item that a query's judge will see."""

    row: int
    """Of items.parquet."""
    similarity: float | None
    """Cosine with the query; None where others searched, and did not say."""
    rank: int | None
    """Place among the candidates, from 0; None for a positive."""


@dataclass(frozen=True)
class QueryPairs:
    """One query and what is asked about it: its positives, then its candidates."""

    row: int
    """Of queries.parquet."""
    asked: list[CandidatePair]


class PairSource(Protocol):
    """The seam: where a job's pairs come from."""

    def of(self, rows: range) -> list[QueryPairs]:
        """The questions of some queries, in order."""
        ...


class SearchedPairs:
    """The nearest items below the positive."""

    def __init__(self, corpus: Corpus, candidates: CandidateFolder, k: int):
        """Takes a whole folder of candidates; the first k of each query are asked about."""
        self._corpus = corpus
        self._candidates = candidates
        self._k = k

    def of(self, rows: range) -> list[QueryPairs]:
        """See `PairSource.of`."""
        questions = []
        for row, near in zip(rows, self._candidates.of(rows), strict=True):
            positives = zip(self._corpus.positives(row).tolist(), near.positive_similarities, strict=True)
            candidates = enumerate(zip(near.items[: self._k], near.similarities[: self._k], strict=True))
            asked = [CandidatePair(item, value, None) for item, value in positives]
            questions.append(
                QueryPairs(row, asked + [CandidatePair(item, value, rank) for rank, (item, value) in candidates])
            )
        return questions


class CascadePairs:
    """The candidates that a first judge scored near the cut; nothing of a query that has none."""

    def __init__(self, corpus: Corpus, band: CascadeSettings):
        """Reads the first folder's manifest.

        Raises:
            DataError: It is not whole, or of another corpus; or the calibration is another judge's.
        """
        assert band.scores is not None  # noqa: S101  who asks for a cascade names its folder
        self._corpus, self._band, self._folder = corpus, band, band.scores
        self.manifest = read_json(self._folder / "manifest.json", ScoreManifest)
        self.scale = Scale(slope=1 / band.log_odds_divisor)
        if band.calibration is not None:
            self.scale = calibration_of([self.manifest], [band.calibration])[0] or self.scale
        if self.manifest.corpus != corpus.fingerprint:
            raise DataError(f"{self._folder}: was scored from another corpus than {corpus.folder}; give that one")
        if missing := self.manifest.parts.missing(self._folder):
            raise DataError(
                f"{self._folder}: {len(missing)} shards are missing; finish this first step of the cascade with the "
                "same `mine score`"
            )
        # A search leaves out what can be no negative; published scores hold it.
        self._words = Words(corpus, self.manifest, (), None) if self.manifest.vectors is None else None

    def of(self, rows: range) -> list[QueryPairs]:
        """See `PairSource.of`."""
        return [self._question(row, first) for row, first in zip(rows, self._read(rows), strict=True)]

    def _read(self, rows: range) -> Iterator[JudgedQuery]:
        size = self.manifest.shard_size
        for shard in range(rows.start // size, (rows.stop - 1) // size + 1):
            for row, judged in zip(
                self.manifest.parts.rows_of(shard), read_shard(self._folder, self.manifest, shard), strict=True
            ):
                if row in rows:
                    yield judged

    def _question(self, row: int, first: JudgedQuery) -> QueryPairs:
        ruled_out: OverrideMap = {}
        if self._words is not None:
            ruled_out = self._words.of(first.query_id, [], [one.item_id for one in first.candidates])
        near = in_band(first, self._band.beta, self._band.width, self.scale)
        unsure = [one for one in near if one.item_id not in ruled_out]
        if not unsure:
            return QueryPairs(row, [])
        places = {one.item_id: place for place, one in enumerate(first.candidates)}  # published scores name no rank
        asked: list[tuple[Judged, int | None]] = [(one, None) for one in first.positives]
        asked += [(one, places[one.item_id] if one.rank is None else one.rank) for one in unsure]
        return QueryPairs(
            row, [CandidatePair(self._corpus.row_of[one.item_id], one.similarity, rank) for one, rank in asked]
        )


def in_band(query: JudgedQuery, beta: float, width: float, scale: Scale) -> list[Judged]:
    """The candidates whose score lies within `width` of the cut σ⁺ − β, and those without a score.

    Where no positive has a score there is no cut: all of them.

    Args:
        query: As the first judge scored it.
        beta: β, in scores.
        width: In scores.
        scale: How log-odds become scores; the same as in the selection, since the cut is made there.
    """
    positives = [scale.score(positive) for positive in query.positives if positive.log_odds is not None]
    if not positives:
        return query.candidates
    cut = max(positives) - beta
    return [one for one in query.candidates if one.log_odds is None or at_most(abs(scale.score(one) - cut), width)]
