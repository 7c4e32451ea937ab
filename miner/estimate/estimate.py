"""Estimates the cost of a scoring job before it runs, for `unijudge mine estimate`.

Pairs and images are counted exactly. The service counts tokens and FLOPs on a sample of whole queries. Seconds are
measured by scoring a sample. An estimate assumes that further replicas are equally fast, and that the load of the
service does not change.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from miner.estimate.pair_counts import Division, PairCounts, count_pairs
from miner.estimate.probe import Probe, probe
from miner.scoring.plan import open_candidate_input, pair_source_of, plan_of
from miner.scoring.score_cache import ScoreCache
from miner.scoring.service import open_client
from miner.scoring.totals import cost_rows
from miner.settings import ScoreSettings
from miner.stopping import Stopped, listening
from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus
from unijudge.formats.scores import present_shards
from unijudge.judging.verdicts import Cost
from unijudge.pages.terminal import aligned
from unijudge.storage.leases import lease, lost_lease
from unijudge.storage.stores import exists

TABLE_OF_K = (1, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class Estimate:
    """The number of a job's pairs, and the cost of a pair."""

    tally: PairCounts
    probe: Probe
    in_band: bool = False
    """Whether the job is the second step of a cascade, whose pairs are chosen by the band instead of k."""

    def largest_k(self, budget_hours: float) -> int | None:
        """Returns the largest k that takes at most this many replica-hours, or None if k = 1 takes more."""
        fits = [k for k in range(1, self.tally.k + 1) if self.hours(k) <= budget_hours]
        return fits[-1] if fits else None

    @property
    def cost(self) -> Cost | None:
        """The predicted cost of the pairs to ask, as the job will count it; None if the judge does not count tokens."""
        probe, ask = self.probe, self.tally.to_ask(self.tally.k)
        if probe.tokens is None or probe.computed_tokens is None:
            return None
        return Cost(
            prompt_tokens=round(probe.tokens * ask),
            computed_tokens=round(probe.computed_tokens * ask),
            images=self.tally.images(self.tally.k),
        )

    def hours(self, k: int) -> float:
        """Returns the replica-hours of a job with k candidates for each query."""
        return self._seconds(k, self.probe.replicas) * self.probe.replicas / 3600

    def _seconds(self, k: int, replicas: int) -> float:
        ask = self.tally.to_ask(k)
        return self.probe.seconds_for(
            self.tally.asking(k), ask, self.tally.pictures(k) if ask else 0, replicas
        )

    def lines(self, replicas: Sequence[int] = (), budget_hours: float | None = None) -> list[str]:
        """Returns the estimate as lines of text: first the job, then the cost of smaller numbers of candidates."""
        k, probe, tally = self.tally.k, self.probe, self.tally
        pairs, ask, hours = tally.pairs(k), tally.to_ask(k), self.hours(k)
        numbers = dict.fromkeys([probe.replicas, *replicas])
        rate = f"{probe.pairs_per_second:.1f} pairs/s on {probe.replicas} replicas"
        rows = [
            ("queries", f"{tally.queries:,}; {self._short()}"),
            ("pairs", f"{pairs:,}, {tally.positives:,} of them with a positive"),
            ("", f"to ask {ask:,} (the others are known or asked by another row)"),
            ("distinct images", f"{tally.pictures(k):,} of the pairs to ask"),
            *self._costs(ask),
            ("probe", f"{probe.pairs} pairs, {probe.failed} of them without a verdict, at {rate}"),
            (
                "",
                f"a query costs {probe.query_seconds:.3g} s, and each of its pairs {probe.pair_seconds:.3g} s",
            ),
            *self._sending(),
            (
                "price",
                f"{_hours(hours)} replica-hours (equal to GPU-hours if a replica has one GPU)",
            ),
            *(
                ("time", f"{_duration(self._seconds(k, number))} on {number} replicas")
                for number in numbers
            ),
        ]
        lines = aligned(rows, left=2)
        if not self.in_band:
            lines += ["", *self._table()]
        if budget_hours is not None:
            lines.append(f"within {budget_hours:g} replica-hours: {self._within(budget_hours)}")
        return lines

    def record(
        self, replicas: Sequence[int] = (), budget_hours: float | None = None
    ) -> dict[str, Any]:
        """Returns the same numbers for programs. Times are in seconds, and costs in replica-hours."""
        tally, probe = self.tally, self.probe
        numbers = dict.fromkeys([probe.replicas, *replicas])
        costs = {
            k: {"pairs_to_ask": tally.to_ask(k), "replica_hours": self.hours(k)} for k in self._ks()
        }
        made: dict[str, Any] = {
            "queries": tally.queries,
            "queries_with_fewer_candidates": tally.underfilled(1 if self.in_band else tally.k),
            "pairs": tally.pairs(tally.k),
            "pairs_with_a_positive": tally.positives,
            "pairs_to_ask": tally.to_ask(tally.k),
            "distinct_images": tally.pictures(tally.k),
            "tokens_of_a_pair": probe.tokens,
            "computed_tokens_of_a_pair": probe.computed_tokens,
            "cost": self.cost.model_dump() if self.cost else None,
            "sampled_pairs": probe.pairs,
            "sampled_pairs_without_verdict": probe.failed,
            "pairs_per_second": probe.pairs_per_second,
            "replica_hours": self.hours(tally.k),
            "seconds_by_replicas": {number: self._seconds(tally.k, number) for number in numbers},
        }
        if not self.in_band:
            made["by_k"] = costs
        if budget_hours is not None and not self.in_band:
            made["largest_k_in_budget"] = self.largest_k(budget_hours)
        return made

    def _ks(self) -> list[int]:
        return [*(k for k in TABLE_OF_K if k < self.tally.k), self.tally.k]

    def _short(self) -> str:
        if self.in_band:
            return f"{self.tally.underfilled(1):,} have no candidate in the band and are not scored"
        return f"{self.tally.underfilled(self.tally.k):,} have fewer than k = {self.tally.k} candidates"

    def _table(self) -> list[str]:
        rows = [("k", "pairs to ask", "replica-hours")]
        rows += [(str(k), f"{self.tally.to_ask(k):,}", _hours(self.hours(k))) for k in self._ks()]
        return aligned(rows)

    def _within(self, budget_hours: float) -> str:
        if not self.in_band:
            best = self.largest_k(budget_hours)
            return f"k = {best}" if best else f"not even k = 1, which takes {_hours(self.hours(1))}"
        hours = self.hours(self.tally.k)
        if hours <= budget_hours:
            return "the whole job"
        return f"not this band, which takes {_hours(hours)}. A smaller cascade.width scores fewer pairs"

    def _sending(self) -> list[tuple[str, str]]:
        probe = self.probe
        if not probe.pictures:
            return []
        return [
            (
                "",
                f"{probe.pictures} images were uploaded before the probe in {probe.picture_seconds:.1f} s",
            )
        ]

    def _costs(self, ask: int) -> list[tuple[str, str]]:
        probe = self.probe
        cost = self.cost
        if cost is None:
            return [("tokens", f"not counted, because {probe.judge} has no tokens")]
        if probe.flops is None:
            compute = "unknown for this family of models"
        else:
            cached = probe.flops.prefix_cached * ask
            alone = probe.flops.naive * ask
            compute = f"{cached:.3g} FLOPs if the prefix and image of a query are computed once; {alone:.3g} otherwise"
        return [*cost_rows(cost, ask), ("compute", compute)]


