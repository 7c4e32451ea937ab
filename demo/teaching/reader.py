"""Runs training rows through a tiny model quickly: vision features are cached, and a shared prefix runs once."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from demo.teaching.lessons import Row
from unijudge.images.image_processing import Picture, PixelBudget
from unijudge.modeling.chat_encoder import Stream, shared_prefix
from unijudge.modeling.families import QwenVL, TokenOrImage

ROWS_AT_ONCE = 16
"""Number of rows of a batch that run together."""


class Reader:
    """A model, its tokens, and the images that rows refer to by number."""

    def __init__(self, model: Any, tokenizer: Any, processor: Any, pictures: Sequence[Image.Image]):
        self.model = model
        self.correct = 0.5
        """Smoothed share of correct answers."""
        pixels = pictures[0].width * pictures[0].height
        self._family = QwenVL(model.config, processor, PixelBudget(pixels, pixels))
        self._picture: Picture = self._family.picture(pictures[0])  # all images have the same size
        self.cells = len(self._picture.token_ids)
        self._pad: int = tokenizer.pad_token_id
        looked = self._family.arrays([self._family.picture(picture) for picture in pictures])
        self._grid = torch.from_numpy(looked["image_grid_thw"][:1])
        self._pixels = torch.from_numpy(looked["pixel_values"]).unflatten(0, (len(pictures), -1))
        self._features: Tensor | None = None
        self._layouts: dict[tuple[int | tuple[int, ...], ...], Tensor] = {}

    def look(self, pictures: Sequence[int]) -> Tensor:
        """Returns the features of images, of shape (images, cells, width)."""
        if self._features is not None:
            return self._features[list(pictures)]
        pixels, grid = (
            self._pixels[list(pictures)].flatten(0, 1),
            self._grid.expand(len(pictures), 3),
        )
        seen: Tensor = self.model.model.visual(pixels, grid_thw=grid).pooler_output
        return seen.unflatten(0, (len(pictures), -1))

    @torch.no_grad()
    def freeze_vision(self) -> None:
        """Caches the features of all images, so the vision tower does not run again."""
        self._features = torch.cat(
            [
                self.look(range(i, min(i + 256, len(self._pixels))))
                for i in range(0, len(self._pixels), 256)
            ]
        )

    def losses(self, rows: Sequence[Row]) -> Iterator[Tensor]:
        """Yields terms whose sum is the mean cross-entropy of the answer tokens.

        Each term has a few rows of similar length. These rows fit into the cache of a CPU, and need little padding.
        """
        tokens = sum(len(row.answer) for row in rows)
        by_length = sorted(rows, key=lambda row: self._length(row.stream) + len(row.answer))
        right = 0
        for start in range(0, len(rows), ROWS_AT_ONCE):
            logits, target = self._answered(by_length[start : start + ROWS_AT_ONCE])
            right += int((logits.argmax(-1) == target).sum())
            yield F.cross_entropy(logits, target, reduction="sum") / tokens
        self.correct = 0.95 * self.correct + 0.05 * right / tokens

    def _answered(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Returns the logits at each answer token, of shape (tokens, vocabulary), and the answer tokens."""
        hidden = self._hidden([[*row.stream, *row.answer[:-1]] for row in rows])
        picked = []
        for index, row in enumerate(rows):
            end = self._length(row.stream)
            picked.append(hidden[index, end - 1 : end - 1 + len(row.answer)])
        target = torch.tensor([token for row in rows for token in row.answer])
        return self.model.lm_head(torch.cat(picked)), target

    def last_hidden(self, streams: list[Stream]) -> Tensor:
        """Returns the hidden state of the last token of each stream, of shape (streams, width)."""
        hidden = self._hidden(streams)
        return hidden[
            torch.arange(len(streams)),
            torch.tensor([self._length(stream) for stream in streams]) - 1,
        ]

    def _length(self, stream: Stream) -> int:
        return sum(self.cells if isinstance(entry, bytes) else 1 for entry in stream)

    def _hidden(self, streams: list[Stream]) -> Tensor:
        """Returns the hidden states, of shape (streams, longest, width). A shared prefix is computed once."""
        cut = shared_prefix(streams)
        if cut < 16 or any(isinstance(entry, bytes) for entry in streams[0][:cut]):
            return self._run(streams, None, 0)
        text = self.model.config.get_text_config()
        once, cache = DynamicCache(config=text), DynamicCache(config=text)
        beginning = self._run([streams[0][:cut]], once, 0)
        for index, layer in enumerate(once.layers):
            expanded = (
                part.expand(len(streams), -1, -1, -1) for part in (layer.keys, layer.values)
            )
            cache.update(*expanded, index)
        rest = self._run(streams, cache, cut)
        return torch.cat([beginning.expand(len(streams), -1, -1), rest], 1)

    def _run(self, streams: list[Stream], cache: Any, cut: int) -> Tensor:
        lengths = [self._length(stream) for stream in streams]
        ids = torch.full((len(streams), max(lengths)), self._pad)
        positions = torch.zeros((3, *ids.shape), dtype=torch.long)
        for index, (stream, length) in enumerate(zip(streams, lengths, strict=True)):
            row: list[int] = []
            for entry in stream:
                row += self._picture.token_ids if isinstance(entry, bytes) else [entry]
            ids[index, :length] = torch.tensor(row)
            positions[:, index, :length] = self._positions(stream)
        mask = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
        new = ids[:, cut:]
        embedded = self.model.get_input_embeddings()(new)
        pictures = [
            int(entry) for stream in streams for entry in stream[cut:] if isinstance(entry, bytes)
        ]
        if pictures:
            places = ((new == self._family.image_id) & (mask[:, cut:] == 1)).unsqueeze(-1)
            embedded = embedded.masked_scatter(places, self.look(pictures).flatten(0, 1))
        output = self.model.model.language_model(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=positions[..., cut:],
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _positions(self, stream: Stream) -> Tensor:
        """Returns the positions of a stream, cached by the stream's length and the places of its images."""
        layout = (
            len(stream),
            tuple(place for place, entry in enumerate(stream) if isinstance(entry, bytes)),
        )
        if layout not in self._layouts:
            entries: list[TokenOrImage] = [
                self._picture if isinstance(entry, bytes) else entry for entry in stream
            ]
            self._layouts[layout] = torch.from_numpy(
                np.ascontiguousarray(self._family.positions(entries))
            )
        return self._layouts[layout]
