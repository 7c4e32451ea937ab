"""The interface of a judge: an async method, `judge(query, candidates)`, and an identity.

vLLM, transformers, the scripted test double and the HTTP client are all judges, and a caller cannot tell them apart. A
judge that can also choose the best of several candidates with one question is a chooser.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from unijudge.content import Content


class Cost(BaseModel):
    """The cost of an answer. A judge that computes nothing, such as a scripted one, has no cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_tokens: int = Field(ge=0)
    """The length of the prompt, in tokens."""
    computed_tokens: int = Field(ge=0)
    """The tokens that the language model computed for this answer. The others were computed for another answer."""
    images: int = Field(ge=0)
    """The images in the prompt."""
    images_encoded: Annotated[int | None, Field(ge=0, exclude_if=lambda count: count is None)] = (
        None
    )
    """The images that passed through the vision tower for this answer. Unset: the judge does not count them."""

    def __add__(self, other: "Cost") -> "Cost":
        """Returns the sum of two costs.

        Example:
            >>> Cost(prompt_tokens=9, computed_tokens=4, images=1) + Cost(prompt_tokens=1, computed_tokens=1, images=0)
            Cost(prompt_tokens=10, computed_tokens=5, images=1, images_encoded=None)
        """
        # A sum with an unknown part is unknown.
        counts = (self.images_encoded, other.images_encoded)
        encoded = None if None in counts else sum(count or 0 for count in counts)
        return Cost(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            computed_tokens=self.computed_tokens + other.computed_tokens,
            images=self.images + other.images,
            images_encoded=encoded,
        )


FREE = Cost(prompt_tokens=0, computed_tokens=0, images=0, images_encoded=0)
"""The cost of no answer."""


def total_cost(costs: Iterable[Cost | None]) -> Cost | None:
    """Returns the sum of the known costs, or None if no cost is known.

    Example:
        >>> total_cost([None, FREE]), total_cost([None])
        (Cost(prompt_tokens=0, computed_tokens=0, images=0, images_encoded=0), None)
    """
    known = [cost for cost in costs if cost is not None]
    return sum(known[1:], known[0]) if known else None


OptionalCost = Annotated[Cost | None, Field(exclude_if=lambda cost: cost is None)]


class Verdict(BaseModel):
    """The judge's answer about a candidate, before any decision.

    Both numbers are natural-log probabilities over the *whole* vocabulary at the first answer position, so their
    difference is the difference of the two logits (the softmax denominator cancels).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    yes_logprob: float = Field(le=1e-4)
    """ln P("Yes"), at most 0."""
    no_logprob: float = Field(le=1e-4)
    """ln P("No"), at most 0."""
    argmax_is_label: bool
    """Whether the likeliest token was Yes or No. Together with the mass, this tells whether prompt and model fit."""
    cost: OptionalCost = None
    """The cost of this answer, if the caller needs it and the judge counts."""

    @property
    def log_odds(self) -> float:
        """Returns ln [P(Yes) / P(No)], in nats: any real number, and 0 if undecided."""
        return self.yes_logprob - self.no_logprob

    @property
    def score(self) -> float:
        """Returns the semantic matching score of UniME-V2: softmax over the Yes and No logits, in (0, 1).

        Example:
            >>> Verdict(yes_logprob=-1.0, no_logprob=-1.0, argmax_is_label=True).score
            0.5
        """
        return sigmoid(self.log_odds)

    @property
    def mass(self) -> float:
        """Returns P(Yes) + P(No), in (0, 1]. A small mass means that the model did not answer the question."""
        return math.exp(self.yes_logprob) + math.exp(self.no_logprob)


def sigmoid(log_odds: float) -> float:
    """Returns 1 / (1 + e^−x), without overflow at either end.

    Example:
        >>> sigmoid(0.0), sigmoid(-1000.0)
        (0.5, 0.0)
    """
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))


class ListVerdict(BaseModel):
    """The judge's choice of the best candidate in a list.

    The numbers are natural-log probabilities over the *whole* vocabulary at the position of the answer's number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    place: int | None
    """The position of the best candidate, from 0. It is null if the likeliest token is not a number of this list; then
    the caller keeps the original order."""
    logprobs: list[Annotated[float, Field(le=1e-4)]]
    """ln P(number) of each candidate, in the order of the request, at most 0."""
    mass: float
    """The sum of P(number), in (0, 1]. A small mass means that the model did not answer the question."""
    cost: OptionalCost = None
    """The cost of this answer, if the caller needs it and the judge counts."""

    @classmethod
    def of(
        cls, logprobs: Sequence[float], *, argmax_is_number: bool, cost: Cost | None = None
    ) -> Self:
        """Builds the verdict from the probabilities of the numbers.

        Args:
            logprobs: ln P(number) of each candidate, at most 0.
            argmax_is_number: Whether the likeliest token is one of these numbers.
            cost: The cost of this answer.

        Example:
            >>> ListVerdict.of([-1.0, -0.5], argmax_is_number=True).place
            1
            >>> ListVerdict.of([-1.0, -0.5], argmax_is_number=False).place is None
            True
        """
        best = max(range(len(logprobs)), key=logprobs.__getitem__)
        mass = math.fsum(map(math.exp, logprobs))
        place = best if argmax_is_number else None
        return cls(place=place, logprobs=list(logprobs), mass=mass, cost=cost)


