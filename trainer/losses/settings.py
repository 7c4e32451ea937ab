"""The settings of the losses."""

from typing import Literal, Self

from pydantic import Field, model_validator

from unijudge.judging.prompt import LONGEST_LIST
from unijudge.settings import Settings


class LossSettings(Settings):
    """The settings of the embedder's loss over a row's positive and negatives."""

    name: Literal["symmetric_kl", "js", "kl", "margin_mse", "infonce"] = "symmetric_kl"
    """Name of the loss. `symmetric_kl`: the formula of UniME-V2. `js`: the Jensen-Shannon divergence. `kl`: the usual
    distillation. `margin_mse`: the squared difference of margins between the positive and each negative. `infonce`:
    hard labels without a judge."""
    student_temperature: float = Field(0.02, gt=0)
    """Temperature of the student: the divisor of cosine similarities."""
    teacher_temperature: float = Field(0.02, gt=0)
    """Temperature of the teacher: the divisor of judge scores. At 0.02 nearly every target is one-hot. A larger
    temperature makes softer targets."""
    in_batch_weight: float = Field(0.0, ge=0)
    """Weight of the term for in-batch negatives: the candidates of the batch's other rows, on all processes, except
    known positives. 0: a row's own candidates only, as in UniME-V2. 1 with `infonce`: the usual InfoNCE over the
    batch."""


class RerankerLossSettings(Settings):
    """The settings of the reranker's loss. Each term is a mean over its questions, so the weights set the balance."""

    pairwise: float = Field(1.0, ge=0)
    """Weight of the pairwise term: the judge's own prompt, with the answer Yes for the positive and No for a
    negative."""
    listwise: float = Field(1.0, ge=0)
    """Weight of the listwise term: a list of candidates, with the number of the positive as the answer."""
    listwise_over: Literal["vocabulary", "numbers"] = "vocabulary"
    """The tokens over which the probability of the right number is computed. `vocabulary`: all tokens, so the model
    also learns to answer with a number. `numbers`: the numbers of the list alone, so the model learns the order and
    nothing else."""
    hardest: int = Field(1, gt=0)
    """Number of negatives with the highest judge scores from which a pair's negative is drawn. UniME-V2 uses 1."""
    graded: float = Field(0.0, ge=0, le=1)
    """How far a pair's target moves from the label (0) to the judge's score (1). The target is the probability of Yes.
    Use the scores of a stronger or calibrated judge, since a model learns nothing from its own scores."""
    list_size_min: int = Field(2, ge=2, le=LONGEST_LIST)
    """Length of the shortest list, including the positive. The length of each list is drawn uniformly."""
    list_size_max: int = Field(6, ge=2, le=LONGEST_LIST)
    """Length of the longest list, including the positive. UniME-V2 uses 6."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.list_size_min > self.list_size_max:
            raise ValueError(
                f"list_size_min = {self.list_size_min} is greater than list_size_max = {self.list_size_max}. "
                "Lower list_size_min or raise list_size_max"
            )
        if not self.pairwise and not self.listwise:
            raise ValueError(
                "pairwise and listwise are both 0, so the model would learn nothing. Raise a weight"
            )
        return self
