"""The families of vision-language models: the sizes, tokens and positions of a picture in each family.

This module works with Hugging Face configurations and processors, but imports no library of Hugging Face. A picture is
processed independently of the rest of the prompt, so that prompts can share the picture.
"""

import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from unijudge.errors import ModelError
from unijudge.images.image_processing import Picture, PictureFormat, PixelBudget

Arrays = dict[str, npt.NDArray[Any]]
TokenOrImage = int | Picture
"""A token id, or a picture in the place of its tokens."""


class Family(PictureFormat, Protocol):
    """A family of models."""

    loader: ClassVar[tuple[str, Mapping[str, str]]]
    """The class of transformers that loads the processor, and its options."""
    image_id: int
    """The token that a chat template writes for a picture."""
    engine_options: Mapping[str, Any]
    """Options for an engine's own processor, so that it does not scale our pictures again."""

    def __init__(self, config: Any, processor: Any, budget: PixelBudget, /):
        """Takes a model's configuration and processor, and the pixel budget of a picture."""

    def positions(self, entries: Sequence[TokenOrImage]) -> npt.NDArray[np.int64]:
        """Returns the position of every token: (tokens,), or (dimensions, tokens)."""
        ...

    def arrays(self, pictures: Sequence[Picture]) -> Arrays:
        """Returns the vision tower's inputs for one or more pictures, in reading order."""
        ...


class QwenVL:
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any size, and image tokens with a row and a column (M-RoPE)."""

    # The Pillow backend is the only one that gives the same pixels with and without torchvision.
    loader: ClassVar[tuple[str, Mapping[str, str]]] = ("AutoImageProcessor", {"backend": "pil"})

    def __init__(self, config: Any, processor: Any, budget: PixelBudget):
        self.image_id: int = config.image_token_id
        self._vision_start: int = config.vision_start_token_id
        self._processor = processor
        # Only for programs that load the saved processor: our pictures are already scaled.
        processor.size = {"shortest_edge": budget.min_pixels, "longest_edge": budget.max_pixels}
        _check_patches(config.vision_config, processor)
        self._side: int = processor.patch_size * processor.merge_size
        self._budget = budget
        # An engine must not scale our pictures again, not even a picture below `min_pixels` or of a single token.
        largest = max(budget.max_pixels, self._side**2)
        self.engine_options: Mapping[str, Any] = {
            "size": {"shortest_edge": 1, "longest_edge": largest}
        }

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """Returns sides that are multiples of a token's side. No Qwen processor scales such a picture again."""
        return self._budget.fit(height, width, self._side)

    def picture(self, image: Image.Image) -> Picture:
        """Returns a picture with one token for each square of `side` × `side` pixels."""
        grid = image.height // self._side, image.width // self._side
        return Picture(image, (self.image_id,) * (grid[0] * grid[1]), grid)

    def positions(self, entries: Sequence[TokenOrImage]) -> npt.NDArray[np.int64]:
        """Returns (time, height, width) of every token, (3, tokens).

        A text token increases all three positions by one. The tokens of a picture share one time, and add their row and
        column to the start position. The next text token continues after the largest position of the picture. A picture
        without the control token `vision_start` before it is numbered as text is. The models' first implementation
        found pictures by that token, so VLM2Vec and UniME-V2, whose prompts lack it, were trained with such positions.
        Newer versions of transformers give such pictures rows and columns.

        Source:
            Qwen2-VL (arXiv 2409.12191), section on multimodal rotary position embedding. A test compares with
            transformers' `get_rope_index`.
        """
        blocks = []
        start = 0
        for before, entry in pairwise([None, *entries]):
            if isinstance(entry, Picture) and entry.grid and before == self._vision_start:
                height, width = entry.grid
                rows, columns = np.divmod(np.arange(height * width), width)
                times = np.zeros_like(rows)
                block = np.stack([times, rows, columns])
                length = max(height, width)
            else:
                length = len(entry.token_ids) if isinstance(entry, Picture) else 1
                block = np.broadcast_to(np.arange(length), (3, length))
            blocks.append(start + block)
            start += length
        return np.concatenate(blocks, axis=1)

    def arrays(self, pictures: Sequence[Picture]) -> Arrays:
        """Returns pixel_values (patches, width) and image_grid_thw (pictures, 3)."""
        features = self._processor(
            images=[p.image for p in pictures], do_resize=False, return_tensors="np"
        )
        return {name: np.asarray(features[name]) for name in ("pixel_values", "image_grid_thw")}


