"""Checks whether a running service gives the model's own scores.

The reference is the same model in transformers. It scores one pair at a time, in float32 by default.
"""

import io
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from judge_service.backends.model_sizes import load_sizes
from judge_service.gpus import GIB, available_bytes
from judge_service.settings import ServiceSettings
from unijudge.client.client import JudgeClient
from unijudge.content import Content
from unijudge.errors import SettingsError
from unijudge.judging.verdicts import Judge, JudgeIdentity, PairError, Verdict
from unijudge.metrics import kendall_tau
from unijudge.shown import shown_name

CANDIDATES_OF_QUERY = 14
RANDOM_WORDS = (
    "red",
    "green",
    "blue",
    "cat",
    "dog",
    "bridge",
    "river",
    "seven",
    "apples",
    "under",
    "beside",
    "photo",
    "of the",
)
TOLERANCES = {"float32": 1e-4, "float16": 0.1, "bfloat16": 0.5}
"""The largest accepted difference in log-odds, by the dtype of a side.

Numbers of 16 bits are rounded, and kernels round differently for each batch.
"""
SHOWN_REASONS = 3


@dataclass(frozen=True)
class Verification:
    """The result of a comparison."""

    pairs: int
    errors: int
    """The number of pairs with a verdict from one side only."""
    unanswered: int
    """The number of pairs with a verdict from neither side."""
    differences: npt.NDArray[np.float64]
    """|served − reference| in log-odds, for each pair with two verdicts."""
    rank_correlation: float
    """Mean Kendall τ between the two orders of the candidates, over queries."""
    mass: float
    """Mean P(Yes) + P(No) of the served verdicts."""
    ties: int
    """The number of served pairs whose log-odds equal those of another pair of the same query."""
    tolerance: float
    """The largest accepted difference, in log-odds."""
    causes: list[str]
    """Sentences that may explain a difference."""
    reasons: dict[str, int]
    """For pairs without two verdicts: the side without a verdict and its error → the number of pairs."""

    @property
    def passed(self) -> bool:
        """Whether both sides answered every pair, within the tolerance."""
        compared = len(self.differences)
        return 0 < compared == self.pairs and float(self.differences.max()) <= self.tolerance

    def lines(self) -> list[str]:
        """Returns the lines of the report."""
        largest = self.differences.max() if len(self.differences) else float("nan")
        p99 = np.quantile(self.differences, 0.99) if len(self.differences) else float("nan")

        # Tests and people look for these labels.
        report = [
            f"pairs                        {self.pairs}",
            f"answered by one side only    {self.errors}",
            f"answered by neither side     {self.unanswered}",
            f"largest difference           {largest:.2e} in log-odds (tolerance {self.tolerance:g})",
            f"99th percentile              {p99:.2e}",
            f"rank correlation             {self.rank_correlation:.4f} (Kendall tau, mean over queries)",
            f"mean label mass              {self.mass:.3g}",
            f"ties                         {self.ties}",
            "verdict                      " + self._verdict(),
        ]
        report += [
            f"{number} pairs without a verdict from {reason}"
            for reason, number in self._commonest()
        ]

        # Within the tolerance there is no difference to explain.
        differs = not len(self.differences) or float(self.differences.max()) > self.tolerance
        return report + [f"likely cause: {cause}" for cause in self.causes if differs]

    def _verdict(self) -> str:
        if self.passed:
            return "the model's own scores"
        differs = (
            self.errors
            or not len(self.differences)
            or float(self.differences.max()) > self.tolerance
        )
        if differs:
            return "NOT the model's own scores"
        return f"not proven: only {len(self.differences)} of {self.pairs} pairs were compared"

    def _commonest(self) -> list[tuple[str, int]]:
        return Counter(self.reasons).most_common(SHOWN_REASONS)


def check_memory(settings: ServiceSettings) -> None:
    """Checks that the weights of the reference fit into the free memory. Only models on the CPU are checked.

    Raises:
        SettingsError: The weights need more memory than is free.
    """
    model = settings.model
    if not model.name or model.device != "cpu":  # the loader reports a missing name
        return
    number_bytes = 4 if model.dtype == "float32" else 2
    needed = load_sizes(model.name, model.revision).weight_bytes(number_bytes)
    available = available_bytes()
    if needed > available:
        raise SettingsError(
            f"{model.name}: the reference's weights take {needed / GIB:.1f} GiB in {model.dtype}, and "
            f"{available / GIB:.1f} GiB of memory are free. Use --dtype bfloat16, or a machine with more memory"
        )


def check_comparable(served: JudgeIdentity) -> None:
    """Checks that a service runs a model, so that its scores can be compared with a reference.

    Raises:
        SettingsError: The service runs no model.
    """
    if served.dtype not in TOLERANCES:
        raise SettingsError(
            f"{served}: the service runs no model, so there is nothing to compare. Verify a service that runs a model"
        )


def golden_set(queries: int, seed: int = 0) -> list[tuple[Content, list[Content]]]:
    """Makes up queries and candidates of all kinds: text, picture or both; short and long; wide and tall."""
    dice = random.Random(seed)  # noqa: S311  reproducible, not secret

    def text() -> str:
        return " ".join(dice.choices(RANDOM_WORDS, k=dice.choice([1, 4, 12, 40])))

    def picture() -> bytes:
        size = dice.choice([(56, 56), (120, 60), (60, 200), (224, 224)])
        tile = Image.frombytes("RGB", (4, 4), dice.randbytes(4 * 4 * 3))
        picture = tile.resize(size, Image.Resampling.BICUBIC)
        out = io.BytesIO()
        picture.save(out, "PNG")
        return out.getvalue()

    def content() -> Content:
        kind = dice.choice(["text", "image", "both"])
        return Content(text() if kind != "image" else None, picture() if kind != "text" else None)

    examples = []
    for _ in range(queries):
        query = content()
        examples.append((query, [content() for _ in range(CANDIDATES_OF_QUERY)]))
    return examples


