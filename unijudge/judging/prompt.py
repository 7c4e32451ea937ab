"""The one judge prompt, as ordered parts: what is asked, in which order, and which two words are the answers.

The wording is UniME-V2's (arXiv 2510.13515, after LamRA's pointwise reranker); the same prompt judges, trains the
reranker and serves it. Which tokens stand around the parts is the model's chat template's business (`encoding`).
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
"""Of the listwise question, as UniME-V2's reranker is asked."""

LONGEST_LIST = 9
"""Candidates that one listwise question may hold: larger numbers are two tokens, and would need generation."""


class Prompt(Settings):
    """What the judge is asked. Another wording, other labels or another order is another judge."""

    instruction: str = (
        "I will provide you with a query and a candidate. Please evaluate whether the candidate meets the requirements "
        "of the query. If it does, respond with 'Yes'; if it doesn't, respond with 'No'."
    )
    """Stands before everything."""
    yes: str = "Yes"
    """The label of a match; one token of the model's vocabulary."""
    no: str = "No"
    """The label of a mismatch; one token of the model's vocabulary."""
    order: Literal["query_first", "candidate_first"] = "query_first"
    """What stands first. The first side is computed once for all pairs that share it; the order changes the scores."""

    def parts(self, query: Content, candidate: Content) -> list[PromptPart]:
        """The user's turn for one pair: instruction, then each side's name, image and text, without separators.

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
        """Sixteen hex digits that change with any word or the order, of a pair's question and of a list's."""
        one, other = Content("one"), Content("other")
        words = [self.model_dump(), self.parts(one, other), list_parts(one, [one, other]), list_answer(1)]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def list_parts(query: Content, candidates: Sequence[Content]) -> list[PromptPart]:
    """The user's turn of the listwise question: which of these candidates fits best?

    Example:
        >>> list_parts(Content("a cat"), [Content("x"), Content(image=b"...")])[1:]
        ['Query:', 'a cat', 'Candidates:', '(1) ', 'x', '(2) ', b'...']
    """
    parts: list[PromptPart] = [LIST_INSTRUCTION, QUERY, *content_parts(query), "Candidates:"]
    for number, candidate in enumerate(candidates, start=1):
        parts += [f"({number}) ", *content_parts(candidate)]
    return parts


def list_answer(number: int) -> str:
    """What answers it: the number, from 1, of a candidate.

    Example:
        >>> list_answer(2)
        'Ans: (2)'
    """
    return f"Ans: ({number})"


def content_parts(content: Content) -> list[PromptPart]:
    """A content's image, then its text; what it lacks is left out, and a text of blanks says nothing.

    An image without bytes is an image that cannot be decoded, not the lack of one.

    Example:
        >>> content_parts(Content(" ", b"...")), content_parts(Content("a ")), content_parts(Content("", None))
        ([b'...'], ['a '], [])
    """
    parts: list[PromptPart] = [] if content.image is None else [content.image]
    return parts if is_blank(content.text) else [*parts, content.text or ""]


def is_blank(text: str | None) -> bool:
    r"""Whether nothing of a text would be seen: blanks, line breaks, and characters without width.

    Example:
        >>> is_blank(None), is_blank(" \u200b\n"), is_blank("0")
        (True, True, False)
    """
    return all(one.isspace() or unicodedata.category(one) in ("Cc", "Cf") for one in text or "")
