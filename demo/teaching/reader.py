"""Runs training rows through a tiny model quickly: vision features are cached, and a shared prefix runs once.

Letters: N images · T image tokens of an image · C cells of a scene's grid · D width of the language model.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from demo.teaching.lessons import Row
from demo.tiny_families import TinyModel
from unijudge.images.image_processing import Picture, PixelBudget
from unijudge.modeling.chat_encoder import Stream, shared_prefix
from unijudge.modeling.families import Family, TokenOrImage, family_of

ROWS_AT_ONCE = 16
"""Number of rows of a batch that run together."""


class Reader:
    """A model, its tokens, and the images that rows refer to by number."""

    def __init__(self, tiny: TinyModel, pictures: Sequence[Image.Image], *, side: int):
        """Prepares all images.

        Args:
            tiny: The model.
            pictures: The images. All images have the same size.
            side: Number of rows, and of columns, of a scene's grid.
        """
        self.model = tiny.model
        self.correct = 0.5
        """Smoothed share of correct answers."""
        pixels = pictures[0].width * pictures[0].height
        config = tiny.model.config
        family = family_of(config.model_type)
        self._family: Family = family(config, tiny.processor, PixelBudget(pixels, pixels))
        self._picture: Picture = self._family.picture(pictures[0])
        self._grid_side = side
        self._pad: int = tiny.tokenizer.pad_token_id
        arrays = self._family.arrays([self._family.picture(picture) for picture in pictures])
        self._inputs = {
            name: torch.from_numpy(array).unflatten(0, (len(pictures), -1))
            for name, array in arrays.items()
        }
        self._pictures = len(pictures)
        self._features: Tensor | None = None
        self._layouts: dict[tuple[int | tuple[int, ...], ...], Tensor] = {}

    def vision_parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yields the parameters of everything before the language model."""
        for name, part in self.model.model.named_children():
            if name != "language_model":
                yield from part.parameters()

    def look(self, pictures: Sequence[int]) -> Tensor:
        """Returns the features of images, (N, T, D)."""
        if self._features is not None:
            return self._features[list(pictures)]
        inputs = {name: rows[list(pictures)].flatten(0, 1) for name, rows in self._inputs.items()}
        seen = self.model.model.get_image_features(**inputs, return_dict=True).pooler_output
        return torch.stack(tuple(seen))

    def look_at_cells(self, pictures: Sequence[int]) -> Tensor:
        """Returns the features of each cell of images, (N, C, D): the mean of the tokens of the cell.

        If an image has an overview and tiles, the tokens of the overview come first, and only these tokens count.
        """
        features = self.look(pictures)
        cells = self._grid_side**2
        per_side = int((features.shape[1] // cells) ** 0.5)  # tokens along one side of a cell
        overview = features[:, : cells * per_side**2]
        grid = overview.unflatten(1, (self._grid_side, per_side, self._grid_side, per_side))
        return grid.mean(dim=(2, 4)).flatten(1, 2)

    @torch.no_grad()
    def freeze_vision(self) -> None:
        """Caches the features of all images, so the vision tower does not run again."""
        at_once = 256
        blocks = []
        for start in range(0, self._pictures, at_once):
            end = min(start + at_once, self._pictures)
            blocks.append(self.look(range(start, end)))
        self._features = torch.cat(blocks)

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
        tokens = len(self._picture.token_ids)
        return sum(tokens if isinstance(entry, bytes) else 1 for entry in stream)

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
        """Runs the tokens after the first `cut` of each stream, and returns their hidden states."""
        lengths = [self._length(stream) for stream in streams]
        longest = max(lengths)
        ids = torch.full((len(streams), longest), self._pad)
        positions = []
        for index, (stream, length) in enumerate(zip(streams, lengths, strict=True)):
            row: list[int] = []
            for entry in stream:
                row += self._picture.token_ids if isinstance(entry, bytes) else [entry]
            ids[index, :length] = torch.tensor(row)
            # Qwen has three positions for each token, the other families have one.
            positions.append(F.pad(self._positions(stream), (0, longest - length)))
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
            position_ids=torch.stack(positions, dim=-2)[..., cut:],
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
