"""Counts the tokens of the prompts of pairs. The model does not run.

Only judges that run prompts have a counter.
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
    """A judge with access to its prompts."""

    @property
    def inputs(self) -> Inputs:
        """The converter from pairs to prompts."""
        ...


class PairCounter:
    """Counts the tokens of a judge's prompts. Thread-safe."""

    def __init__(self, inputs: Inputs):
        self._inputs = inputs
        self.shape = shape_of(inputs.model.config)
        """The cost of a token, if known."""

    def count(self, query: Content, candidates: Sequence[Content]) -> list[TokenCount | PairError]:
        """Returns one count for each candidate, in order, or the error that the judge would give for this candidate.

        Raises:
            JudgeRefused: The query is empty, or its image cannot be decoded.
        """
        # Index of a candidate → its count or its error.
        answers, streams = self._inputs.prepare(query, candidates)
        counts: dict[int, TokenCount | PairError] = {
            index: answer for index, answer in enumerate(answers) if isinstance(answer, PairError)
        }

        # All prompts begin with the same tokens of the query.
        if streams:
            length = self._inputs.model.length
            prompts = list(streams.values())
            shared_tokens = length(prompts[0][: self._inputs.shared(prompts)])
            query_image_tokens = self._image_tokens(query)
            for index, stream in streams.items():
                counts[index] = TokenCount(
                    tokens=length(stream),
                    shared_tokens=shared_tokens,
                    query_image_tokens=query_image_tokens,
                    candidate_image_tokens=self._image_tokens(candidates[index]),
                )
        return [counts[index] for index in range(len(candidates))]

    def _image_tokens(self, content: Content) -> int:
        return self._inputs.model.length([content.image]) if content.image else 0


def counter_of(judge: Judge) -> PairCounter | None:
    """Returns the counter of this judge. None for a judge without tokens."""
    return PairCounter(judge.inputs) if isinstance(judge, PromptJudge) else None