def estimate_cost(
    settings: ScoreSettings, probe_pairs: int, tell: Callable[[str], None] = lambda _: None
) -> Estimate:
    """Finds the candidates, counts the pairs of the job, and scores a sample. The job reuses the candidates.

    Args:
        settings: The job.
        probe_pairs: The approximate number of pairs to score. Whole queries are scored, enough to keep all replicas
            busy.
        tell: Called with a message at the start of each step.

    Raises:
        UnijudgeError: An error that would also stop the job.
        Stopped: A signal arrived. Candidates that were found are kept.
    """
    corpus = Corpus(settings.corpus)
    if not len(corpus.queries):
        raise DataError(
            f"{settings.corpus}: has no queries, so there is nothing to score. Import queries first"
        )
    heard: list[signal.Signals] = []
    # The lease is held until the event loop has ended with all its threads, so that no thread writes without a lease.
    with lease(settings.out) as stop:
        try:
            return asyncio.run(_bill(settings, corpus, probe_pairs, tell, stop, heard))
        except (Stopped, asyncio.CancelledError):
            if not heard:
                raise lost_lease(settings.out) from None
    raise Stopped


async def _bill(
    settings: ScoreSettings,
    corpus: Corpus,
    probe_pairs: int,
    tell: Callable[[str], None],
    stop: threading.Event,
    heard: list[signal.Signals],
) -> Estimate:
    task = asyncio.current_task()

    def asked_to_stop(_: signal.Signals) -> None:
        stop.set()  # for the threads
        if task is not None:
            task.cancel()

    async with open_client(settings, settings.total_in_flight) as judge:
        with listening(heard, asked_to_stop):
            candidate_input = open_candidate_input(settings, corpus)
            plan = plan_of(settings, corpus, judge.identity, candidate_input)
            if settings.cascade.scores is None:
                tell("searching candidates")
            questions = await asyncio.to_thread(
                pair_source_of, settings, corpus, candidate_input, stop
            )
            tell("counting pairs")
            begun = exists(settings.out / "manifest.json")
            written: frozenset[int] = frozenset()
            if begun:
                written = frozenset(present_shards(settings.out, plan, partial=True))
            division = Division(
                settings.shard_size,
                apart=settings.shards_apart,
                written=written,
            )
            folders = [*settings.reuse, *([settings.out] if begun else [])]
            known = await asyncio.to_thread(ScoreCache, folders, plan.judge)
            tally = await asyncio.to_thread(
                count_pairs, corpus, questions, known, plan.k, stop, division
            )
            tell("scoring a sample")
            probed = await probe(
                judge, corpus, questions, tally, probe_pairs, settings.total_in_flight
            )
            _check_judged(probed, settings.max_error_share)
            return Estimate(tally, probed, in_band=settings.cascade.scores is not None)


