"""Does a running service give the model's own scores? Compares it with transformers, one pair at a time, in float32."""

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
"""In log-odds, by the dtype that the service runs in: sixteen bits round, and kernels round differently by batch."""
SHOWN_REASONS = 3


@dataclass(frozen=True)
class Verification:
    """What a comparison found."""

    pairs: int
    errors: int
    """Pairs that only one side gave a verdict for."""
    unanswered: int
    """Pairs that neither side gave a verdict for."""
    differences: npt.NDArray[np.float64]
    """|served − reference| in log-odds, for each pair with two verdicts."""
    rank_correlation: float
    """Mean Kendall τ of the candidates' order, over queries."""
    mass: float
    """Mean P(Yes) + P(No) of the served verdicts."""
    ties: int
    """Served pairs of one query with exactly equal log-odds."""
    tolerance: float
    causes: list[str]
    """In words, what may explain a difference."""
    reasons: dict[str, int]
    """Of pairs without two verdicts: which side gave none and the pair's own error, and for how many pairs."""

    @property
    def passed(self) -> bool:
        """Every pair was answered by both sides, within the tolerance."""
        compared = len(self.differences)
        return 0 < compared == self.pairs and float(self.differences.max()) <= self.tolerance

    def lines(self) -> list[str]:
        """The report."""
        largest = self.differences.max() if len(self.differences) else float("nan")
        p99 = np.quantile(self.differences, 0.99) if len(self.differences) else float("nan")
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
        report += [f"{number} pairs without a verdict from {reason}" for reason, number in self._commonest()]
        differs = not len(self.differences) or float(self.differences.max()) > self.tolerance
        return report + [f"likely cause: {cause}" for cause in self.causes if differs]

    def _verdict(self) -> str:
        if self.passed:
            return "the model's own scores"
        differs = self.errors or not len(self.differences) or float(self.differences.max()) > self.tolerance
        if differs:
            return "NOT the model's own scores"
        return f"not shown: only {len(self.differences)} of {self.pairs} pairs were compared"

    def _commonest(self) -> list[tuple[str, int]]:
        return Counter(self.reasons).most_common(SHOWN_REASONS)


def check_memory(settings: ServiceSettings) -> None:
    """Returns if the reference's weights fit the memory of its device, as far as that is known.

    Raises:
        SettingsError: They do not.
    """
    model = settings.model
    if not model.name or model.device != "cpu":  # without a name nothing can be loaded, and the loader says so
        return
    needed = load_sizes(model.name, model.revision).weight_bytes(4 if model.dtype == "float32" else 2)
    available = available_bytes()
    if needed > available:
        raise SettingsError(
            f"{model.name}: the reference's weights take {needed / GIB:.1f} GiB in {model.dtype}, and "
            f"{available / GIB:.1f} GiB of memory are free. Use --dtype bfloat16, or a machine with more memory"
        )


def check_comparable(served: JudgeIdentity) -> None:
    """Returns if a service runs a model, so that a reference can be compared with it.

    Raises:
        SettingsError: It does not.
    """
    if served.dtype not in TOLERANCES:
        raise SettingsError(
            f"{served}: it runs no model, so there is nothing to compare. Verify a service that has one"
        )


def golden_set(queries: int, seed: int = 0) -> list[tuple[Content, list[Content]]]:
    """Made-up queries and candidates of every kind: text, picture, both; short and long; wide and tall."""
    dice = random.Random(seed)  # noqa: S311  reproducible, not secret

    def text() -> str:
        return " ".join(dice.choices(RANDOM_WORDS, k=dice.choice([1, 4, 12, 40])))

    def picture() -> bytes:
        width, height = dice.choice([(56, 56), (120, 60), (60, 200), (224, 224)])
        tile = Image.frombytes("RGB", (4, 4), dice.randbytes(48))
        out = io.BytesIO()
        tile.resize((width, height), Image.Resampling.BICUBIC).save(out, "PNG")
        return out.getvalue()

    def content() -> Content:
        kind = dice.choice(["text", "image", "both"])
        return Content(text() if kind != "image" else None, picture() if kind != "text" else None)

    made = []
    for _ in range(queries):
        query = content()
        made.append((query, [content() for _ in range(CANDIDATES_OF_QUERY)]))
    return made


