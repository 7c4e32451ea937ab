"""Runs a selection over a score folder: rows in, training rows and their statistics out."""

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from miner.plan import Candidates
from miner.select import Choice, choose, rule_of
from miner.settings import SelectSettings
from unijudge.corpus import Corpus
from unijudge.errors import DataError
from unijudge.files import file_sha256, publishing_folder, read_json
from unijudge.leases import lease
from unijudge.scores import Judged, JudgedQuery, ScoreManifest, read_scores
from unijudge.triples import Triple, TripleManifest, finish_triples, write_triples


@dataclass
class Statistics:
    """What a selection did, counted while it streams."""

    reasons: Counter[str] = field(default_factory=Counter)
    candidates: int = 0
    dropped: int = 0
    suspect: int = 0
    underfilled: int = 0
    fallback: int = 0
    ties: int = 0
    _alike: list[float] = field(default_factory=list)

    def count(self, query: JudgedQuery, choice: Choice, mean_similarity: float) -> None:
        """Adds one query."""
        self.reasons[choice.reason] += 1
        self.candidates += len(query.candidates)
        self.dropped += choice.dropped
        self.suspect += choice.suspect
        self.ties += choice.tie
        if choice.triple is not None:
            self.underfilled += any(negative.duplicate for negative in choice.triple.negatives)
            self.fallback += any(negative.fallback for negative in choice.triple.negatives)
        if not math.isnan(mean_similarity):
            self._alike.append(mean_similarity)

    def table(self) -> dict[str, float]:
        """Name → value, in the order in which they are printed."""
        queries = self.reasons.total()
        return {
            "queries": queries,
            "rows kept": self.reasons["kept"],
            "left out, positive without verdict": self.reasons["unjudged"],
            "left out, no candidate": self.reasons["no candidate"],
            "left out, no survivor": self.reasons["no survivor"],
            "rows filled by fallback": self.fallback,
            "rows under-filled (duplicates)": self.underfilled,
            "candidates": self.candidates,
            "candidates dropped as false negatives": self.dropped,
            "suspect positives": self.suspect,
            "rows with tied negatives": self.ties,
            "mean similarity among a row's negatives": (
                round(sum(self._alike) / len(self._alike), 4) if self._alike else 0.0
            ),
        }


def select(settings: SelectSettings) -> dict[str, float]:
    """Writes the training rows of a score folder, and returns what it counted.

    Raises:
        DataError: The folders do not belong together, the scores are not whole, or `out` exists.
    """
    if settings.out.exists():
        raise DataError(f"{settings.out}: exists already; a selection is free: give another folder, or delete this one")
    corpus = Corpus(settings.corpus)
    manifest = read_json(settings.scores / "manifest.json", ScoreManifest)
    if manifest.corpus != corpus.fingerprint:
        raise DataError(f"{settings.scores}: was scored from another corpus than {settings.corpus}; give that one")
    candidates = Candidates(corpus, settings.vectors, manifest.pool)
    statistics = Statistics()
    with lease(settings.out), publishing_folder(settings.out) as draft:
        rows = write_triples(draft, _triples(settings, corpus, candidates, statistics))
        finish_triples(
            draft,
            TripleManifest(
                corpus=corpus.fingerprint,
                scores=file_sha256(settings.scores / "manifest.json"),
                selection=settings.model_dump(mode="json"),
                log_odds_divisor=settings.log_odds_divisor,
                rows=rows,
                negatives_in_row=settings.stored,
                statistics=statistics.table(),
            ),
        )
    return statistics.table()


def _triples(
    settings: SelectSettings, corpus: Corpus, candidates: Candidates, statistics: Statistics
) -> Iterator[Triple]:
    row_of = {query.query_id: row for row, query in enumerate(corpus.queries)}
    draws = rule_of(settings).walk == "random"
    for query in read_scores(settings.scores, partial=settings.partial):
        drawn = _draw(settings, corpus, candidates, row_of[query.query_id]) if draws else []
        choice = choose(query, settings, drawn)
        alike = float("nan")
        if choice.triple is not None:
            alike = candidates.mean_similarity([corpus.row_of[n.item_id] for n in choice.triple.negatives])
            yield choice.triple
        statistics.count(query, choice, alike)


def _draw(settings: SelectSettings, corpus: Corpus, candidates: Candidates, row: int) -> list[Judged]:
    """Random items of the query's pool, never one of its positives; unjudged, so without log-probabilities."""
    dice = random.Random(f"{settings.seed}/{corpus.queries[row].query_id}")  # noqa: S311  reproducible, not secret
    excluded, pool = candidates.excluded(row), candidates.pool_of(row)
    picks = dice.sample(range(len(pool)), min(len(pool), settings.stored + len(excluded)))
    items = [int(pool[pick]) for pick in picks if int(pool[pick]) not in excluded][: settings.stored]
    return [
        Judged(corpus.items[item].item_id, corpus.items[item].key, None, candidates.similarity(row, item))
        for item in items
    ]
