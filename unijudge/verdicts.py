"""What a judge is: one async method, `judge(query, candidates)`, and who answered.

transformers, the scripted double and the HTTP client all are judges; a caller cannot tell which it has.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from unijudge.corpus import Content


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


class PairError(BaseModel):
    """Why one pair has no verdict. Never a number in its place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    """For programs: `bad_image`, `too_long`, `too_large`, `not_finite`, `token_count`, `refused`, `unreadable`."""
    message: str
    """A sentence for people."""


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
    quantisation: str = "none"
    adapter: str = "none"
    """A digest of a LoRA adapter's files, where there is one."""
    backend: str
    backend_version: str

    @property
    def digest(self) -> str:
        """Sixteen hex digits: the ETag of the service, and what `If-Match` pins."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

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
