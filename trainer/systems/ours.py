"""A model of ours: a vision-language model, with an adapter or without."""

from collections.abc import Sequence

import numpy as np
import torch

from trainer.backbone import open_backbone
from trainer.embedder import ENCODING, embed
from trainer.settings import BackboneSettings
from trainer.systems.system import Identity
from unijudge.corpus import Content
from unijudge.vectors import Vectors


class OurModel:
    """Embeds as `train embed` does."""

    def __init__(self, settings: BackboneSettings):
        """Loads the model; see `open_backbone`."""
        self._backbone = open_backbone(settings)
        self.identity = Identity(
            model=self._backbone.inputs.name,
            weights=self._backbone.inputs.weights,
            encoding=ENCODING,
            adapter=self._backbone.adapter,
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
            model_dtype=settings.dtype,
        )

    @torch.inference_mode()
    def embed(self, contents: Sequence[Content]) -> Vectors:
        """See `System`."""
        return np.asarray(embed(self._backbone, contents).cpu().numpy(), np.float32)
