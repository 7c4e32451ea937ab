"""Parts (texts and pictures) → token ids, so that a user's text can never become a control token.

A *stream* is a list of token ids in which a picture stands as its bytes, until `ModelInputs` turns it into as many
tokens as it needs. Two streams share a prefix exactly as far as they are equal, and no picture is ever cut in two.

The chat template is the tokenizer's own. Text between two of its control tokens, the template's and the user's
together, is tokenised as one string (cutting at part borders would change the pieces) by a copy of the tokenizer that
has no added tokens at all. Works on tokenizers of the Hugging Face kind; imports no library of theirs.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from unijudge.errors import ModelError
from unijudge.judging.prompt import PromptPart

Stream = list[int | bytes]
"""Token ids, with a picture's bytes where its tokens will stand."""

_SLOT = re.compile("\ue000(\\d+)\ue001")  # private-use characters: no template has them; user text is put in afterwards
_PLAIN = "Which one? A red-brown fox, 3 of 4."
"""Text that no tokenizer has a reason to cut otherwise here than elsewhere."""


class ChatEncoder:
    """One user's turn, rendered by the tokenizer's own chat template, up to where the model's answer begins."""

    def __init__(self, tokenizer: Any, image_token: str):
        """Checks that no text can become an added token, and that plain text is cut as the tokenizer itself cuts it.

        Args:
            tokenizer: A fast tokenizer with a chat template.
            image_token: The placeholder that the template writes for a picture, as in `<|image_pad|>`.

        Raises:
            ModelError: No chat template, a tokenizer whose vocabulary itself spells an added token, or one that cuts
                plain text in a way that is not understood here.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(f"{tokenizer.name_or_path}: its tokenizer has no chat template; take an instruct model")
        self._tokenizer = tokenizer
        self.image_token = image_token
        self._controls: dict[str, int] = tokenizer.get_added_vocab()
        if image_token not in self._controls:
            raise ModelError(f"{tokenizer.name_or_path}: its tokenizer has no token {image_token!r} for pictures")
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._cut = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self._first, self._plain = _without_added_tokens(tokenizer.backend_tokenizer)
        for token, token_id in self._controls.items():
            if token_id in self.text_ids(token):
                raise ModelError(
                    f"{tokenizer.name_or_path}: typed text {token!r} becomes the control token {token_id}; "
                    "user text could steer this model"
                )
        bare, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        place = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), 0)
        self._begin: list[int] = whole[:place]
        self._end: list[int] = whole[place + len(bare) :]
        """What the tokenizer puts before and behind a string of its own."""
        self._layout = lru_cache(maxsize=64)(self._render)
        self._check_plain_text()

    def text_ids(self, text: str) -> list[int]:
        """The ids of plain text inside a prompt; what looks like a control token in it stays text."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    @property
    def answer_prefix(self) -> str:
        """The text between the last control token and the place where the model's answer begins."""
        return _SLOT.sub("", self._layout((False,))[-1])

    def answer_ids(self, answer: str) -> list[int]:
        """The tokens of an answer in its place: together with the text before it, which may change its pieces.

        Raises:
            ModelError: The answer and the text before it share a token.
        """
        context = self.text_ids(self.answer_prefix)
        ids = self.text_ids(self.answer_prefix + answer)
        if ids[: len(context)] != context:
            raise ModelError(f"{answer!r} melts into {self.answer_prefix!r} before it, in this model's tokenizer")
        return ids[len(context) :]

    def label_id(self, label: str) -> int:
        """The one token of a label where the answer stands: it may be one alone and two in its place.

        Raises:
            ModelError: It is not one token there.
        """
        ids = self.answer_ids(label)
        if len(ids) != 1:
            raise ModelError(
                f"label {label!r} is not one token after {self.answer_prefix!r} (tokens {ids}); set prompt.yes and "
                "prompt.no to words that this model's tokenizer has"
            )
        return ids[0]

    def stream(self, parts: Sequence[PromptPart]) -> Stream:
        """The whole prompt for one user's turn that holds `parts`."""
        texts = [part for part in parts if isinstance(part, str)]
        pictures = iter([part for part in parts if isinstance(part, bytes)])
        segments = self._layout(tuple(isinstance(part, bytes) for part in parts))
        begins = segments[1:2] == [self._tokenizer.bos_token] and not segments[0]
        stream: Stream = [] if begins else list(self._begin)
        for place, segment in enumerate(segments):
            if segment == self.image_token:
                stream.append(next(pictures))
            elif segment in self._controls:
                stream.append(self._controls[segment])
            elif segment:
                text = _SLOT.sub(lambda slot: texts[int(slot[1])], segment)
                stream += self.text_ids(text) if place else self._first.encode(text, add_special_tokens=False).ids
        return stream

    def written_picture(self) -> str:
        """What the template writes for a picture: its token, and whatever it puts around it."""
        alone, nothing = self._segments([{"type": "image"}]), self._segments([])
        while nothing and alone[0] == nothing[0]:
            del alone[0], nothing[0]
        while nothing and alone[-1] == nothing[-1]:
            del alone[-1], nothing[-1]
        return "".join(alone)

    def bare_stream(self, parts: Sequence[PromptPart]) -> Stream:
        """`parts` one after the other, without a template: as the tokenizer takes a string, but for control tokens."""
        stream: Stream = list(self._begin)
        for place, part in enumerate(parts):
            if isinstance(part, bytes):
                stream.append(part)
            else:
                stream += self.text_ids(part) if place else self._first.encode(part, add_special_tokens=False).ids
        return stream + self._end

    def _render(self, is_picture: tuple[bool, ...]) -> list[str]:
        content: list[dict[str, str]] = []
        num_texts = 0
        for picture in is_picture:
            if picture:
                content.append({"type": "image"})
            else:
                content.append({"type": "text", "text": f"\ue000{num_texts}\ue001"})
                num_texts += 1
        segments = self._segments(content)
        if self._kinds(segments) != is_picture:  # a template that puts pictures first: whose they are would be lost
            written = "".join(part.get("text") or self.written_picture() for part in content)
            segments = self._segments([{"type": "text", "text": written}])
        if self._kinds(segments) != is_picture:
            raise ModelError(
                f"{self._tokenizer.name_or_path}: its chat template does not write {self.image_token!r} once for each "
                "picture; is this a vision-language model?"
            )
        return segments

    def _segments(self, content: list[dict[str, str]]) -> list[str]:
        return self._cut.split(self._rendered(content))

    def _rendered(self, content: list[dict[str, str]]) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=False,
                add_generation_prompt=True,
                strftime_now=_refuse_the_date,
            )
        except ModelError as error:
            raise ModelError(f"{self._tokenizer.name_or_path}: {error}") from error
        except Exception as error:  # a template is a program: it may raise anything
            raise ModelError(
                f"{self._tokenizer.name_or_path}: its chat template does not take a user's turn of texts and pictures "
                f"({type(error).__name__}: {error})"
            ) from error
        return text

    def _kinds(self, segments: list[str]) -> tuple[bool, ...]:
        """In order, true for a picture and false for a text."""
        kinds: list[bool] = []
        for segment in segments:
            kinds += [True] if segment == self.image_token else [False] * len(_SLOT.findall(segment))
        return tuple(kinds)

    def _check_plain_text(self) -> None:
        rendered = self._rendered([{"type": "text", "text": _PLAIN}])
        begins = bool(self._tokenizer.bos_token) and rendered.startswith(self._tokenizer.bos_token)
        ids = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
        if self.stream([_PLAIN]) != ([] if begins else self._begin) + ids:
            raise ModelError(
                f"{self._tokenizer.name_or_path}: its tokenizer cuts plain text otherwise than this program does; "
                "report it with the name of the model"
            )