def _check_judged(probed: Probe, max_error_share: float) -> None:
    """Checks that the sample has as many verdicts as a shard needs. Otherwise its cost would have no meaning.

    Raises:
        DataError: The sample has too few verdicts.
    """
    if probed.failed > max_error_share * probed.pairs:
        raise DataError(
            f"the sample: {probed.failed} of {probed.pairs} pairs have no verdict, more than max_error_share = "
            f"{max_error_share:g}, so the job would stop. The first reason is {probed.reason}. Fix the cause, or raise "
            "max_error_share"
        )


def _hours(hours: float) -> str:
    """Formats hours. Numbers below 1 keep two significant digits.

    Example:
        >>> _hours(1234.5), _hours(0.00312), _hours(0)
        ('1,234.50', '0.0031', '0.00')
    """
    return f"{hours:.2g}" if 0 < hours < 1 else f"{hours:,.2f}"


def _duration(seconds: float) -> str:
    """Formats a duration in the largest fitting unit.

    Example:
        >>> _duration(42.4), _duration(5400), _duration(100 * 3600)
        ('42 s', '1.5 h', '4.2 days')
    """
    # From this many of a unit on, the unit is used: 80 minutes are 1.3 hours, but 80 seconds are not 1.3 minutes.
    for size, unit, least in ((86400, "days", 1.5), (3600, "h", 1), (60, "min", 1.5)):
        number = seconds / size
        if number >= least:
            return f"{number:.1f} {unit}"
    return f"{seconds:.0f} s"
