"""A model of this project: a vision-language model with or without an adapter."""

from collections.abc import Sequence

import numpy as np
import torch

from trainer.embedding.base import Identity
from trainer.models.backbone import open_backbone
from trainer.models.embedder import embed_streams, stream_of
from trainer.models.lengths import check_contents
from trainer.models.out_of_memory import embedding_cures, out_of_memory_named
from trainer.models.settings import BackboneSettings
from unijudge.content import Content
from unijudge.errors import TooLong
from unijudge.formats.corpus import Corpus
from unijudge.formats.vectors import Vectors
from unijudge.modeling.chat_encoder import Stream


class OurModel:
    """The system of `train embed`."""

    def __init__(self, settings: BackboneSettings):
        """Loads the model with `open_backbone`."""
        self._settings = settings
        self._backbone = open_backbone(settings)
        self.width = self._backbone.width
        self.identity = Identity(
            model=self._backbone.inputs.name,
            weights=self._backbone.inputs.weights,
            encoding=settings.encoding,
            adapter=self._backbone.adapter,
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
            resize=settings.resize,
            model_dtype=settings.dtype,
            inputs_version=self._backbone.inputs.version,
        )

    def check_texts(self, corpus: Corpus) -> None:
        """Checks a corpus for texts that are too long, as `System.check_texts` does."""
        check_contents(corpus, self._settings, self._backbone.length)

    def prepare(self, content: Content) -> Stream | None:
        """Returns the token stream of a content and decodes its image, as `System.prepare` does."""
        try:
            return stream_of(self._backbone, content)
        except TooLong:
            if self._settings.on_long != "skip":
                raise
            return None

    @torch.inference_mode()
    def embed(self, prepared: Sequence[Stream | None]) -> Vectors:
        """Embeds token streams, as `System.embed` does.

        Raises:
            OutOfMemory: The memory of the GPU is full.
        """
        streams = [stream for stream in prepared if stream is not None]

        def doing() -> str:
            tokens = sum(self._backbone.padded_tokens(streams))
            return f"embedding {len(streams)} inputs of {tokens:,} tokens, padding included"

        vectors_ND = np.zeros((len(prepared), self.width), np.float32)
        if streams:
            with out_of_memory_named(
                self._backbone.device, doing, lambda: embedding_cures(self._settings)
            ):
                embedded_ND = embed_streams(self._backbone, streams).cpu().numpy()
            vectors_ND[[stream is not None for stream in prepared]] = embedded_ND
        return vectors_ND
