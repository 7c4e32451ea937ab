"""The judge's prompt as ordered parts: the question, the order of the two sides, and the two answer words.

The default wording is UniME-V2's (arXiv 2510.13515, after LamRA's pointwise reranker). The same prompt is used for
judging, and for training and serving the reranker. The model's chat template decides the tokens around the parts
(`modeling/chat_encoder.py`).
"""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from unijudge.content import Content
from unijudge.settings import Settings

PromptPart = str | bytes
"""A text, or the bytes of a picture."""

QUERY, CANDIDATE = "Query:", "Candidate:"
"""The names of a pair's sides."""


@dataclass(frozen=True)
class Layout:
    """The words of a published prompt that settings do not change."""

    system: str | None
    """The system message. None: the default of the model's chat template."""
    before_instruction: str
    query: str
    """The name of the query."""
    candidate: str
    """The name of the candidate."""
    between: str
    """The text between the two sides."""
    words: dict[str, str]
    """The default values of `instruction`, `yes` and `no`."""


UNIME_V2 = Layout(
    system=None,
    before_instruction="",
    query=QUERY,
    candidate=CANDIDATE,
    between="",
    words={
        "instruction": (
            "I will provide you with a query and a candidate. Please evaluate whether the candidate meets the "
            "requirements of the query. If it does, respond with 'Yes'; if it doesn't, respond with 'No'."
        ),
        "yes": "Yes",
        "no": "No",
    },
)
"""The judge of UniME-V2 (arXiv 2510.13515)."""

QWEN3_VL_RERANKER = Layout(
    system=(
        "Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the "
        'answer can only be "yes" or "no".'
    ),
    before_instruction="<Instruct>: ",
    query="<Query>:",
    candidate="<Document>:",
    between="\n",
    words={
        "instruction": "Given a search query, retrieve relevant candidates that answer the query.",
        "yes": "yes",
        "no": "no",
    },
)
"""Qwen3-VL-Reranker.

Source:
    The card and the chat template of Qwen/Qwen3-VL-Reranker-2B on Hugging Face; the template of ms-swift for this model
    has the same layout.
"""

LAYOUTS = {"unime-v2": UNIME_V2, "qwen3-vl-reranker": QWEN3_VL_RERANKER}

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

    preset: Literal["unime-v2", "qwen3-vl-reranker"] = "unime-v2"
    """The layout of the prompt, and the defaults of the other settings. `qwen3-vl-reranker` is for the models of this
    name. Any other setting of this table can replace its default, for your own wording."""
    instruction: str = UNIME_V2.words["instruction"]
    """The first part of the prompt."""
    yes: str = "Yes"
    """The label of a match, a single token of the model's vocabulary."""
    no: str = "No"
    """The label of a mismatch, a single token of the model's vocabulary."""
    order: Literal["query_first", "candidate_first"] = "query_first"
    """The side that comes first. Pairs with the same first side share its computation. The order changes the scores."""

    @model_validator(mode="before")
    @classmethod
    def _words_of_the_preset(cls, values: Any) -> Any:
        """Fills in the words of a preset that the settings do not replace."""
        layout = LAYOUTS.get(str(values.get("preset"))) if isinstance(values, dict) else None
        return values if layout is None else layout.words | values

    @model_serializer(mode="wrap")
    def _with_all_words(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Writes the words of a preset even if they equal the defaults of the class, which the preset would replace."""
        values: dict[str, Any] = write(self)
        if self.preset == "unime-v2":
            return values
        return values | {name: getattr(self, name) for name in LAYOUTS[self.preset].words}

    @property
    def system(self) -> str | None:
        """The system message. None: the default of the model's chat template."""
        return LAYOUTS[self.preset].system

    def parts(self, query: Content, candidate: Content) -> list[PromptPart]:
        """Returns the user's turn for a pair: instruction, then each side's name, image and text, without separators.

        Example:
            >>> Prompt(instruction="Match?").parts(Content("a cat"), Content(image=b"..."))
            ['Match?', 'Query:', 'a cat', 'Candidate:', b'...']
        """
        layout = LAYOUTS[self.preset]
        first, second = (layout.query, query), (layout.candidate, candidate)
        if self.order == "candidate_first":
            first, second = second, first
        first_name, first_content = first
        second_name, second_content = second
        return [
            layout.before_instruction + self.instruction,
            first_name,
            *content_parts(first_content),
            layout.between + second_name,
            *content_parts(second_content),
        ]

    @property
    def fingerprint(self) -> str:
        """Returns sixteen hex digits that change with any word or the order of the pairwise and listwise questions."""
        one, other = Content("one"), Content("other")
        # The default preset has no name here, so that its fingerprint stays the fingerprint of earlier versions.
        named = {} if self.preset == "unime-v2" else {"preset": self.preset, "system": self.system}
        words = [
            self.model_dump(exclude={"preset"}) | named,
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
