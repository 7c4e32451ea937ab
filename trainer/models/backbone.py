"""A vision-language model as an encoder: weights, tokenizer, image processor, and optionally an adapter.

Letters: B streams of one forward pass · U distinct streams · S tokens of the longest stream · D width · L and T as in
`vision_cache`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

from trainer.models.attaching import with_adapter
from trainer.models.head import float32_logits
from trainer.models.input_formats import Reader, check_base, check_reads_alike, reader_of
from trainer.models.length_buckets import buckets
from trainer.models.out_of_memory import loading_cures, out_of_memory_named
from trainer.models.pretrained import check_named, device_of, pretrained_options
from trainer.models.settings import BackboneSettings, OnLong
from unijudge.content import Content
from unijudge.errors import ModelError, TooLong, UnijudgeError
from unijudge.images.image_processing import PictureReader
from unijudge.modeling.chat_encoder import Stream
from unijudge.modeling.checkpoints import check_checkpoint
from unijudge.modeling.inputs import ModelInputs
from unijudge.modeling.model_source import NO_CODE
from unijudge.modeling.vision_cache import Vision, embedded
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.files import folder_sha256

PICTURES_AHEAD = 2**30
"""The size of the cache for decoded images, in bytes. All images of the batches that are prepared ahead must fit."""


@dataclass
class Backbone:
    """A model, and the objects that turn contents into the model's inputs."""

    model: Any
    inputs: ModelInputs
    vision: Vision
    read: Reader
    """The function that turns a content into the token stream that an embedder reads."""
    max_tokens: int
    on_long: OnLong
    batch_tokens: int
    width: int
    """The width of the hidden states and of the embeddings."""
    adapter: str
    """The digest of the adapter's folder, or `none`."""
    passes: Callable[[int], int] = int
    """Maps the number of passes that this process needs to the number that it must run. With split weights, all
    processes run the same number of passes."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = self.model.device
        return device

    def check_length(self, stream: Stream) -> None:
        """Raises an error if a stream is longer than `max_tokens`.

        Raises:
            TooLong: The stream is longer than `max_tokens`.
            DataError: An image of the stream cannot be decoded.
        """
        length = self.inputs.length(stream)
        if length > self.max_tokens:
            raise TooLong(
                f"an input of {length} tokens is too long, since model.max_tokens is {self.max_tokens}. Raise "
                "model.max_tokens, shorten the input, or set model.on_long"
            )

    def length(self, content: Content) -> int:
        """Returns the number of tokens of a content as an embedder reads it.

        Raises:
            DataError: The image of the content cannot be decoded.
        """
        return self.inputs.length(self.read(content))

    def last_hidden(self, streams: Sequence[Stream]) -> Tensor:
        """Returns the hidden state of each stream's last token, (streams, width). Trained parameters get gradients.

        Equal streams and equal images are run once. Streams of similar length run together.
        """
        distinct, rows = _distinct(streams)
        pictures = dict.fromkeys(_pictures(distinct))
        features = self.vision.features(self._base.model, pictures)
        groups, lengths = self._groups(distinct)

        # With split weights, all processes must run the same number of passes. The processes agree on the number before
        # the first pass, since a pass waits for all processes as well.
        missing = self.passes(len(groups)) - len(groups)
        hidden = []
        for group in groups:
            together = [distinct[index] for index in group]
            hidden.append(self._forward(together, features))

        # Extra passes run the shortest stream, and their results are not used.
        shortest = min(range(len(lengths)), key=lengths.__getitem__)
        hidden += [self._forward([distinct[shortest]], features) for _ in range(missing)]

        # The groups are sorted by length, so the hidden states must return to the order of the streams.
        order = [index for group in groups for index in group]
        row_of = {index: row for row, index in enumerate(order)}
        return torch.cat(hidden)[[row_of[index] for index in rows]]

    def padded_tokens(self, streams: Sequence[Stream]) -> list[int]:
        """Returns the tokens of each forward pass that `last_hidden` would run on these streams, padding included."""
        groups, lengths = self._groups(_distinct(streams)[0])
        return [len(group) * lengths[group[0]] for group in groups]

    def _groups(self, distinct: Sequence[Stream]) -> tuple[list[list[int]], list[int]]:
        """Returns the indices of streams that run together, the longest of a group first, and each stream's length."""
        lengths = [self.inputs.length(stream) for stream in distinct]
        return buckets(lengths, self.batch_tokens), lengths

    def _forward(self, streams: Sequence[Stream], features: Mapping[bytes, Tensor]) -> Tensor:
        """Runs the language model on one padded batch, with image features in the positions of the image tokens."""
        arrays = self.inputs.token_arrays(streams)
        names = ("input_ids", "attention_mask", "position_ids")
        ids_BS, mask_BS, positions = (
            torch.from_numpy(arrays[name]).to(self.device) for name in names
        )
        seen = [features[picture] for picture in _pictures(streams)]
        spots_BS = (ids_BS == self.inputs.family.image_id) & (mask_BS == 1)
        arguments = embedded(self.language_model, ids_BS, spots_BS, seen)
        with self.autocast():
            hidden_BSD = self.language_model(
                attention_mask=mask_BS,
                position_ids=positions,
                use_cache=False,
                **arguments,
            ).last_hidden_state
        last: Tensor = hidden_BSD[
            torch.arange(len(streams), device=self.device), mask_BS.sum(1) - 1
        ]
        return last

    def next_token_logits(self, streams: Sequence[Stream]) -> Tensor:
        """Returns the logits of the token after each stream, (streams, vocabulary), computed in float32."""
        head = self._base.get_output_embeddings()
        return float32_logits(self.last_hidden(streams), head.weight)

    @property
    def language_model(self) -> Any:
        """The decoder without its head. An adapter does not hide the decoder."""
        return self._base.model.language_model

    def autocast(self) -> Any:
        """Returns the context in which the decoder runs. With weights in bfloat16, the adapter uses bfloat16 too."""
        low = self.language_model.get_input_embeddings().weight.dtype == torch.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low)

    @property
    def _base(self) -> Any:
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model