def _refuse_the_date(_: str) -> str:
    """In the place of what a chat template asks for the time.

    Raises:
        ModelError: Always: a pair would have another score tomorrow.
    """
    raise ModelError(
        "its chat template writes the date of today (strftime_now), so scores and vectors would change from day to "
        "day; put a fixed date there"
    )


def _without_added_tokens(backend: Any) -> tuple[Any, Any]:
    """Copies of a tokenizer that know no added tokens: for the first text of a prompt, and for all that follow."""
    plain = json.loads(backend.to_str())
    plain.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    first = json.dumps(plain)
    later = first.replace('"prepend_scheme": "first"', '"prepend_scheme": "never"')  # of SentencePiece-like tokenizers
    return type(backend).from_str(first), type(backend).from_str(later)


def shared_prefix(streams: Sequence[Stream]) -> int:
    """How many leading entries all streams share, leaving each at least one of its own.

    Example:
        >>> shared_prefix([[1, 2, b"x", 3], [1, 2, b"x", 4]])
        3
        >>> shared_prefix([[1, 2], [1, 2]])
        1
    """
    shortest = min(len(stream) for stream in streams) - 1
    first = streams[0]
    for position in range(shortest):
        if any(stream[position] != first[position] for stream in streams[1:]):
            return position
    return max(shortest, 0)
