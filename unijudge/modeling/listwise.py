"""The listwise question in a model's tokens: which of these candidates fits best?

The prompt ends with the constant words of the answer, so the model's next token is the number. As with Yes and No, the
probability of this token is read without generation. Training and serving use the same tokens.
"""

from collections.abc import Sequence

from unijudge.content import Content
from unijudge.errors import ModelError
from unijudge.judging.prompt import LONGEST_LIST, list_answer, list_parts
from unijudge.modeling.chat_encoder import ChatEncoder, Stream


class ListQuestion:
    """The writer of listwise questions, with the tokens of their answers."""

    def __init__(self, encoder: ChatEncoder):
        """Checks that every number of a list is a single token in the answer.

        Raises:
            ModelError: A number is not a single token.
        """
        answers = [encoder.answer_ids(list_answer(number)) for number in range(1, LONGEST_LIST + 1)]
        first, last = answers[0], answers[-1]
        start = next(
            (at for at, ids in enumerate(zip(first, last, strict=False)) if ids[0] != ids[1]), 0
        )
        if any(
            ids[:start] + ids[start + 1 :] != first[:start] + first[start + 1 :] for ids in answers
        ):
            raise ModelError(
                f"the numbers 1 to {LONGEST_LIST} are not one token each in {list_answer(1)!r}, so this model cannot "
                "answer listwise. Take another model"
            )
        self.number_ids = [ids[start] for ids in answers]
        """The token of each number, from 1."""
        self._encoder = encoder
        self._before_number = first[:start]

    def stream(self, query: Content, candidates: Sequence[Content]) -> Stream:
        """Returns the complete question, up to the number in the answer."""
        return [*self._encoder.stream(list_parts(query, candidates)), *self._before_number]
