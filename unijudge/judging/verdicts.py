"""What a judge is: one async method, `judge(query, candidates)`, and who answered.

vLLM, transformers, the scripted double and the HTTP client all are judges; a caller cannot tell which it has. Those
that can also say at once which of some candidates is the best are choosers.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Annotated, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from unijudge.content import Content


class Verdict(BaseModel):
    """The judge's answer about one candidate, before anyone has decided anything.

    Both numbers are natural-log probabilities over the *whole* vocabulary at the first answer position, so their
    difference is the difference of the two logits (the softmax denominator cancels).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    yes_logprob: float = Field(le=1e-4)
    """ln P("Yes"), at most 0."""
    no_logprob: float = Field(le=1e-4)
    """ln P("No"), at most 0."""
    argmax_is_label: bool
    """Whether the likeliest answer of all was Yes or No: with the mass, says whether prompt and model fit."""

    @property
    def log_odds(self) -> float:
        """Ln [P(Yes) / P(No)], in nats. Any real number; 0 is undecided."""
        return self.yes_logprob - self.no_logprob

    @property
    def score(self) -> float:
        """The semantic matching score of UniME-V2: softmax over the Yes and No logits, in (0, 1).

        Example:
            >>> Verdict(yes_logprob=-1.0, no_logprob=-1.0, argmax_is_label=True).score
            0.5
        """
        return sigmoid(self.log_odds)

    @property
    def mass(self) -> float:
        """P(Yes) + P(No), in (0, 1]: whether the model was answering the question at all."""
        return math.exp(self.yes_logprob) + math.exp(self.no_logprob)


def sigmoid(log_odds: float) -> float:
    """1 / (1 + e^−x), without overflow at either end.

    Example:
        >>> sigmoid(0.0), sigmoid(-1000.0)
        (0.5, 0.0)
    """
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))


class ListVerdict(BaseModel):
    """The judge's answer about a list: which of its candidates is the best.

    The numbers are natural-log probabilities over the *whole* vocabulary in the place of the answer's number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    place: int | None
    """Of the best candidate, from 0; null where the likeliest answer of all is no number of this list: the answer
    cannot be parsed, and the caller's own order stands."""
    logprobs: list[Annotated[float, Field(le=1e-4)]]
    """ln P(number) of each candidate, in the order of the request, at most 0."""
    mass: float
    """Sum of P(number), in (0, 1]: whether the model was answering the question at all."""

    @classmethod
    def of(cls, logprobs: Sequence[float], *, argmax_is_number: bool) -> Self:
        """What follows from the numbers that were read.

        Args:
            logprobs: ln P(number) of each candidate, at most 0.
            argmax_is_number: Whether the likeliest token of all is one of those numbers.

        Example:
            >>> ListVerdict.of([-1.0, -0.5], argmax_is_number=True).place
            1
            >>> ListVerdict.of([-1.0, -0.5], argmax_is_number=False).place is None
            True
        """
        best = max(range(len(logprobs)), key=logprobs.__getitem__)
        mass = math.fsum(map(math.exp, logprobs))
        return cls(place=best if argmax_is_number else None, logprobs=list(logprobs), mass=mass)


class PairError(BaseModel):
    """Why one pair has no verdict, or one list no choice. Never a number in its place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    """For programs: `empty`, `bad_image`, `bad_text`, `too_long`, `too_large`, `out_of_memory`, `not_finite`,
    `token_count`, `kills_judge`, `refused`, `unreadable`."""
    message: str
    """A sentence for people."""


EMPTY = PairError(code="empty", message="neither text nor image, so there is nothing to judge; leave it out")
"""Of a candidate without any content."""


class JudgeIdentity(BaseModel):
    """Everything that a score depends on. Stands in every manifest and every response.

    A number is None, and a word `unknown`, only for scores that others published without saying it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """A hub name, or the last part of a folder's path."""
    weights: str
    """The hub revision, or a digest of the folder's weight files and configuration."""
    prompt_fingerprint: str
    yes: str
    no: str
    yes_id: int | None
    no_id: int | None
    order: str
    min_pixels: int | None
    max_pixels: int | None
    dtype: str
    head_dtype: str
    """Of the logits."""
    quantisation: str = "none"
    adapter: str = "none"
    """A digest of a LoRA adapter's files, where there is one."""
    backend: str
    backend_version: str
    inputs_version: str = "unknown"
    """Of what makes tokens and pixels, whatever engine runs."""

    @property
    def digest(self) -> str:
        """Sixteen hex digits: the ETag of the service, and what `If-Match` pins."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def difference(self, found: "JudgeIdentity") -> str:
        """In words, what another judge has otherwise than this one."""
        pairs = [
            f"{name} is {after!r}, not {before!r}"
            for (name, before), (_, after) in zip(self, found, strict=True)
            if before != after
        ]
        return f"{found} answers: " + "; ".join(pairs)

    def __str__(self) -> str:
        return f"{self.model} ({self.backend} {self.backend_version}, {self.dtype}, {self.digest})"


class Judge(Protocol):
    """The seam: whatever scores pairs."""

    @property
    def identity(self) -> JudgeIdentity:
        """Who answers."""
        ...

    async def judge(self, query: Content, candidates: Sequence[Content]) -> list[Verdict | PairError]:
        """One answer for each candidate, in order.

        Raises:
            JudgeRefused: The query itself cannot be judged.
            JudgeUnavailable: Busy or unreachable.
        """
        ...


@runtime_checkable
class Chooser(Protocol):
    """A judge that can be asked listwise."""

    async def choose(self, query: Content, candidates: Sequence[Content]) -> ListVerdict | PairError:
        """Which of the candidates is the best, or why the list as it is cannot be asked about.

        Raises:
            JudgeRefused: The query itself cannot be judged, or this judge's model cannot answer listwise.
            JudgeUnavailable: Busy or unreachable.
        """
        ...
