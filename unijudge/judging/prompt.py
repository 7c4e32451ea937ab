"""The judge's prompt as ordered parts: the question, the order of the two sides, and the two answer words.

The wording is UniME-V2's (arXiv 2510.13515, after LamRA's pointwise reranker). The same prompt is used for judging, and
for training and serving the reranker. The model's chat template decides the tokens around the parts
(`modeling/chat_encoder.py`).
"""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from typing import Literal

from unijudge.content import Content
from unijudge.settings import Settings

PromptPart = str | bytes
"""A text, or the bytes of a picture."""

QUERY, CANDIDATE = "Query:", "Candidate:"
"""The names of a pair's sides."""

LIST_INSTRUCTION = (
    "I will provide you with a query followed by multiple candidates in the format: (1) cand1 (2) cand2, etc. Each "
    "candidate is independent of the others. Evaluate each candidate against the query, and respond with the number "
    "corresponding to the candidate that best meets the requirements of the query."
)
"""The instruction of the listwise question, in the words of UniME-V2's reranker."""

LONGEST_LIST = 9
"""The most candidates of a listwise question: larger numbers are two tokens, and would need generation."""


class Prompt(Settings):
    """The judge's question. Another wording, other labels or another order make another judge."""

    instruction: str = (
        "I will provide you with a query and a candidate. Please evaluate whether the candidate meets the requirements "
        "of the query. If it does, respond with 'Yes'; if it doesn't, respond with 'No'."
    )
    """The first part of the prompt."""
    yes: str = "Yes"
    """The label of a match, a single token of the model's vocabulary."""
    no: str = "No"
    """The label of a mismatch, a single token of the model's vocabulary."""
    order: Literal["query_first", "candidate_first"] = "query_first"
    """The side that comes first. Pairs with the same first side share its computation. The order changes the scores."""

    def parts(self, query: Content, candidate: Content) -> list[PromptPart]:
        """Returns the user's turn for a pair: instruction, then each side's name, image and text, without separators.

        Example:
            >>> Prompt(instruction="Match?").parts(Content("a cat"), Content(image=b"..."))
            ['Match?', 'Query:', 'a cat', 'Candidate:', b'...']
        """
        sides: list[tuple[str, Content]] = [(QUERY, query), (CANDIDATE, candidate)]
        if self.order == "candidate_first":
            sides.reverse()
        parts: list[PromptPart] = [self.instruction]
        for name, content in sides:
            parts += [name, *content_parts(content)]
        return parts

    @property
    def fingerprint(self) -> str:
        """Returns sixteen hex digits that change with any word or the order of the pairwise and listwise questions."""
        one, other = Content("one"), Content("other")
        words = [
            self.model_dump(),
            self.parts(one, other),
            list_parts(one, [one, other]),
            list_answer(1),
        ]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def list_parts(query: Content, candidates: Sequence[Content]) -> list[PromptPart]:
    """Returns the user's turn of the listwise question: which of these candidates fits best?

    Example:
        >>> list_parts(Content("a cat"), [Content("x"), Content(image=b"...")])[1:]
        ['Query:', 'a cat', 'Candidates:', '(1) ', 'x', '(2) ', b'...']
    """
    parts: list[PromptPart] = [LIST_INSTRUCTION, QUERY, *content_parts(query), "Candidates:"]
    for number, candidate in enumerate(candidates, start=1):
        parts += [f"({number}) ", *content_parts(candidate)]
    return parts


def list_answer(number: int) -> str:
    """Returns the answer to the listwise question, by the number (from 1) of a candidate.

    Example:
        >>> list_answer(2)
        'Ans: (2)'
    """
    return f"Ans: ({number})"


def content_parts(content: Content) -> list[PromptPart]:
    """Returns a content's image, then its text. A missing part and a text of only whitespace are left out.

    Empty bytes are an image that cannot be decoded, not a missing image.

    Example:
        >>> content_parts(Content(" ", b"...")), content_parts(Content("a ")), content_parts(Content("", None))
        ([b'...'], ['a '], [])
    """
    parts: list[PromptPart] = [] if content.image is None else [content.image]
    return parts if is_blank(content.text) else [*parts, content.text or ""]


def is_blank(text: str | None) -> bool:
    r"""Whether a text is invisible: empty, whitespace, control characters or characters without width.

    Example:
        >>> is_blank(None), is_blank(" \u200b\n"), is_blank("0")
        (True, True, False)
    """
    return all(
        letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf") for letter in text or ""
    )
