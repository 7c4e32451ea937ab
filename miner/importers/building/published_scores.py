"""Writes published scores to a score folder, so that they can be used for selection and training.

A published score s is only P(Yes) among Yes and No. So yes_logprob = ln s and no_logprob = ln(1 − s). Their difference,
the log-odds, was measured. The label mass is 1 by construction and has no meaning. The most likely answer, ranks and
similarities were not published, so argmax_is_label, rank and similarity are None.

A score of exactly 0 or 1 has no log-odds, so an error is stored instead. UniME-V2 published the score 1 for negatives
that were drawn at random without a judge, because no candidate survived.
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
"""A query's id, subset, content hash and answers."""


@dataclass(frozen=True)
class PublishedScores:
    """The folder for published scores, and the files they come from."""

    folder: Path
    source: Path
    more: tuple[Path, ...] = ()
    """The other files, if there are several."""
    only_probabilities: bool = True
    """Whether a row with a score outside [0, 1] is rejected. If False, a single score outside [0, 1] means that all
    scores are similarities."""

    def check_free(self) -> None:
        """Checks that the folder does not exist.

        Raises:
            DataError: The folder exists.
        """
        if exists(self.folder):
            raise DataError(
                f"{self.folder}: exists already, and a score folder never changes. Give another folder"
            )

    @property
    def judge(self) -> JudgeIdentity:
        """The identity of the unknown judge. The sha256 of the files of scores stands for its weights."""
        digests = [file_sha256(path) for path in (self.source, *self.more)]
        weights = digests[0]
        if self.more:
            weights = hashlib.sha256("".join(digests).encode()).hexdigest()
        return JudgeIdentity(
            model="released", weights=weights[:16], prompt_fingerprint="unknown", yes="Yes", no="No",
            yes_id=None, no_id=None, order="unknown", min_pixels=None, max_pixels=None, dtype="unknown",
            head_dtype="unknown",
            quantisation="unknown", adapter="unknown", backend="released", backend_version="unknown",
        )  # fmt: skip


def scores_of(cells: Any) -> tuple[float, ...]:
    """Returns published numbers unchanged.

    Raises:
        Rejected: The cells are not a list of numbers.
    """
    if not isinstance(cells, list) or not all(_is_number(cell) for cell in cells):
        raise Rejected(f"scores {shown(cells)} are not a list of numbers")
    try:
        return tuple(map(float, cells))
    except OverflowError as error:
        raise Rejected("has a score that is too large for a float") from error


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def check_scores(scores: tuple[float, ...] | None, wanted: int) -> float | None:
    """Checks that there is a score for the positive and for each negative.

    Returns:
        The first score that is no probability, or None.

    Raises:
        Rejected: A score is missing, or is no finite number.
    """
    if scores is None:
        raise Rejected("has no scores")
    if len(scores) != wanted:
        raise Rejected(
            f"has {len(scores)} scores, but a positive and {wanted - 1} negatives need {wanted}"
        )
    if bad := [score for score in scores if not math.isfinite(score)]:
        raise Rejected(f"score {bad[0]!r} is not a finite number")
    return next((score for score in scores if not 0 <= score <= 1), None)


def write_scores(
    published: PublishedScores,
    corpus: CorpusManifest,
    scored: Callable[[], Iterator[Scored]],
    strange: float | None,
) -> None:
    """Writes the score folder, complete or not at all.

    Args:
        published: The folder and the source of the scores.
        corpus: The manifest of the imported corpus.
        scored: Yields every query of the corpus, each time it is called.
        strange: A score that is no probability, or None if all scores are probabilities.
    """
    k = max(
        (len(set(answers.scores or ()) - set(answers.positives)) for *_, answers in scored()),
        default=0,
    )
    queries = scored()
    judged = _judged if strange is None else _compared
    if strange is not None:
        logger.warning(
            "%s: the scores are not probabilities (one score is %g), so they are stored as similarities, and no pair "
            "has a verdict. Score these rows with a judge, or import with --probabilities to reject rows with such "
            "scores",
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
    positive_ids = set(answers.positives)
    positives = [each for each in judged if each.item_id in positive_ids]
    candidates = [each for each in judged if each.item_id not in positive_ids]
    return JudgedQuery(query_id, subset, key, positives, candidates)


def _judged(item_id: str, score: float) -> Judged:
    key = bytes.fromhex(item_id)
    if score in (0, 1):
        error = f"saturated: published as exactly {score:g}, which has no log-odds"
        return Judged(item_id, key, rank=None, similarity=None, error=error)
    return Judged(
        item_id, key, None, None, yes_logprob=math.log(score), no_logprob=math.log1p(-score)
    )


def _compared(item_id: str, score: float) -> Judged:
    error = "unjudged: published with a similarity, which is not a probability"
    return Judged(item_id, bytes.fromhex(item_id), rank=None, similarity=score, error=error)
