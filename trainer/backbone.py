"""Opens a vision-language model as an encoder: weights, tokenizer, image processor, and an adapter if there is one.

Letters: B streams of one forward pass · U distinct streams · S tokens of the longest · D width · L T as in `vision`.
"""

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor

from trainer.buckets import buckets
from trainer.encodings import Reader, check_reads_alike, reader_of
from trainer.settings import BackboneSettings
from trainer.vision import Vision
from unijudge.encoding import Stream
from unijudge.errors import DataError, ModelError, SettingsError
from unijudge.files import folder_sha256
from unijudge.inputs import ModelInputs
from unijudge.pictures import PictureReader

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
            DataError: It is too long, or its picture cannot be decoded.
        """
        length = self.inputs.length(stream)
        if length > self.max_tokens:
            raise DataError(f"an input of {length} tokens; model.max_tokens is {self.max_tokens}: raise it, or shorten")

    def last_hidden(self, streams: Sequence[Stream]) -> Tensor:
        """Of each stream's last token, (streams, width), with gradients if the parameters have them.

        Equal streams and equal pictures are run once; streams of like length run together.
        """
        places: dict[tuple[int | bytes, ...], int] = {}
        rows = [places.setdefault(tuple(stream), len(places)) for stream in streams]
        distinct = [list(stream) for stream in places]
        features = self.vision.features(self._base.model, dict.fromkeys(_pictures(distinct)))
        lengths = [self.inputs.length(stream) for stream in distinct]
        groups = buckets(lengths, self.batch_tokens)
        row_of = {place: row for row, place in enumerate(place for group in groups for place in group)}
        shortest = min(range(len(lengths)), key=lengths.__getitem__)
        groups += [[shortest]] * (self.passes(len(groups)) - len(groups))
        hidden_UD = torch.cat([self._forward([distinct[place] for place in group], features) for group in groups])
        return hidden_UD[[row_of[place] for place in rows]]

    def _forward(self, streams: Sequence[Stream], features: Mapping[bytes, Tensor]) -> Tensor:
        """Runs the language model on one padded batch, with these features where the pictures stand."""
        arrays = self.inputs.token_arrays(streams)
        names = ("input_ids", "attention_mask", "position_ids")
        ids_BS, mask_BS, positions = (torch.from_numpy(arrays[name]).to(self.device) for name in names)
        language_model = self._base.model.language_model
        embedded_BSD = language_model.get_input_embeddings()(ids_BS)
        deepstack: dict[str, Any] = {}
        seen = [features[picture] for picture in _pictures(streams)]
        if seen:
            levels_LTD = torch.cat(seen, dim=1).to(embedded_BSD.dtype)
            spots_BS = (ids_BS == self.inputs.family.image_id) & (mask_BS == 1)
            embedded_BSD = embedded_BSD.masked_scatter(spots_BS[..., None], levels_LTD[0])
            if len(levels_LTD) > 1:
                deepstack = {"visual_pos_masks": spots_BS, "deepstack_visual_embeds": list(levels_LTD[1:])}
        low = embedded_BSD.dtype == torch.bfloat16  # then the adapter's products are made in bfloat16 too
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            hidden_BSD = language_model(
                inputs_embeds=embedded_BSD, attention_mask=mask_BS, position_ids=positions, use_cache=False, **deepstack
            ).last_hidden_state
        last: Tensor = hidden_BSD[torch.arange(len(streams)), mask_BS.sum(1) - 1]
        return last

    def next_token_logits(self, streams: Sequence[Stream]) -> Tensor:
        """What the model would say next after each stream, (streams, vocabulary), float32."""
        logits: Tensor = self._base.get_output_embeddings()(self.last_hidden(streams))
        return logits.float()

    @property
    def _base(self) -> Any:
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model


def open_backbone(settings: BackboneSettings) -> Backbone:
    """Loads a model, frozen, and puts the adapter on it if the settings name one.

    Raises:
        SettingsError: No model is named, or it or its adapter is not for this encoding.
        ModelError: The model or the adapter cannot be loaded, or is of another family.
    """
    if not settings.name:
        raise SettingsError("model.name: required; a hub name such as Qwen/Qwen2-VL-2B-Instruct, or a folder")
    check_reads_alike(settings)
    device = _device(settings.device)
    try:
        inputs = ModelInputs(
            settings.name,
            settings.revision,
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
            max_source_pixels=settings.max_source_pixels,
            resize=settings.resize,
        )
        sources = settings.max_source_pixels
        inputs.pictures = PictureReader(inputs.family, max_source_pixels=sources, keep_bytes=PICTURES_AHEAD)
        read = reader_of(settings.encoding, inputs)
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            settings.name,
            revision=settings.revision,
            attn_implementation="sdpa",
            device_map={"": device},
            **_weights(settings.dtype, device),
        )
    except (OSError, ValueError, SafetensorError, ModelError) as error:
        raise ModelError(f"{settings.name}: cannot be loaded as a model ({error})") from error
    model.requires_grad_(requires_grad=False)
    if settings.adapter is not None:
        model = _with_adapter(model, settings.adapter)
    return Backbone(
        model=model.eval(),
        inputs=inputs,
        vision=Vision(inputs, keep_bytes=settings.vision_cache_mb * 2**20, batch_tokens=settings.batch_tokens),
        read=read,
        max_tokens=settings.max_tokens,
        batch_tokens=settings.batch_tokens,
        width=inputs.config.get_text_config().hidden_size,
        adapter=folder_sha256(settings.adapter) if settings.adapter else "none",
    )


def _pictures(streams: Sequence[Stream]) -> Iterator[bytes]:
    """In reading order."""
    return (entry for stream in streams for entry in stream if isinstance(entry, bytes))


def _with_adapter(model: Any, folder: Path) -> Any:
    import peft

    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder}: no adapter there (adapter_config.json is missing); give the adapter/ of a run")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Found missing adapter keys")  # PEFT would leave those layers as they were
            return peft.PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, RuntimeError, SafetensorError, UserWarning) as error:
        raise ModelError(f"{folder}: this adapter does not fit the model ({error})") from error


def _weights(dtype: str, device: torch.device) -> dict[str, Any]:
    """How `from_pretrained` loads the frozen weights.

    Raises:
        ModelError: Four bits, without what they need.
    """
    if dtype != "nf4":
        return {"dtype": getattr(torch, dtype)}
    if device.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "model.dtype = 'nf4': needs a GPU and the package bitsandbytes (pip install 'unijudge[qlora]'); or set "
            "'bfloat16'"
        )
    quantised = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"dtype": torch.bfloat16, "quantization_config": quantised}


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError("model.device: cuda, but this process sees no GPU; set device = 'cpu'")
    return torch.device(wanted, torch.cuda.current_device()) if wanted == "cuda" else torch.device(wanted)
