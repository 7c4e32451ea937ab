"""The small files of a model may have any content: judge and trainer refuse them in one line, without a traceback."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from judge_service.backends.rendering import open_inputs
from judge_service.settings import LimitSettings, ModelSettings
from trainer.models.backbone import open_backbone
from trainer.models.embedder import embed
from trainer.models.lora import Adapter, add_lora
from trainer.models.pretrained import base_weights
from trainer.models.settings import BackboneSettings, LoraSettings
from unijudge.content import Content
from unijudge.errors import ModelError, UnijudgeError
from unijudge.judging.prompt import Prompt

FAULTS = {
    "an empty tokenizer": ("tokenizer.json", "{}", "KeyError: 'added_tokens'"),
    "a list for a tokenizer": ("tokenizer.json", "[]", "TypeError: "),
    "a list for the tokenizer's settings": ("tokenizer_config.json", "[]", "AttributeError: "),
    "a list for the processor's settings": ("preprocessor_config.json", "[]", "AttributeError: "),
    "a torn file": ("preprocessor_config.json", "{", "OSError: .* is not a valid JSON file"),
    "a word for a width": (
        "config.json",
        '"hidden_size": "128"',
        "Field 'hidden_size' expected int",
    ),
    "a list for a packing": ("config.json", '"quantization_config": []', "AttributeError: "),
}


def damaged(tiny_model, folder, file, text):
    shutil.copytree(tiny_model, folder)
    path = folder / file
    if file == "config.json":
        config = json.loads(path.read_text())
        change = json.loads(f"{{{text}}}")
        (config["text_config"] if "hidden_size" in change else config).update(change)
        text = json.dumps(config)
    path.write_text(text)
    return str(folder)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_reported_in_one_line(tiny_model, tmp_path, fault):
    file, text, reason = FAULTS[fault]
    name = damaged(tiny_model, tmp_path / "model", file, text)
    cure = r"\. Check the name, or download its files again\)$"
    with pytest.raises(
        ModelError, match=f"{name}: cannot be loaded as a judge .*{file}.*: .*{reason}.*{cure}"
    ) as refused:
        open_inputs(ModelSettings(name=name), Prompt(), LimitSettings())
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400 + len(name)


@pytest.mark.parametrize(
    "fault", [fault for fault, (file, *_) in FAULTS.items() if file == "config.json"]
)
def test_a_damaged_configuration_is_reported_in_one_line_in_training(tiny_model, tmp_path, fault):
    name = damaged(tiny_model, tmp_path / "model", *FAULTS[fault][:2])
    with pytest.raises(
        ModelError, match=f"^{name}: cannot be loaded as a model .*{FAULTS[fault][2]}"
    ) as refused:
        base_weights(BackboneSettings(name=name))
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    """An adapter with its own weights."""
    folder = tmp_path_factory.mktemp("adapters") / "new"
    backbone = open_backbone(BackboneSettings(name=str(tiny_model), device="cpu"))
    add_lora(backbone, LoraSettings(rank=4))
    torch.manual_seed(0)
    for parameter in backbone.model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.05)
    Adapter(backbone.model).save(folder)
    return folder


def vectors(tiny_model, adapter):
    with torch.inference_mode():
        backbone = open_backbone(
            BackboneSettings(name=str(tiny_model), device="cpu", adapter=adapter)
        )
        return embed(backbone, [Content("a red fox"), Content("seven apples")])


OLD_PATTERN = r"model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"
"""Of the layers of a language model, as they were called before transformers 4.52."""


@pytest.mark.parametrize("pattern", [r".*\.layers\..*\.(q|k|v|o|gate|up|down)_proj", OLD_PATTERN])
def test_an_adapter_of_an_older_transformers_gives_its_vectors(
    tiny_model, adapter, tmp_path, caplog, pattern
):
    old = tmp_path / "old"
    shutil.copytree(adapter, old)
    tensors = load_file(adapter / "adapter_model.safetensors")
    renamed = {
        name.replace("model.language_model.layers", "model.layers"): one
        for name, one in tensors.items()
    }
    assert not renamed.keys() & tensors.keys()
    save_file(renamed, old / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((old / "adapter_config.json").read_text()) | {"target_modules": pattern}
    (old / "adapter_config.json").write_text(json.dumps(config))
    with caplog.at_level("INFO"):
        found = vectors(tiny_model, old)
    assert torch.equal(found, vectors(tiny_model, adapter))
    assert (
        f"{old}: renamed {len(tensors)} tensors, which have names of an older transformers"
        in caplog.text
    )


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
SPOILED = {
    "another program's kind": ("adapter_config.json", b'{"peft_type": "NEWLORA"}', "NEWLORA"),
    "a torn configuration": ("adapter_config.json", b'{"peft_type": ', "Invalid JSON"),
    "a list for a configuration": ("adapter_config.json", b"[]", "should be an object"),
    "a word for a rank": (
        "adapter_config.json",
        b'{"peft_type": "LORA", "r": "many"}',
        "valid integer",
    ),
    "a pointer": (
        "adapter_model.safetensors",
        LFS,
        "is a pointer of Git LFS, not the file itself. Fetch it: git lfs",
    ),
    "torn tensors": ("adapter_model.safetensors", b"\x10" + bytes(7) + b"{", "damaged or foreign"),
    "no tensors": ("adapter_model.safetensors", None, "are missing. Train or download it again"),
}


@pytest.mark.parametrize("fault", SPOILED)
def test_a_damaged_adapter_is_reported_in_one_line(tiny_model, adapter, tmp_path, fault):
    file, data, reason = SPOILED[fault]
    spoiled = tmp_path / "spoiled"
    shutil.copytree(adapter, spoiled)
    (spoiled / file).unlink()
    if data is not None:
        (spoiled / file).write_bytes(data)
    with pytest.raises(UnijudgeError, match=reason) as refused:
        vectors(tiny_model, spoiled)
    assert str(refused.value).startswith(str(spoiled))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400 + len(str(spoiled))


def test_invalid_numbers_are_reported_in_one_line(tiny_model, tmp_path):
    spoiled = json.loads((tiny_model / "preprocessor_config.json").read_text()) | {
        "patch_size": "a"
    }
    name = damaged(tiny_model, tmp_path / "model", "preprocessor_config.json", json.dumps(spoiled))
    with pytest.raises(
        UnijudgeError,
        match=r"cannot be loaded as a model \(.*patch_size is a, but config\.json says 14",
    ):
        open_backbone(BackboneSettings(name=name, device="cpu"))
