"""Everything of a model but its weights: parts → token streams → the arrays that a forward pass takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unijudge.encoding import ChatEncoder, Stream
from unijudge.families import Arrays, Entry, Family
from unijudge.pictures import PictureReader


class ModelInputs:
    """For one model: its chat template and tokenizer, and its family's way with pictures."""

    def __init__(self, tokenizer: Any, family: Family, *, max_source_pixels: int):
        """Checks the tokenizer.

        Args:
            tokenizer: A fast tokenizer with a chat template.
            family: Of the model.
            max_source_pixels: Pictures with more pixels are not decoded at all.

        Raises:
            ModelError: No chat template, or user text could steer this model (`ChatEncoder`).
        """
        self.encoder = ChatEncoder(tokenizer, tokenizer.convert_ids_to_tokens(family.image_id))
        self.family = family
        self.pictures = PictureReader(family, max_source_pixels=max_source_pixels)
        self._pad_id = tokenizer.pad_token_id or 0  # never attended to

    def length(self, stream: Stream) -> int:
        """Of a prompt, in tokens, those of its pictures included.

        Raises:
            BadImage: A picture cannot be decoded, or is too large.
        """
        return sum(len(self.pictures(entry).token_ids) if isinstance(entry, bytes) else 1 for entry in stream)

    def placeholders(self, stream: Stream) -> list[int]:
        """Token ids with one image token for each picture, as engines take them."""
        return [self.family.image_id if isinstance(entry, bytes) else entry for entry in stream]

    def token_arrays(self, streams: Sequence[Stream]) -> Arrays:
        """A batch of token ids, padded on the right.

        Returns:
            All int64: input_ids and attention_mask, (rows, longest); position_ids, (rows, longest), or
            (3, rows, longest) and mm_token_type_ids (1 on image tokens) where the family has positions in a plane.
        """
        rows = [self._expand(stream) for stream in streams]
        positions = [self.family.positions(self._entries(stream)) for stream in streams]
        longest = max(len(row) for row in rows)
        ids = np.full((len(rows), longest), self._pad_id, np.int64)
        mask = np.zeros_like(ids)
        places = np.zeros((*positions[0].shape[:-1], *ids.shape), np.int64)
        for index, (row, position) in enumerate(zip(rows, positions, strict=True)):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
            places[..., index, : len(row)] = position
        arrays = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
        if places.ndim == 3:
            arrays["mm_token_type_ids"] = ((ids == self.family.image_id) & (mask == 1)).astype(np.int64)
        return arrays

    def picture_arrays(self, streams: Sequence[Stream]) -> Arrays:
        """What the vision tower takes of a batch, in reading order; nothing without any picture."""
        pictures = [self.pictures(entry) for stream in streams for entry in stream if isinstance(entry, bytes)]
        return self.family.arrays(pictures) if pictures else {}

    def _entries(self, stream: Stream) -> list[Entry]:
        return [self.pictures(entry) if isinstance(entry, bytes) else entry for entry in stream]

    def _expand(self, stream: Stream) -> list[int]:
        ids: list[int] = []
        for entry in stream:
            ids += self.pictures(entry).token_ids if isinstance(entry, bytes) else [entry]
        return ids
