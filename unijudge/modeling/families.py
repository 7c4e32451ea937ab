"""How each family of vision-language models takes a picture: how large, as which tokens, at which positions.

Works on configurations and processors of the Hugging Face kind; imports no library of theirs. A picture is always
processed as if it were alone, whatever else stands in the prompt, so that prompts can share it.
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
    """One family of models."""

    loader: ClassVar[tuple[str, Mapping[str, str]]]
    """transformers' class that loads what it needs, and how to ask for it."""
    image_id: int
    """The token that a chat template writes for a picture."""
    engine_options: Mapping[str, Any]
    """What makes an engine's own processor leave a picture of ours as it is."""

    def __init__(self, config: Any, processor: Any, budget: PixelBudget, /):
        """For one model: its configuration and processor, and the budget of a picture."""

    def positions(self, entries: Sequence[TokenOrImage]) -> npt.NDArray[np.int64]:
        """The position of every token, (tokens,) or one row for each dimension."""
        ...

    def arrays(self, pictures: Sequence[Picture]) -> Arrays:
        """What the vision tower takes of one or more pictures, in reading order."""
        ...


class QwenVL:
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any size, tokens with a row and a column (M-RoPE)."""

    # Pillow's is the one implementation that is the same with and without torchvision.
    loader: ClassVar[tuple[str, Mapping[str, str]]] = ("AutoImageProcessor", {"backend": "pil"})

    def __init__(self, config: Any, processor: Any, budget: PixelBudget):
        self.image_id: int = config.image_token_id
        self._vision_start: int = config.vision_start_token_id
        self._processor = processor
        # For those who load what is saved; here pictures come scaled.
        processor.size = {"shortest_edge": budget.min_pixels, "longest_edge": budget.max_pixels}
        _check_patches(config.vision_config, processor)
        self._side: int = processor.patch_size * processor.merge_size
        self._budget = budget
        # An engine must leave every size of ours alone, also those below `min_pixels` and a single token.
        largest = max(budget.max_pixels, self._side**2)
        self.engine_options: Mapping[str, Any] = {"size": {"shortest_edge": 1, "longest_edge": largest}}

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """Sides that are multiples of a token's: every processor of this kind leaves such a picture as it is."""
        return self._budget.fit(height, width, self._side)

    def picture(self, image: Image.Image) -> Picture:
        """One token for each square of `side` pixels."""
        grid = image.height // self._side, image.width // self._side
        return Picture(image, (self.image_id,) * (grid[0] * grid[1]), grid)

    def positions(self, entries: Sequence[TokenOrImage]) -> npt.NDArray[np.int64]:
        """(time, height, width) of every token, (3, tokens).

        Text counts on in all three; a picture's tokens share one time and take their row and column, counted from where
        the picture begins; text goes on after the largest of them. A picture without the control token `vision_start`
        before it counts on like text: by that token the models' first implementation found pictures, so VLM2Vec and
        UniME-V2, whose strings have none, were trained so. Newer transformers place such pictures in a plane.

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
                blocks.append(start + np.stack([np.zeros_like(rows), rows, columns]))
                start += max(height, width)
            else:
                length = len(entry.token_ids) if isinstance(entry, Picture) else 1
                blocks.append(np.broadcast_to(start + np.arange(length), (3, length)))
                start += length
        return np.concatenate(blocks, axis=1)

    def arrays(self, pictures: Sequence[Picture]) -> Arrays:
        """pixel_values (patches, width) and image_grid_thw (pictures, 3)."""
        features = self._processor(images=[p.image for p in pictures], do_resize=False, return_tensors="np")
        return {name: np.asarray(features[name]) for name in ("pixel_values", "image_grid_thw")}


def _check_patches(tower: Any, processor: Any) -> None:
    """Returns if a processor cuts pictures into the patches that a vision tower takes.

    Raises:
        ModelError: They are of another size: the processor is another model's.
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
                f"preprocessor_config.json: {ours} is {cut}, and config.json says {taken}. Take both of one model"
            )


class TiledVL:
    """InternVL, LLaVA-NeXT and LLaVA-OneVision: a picture becomes an overview and tiles, positions count on.

    Tokens and tiles are those of the model's own processor, asked for one picture at a time: LLaVA-OneVision's would
    take two pictures in one prompt without their tiles, and a query's would change with its candidate's.
    """

    # The one that vLLM takes as well: Pillow's tiles differ from torchvision's by 0.005 in log-odds.
    loader: ClassVar[tuple[str, Mapping[str, str]]] = ("AutoProcessor", {"backend": "torchvision"})

    def __init__(self, _config: Any, processor: Any, budget: PixelBudget):
        self.image_id: int = processor.image_token_id
        self.engine_options: Mapping[str, Any] = {}
        self._processor = processor
        self._budget = budget
        self._one_at_a_time = threading.Lock()  # fast tokenizers cannot be entered twice

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """Within the budget; how many tiles that makes, the processor says."""
        return self._budget.fit(height, width, 1)

    def picture(self, image: Image.Image) -> Picture:
        """The tokens that the processor makes of this picture; its tiles are made again when they are needed."""
        (ids,) = self._processed(image)["input_ids"].tolist()
        return Picture(image, tuple(ids))

    def positions(self, entries: Sequence[TokenOrImage]) -> npt.NDArray[np.int64]:
        """They count on, (tokens,)."""
        return np.arange(sum(len(entry.token_ids) if isinstance(entry, Picture) else 1 for entry in entries))

    def arrays(self, pictures: Sequence[Picture]) -> Arrays:
        """The processor's arrays one after the other; tiles in a dimension of their own are padded to the most."""
        made = [self._processed(picture.image) for picture in pictures]
        names = [name for name in ("pixel_values", "image_sizes", "batch_num_images") if name in made[0]]
        columns: dict[str, list[npt.NDArray[Any]]] = {}
        for name in names:
            columns[name] = [np.asarray(one[name]) for one in made]
        tiles = columns["pixel_values"]
        if tiles[0].ndim == 5:  # (1, tiles, 3, height, width)
            most = max(tile.shape[1] for tile in tiles)
            columns["pixel_values"] = [np.pad(t, ((0, 0), (0, most - t.shape[1]), *[(0, 0)] * 3)) for t in tiles]
        return {name: np.concatenate(values) for name, values in columns.items()}

    def _processed(self, image: Image.Image) -> Any:
        with self._one_at_a_time:
            return self._processor(
                text=[self._processor.image_token], images=[image], add_special_tokens=False, return_tensors="np"
            )


FAMILIES: dict[str, type[Family]] = {
    "qwen2_vl": QwenVL,
    "qwen2_5_vl": QwenVL,
    "qwen3_vl": QwenVL,
    "internvl": TiledVL,
    "llava_next": TiledVL,
    "llava_onevision": TiledVL,
}
"""By the `model_type` of a configuration: those that the tests score through every engine."""


def family_of(model_type: str) -> type[Family]:
    """The family of a model.

    Raises:
        ModelError: It is none that the tests exercise.
    """
    if model_type not in FAMILIES:
        raise ModelError(f"its model_type is {model_type!r}; the families that can be taken are {', '.join(FAMILIES)}")
    return FAMILIES[model_type]
