"""The listwise question in one model's tokens: which of these candidates fits best?

The constant words of the answer are given, so the model's next token is the number itself: it is read as Yes and No
are, without generation. Training and serving ask with the same tokens.
"""

from collections.abc import Sequence

from unijudge.content import Content
from unijudge.errors import ModelError
from unijudge.judging.prompt import LONGEST_LIST, list_answer, list_parts
from unijudge.modeling.chat_encoder import ChatEncoder, Stream


class ListQuestion:
    """Writes listwise questions, and knows the tokens of their answers."""

    def __init__(self, encoder: ChatEncoder):
        """Proves the answers.

        Raises:
            ModelError: The numbers of a list are not one token each in their place.
        """
        answers = [encoder.answer_ids(list_answer(number)) for number in range(1, LONGEST_LIST + 1)]
        first, last = answers[0], answers[-1]
        start = next((place for place, ids in enumerate(zip(first, last, strict=False)) if ids[0] != ids[1]), 0)
        if any(ids[:start] + ids[start + 1 :] != first[:start] + first[start + 1 :] for ids in answers):
            raise ModelError(
                f"the numbers 1 to {LONGEST_LIST} are not one token each in {list_answer(1)!r}; this model cannot "
                "answer listwise"
            )
        self.number_ids = [ids[start] for ids in answers]
        """The one token of each number, from 1."""
        self._encoder = encoder
        self._before_number = first[:start]

    def stream(self, query: Content, candidates: Sequence[Content]) -> Stream:
        """The whole question, up to where the number of the answer stands."""
        return [*self._encoder.stream(list_parts(query, candidates)), *self._before_number]
