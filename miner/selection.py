"""Runs a selection over score folders: rows in, training rows and their statistics out."""

import logging
import random
from collections.abc import Iterator
from typing import Any

from miner.choice_settings import SelectSettings
from miner.comparison import Comparison
from miner.counts import Statistics
from miner.likeness import Reservoir, likeness
from miner.pools import PoolKind, Pools
from miner.select import choose, rule_of
from miner.sources import Sources
from unijudge.corpus import Corpus
from unijudge.errors import DataError
from unijudge.files import file_sha256, publishing_folder
from unijudge.leases import lease
from unijudge.locations import is_local
from unijudge.provenance import Provenance, without_passwords_in
from unijudge.scores import Judged
from unijudge.triples import Triple, TripleManifest, finish_triples, write_triples
from unijudge.vectors import VectorFolder

logger = logging.getLogger(__name__)


def select(settings: SelectSettings) -> dict[str, float]:
    """Writes the training rows of a score folder, or of a cascade of two, and returns what it counted.

    Raises:
        DataError: The folders do not belong together, the scores are not whole, or `out` exists.
    """
    if settings.out.exists():
        raise DataError(f"{settings.out}: exists already; a selection is free: give another folder, or delete this one")
    job = _Job(settings)
    with lease(settings.out), publishing_folder(settings.out) as draft:
        rows = write_triples(draft, job.triples())
        statistics = job.table()
        first, *second = [file_sha256(folder / "manifest.json") for folder in settings.scores]
        finish_triples(
            draft,
            TripleManifest(
                corpus=job.corpus.fingerprint,
                scores=first,
                large_scores=next(iter(second), None),
                selection=_told(settings),
                scales=tuple(job.sources.scales),
                calibrated=job.sources.calibrated,
                rows=rows,
                negatives_in_row=settings.stored,
                statistics=statistics,
                made=Provenance.now(),
            ),
        )
    if mixed := job.of_two_judges:
        logger.warning(
            "%s: %d rows have the scores of two judges, and these are not both calibrated, so a training would compare "
            "what cannot be compared; fit each judge (`mine calibrate`), and select again with both files as "
            "`calibration`",
            settings.out,
            mixed,
        )
    return statistics


def _told(settings: SelectSettings) -> dict[str, Any]:
    """The settings, as the manifest keeps them; the corpus by its whole path, by which `check` finds it."""
    corpus = settings.corpus.resolve() if is_local(settings.corpus) else settings.corpus
    return without_passwords_in(settings.model_dump(mode="json")) | {"corpus": str(corpus)}


class _Job:
    """The inputs of a selection, and its counts."""

    def __init__(self, settings: SelectSettings):
        self._settings = settings
        self.corpus = Corpus(settings.corpus)
        self.sources = Sources(settings, self.corpus)
        self._vectors = None if settings.vectors is None else VectorFolder(settings.vectors, self.corpus)
        self._statistics = Statistics(calibrated=self.sources.calibrated)
        self._sample: Reservoir[list[str]] = Reservoir(settings.seed)
        self._comparison = None if settings.compare is None else Comparison(settings.compare, self.corpus)
        self._extra_positives = 0
        self.of_two_judges = 0
        """Rows with scores that cannot be compared with one another."""

    def triples(self) -> Iterator[Triple]:
        """The training rows, in the order of the corpus."""
        random_walk = rule_of(self._settings).walk == "random"
        draws = _Draws(self._settings, self.corpus, self.sources.manifests[0].pool) if random_walk else None
        for case in self.sources.cases():
            choice = choose(
                case.query,
                self._settings,
                large=case.large,
                said=case.said,
                scales=self.sources.scales,
                drawn=draws.of(case.query.query_id) if draws is not None else (),
            )
            self._statistics.count(choice, self._settings.stored)
            if choice.triple is not None:
                self._note(choice.triple)
                yield choice.triple

    def table(self) -> dict[str, float]:
        """What was counted, once all rows went by."""
        (alike,) = [None] if self._vectors is None else likeness(self.corpus, self._vectors, [self._sample.held])
        table = self._statistics.table(alike) | {"extra positives offered": self._extra_positives}
        return table | ({} if self._comparison is None else self._comparison.table())

    def _note(self, triple: Triple) -> None:
        self._extra_positives += len(triple.extra_positives)
        self.of_two_judges += len(triple.judges) > 1 and not self.sources.calibrated
        self._sample.add([negative.item_id for negative in triple.negatives])
        if self._comparison is not None:
            self._comparison.add(triple)


class _Draws:
    """Random items of a query's pool, never one of its positives; unjudged and unmeasured."""

    def __init__(self, settings: SelectSettings, corpus: Corpus, pool: PoolKind):
        self._settings = settings
        self._corpus = corpus
        self._pools = Pools(corpus, pool)

    def of(self, query_id: str) -> list[Judged]:
        dice = random.Random(f"{self._settings.seed}/{query_id}")  # noqa: S311  reproducible, not secret
        allowed = self._pools.allowed(self._corpus.query_row_of[query_id])
        picks = dice.sample(range(len(allowed)), min(len(allowed), self._settings.stored))
        items = allowed.take(picks).tolist()
        return [Judged(self._corpus.items[item].item_id, self._corpus.items[item].key, None, None) for item in items]