class PairError(BaseModel):
    """The reason why a pair has no verdict, or a list no choice. An error is never replaced by a number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    """For programs: `empty`, `bad_image`, `bad_text`, `too_long`, `too_large`, `out_of_memory`, `not_finite`,
    `token_count`, `kills_judge`, `refused`, `unreadable`."""
    message: str
    """A sentence for people."""


EMPTY = PairError(
    code="empty", message="neither text nor image, so there is nothing to judge. Leave it out"
)
"""The error of a candidate without content."""


class JudgeIdentity(BaseModel):
    """All settings and versions on which a score depends. It is part of every manifest and every response.

    A number is None, or a word is `unknown`, only for published scores of others who did not state the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """The hub name, or the last part of the folder's path."""
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
    """The dtype of the logits."""
    quantisation: str = "none"
    adapter: str = "none"
    """A digest of the LoRA adapter's files, or `none`."""
    engine: Annotated[str, Field(exclude_if=lambda arguments: arguments == "none")] = "none"
    """The additional arguments of the engine that may change scores, as JSON, or `none`."""
    backend: str
    backend_version: str
    inputs_version: str = "unknown"
    """The versions of the libraries that make tokens and pixels, for every engine."""

    @property
    def digest(self) -> str:
        """Returns sixteen hex digits: the ETag of the service, and the value of `If-Match`."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def difference(self, found: "JudgeIdentity") -> str:
        """Returns the differences of another judge from this judge, in words."""
        pairs = [
            f"{name} is {after!r}, not {before!r}"
            for (name, before), (_, after) in zip(self, found, strict=True)
            if before != after
        ]
        return f"{found} answers: " + "; ".join(pairs)

    def __str__(self) -> str:
        return f"{self.model} ({self.backend} {self.backend_version}, {self.dtype}, {self.digest})"


class Judge(Protocol):
    """The interface of everything that scores pairs."""

    @property
    def identity(self) -> JudgeIdentity:
        """Returns the identity of the judge."""
        ...

    async def judge(
        self, query: Content, candidates: Sequence[Content]
    ) -> list[Verdict | PairError]:
        """Returns an answer for each candidate, in order.

        Raises:
            JudgeRefused: The query itself cannot be judged.
            JudgeUnavailable: The judge is busy or unreachable.
        """
        ...


@runtime_checkable
class Chooser(Protocol):
    """A judge that answers listwise questions."""

    async def choose(
        self, query: Content, candidates: Sequence[Content]
    ) -> ListVerdict | PairError:
        """Returns the best of the candidates, or the reason why this list cannot be judged.

        Raises:
            JudgeRefused: The query itself cannot be judged, or this judge's model cannot answer listwise.
            JudgeUnavailable: The judge is busy or unreachable.
        """
        ...
