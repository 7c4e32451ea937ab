"""Scores that others published → a score folder, so that selection and training work on them at once.

A published score s says only P(Yes) among Yes and No. So yes_logprob = ln s and no_logprob = ln(1 − s): their
difference, the log-odds, is what was measured; their sum, the mass, is 1 by construction and says nothing. The
likeliest answer, ranks and similarities were not published: argmax_is_label, rank and similarity are None. A score of
exactly 0 or 1 has no log-odds, and becomes an error in its place; UniME-V2 gives 1 to negatives drawn at random where
none survived, which nobody judged.
"""

import hashlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from miner.importers.building.ledger import Answers
from unijudge.errors import DataError
from unijudge.foreign.cells import Rejected
from unijudge.formats.corpus import CorpusManifest
from unijudge.formats.scores import Judged, JudgedQuery, ScoreManifest, write_shard
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.shown import shown
from unijudge.storage.files import file_sha256, publish_json, publishing_folder
from unijudge.storage.stores import exists

QUERIES_IN_SHARD = 4096

logger = logging.getLogger(__name__)

Scored = tuple[str, str, bytes, Answers]
"""A query's id, subset and content hash, and what came with it."""


@dataclass(frozen=True)
class PublishedScores:
    """Where published scores go, and where they stood."""

    folder: Path
    source: Path
    more: tuple[Path, ...] = ()
    """The other files, where there are several."""
    only_probabilities: bool = True
    """Whether a row with another score is rejected; else one such score makes similarities of all."""

    def check_free(self) -> None:
        """Refuses a folder that is there already.

        Raises:
            DataError: It is.
        """
        if exists(self.folder):
            raise DataError(f"{self.folder}: exists already; a score folder never changes, give another one")

    @property
    def judge(self) -> JudgeIdentity:
        """A judge of whom only the file of scores is known: its sha256 stands for the weights."""
        digests = [file_sha256(path) for path in (self.source, *self.more)]
        weights = digests[0] if not self.more else hashlib.sha256("".join(digests).encode()).hexdigest()
        return JudgeIdentity(
            model="released", weights=weights[:16], prompt_fingerprint="unknown", yes="Yes", no="No",
            yes_id=None, no_id=None, order="unknown", min_pixels=None, max_pixels=None, dtype="unknown",
            head_dtype="unknown",
            quantisation="unknown", adapter="unknown", backend="released", backend_version="unknown",
        )  # fmt: skip


def scores_of(cells: Any) -> tuple[float, ...]:
    """Published numbers, as they are.

    Raises:
        Rejected: One is no number, or they are no list.
    """
    if not isinstance(cells, list) or any(isinstance(one, bool) or not isinstance(one, int | float) for one in cells):
        raise Rejected(f"scores {shown(cells)} are not a list of numbers")
    try:
        return tuple(map(float, cells))
    except OverflowError as error:
        raise Rejected("a score is too large for a number") from error


def check_scores(scores: tuple[float, ...] | None, wanted: int) -> float | None:
    """Refuses what is not one score for the positive and one for each negative; returns one that is no probability.

    Raises:
        Rejected: A score is missing, or is no number.
    """
    if scores is None:
        raise Rejected("no scores")
    if len(scores) != wanted:
        raise Rejected(f"{len(scores)} scores for a positive and {wanted - 1} negatives; expected {wanted}")
    if bad := [score for score in scores if not math.isfinite(score)]:
        raise Rejected(f"score {bad[0]!r} is no number")
    return next((score for score in scores if not 0 <= score <= 1), None)


def write_scores(
    published: PublishedScores, corpus: CorpusManifest, scored: Callable[[], Iterator[Scored]], strange: float | None
) -> None:
    """Writes the score folder, all at once.

    Args:
        published: Where to.
        corpus: What was imported.
        scored: Yields every query of the corpus, each time it is called.
        strange: A score that is no probability; none if all of them are.
    """
    k = max((len(set(answers.scores or ()) - set(answers.positives)) for *_, answers in scored()), default=0)
    queries = scored()
    judged = _judged if strange is None else _compared
    if strange is not None:
        logger.warning(
            "%s: the scores are no probabilities (one is %g), so they are kept as similarities, and no pair has a "
            "verdict: let a judge score these rows; --probabilities rejects rows with such scores instead",
            published.folder, strange,
        )  # fmt: skip
    with publishing_folder(published.folder) as draft:
        plan = ScoreManifest(
            corpus=corpus.fingerprint,
            vectors=None,
            queries=corpus.queries,
            shard_size=QUERIES_IN_SHARD,
            k=k,
            pool="global",
            judge=published.judge,
        )
        publish_json(draft / "manifest.json", plan)
        for shard in range(len(plan.parts)):
            rows = [_judged_query(judged, *query) for query in islice(queries, QUERIES_IN_SHARD)]
            write_shard(draft, plan, shard, rows)


def _judged_query(
    read: Callable[[str, float], Judged], query_id: str, subset: str, key: bytes, answers: Answers
) -> JudgedQuery:
    judged = [read(item_id, score) for item_id, score in (answers.scores or {}).items()]
    right = set(answers.positives)
    positives = [one for one in judged if one.item_id in right]
    return JudgedQuery(query_id, subset, key, positives, [one for one in judged if one.item_id not in right])


def _judged(item_id: str, score: float) -> Judged:
    key = bytes.fromhex(item_id)
    if score in (0, 1):
        error = f"saturated: published as exactly {score:g}, which has no log-odds"
        return Judged(item_id, key, rank=None, similarity=None, error=error)
    return Judged(item_id, key, None, None, yes_logprob=math.log(score), no_logprob=math.log1p(-score))


def _compared(item_id: str, score: float) -> Judged:
    error = "unjudged: published with a similarity, which is no probability"
    return Judged(item_id, bytes.fromhex(item_id), rank=None, similarity=score, error=error)
