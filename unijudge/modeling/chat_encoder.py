"""Parts (texts and pictures) → token ids, so that a user's text can never become a control token.

A *stream* is a list of token ids. A picture in a stream is represented by its bytes until `ModelInputs` replaces the
bytes with the picture's tokens. Two streams share a prefix exactly as far as their entries are equal, and a prefix
never ends inside a picture.

The chat template comes from the tokenizer. All text between two control tokens, from the template and the user, is
tokenised as one string: tokenising part by part would give other tokens. A copy of the tokenizer without added tokens
does so. This module works with Hugging Face tokenizers, but imports no library of Hugging Face.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from unijudge.errors import ModelError
from unijudge.judging.prompt import PromptPart

Stream = list[int | bytes]
"""Token ids, with a picture's bytes in the place of its tokens."""

# Private-use characters, which templates lack; user text replaces them later.
_SLOT = re.compile("\ue000(\\d+)\ue001")
_PLAIN = "Which one? A red-brown fox, 3 of 4."
"""An ordinary text, which every tokenizer should cut in the same way in every context."""


class ChatEncoder:
    """Renders a user's turn with the tokenizer's chat template, up to the beginning of the model's answer."""

    def __init__(self, tokenizer: Any, image_token: str):
        """Checks that no text can become an added token, and that this class cuts plain text as the tokenizer does.

        Args:
            tokenizer: A fast tokenizer with a chat template.
            image_token: The placeholder that the template writes for a picture, such as `<|image_pad|>`.

        Raises:
            ModelError: The tokenizer has no chat template, its vocabulary spells an added token, or it cuts plain text
                in another way than this class.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"{tokenizer.name_or_path}: its tokenizer has no chat template. Take an instruct model"
            )
        self._tokenizer = tokenizer
        self.image_token = image_token
        self._controls: dict[str, int] = tokenizer.get_added_vocab()
        if image_token not in self._controls:
            raise ModelError(
                f"{tokenizer.name_or_path}: its tokenizer has no token {image_token!r} for pictures. Take a "
                "vision-language model"
            )
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._cut = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self._first, self._plain = _without_added_tokens(tokenizer.backend_tokenizer)
        for token, token_id in self._controls.items():
            if token_id in self.text_ids(token):
                raise ModelError(
                    f"{tokenizer.name_or_path}: the typed text {token!r} becomes the control token {token_id}, so user "
                    "text could steer this model. Take another model"
                )
        bare, whole = (
            tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True)
        )
        start = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), 0)
        self._begin: list[int] = whole[:start]
        self._end: list[int] = whole[start + len(bare) :]
        """The special tokens that the tokenizer puts before (`_begin`) and after (`_end`) a string."""
        self._layout = lru_cache(maxsize=64)(self._render)
        self._check_plain_text()

    def text_ids(self, text: str) -> list[int]:
        """Returns the token ids of plain text inside a prompt. The spelling of a control token stays text."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    @property
    def answer_prefix(self) -> str:
        """Returns the text between the last control token and the beginning of the model's answer."""
        return _SLOT.sub("", self._layout((False,))[-1])

    def answer_ids(self, answer: str) -> list[int]:
        """Returns the tokens of an answer after the text that precedes it, since this text may change the tokens.

        Raises:
            ModelError: The answer and the text before it share a token.
        """
        context = self.text_ids(self.answer_prefix)
        ids = self.text_ids(self.answer_prefix + answer)
        if ids[: len(context)] != context:
            raise ModelError(
                f"{answer!r} shares a token with {self.answer_prefix!r} before it, in this model's tokenizer. Take "
                "another model"
            )
        return ids[len(context) :]

    def label_id(self, label: str) -> int:
        """Returns the single token of a label as an answer. The same word may be one token alone and two as an answer.

        Raises:
            ModelError: The label is not a single token there.
        """
        ids = self.answer_ids(label)
        if len(ids) != 1:
            raise ModelError(
                f"label {label!r} is not one token after {self.answer_prefix!r} (tokens {ids}). Set prompt.yes and "
                "prompt.no to words that this model's tokenizer has"
            )
        return ids[0]

    def stream(self, parts: Sequence[PromptPart], system: str | None = None) -> Stream:
        """Returns the complete prompt of a user's turn with `parts`.

        Args:
            parts: The texts and pictures of the turn.
            system: The system message. None: the default of the template.
        """
        texts = [part for part in parts if isinstance(part, str)]
        pictures = iter([part for part in parts if isinstance(part, bytes)])
        are_pictures = tuple(isinstance(part, bytes) for part in parts)
        segments = self._layout(are_pictures, system)

        # The start token is added, unless the template begins with it.
        begins = segments[1:2] == [self._tokenizer.bos_token] and not segments[0]
        stream: Stream = [] if begins else list(self._begin)
        for position, segment in enumerate(segments):
            if segment == self.image_token:
                stream.append(next(pictures))
            elif segment in self._controls:
                stream.append(self._controls[segment])
            elif segment:
                text = _SLOT.sub(lambda slot: texts[int(slot[1])], segment)
                stream += self._text_ids_at(position, text)
        return stream

    def written_picture(self) -> str:
        """Returns the template's text for a picture: the image token and the text around this token."""
        alone = self._segments([{"type": "image"}])
        nothing = self._segments([])

        # The text of an empty turn is removed from both ends.
        while nothing and alone[0] == nothing[0]:
            del alone[0], nothing[0]
        while nothing and alone[-1] == nothing[-1]:
            del alone[-1], nothing[-1]
        return "".join(alone)

    def bare_stream(self, parts: Sequence[PromptPart]) -> Stream:
        """Returns `parts` in order, without a template, as the tokenizer encodes a string without control tokens."""
        stream: Stream = list(self._begin)
        for position, part in enumerate(parts):
            if isinstance(part, bytes):
                stream.append(part)
            else:
                stream += self._text_ids_at(position, part)
        return stream + self._end

    def _text_ids_at(self, position: int, text: str) -> list[int]:
        """Returns the token ids of a text. At position 0 a tokenizer may add a space before the text."""
        if position:
            return self.text_ids(text)
        ids: list[int] = self._first.encode(text, add_special_tokens=False).ids
        return ids

    def _render(self, is_picture: tuple[bool, ...], system: str | None = None) -> list[str]:
        content: list[dict[str, str]] = []
        num_texts = 0
        for picture in is_picture:
            if picture:
                content.append({"type": "image"})
            else:
                content.append({"type": "text", "text": f"\ue000{num_texts}\ue001"})
                num_texts += 1
        segments = self._segments(content, system)
        # This template moves pictures to the front: their order would be lost.
        if self._kinds(segments) != is_picture:
            written = "".join(part.get("text") or self.written_picture() for part in content)
            segments = self._segments([{"type": "text", "text": written}], system)
        if self._kinds(segments) != is_picture:
            raise ModelError(
                f"{self._tokenizer.name_or_path}: its chat template does not write {self.image_token!r} once for each "
                "picture. Check that this is a vision-language model"
            )
        return segments

    def _segments(self, content: list[dict[str, str]], system: str | None = None) -> list[str]:
        return self._cut.split(self._rendered(content, system))

    def _rendered(self, content: list[dict[str, str]], system: str | None = None) -> str:
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system is not None:
            # Templates of language models take a text here, and templates of vision-language models also a list.
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=True,
                strftime_now=_refuse_the_date,
            )
        except ModelError as error:
            raise ModelError(f"{self._tokenizer.name_or_path}: {error}") from error
        except Exception as error:  # a template is a program: it may raise anything
            raise ModelError(
                f"{self._tokenizer.name_or_path}: its chat template does not take a user's turn of texts and pictures "
                f"({type(error).__name__}: {error}). Take a vision-language model"
            ) from error
        return text

    def _kinds(self, segments: list[str]) -> tuple[bool, ...]:
        """Returns true for each picture and false for each text, in order."""
        kinds: list[bool] = []
        for segment in segments:
            kinds += (
                [True] if segment == self.image_token else [False] * len(_SLOT.findall(segment))
            )
        return tuple(kinds)

    def _check_plain_text(self) -> None:
        rendered = self._rendered([{"type": "text", "text": _PLAIN}])
        begins = bool(self._tokenizer.bos_token) and rendered.startswith(self._tokenizer.bos_token)
        ids = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
        if self.stream([_PLAIN]) != ([] if begins else self._begin) + ids:
            raise ModelError(
                f"{self._tokenizer.name_or_path}: its tokenizer cuts plain text in another way than this program. "
                "Report this error with the name of the model"
            )


def _refuse_the_date(_: str) -> str:
    """Replaces the function by which a chat template reads the current time.

    Raises:
        ModelError: Always, because the scores of a pair would change from day to day.
    """
    raise ModelError(
        "its chat template writes today's date (strftime_now), so scores and vectors would change from day to day. Put "
        "a fixed date into the template"
    )


def _without_added_tokens(backend: Any) -> tuple[Any, Any]:
    """Returns two copies of a tokenizer without added tokens: for the first text of a prompt, and for later texts."""
    plain = json.loads(backend.to_str())
    plain.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    first = json.dumps(plain)
    # SentencePiece tokenizers add a space before the first text only.
    later = first.replace('"prepend_scheme": "first"', '"prepend_scheme": "never"')
    return type(backend).from_str(first), type(backend).from_str(later)


def shared_prefix(streams: Sequence[Stream]) -> int:
    """Returns the number of leading entries that all streams share. At least one entry of each stream is not counted.

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
