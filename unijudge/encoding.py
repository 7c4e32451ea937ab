"""Parts (texts and pictures) → token ids, so that a user's text can never become a control token.

A *stream* is a list of token ids in which a picture stands as its bytes, until `expand` turns it into as many image
tokens as it needs. Two streams share a prefix exactly as far as they are equal, and no picture is ever cut in two.

The chat template is the tokenizer's own. Text between two of its control tokens, the template's and the user's
together, is tokenised as one string (cutting at part borders would change the pieces) by a copy of the tokenizer that
has no added tokens at all. Works on tokenizer and image processor objects of the Hugging Face kind; imports neither.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from unijudge.errors import ModelError
from unijudge.pictures import PictureReader
from unijudge.prompt import Part

Stream = list[int | bytes]
"""Token ids, with a picture's bytes where its tokens will stand."""

_SLOT = re.compile("\ue000(\\d+)\ue001")  # private-use characters: no template has them; user text is put in afterwards


class ChatEncoder:
    """One user's turn, rendered by the tokenizer's own chat template, up to where the model's answer begins."""

    def __init__(self, tokenizer: Any, image_token: str):
        """Checks that no text can become an added token.

        Args:
            tokenizer: A fast tokenizer with a chat template.
            image_token: The placeholder that the template writes for a picture, as in `<|image_pad|>`.

        Raises:
            ModelError: No chat template, or a tokenizer whose vocabulary itself spells an added token.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(f"{tokenizer.name_or_path}: its tokenizer has no chat template; take an instruct model")
        self._tokenizer = tokenizer
        self._image_token = image_token
        self._controls: dict[str, int] = tokenizer.get_added_vocab()
        if image_token not in self._controls:
            raise ModelError(f"{tokenizer.name_or_path}: its tokenizer has no token {image_token!r} for pictures")
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._cut = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        backend = tokenizer.backend_tokenizer
        plain = json.loads(backend.to_str())
        plain.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
        self._plain = type(backend).from_str(json.dumps(plain))
        for token, token_id in self._controls.items():
            if token_id in self.text_ids(token):
                raise ModelError(
                    f"{tokenizer.name_or_path}: typed text {token!r} becomes the control token {token_id}; "
                    "user text could steer this model"
                )
        self._layout = lru_cache(maxsize=64)(self._render)

    def text_ids(self, text: str) -> list[int]:
        """The ids of plain text; what looks like a control token in it stays text."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    @property
    def answer_prefix(self) -> str:
        """The text between the last control token and the place where the model's answer begins."""
        return self._layout((False,))[-1]

    def stream(self, parts: Sequence[Part]) -> Stream:
        """The whole prompt for one user's turn that holds `parts`."""
        texts = [part for part in parts if isinstance(part, str)]
        pictures = iter([part for part in parts if isinstance(part, bytes)])
        stream: Stream = []
        for segment in self._layout(tuple(isinstance(part, bytes) for part in parts)):
            if segment == self._image_token:
                stream.append(next(pictures))
            elif segment in self._controls:
                stream.append(self._controls[segment])
            elif segment:
                stream += self.text_ids(_SLOT.sub(lambda slot: texts[int(slot[1])], segment))
        return stream

    def _render(self, is_picture: tuple[bool, ...]) -> list[str]:
        content: list[dict[str, str]] = []
        num_texts = 0
        for picture in is_picture:
            if picture:
                content.append({"type": "image"})
            else:
                content.append({"type": "text", "text": f"\ue000{num_texts}\ue001"})
                num_texts += 1
        rendered = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        segments = self._cut.split(rendered)
        if segments.count(self._image_token) != sum(is_picture):
            raise ModelError(
                f"{self._tokenizer.name_or_path}: its chat template does not write {self._image_token!r} once for each "
                "picture; is this a vision-language model?"
            )
        return segments


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


def token_arrays(
    streams: Sequence[Stream], pictures: PictureReader, *, image_id: int, pad_id: int
) -> dict[str, npt.NDArray[Any]]:
    """A batch of token ids for a Qwen-VL model, padded on the right.

    Returns:
        All int64: input_ids, attention_mask and mm_token_type_ids (1 on image tokens), each (rows, longest); M-RoPE's
        position_ids, (3, rows, longest).
    """
    rows = [expand(stream, pictures, image_id) for stream in streams]
    shape = len(rows), max(len(row) for row in rows)
    ids = np.full(shape, pad_id, np.int64)
    mask = np.zeros(shape, np.int64)
    positions = np.zeros((3, *shape), np.int64)
    for index, (row, stream) in enumerate(zip(rows, streams, strict=True)):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
        positions[:, index, : len(row)] = mrope_positions(stream, pictures)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": ((ids == image_id) & (mask == 1)).astype(np.int64),
        "position_ids": positions,
    }


def mrope_positions(stream: Stream, pictures: PictureReader) -> npt.NDArray[np.int64]:
    """(time, height, width) positions of a stream's tokens, (3, tokens).

    Text counts on in all three; a picture's tokens share one time and take their row and column, counted from where the
    picture begins; text goes on after the largest of them.

    Source:
        Qwen2-VL (arXiv 2409.12191), section on multimodal rotary position embedding. A test compares with
        transformers' `get_rope_index`.
    """
    blocks = []
    start = 0
    for entry in stream:
        if isinstance(entry, bytes):
            height, width = pictures(entry).tokens
            rows, columns = np.divmod(np.arange(height * width), width)
            blocks.append(start + np.stack([np.zeros_like(rows), rows, columns]))
            start += max(height, width)
        else:
            blocks.append(np.full((3, 1), start))
            start += 1
    return np.concatenate(blocks, axis=1)


def picture_arrays(
    streams: Sequence[Stream], pictures: PictureReader, image_processor: Any
) -> dict[str, npt.NDArray[Any]]:
    """What the vision tower takes of a batch, in reading order.

    Args:
        streams: The batch.
        pictures: Has scaled them already.
        image_processor: Of the Qwen2-VL kind; normalises and cuts into patches.

    Returns:
        pixel_values (patches, width) and image_grid_thw (pictures, 3); nothing without any picture.
    """
    images = [pictures(entry).image for stream in streams for entry in stream if isinstance(entry, bytes)]
    if not images:
        return {}
    features = image_processor(images=images, do_resize=False, return_tensors="np")
    return {name: np.asarray(features[name]) for name in ("pixel_values", "image_grid_thw")}


def expand(stream: Stream, pictures: PictureReader, image_id: int) -> list[int]:
    """The token ids of a stream, each picture replaced by its image tokens."""
    ids: list[int] = []
    for entry in stream:
        ids += [image_id] * pictures(entry).num_tokens if isinstance(entry, bytes) else [entry]
    return ids
