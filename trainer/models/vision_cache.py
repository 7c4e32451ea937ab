"""What the vision tower makes of pictures: each is seen once, and what a frozen tower saw is kept for later steps.

Each is seen alone. In company its features would differ in their last bits, by who is there, and a cache decides who
is: a run that went on from a checkpoint, or two processes instead of one, would make other numbers. On a CPU that costs
a third more for pictures of 112 × 112 pixels and nothing from 224 × 224 on (a tower of 6 blocks, width 512); it was not
measured on a GPU.

Letters: T image tokens of a picture · D width of the language model · L levels: 1, and those of Qwen3-VL's deepstack.
"""

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

import torch
from cachetools import LRUCache
from torch import Tensor

from unijudge.modeling.inputs import ModelInputs


class Vision:
    """The features of pictures, known by the content of their files; the most recently used ones are kept.

    For one thread at a time.
    """

    def __init__(self, inputs: ModelInputs, *, keep_bytes: int):
        """Sees nothing yet.

        Args:
            inputs: Of the one model that it is for.
            keep_bytes: How many bytes of features to keep, in main memory.
        """
        self._inputs = inputs
        self._kept: LRUCache[bytes, Tensor] = LRUCache(keep_bytes, getsizeof=lambda features: features.nbytes)

    def features(self, model: Any, pictures: Collection[bytes]) -> dict[bytes, Tensor]:
        """What `model` makes of each picture, (L, T, D): without a gradient, and kept, if its vision part is frozen.

        A vision part that is trained, as where a LoRA's targets lie in it, is run anew each time, with gradients.
        """
        vision_modules = [part for name, part in model.named_children() if name != "language_model"]
        frozen = not any(parameter.requires_grad for part in vision_modules for parameter in part.parameters())
        if not frozen:
            return self._see(model, list(pictures))
        keys = {picture: hashlib.sha256(picture).digest() for picture in pictures}
        found = {picture: kept for picture, key in keys.items() if (kept := self._kept.get(key)) is not None}
        for part in vision_modules:
            part.eval()  # without dropout: what is kept holds for every step
        with torch.inference_mode(mode=False), torch.no_grad():
            new = self._see(model, [picture for picture in pictures if picture not in found])
            for picture, seen in _moved(new, torch.device("cpu")).items():
                kept = seen.clone()  # a part of what was copied together would keep all of it
                if kept.nbytes <= self._kept.maxsize:
                    self._kept[keys[picture]] = kept
        return _moved(found, model.device) | new

    def _see(self, model: Any, pictures: Sequence[bytes]) -> dict[bytes, Tensor]:
        """Runs the vision tower over each picture."""
        found: dict[bytes, Tensor] = {}
        for picture in pictures:
            arrays = self._inputs.picture_arrays([[picture]])
            looked = {name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()}
            seen = model.get_image_features(**looked, return_dict=True)
            levels = [seen.pooler_output, *getattr(seen, "deepstack_features", ())]
            found[picture] = torch.stack([torch.cat(tuple(level)) for level in levels])
        return found


def _moved(features: dict[bytes, Tensor], device: torch.device) -> dict[bytes, Tensor]:
    """The features of pictures on a device, copied there at once: each copy would wait for the GPU."""
    if not features:
        return {}
    together = torch.cat(list(features.values()), dim=1).to(device)
    lengths = [one.shape[1] for one in features.values()]
    return dict(zip(features, together.split(lengths, dim=1), strict=True))