def _check_patches(tower: Any, processor: Any) -> None:
    """Checks that a processor cuts pictures into patches of the vision tower's size.

    Raises:
        ModelError: The sizes differ, so the processor belongs to another model.
    """
    sides = {
        "patch_size": "patch_size",
        "temporal_patch_size": "temporal_patch_size",
        "merge_size": "spatial_merge_size",
    }
    for ours, theirs in sides.items():
        cut, taken = getattr(processor, ours), getattr(tower, theirs)
        if cut != taken:
            raise ModelError(
                f"preprocessor_config.json: {ours} is {cut}, but config.json says {taken}. Take both files of one model"
            )


class TiledVL:
    """InternVL, LLaVA-NeXT and LLaVA-OneVision: a picture becomes an overview and tiles, with positions as in text.

    The model's own processor makes tokens and tiles, for one picture at a time. LLaVA-OneVision's processor would omit
    the tiles in a prompt with two pictures, so that a query's tokens would depend on the candidate's picture.
    """

    # vLLM uses torchvision too. Scores with Pillow's tiles differ from scores with torchvision's by 0.005 in log-odds.
    loader: ClassVar[tuple[str, Mapping[str, str]]] = ("AutoProcessor", {"backend": "torchvision"})

    def __init__(self, _config: Any, processor: Any, budget: PixelBudget):
        self.image_id: int = processor.image_token_id
        self.engine_options: Mapping[str, Any] = {}
        self._processor = processor
        self._budget = budget
        self._one_at_a_time = threading.Lock()  # a fast tokenizer fails when two threads call it

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """Returns a size within the budget. The processor decides the number of tiles."""
        return self._budget.fit(height, width, 1)

    def picture(self, image: Image.Image) -> Picture:
        """Returns a picture with the processor's tokens. Its tiles are made again when they are needed."""
        (ids,) = self._processed(image)["input_ids"].tolist()
        return Picture(image, tuple(ids))

    def positions(self, entries: Sequence[TokenOrImage]) -> npt.NDArray[np.int64]:
        """Returns consecutive positions, (tokens,)."""
        return np.arange(
            sum(len(entry.token_ids) if isinstance(entry, Picture) else 1 for entry in entries)
        )

    def arrays(self, pictures: Sequence[Picture]) -> Arrays:
        """Returns the concatenated arrays of the processor. If tiles have a separate dimension, it is padded."""
        made = [self._processed(picture.image) for picture in pictures]
        names = [
            name for name in ("pixel_values", "image_sizes", "batch_num_images") if name in made[0]
        ]
        columns: dict[str, list[npt.NDArray[Any]]] = {}
        for name in names:
            columns[name] = [np.asarray(features[name]) for features in made]
        tiles = columns["pixel_values"]
        if tiles[0].ndim == 5:  # (1, tiles, 3, height, width)
            most = max(tile.shape[1] for tile in tiles)
            padded = []
            for tile in tiles:
                missing = most - tile.shape[1]
                padded.append(np.pad(tile, ((0, 0), (0, missing), (0, 0), (0, 0), (0, 0))))
            columns["pixel_values"] = padded
        return {name: np.concatenate(values) for name, values in columns.items()}

    def _processed(self, image: Image.Image) -> Any:
        with self._one_at_a_time:
            return self._processor(
                text=[self._processor.image_token],
                images=[image],
                add_special_tokens=False,
                return_tensors="np",
            )


FAMILIES: dict[str, type[Family]] = {
    "qwen2_vl": QwenVL,
    "qwen2_5_vl": QwenVL,
    "qwen3_vl": QwenVL,
    "internvl": TiledVL,
    "llava_next": TiledVL,
    "llava_onevision": TiledVL,
}
"""`model_type` of a configuration → its family. The tests score each of these types with every engine."""


def family_of(model_type: str) -> type[Family]:
    """Returns the family of a model.

    Raises:
        ModelError: The model type is not supported.
    """
    if model_type not in FAMILIES:
        raise ModelError(
            f"its model_type is {model_type!r}, which is not supported. Take one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]
