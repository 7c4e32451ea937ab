"""A cache for image features: the vision tower runs once per image, and features of a frozen tower are kept.

The vision tower runs on each image alone. In a batch of images, the last bits of an image's features depend on the
other images, and the cache determines which images are in the batch. So a resumed run, or two processes instead of one,
would compute other numbers. On a CPU, running images alone takes a third more time for images of 112 × 112 pixels, and
no extra time from 224 × 224 pixels on (a tower of 6 blocks, width 512). The cost on a GPU was not measured.

Letters: B streams · S tokens of a stream · T image tokens of an image · D width of the language model · L levels: 1, or
more with Qwen3-VL's deepstack.
"""

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

import torch
from cachetools import LRUCache
from torch import Tensor

from unijudge.modeling.inputs import ModelInputs


class Vision:
    """The image features of one model. The cache keeps the most recently used features, by the hash of the file.

    For one thread at a time.
    """

    def __init__(self, inputs: ModelInputs, *, keep_bytes: int):
        """Starts with an empty cache.

        Args:
            inputs: The inputs of the model.
            keep_bytes: The size of the cache in main memory, in bytes.
        """
        self._inputs = inputs
        self._kept: LRUCache[bytes, Tensor] = LRUCache(
            keep_bytes, getsizeof=lambda features: features.nbytes
        )

    def missing(self, pictures: Collection[bytes]) -> set[bytes]:
        """Returns the images that `features` would pass through a frozen vision tower now."""
        return {picture for picture in pictures if _key(picture) not in self._kept}

    def features(self, model: Any, pictures: Collection[bytes]) -> dict[bytes, Tensor]:
        """Returns the features of each image, (L, T, D).

        The features of a frozen vision part have no gradient and are kept. A trained vision part, for example with a
        LoRA, runs again each time, with gradients.
        """
        vision_modules = [part for name, part in model.named_children() if name != "language_model"]
        frozen = not any(
            parameter.requires_grad for part in vision_modules for parameter in part.parameters()
        )
        if not frozen:
            return self._see(model, list(pictures))
        keys = {picture: _key(picture) for picture in pictures}
        found = {
            picture: kept
            for picture, key in keys.items()
            if (kept := self._kept.get(key)) is not None
        }
        for part in vision_modules:
            part.eval()  # without dropout, since cached features are used in every step
        with torch.inference_mode(mode=False), torch.no_grad():
            new = self._see(model, [picture for picture in pictures if picture not in found])
            for picture, seen in _moved(new, torch.device("cpu")).items():
                kept = seen.clone()  # a view would keep the memory of all images copied together
                if kept.nbytes <= self._kept.maxsize:
                    self._kept[keys[picture]] = kept
        return _moved(found, model.device) | new

    def _see(self, model: Any, pictures: Sequence[bytes]) -> dict[bytes, Tensor]:
        """Runs the vision tower on each image."""
        features: dict[bytes, Tensor] = {}
        for picture in pictures:
            arrays = self._inputs.picture_arrays([[picture]])
            tensors = {
                name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()
            }
            seen = model.get_image_features(**tensors, return_dict=True)
            levels = [seen.pooler_output, *getattr(seen, "deepstack_features", ())]
            features[picture] = torch.stack([torch.cat(tuple(level)) for level in levels])
        return features


def embedded(language_model: Any, ids_BS: Tensor, spots_BS: Tensor, seen: Sequence[Tensor]) -> Any:
    """Returns the arguments of a decoder for token ids and image features.

    Args:
        language_model: The decoder.
        ids_BS: The token ids.
        spots_BS: Whether a token is an image token.
        seen: The features of the images in reading order, each (L, T, D).
    """
    embedded_BSD = language_model.get_input_embeddings()(ids_BS)
    if not seen:
        return {"inputs_embeds": embedded_BSD}
    levels_LTD = torch.cat(list(seen), dim=1).to(embedded_BSD.dtype)
    arguments: dict[str, Any] = {
        "inputs_embeds": embedded_BSD.masked_scatter(spots_BS[..., None], levels_LTD[0])
    }
    if len(levels_LTD) > 1:
        arguments["visual_pos_masks"] = spots_BS
        arguments["deepstack_visual_embeds"] = list(levels_LTD[1:])
    return arguments


def _key(picture: bytes) -> bytes:
    return hashlib.sha256(picture).digest()


def _moved(features: dict[bytes, Tensor], device: torch.device) -> dict[bytes, Tensor]:
    """Returns the features on a device. All features are copied together, since each copy waits for the GPU."""
    if not features:
        return {}
    parts = list(features.values())
    lengths = [part.shape[1] for part in parts]
    together = torch.cat(parts, dim=1).to(device)
    moved = together.split(lengths, dim=1)
    return dict(zip(features, moved, strict=True))