async def verify(
    served: JudgeClient, reference: Judge, *, queries: int, tolerance: float | None
) -> Verification:
    """Scores the golden set with the service and with the reference.

    Args:
        served: The running service, entered.
        reference: The model itself, in transformers.
        queries: The number of queries, with 14 pairs each.
        tolerance: The largest accepted difference, in log-odds. None: by the dtypes of service and reference.

    Raises:
        SettingsError: The service runs no model.
    """
    check_comparable(served.identity)
    reasons: Counter[str] = Counter()
    failed_sides: Counter[int] = Counter()
    """The number of sides without a verdict → the number of pairs."""
    differences: list[float] = []
    taus: list[float] = []
    masses: list[float] = []
    ties = pairs = 0
    for query, candidates in golden_set(queries):
        # The reference scores one pair at a time, so batching cannot change its scores.
        served_answers = await served.judge(query, candidates)
        own_answers = [(await reference.judge(query, [candidate]))[0] for candidate in candidates]
        pairs += len(candidates)

        # Only pairs with two verdicts can be compared.
        judged: list[tuple[Verdict, Verdict]] = []
        for served_answer, own_answer in zip(served_answers, own_answers, strict=True):
            failures = _failures(served_answer, own_answer)
            reasons.update(failures)
            failed_sides[len(failures)] += 1
            if isinstance(served_answer, Verdict) and isinstance(own_answer, Verdict):
                judged.append((served_answer, own_answer))

        served_odds = np.array([verdict.log_odds for verdict, _ in judged])
        own_odds = np.array([verdict.log_odds for _, verdict in judged])
        differences += np.abs(served_odds - own_odds).tolist()
        masses += [verdict.mass for verdict, _ in judged]
        ties += len(judged) - len(np.unique(served_odds))
        if len(judged) > 1:  # a single candidate has no order
            taus.append(kendall_tau(served_odds, own_odds))
    if tolerance is None:
        tolerance = _tolerance(served.identity, reference.identity)
    return Verification(
        pairs=pairs,
        errors=failed_sides[1],
        unanswered=failed_sides[2],
        differences=np.array(differences),
        rank_correlation=float(np.mean(taus)) if taus else float("nan"),
        mass=float(np.mean(masses)) if masses else float("nan"),
        ties=ties,
        tolerance=tolerance,
        causes=likely_causes(served.identity, reference.identity),
        reasons=reasons,
    )


def _tolerance(served: JudgeIdentity, reference: JudgeIdentity) -> float:
    """Returns the larger tolerance of the two dtypes."""
    return max(TOLERANCES[identity.dtype] for identity in (served, reference))


def _failures(served: Verdict | PairError, reference: Verdict | PairError) -> list[str]:
    """Returns the sides that have no verdict for a pair, each with its error."""
    sides = [("the service", served), ("the reference", reference)]
    return [
        f"{side}: {answer.code}: {answer.message}"
        for side, answer in sides
        if isinstance(answer, PairError)
    ]


def likely_causes(served: JudgeIdentity, reference: JudgeIdentity) -> list[str]:
    """Returns the differences between two judges. The most common cause of different scores comes first."""
    comparisons: Sequence[tuple[bool, str]] = [
        (
            served.weights != reference.weights,
            "the service has different weights from the model given here",
        ),
        (
            served.prompt_fingerprint != reference.prompt_fingerprint,
            "the prompts differ: wording, labels or order",
        ),
        (
            (served.yes_id, served.no_id) != (reference.yes_id, reference.no_id),
            "the tokens for Yes and No differ: the tokenizers differ",
        ),
        (
            (served.min_pixels, served.max_pixels) != (reference.min_pixels, reference.max_pixels),
            (
                f"the pixel budgets differ: {served.min_pixels}–{served.max_pixels} in the service, "
                f"{reference.min_pixels}–{reference.max_pixels} in the reference"
            ),
        ),
        (
            served.inputs_version != reference.inputs_version,
            (
                f"{served.inputs_version} makes tokens and pixels in the service, "
                f"{reference.inputs_version} in the reference"
            ),
        ),
        (
            served.adapter != reference.adapter,
            "only one side has an adapter, or the adapters differ",
        ),
        (
            served.quantisation != reference.quantisation,
            f"the weights are quantised ({served.quantisation})",
        ),
        (
            served.engine != reference.engine,
            f"the engine of the service has arguments that may change scores: {shown_name(served.engine)}",
        ),
        (
            served.dtype != reference.dtype,
            f"the service computes in {served.dtype}, the reference in {reference.dtype}",
        ),
        (
            served.head_dtype != reference.head_dtype,
            f"the service computes logits in {served.head_dtype}, the reference in {reference.head_dtype}",
        ),
    ]
    causes = [cause for differs, cause in comparisons if differs]
    if causes:
        return causes
    unexplained = "the identities agree, so the engine's kernels or caches differ"
    return [f"{unexplained}. Restart the engine, and report this with the engine's version"]