def open_backbone(settings: BackboneSettings) -> Backbone:
    """Loads a frozen model, and loads the adapter on top if the settings name an adapter.

    Raises:
        SettingsError: The settings name no model, or the model or its adapter was trained with another encoding.
        ModelError: The model or the adapter cannot be loaded, or belongs to an unsupported family.
    """
    check_named(settings)
    check_reads_alike(settings)
    device = device_of(settings.device)
    try:
        inputs = ModelInputs(
            settings.name,
            settings.revision,
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
            max_source_pixels=settings.max_source_pixels,
            resize=settings.resize,
        )
        if settings.adapter is not None:
            check_base(settings.adapter, inputs.weights)
        sources = settings.max_source_pixels
        inputs.pictures = PictureReader(
            inputs.family, max_source_pixels=sources, keep_bytes=PICTURES_AHEAD
        )
        read = reader_of(settings.encoding, inputs)
        # Otherwise cuDNN computes the first convolution of a tower in TF32.
        if settings.dtype == "float32":
            torch.backends.cudnn.allow_tf32 = False
        check_checkpoint(settings.name, inputs.revision)
        options = pretrained_options(settings, inputs.config.model_type, device)
        with out_of_memory_named(
            device, lambda: f"{settings.name}: loading", lambda: loading_cures(settings)
        ):
            model = transformers.AutoModelForImageTextToText.from_pretrained(
                settings.name,
                revision=inputs.revision,
                config=inputs.config,
                device_map={"": device},
                **options,
                **NO_CODE,
            )
    except ModelError as error:
        raise ModelError(f"{settings.name}: cannot be loaded as a model ({error})") from error
    except UnijudgeError:
        raise
    except Exception as error:  # damaged files raise errors of many types in these libraries
        raise ModelError(
            f"{settings.name}: cannot be loaded as a model ({in_one_line(error)})"
        ) from error
    model.requires_grad_(requires_grad=False)
    if settings.adapter is not None:
        model = with_adapter(model, settings.adapter)
    return Backbone(
        model=model.eval(),
        inputs=inputs,
        vision=Vision(inputs, keep_bytes=settings.vision_cache_mb * 2**20),
        read=read,
        max_tokens=settings.max_tokens,
        on_long=settings.on_long,
        batch_tokens=settings.batch_tokens,
        width=inputs.config.get_text_config().hidden_size,
        adapter=folder_sha256(settings.adapter) if settings.adapter else "none",
    )


def _distinct(streams: Sequence[Stream]) -> tuple[list[Stream], list[int]]:
    """Returns the distinct streams, and for each given stream its index among the distinct streams."""
    index_of: dict[tuple[int | bytes, ...], int] = {}
    rows = []
    for stream in streams:
        row = index_of.setdefault(tuple(stream), len(index_of))
        rows.append(row)
    distinct = [list(stream) for stream in index_of]
    return distinct, rows


def _pictures(streams: Sequence[Stream]) -> Iterator[bytes]:
    """Yields the images of the streams in reading order."""
    return (entry for stream in streams for entry in stream if isinstance(entry, bytes))