async def verify(served: JudgeClient, reference: Judge, *, queries: int, tolerance: float | None) -> Verification:
    """Scores the golden set on both sides.

    Args:
        served: The running service, entered.
        reference: The model itself, in transformers.
        queries: How many, of 14 pairs each.
        tolerance: In log-odds; None: by the dtypes of service and reference.

    Raises:
        SettingsError: The service runs no model.
    """
    check_comparable(served.identity)
    reasons: Counter[str] = Counter()
    lacking: Counter[int] = Counter()  # by how many sides gave no verdict
    differences: list[float] = []
    taus: list[float] = []
    masses: list[float] = []
    ties = pairs = 0
    for query, candidates in golden_set(queries):
        theirs = await served.judge(query, candidates)
        ours = [(await reference.judge(query, [candidate]))[0] for candidate in candidates]
        pairs += len(candidates)
        both = [(t, o) for t, o in zip(theirs, ours, strict=True) if isinstance(t, Verdict) and isinstance(o, Verdict)]
        for pair in zip(theirs, ours, strict=True):
            failures = _failures(*pair)
            reasons.update(failures)
            lacking[len(failures)] += 1
        served_odds = np.array([served.log_odds for served, _ in both])
        own_odds = np.array([own.log_odds for _, own in both])
        differences += np.abs(served_odds - own_odds).tolist()
        masses += [t.mass for t, _ in both]
        ties += len(both) - len(np.unique(served_odds))
        if len(both) > 1:
            taus.append(kendall_tau(served_odds, own_odds))
    return Verification(
        pairs=pairs,
        errors=lacking[1],
        unanswered=lacking[2],
        differences=np.array(differences),
        rank_correlation=float(np.mean(taus)) if taus else float("nan"),
        mass=float(np.mean(masses)) if masses else float("nan"),
        ties=ties,
        tolerance=_tolerance(served.identity, reference.identity) if tolerance is None else tolerance,
        causes=likely_causes(served.identity, reference.identity),
        reasons=reasons,
    )


def _tolerance(served: JudgeIdentity, reference: JudgeIdentity) -> float:
    """What the dtypes of both sides allow."""
    return max(TOLERANCES[identity.dtype] for identity in (served, reference))


def _failures(theirs: Verdict | PairError, ours: Verdict | PairError) -> list[str]:
    """Which sides have no verdict for a pair, and why."""
    sides = [("the service", theirs), ("the reference", ours)]
    return [f"{side}: {answer.code}: {answer.message}" for side, answer in sides if isinstance(answer, PairError)]


def likely_causes(served: JudgeIdentity, reference: JudgeIdentity) -> list[str]:
    """What differs between two judges, in the order in which it usually explains other scores."""
    wrong: Sequence[tuple[bool, str]] = [
        (served.weights != reference.weights, "the service runs other weights than the model given here"),
        (served.prompt_fingerprint != reference.prompt_fingerprint, "another prompt: wording, labels or order"),
        (
            (served.yes_id, served.no_id) != (reference.yes_id, reference.no_id),
            "other tokens stand for Yes and No: another tokenizer",
        ),
        (
            (served.min_pixels, served.max_pixels) != (reference.min_pixels, reference.max_pixels),
            (
                f"another pixel budget: {served.min_pixels}–{served.max_pixels} there, "
                f"{reference.min_pixels}–{reference.max_pixels} here"
            ),
        ),
        (
            served.inputs_version != reference.inputs_version,
            f"tokens and pixels are made by {served.inputs_version} there, by {reference.inputs_version} here",
        ),
        (served.adapter != reference.adapter, "an adapter on one side only"),
        (served.quantisation != reference.quantisation, f"quantised weights ({served.quantisation})"),
        (
            served.dtype != reference.dtype,
            f"the service computes in {served.dtype}, the reference in {reference.dtype}",
        ),
        (
            served.head_dtype != reference.head_dtype,
            f"the service's logits are made in {served.head_dtype}, the reference's in {reference.head_dtype}",
        ),
    ]
    return [cause for differs, cause in wrong if differs] or [
        "identities agree: the engine's kernels or its caches; restart it, and report this with the engine's version"
    ]
