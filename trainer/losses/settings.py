"""The settings of what is learned."""

from typing import Literal, Self

from pydantic import Field, model_validator

from unijudge.judging.prompt import LONGEST_LIST
from unijudge.settings import Settings


class LossSettings(Settings):
    """What the embedder learns from a row's positive and negatives."""

    name: Literal["symmetric_kl", "js", "kl", "margin_mse", "infonce"] = "symmetric_kl"
    """`symmetric_kl`: UniME-V2's formula; `js`: the true Jensen-Shannon divergence; `kl`: the usual distillation;
    `margin_mse`: by how much the positive leads; `infonce`: hard labels, no judge."""
    student_temperature: float = Field(0.02, gt=0)
    """Divides cosine similarities."""
    teacher_temperature: float = Field(0.02, gt=0)
    """Divides judge scores. At 0.02 nearly every target is one-hot; a larger one makes softer targets."""
    in_batch_weight: float = Field(0.0, ge=0)
    """Weight of a term by which the candidates of the batch's other rows, on all processes, are negatives too, but for
    known positives. 0: own candidates only, as UniME-V2; 1 with `infonce`: the usual InfoNCE over the batch."""


class RerankerLossSettings(Settings):
    """What the reranker learns from a row. Each term is a mean of its own, so the weights say what they seem to."""

    pairwise: float = Field(1.0, ge=0)
    """Weight of Yes for the positive and No for a negative, in the judge's own prompt."""
    listwise: float = Field(1.0, ge=0)
    """Weight of the number of the positive in a list of candidates."""
    listwise_over: Literal["vocabulary", "numbers"] = "vocabulary"
    """The tokens among which the right number is to be probable. `vocabulary`: all, so the model also learns to answer
    with a number; `numbers`: those of the list alone, so it learns the order and nothing else."""
    hardest: int = Field(1, gt=0)
    """A pair's negative is drawn from this many with the highest judge scores; 1 as in UniME-V2."""
    graded: float = Field(0.0, ge=0, le=1)
    """How far a pair's target goes from 1 or 0 to the judge's score, as a chance of Yes. For the scores of a better or
    calibrated judge: a model learns nothing from its own."""
    list_size_min: int = Field(2, ge=2, le=LONGEST_LIST)
    """Shortest list, the positive counted; its size is drawn evenly."""
    list_size_max: int = Field(6, ge=2, le=LONGEST_LIST)
    """Longest list; UniME-V2 has 6."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.list_size_min > self.list_size_max:
            raise ValueError(f"list_size_min = {self.list_size_min} is more than list_size_max = {self.list_size_max}")
        if not self.pairwise and not self.listwise:
            raise ValueError("pairwise and listwise are both 0: nothing would be learned")
        return self
