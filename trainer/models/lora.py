"""The LoRA adapter of a model: adding, saving, loading and merging into the weights."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from safetensors import SafetensorError
from torch import nn

from trainer.models.attaching import check_adapter
from trainer.models.backbone import Backbone, open_backbone
from trainer.models.input_formats import EMBEDDING_FILE, EmbeddingManifest
from trainer.models.settings import BackboneSettings, LoraSettings
from unijudge.errors import ModelError
from unijudge.judging.reranker_file import JUDGING_FILE, JudgingManifest
from unijudge.modeling.inputs import ModelInputs
from unijudge.storage.files import publish_json, publish_text, read_json, read_text


def add_lora(backbone: Backbone, settings: LoraSettings) -> None:
    """Adds a new, trainable LoRA to the language model.

    Raises:
        ModelError: The language model has no layer with the name of a target.
    """
    import peft

    linear = {
        name.rpartition(".")[2]
        for name, layer in backbone.model.named_modules()
        if isinstance(layer, nn.Linear) and "language_model." in name
    }
    # PEFT accepts one known name.
    if lacking := [name for name in settings.target_modules if name not in linear]:
        raise ModelError(
            f"lora.target_modules: {', '.join(lacking)}: no such linear layer in the language model of "
            f"{backbone.inputs.name}. Choose from {', '.join(sorted(linear))}"
        )
    names = "|".join(settings.target_modules)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_dora=settings.dora,
        init_lora_weights="gaussian" if settings.init == "gaussian" else True,
        target_modules=rf".*language_model.*\.({names})",
    )
    backbone.model = peft.get_peft_model(backbone.model, config)
    for parameter in backbone.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


class Adapter:
    """The adapter of a model, in the file format of PEFT."""

    def __init__(self, model: Any, beside: Mapping[str, BaseModel] = MappingProxyType({})):
        self._model = model
        self._beside = beside

    def save(self, folder: Path) -> None:
        """Writes adapter_config.json, adapter_model.safetensors and the manifests that belong to the adapter."""
        with _refused_by_the_disk():
            self._model.save_pretrained(str(folder))
        # An empty template with a local path as the model's name.
        (folder / "README.md").unlink(missing_ok=True)
        for name, manifest in self._beside.items():
            publish_json(folder / name, manifest)

    def load(self, folder: Path) -> None:
        """Loads the weights that `save` wrote.

        Raises:
            ModelError: The weights belong to another adapter.
        """
        import peft

        weights = peft.load_peft_weights(str(folder), device="cpu")
        try:
            check_adapter(self._model, weights)
        except ModelError as error:
            raise ModelError(
                f"{folder}: this adapter does not match the model ({error})"
            ) from error
        peft.set_peft_model_state_dict(self._model, weights)


def open_whole(settings: BackboneSettings, adapter: Path) -> Backbone:
    """Opens a model with an adapter on the CPU, to be saved. For a training in four bits, weights are in bfloat16."""
    dtype = "bfloat16" if settings.dtype == "nf4" else settings.dtype
    return open_backbone(
        settings.model_copy(update={"adapter": adapter, "device": "cpu", "dtype": dtype})
    )


def save_merged(settings: BackboneSettings, adapter: Path, folder: Path) -> ModelInputs:
    """Writes a model with the adapter's updates merged into its weights: an ordinary folder that any engine loads.

    The manifests that describe the adapter's inputs are written as well.

    Returns:
        The tokenizer and image processor of the model, which are written next to the weights.

    Raises:
        ModelError: The model or the adapter cannot be loaded, or the adapter does not match the model.
        OSError: The folder could not be written.
    """
    return write_merged(open_whole(settings, adapter), adapter, folder)


def write_merged(backbone: Backbone, adapter: Path, folder: Path) -> ModelInputs:
    """Writes the same folder for an open model with its adapter. The open model must not be used afterwards."""
    merged = backbone.model.merge_and_unload()
    merged.generation_config = _saveable(merged.generation_config)
    with _refused_by_the_disk():
        merged.save_pretrained(folder)
    config = json.loads(read_text(folder / "config.json"))
    publish_text(folder / "config.json", json.dumps(_with_older_names(config), indent=2) + "\n")
    backbone.inputs.save(folder)
    for name, kind in ((EMBEDDING_FILE, EmbeddingManifest), (JUDGING_FILE, JudgingManifest)):
        if (adapter / name).is_file():
            publish_json(
                folder / name, read_json(adapter / name, kind).model_copy(update={"base": None})
            )
    return backbone.inputs


def _saveable(generation: Any) -> Any:
    """Returns a generation configuration that transformers agrees to write.

    transformers reads contradictory settings, such as a temperature without sampling, but refuses to write them.
    Published models have contradictory settings. Nothing here generates text, so only the token ids are kept.
    """
    try:
        generation.validate(strict=True)
    except ValueError:
        ids = ("bos_token_id", "eos_token_id", "pad_token_id")
        return type(generation)(**{name: getattr(generation, name) for name in ids})
    return generation


def _with_older_names(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a model's configuration with the older names, so that transformers 4 can read the configuration too.

    Without the older names, transformers 4 would silently use its default position frequencies.

    Example:
        >>> _with_older_names({"dtype": "float32", "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}})
        ... # doctest: +NORMALIZE_WHITESPACE
        {'dtype': 'float32', 'rope_parameters': {'rope_type': 'default', 'rope_theta': 7.0}, 'torch_dtype': 'float32',
         'rope_theta': 7.0}
    """
    older = {name: _with_older_names(config[name]) for name in ("text_config",) if name in config}
    if "dtype" in config:
        older["torch_dtype"] = config["dtype"]
    if "rope_theta" in (rope := config.get("rope_parameters") or {}):
        older["rope_theta"] = rope["rope_theta"]
        if (
            rope.keys() - {"rope_theta", "rope_type"}
            or rope.get("rope_type", "default") != "default"
        ):
            older["rope_scaling"] = rope
    return config | older


@contextlib.contextmanager
def _refused_by_the_disk() -> Iterator[None]:
    """Turns a full disk into an `OSError`, as everywhere else, while weights are written."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error
