"""Opens a vision-language model as an encoder: weights, tokenizer, image processor, and an adapter if there is one.

Letters: B streams of one forward pass · U distinct streams · S tokens of the longest · D width · L T as in `vision`.
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
from trainer.models.vision_cache import Vision
from unijudge.content import Content
from unijudge.errors import ModelError, TooLong, UnijudgeError
from unijudge.images.image_processing import PictureReader
from unijudge.modeling.chat_encoder import Stream
from unijudge.modeling.checkpoints import check_checkpoint
from unijudge.modeling.inputs import NO_CODE, ModelInputs
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.files import folder_sha256

PICTURES_AHEAD = 2**30
"""Bytes of decoded pictures that are kept: those of the batches that are prepared ahead must be among them."""


@dataclass
class Backbone:
    """A model and what turns contents into its inputs."""

    model: Any
    inputs: ModelInputs
    vision: Vision
    read: Reader
    """A content → what an embedder is given."""
    max_tokens: int
    on_long: OnLong
    batch_tokens: int
    width: int
    """Of the hidden states, and so of the embeddings."""
    adapter: str
    """A digest of the adapter's folder, or `none`."""
    passes: Callable[[int], int] = int
    """How many passes to make where this process needs so many: with split weights all make the same number."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    def check_length(self, stream: Stream) -> None:
        """Refuses what is longer than `max_tokens`.

        Raises:
            TooLong: It is.
            DataError: Its picture cannot be decoded.
        """
        length = self.inputs.length(stream)
        if length > self.max_tokens:
            raise TooLong(
                f"an input of {length} tokens; model.max_tokens is {self.max_tokens}: raise it, shorten the input, or "
                "set model.on_long"
            )

    def length(self, content: Content) -> int:
        """The tokens of a content as an embedder reads it.

        Raises:
            DataError: Its picture cannot be decoded.
        """
        return self.inputs.length(self.read(content))

    def last_hidden(self, streams: Sequence[Stream]) -> Tensor:
        """Of each stream's last token, (streams, width), with gradients if the parameters have them.

        Equal streams and equal pictures are run once; streams of like length run together.
        """
        distinct, rows = _distinct(streams)
        features = self.vision.features(self._base.model, dict.fromkeys(_pictures(distinct)))
        groups, lengths = self._groups(distinct)

        # With split weights every process must make the same number of passes: the shortest stream fills up, unread.
        shortest = min(range(len(lengths)), key=lengths.__getitem__)
        missing = self.passes(len(groups)) - len(groups)
        hidden = [self._forward([*map(distinct.__getitem__, group)], features) for group in groups]
        hidden += [self._forward([distinct[shortest]], features) for _ in range(missing)]

        # The groups are in order of length; each row's hidden state stands where its stream was run.
        order = [place for group in groups for place in group]
        row_of = {place: row for row, place in enumerate(order)}
        return torch.cat(hidden)[[row_of[place] for place in rows]]

    def padded_tokens(self, streams: Sequence[Stream]) -> list[int]:
        """Of each forward pass that `last_hidden` would make of these streams: its tokens, padding included."""
        groups, lengths = self._groups(_distinct(streams)[0])
        return [len(group) * lengths[group[0]] for group in groups]

    def _groups(self, distinct: Sequence[Stream]) -> tuple[list[list[int]], list[int]]:
        """Places of streams that run together, the longest of a group first; and the length of each stream."""
        lengths = [self.inputs.length(stream) for stream in distinct]
        return buckets(lengths, self.batch_tokens), lengths

    def _forward(self, streams: Sequence[Stream], features: Mapping[bytes, Tensor]) -> Tensor:
        """Runs the language model on one padded batch, with these features where the pictures stand."""
        arrays = self.inputs.token_arrays(streams)
        names = ("input_ids", "attention_mask", "position_ids")
        ids_BS, mask_BS, positions = (torch.from_numpy(arrays[name]).to(self.device) for name in names)
        embedded_BSD = self.language_model.get_input_embeddings()(ids_BS)
        deepstack: dict[str, Any] = {}
        seen = [features[picture] for picture in _pictures(streams)]
        if seen:
            levels_LTD = torch.cat(seen, dim=1).to(embedded_BSD.dtype)
            spots_BS = (ids_BS == self.inputs.family.image_id) & (mask_BS == 1)
            embedded_BSD = embedded_BSD.masked_scatter(spots_BS[..., None], levels_LTD[0])
            if len(levels_LTD) > 1:
                deepstack = {"visual_pos_masks": spots_BS, "deepstack_visual_embeds": list(levels_LTD[1:])}
        with self.autocast():
            hidden_BSD = self.language_model(
                inputs_embeds=embedded_BSD, attention_mask=mask_BS, position_ids=positions, use_cache=False, **deepstack
            ).last_hidden_state
        last: Tensor = hidden_BSD[torch.arange(len(streams), device=self.device), mask_BS.sum(1) - 1]
        return last

    def next_token_logits(self, streams: Sequence[Stream]) -> Tensor:
        """What the model would say next after each stream, (streams, vocabulary), computed in float32."""
        head = self._base.get_output_embeddings()
        return float32_logits(self.last_hidden(streams), head.weight)

    @property
    def language_model(self) -> Any:
        """The decoder, without its head; under an adapter too."""
        return self._base.model.language_model

    def autocast(self) -> Any:
        """In which the decoder runs: on weights in bfloat16 the adapter's products are made in bfloat16 too."""
        low = self.language_model.get_input_embeddings().weight.dtype == torch.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low)

    @property
    def _base(self) -> Any:
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model


def open_backbone(settings: BackboneSettings) -> Backbone:
    """Loads a model, frozen, and puts the adapter on it if the settings name one.

    Raises:
        SettingsError: No model is named, or it or its adapter is not for this encoding.
        ModelError: The model or the adapter cannot be loaded, or is of another family.
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
        inputs.pictures = PictureReader(inputs.family, max_source_pixels=sources, keep_bytes=PICTURES_AHEAD)
        read = reader_of(settings.encoding, inputs)
        if settings.dtype == "float32":  # cuDNN would make a tower's first convolution in TF32, of 10 bits
            torch.backends.cudnn.allow_tf32 = False
        check_checkpoint(settings.name, inputs.revision)
        options = pretrained_options(settings, inputs.config.model_type, device)
        with out_of_memory_named(device, lambda: f"{settings.name}: loading", lambda: loading_cures(settings)):
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
    except Exception as error:  # a file may hold anything, and each library has errors of its own
        raise ModelError(f"{settings.name}: cannot be loaded as a model ({in_one_line(error)})") from error
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
    """Each stream once, and where each of the given ones stands among them."""
    places: dict[tuple[int | bytes, ...], int] = {}
    rows = [places.setdefault(tuple(stream), len(places)) for stream in streams]
    return [list(stream) for stream in places], rows


def _pictures(streams: Sequence[Stream]) -> Iterator[bytes]:
    """In reading order."""
    return (entry for stream in streams for entry in stream if isinstance(entry, bytes))
