"""How long the prompts of pairs are, by what makes them: no model runs.

What a judge that runs prompts can do beside judging. Judges without tokens have no counter, and need none.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from judge_service.backends.model_shapes import shape_of
from judge_service.backends.rendering import Inputs
from unijudge.content import Content
from unijudge.judging.flops import TokenCount
from unijudge.judging.verdicts import Judge, PairError


@runtime_checkable
class PromptJudge(Protocol):
    """A judge that says what makes its prompts."""

    @property
    def inputs(self) -> Inputs:
        """What turns pairs into its prompts."""
        ...


class PairCounter:
    """Counts what a judge would run. For any thread."""

    def __init__(self, inputs: Inputs):
        self._inputs = inputs
        self.shape = shape_of(inputs.model.config)
        """What a token costs, where that is known."""

    def count(self, query: Content, candidates: Sequence[Content]) -> list[TokenCount | PairError]:
        """One count for each candidate, in order, or the error that the judge would give in its place.

        Raises:
            JudgeRefused: The query is empty, or its image cannot be decoded.
        """
        answers, streams = self._inputs.prepare(query, candidates)
        counts: dict[int, TokenCount | PairError] = {
            place: answer for place, answer in enumerate(answers) if isinstance(answer, PairError)
        }
        if streams:
            length = self._inputs.model.length
            prompts = list(streams.values())
            shared_tokens = length(prompts[0][: self._inputs.shared(prompts)])
            query_image_tokens = self._image_tokens(query)
            for place, stream in streams.items():
                counts[place] = TokenCount(
                    tokens=length(stream),
                    shared_tokens=shared_tokens,
                    query_image_tokens=query_image_tokens,
                    candidate_image_tokens=self._image_tokens(candidates[place]),
                )
        return [counts[place] for place in range(len(candidates))]

    def _image_tokens(self, content: Content) -> int:
        return self._inputs.model.length([content.image]) if content.image else 0


def counter_of(judge: Judge) -> PairCounter | None:
    """What counts for this judge; None where it has no tokens."""
    return PairCounter(judge.inputs) if isinstance(judge, PromptJudge) else None
