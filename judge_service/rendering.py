"""One query and its candidates → token streams that end where the answer begins, and the ids of the two answers.

It promises that Yes and No are each one token *in that place*, and that the words of a user stay words. It does not run
a model.
"""

from collections.abc import Sequence
from typing import Any

from unijudge.corpus import Content
from unijudge.encoding import ChatEncoder, Stream
from unijudge.errors import ModelError
from unijudge.prompt import Prompt


class Renderer:
    """The judge prompt for one tokenizer."""

    def __init__(self, tokenizer: Any, image_token: str, prompt: Prompt):
        """Proves the labels.

        Raises:
            ModelError: A label is not one token where the answer stands, both are the same, or the tokenizer lets
                typed text become a control token.
        """
        self._prompt = prompt
        self._encoder = ChatEncoder(tokenizer, image_token)
        self.yes_id = self._label_id(prompt.yes)
        self.no_id = self._label_id(prompt.no)
        if self.yes_id == self.no_id:
            raise ModelError(
                f"labels {prompt.yes!r} and {prompt.no!r} are the same token; set prompt.yes and prompt.no"
            )

    def streams(self, query: Content, candidates: Sequence[Content]) -> list[Stream]:
        """One prompt for each candidate."""
        return [self._encoder.stream(self._prompt.parts(query, candidate)) for candidate in candidates]

    def _label_id(self, label: str) -> int:
        """Tokenises the label together with the text before it: a label may be one token alone and two in context."""
        before = self._encoder.answer_prefix
        ids, context = self._encoder.text_ids(before + label), self._encoder.text_ids(before)
        if ids[:-1] != context:
            raise ModelError(
                f"label {label!r} is not one token after {before!r} (tokens {ids[len(context) :]}); set prompt.yes and "
                "prompt.no to words that this model's tokenizer has"
            )
        return ids[-1]
