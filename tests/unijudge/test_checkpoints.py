"""A checkpoint that lacks a tensor is refused by every engine, for judge, embedder and adapter, before it is used."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from tests.families import MAKERS
from trainer.adapters import Adapter, add_lora
from trainer.backbone import open_backbone
from trainer.settings import BackboneSettings
from trainer.training_settings import LoraSettings
from unijudge.checkpoints import check_checkpoint
from unijudge.errors import ModelError

WEIGHTS = "model.safetensors"
LAYER = "model.layers.0.mlp"


def changed(source, folder, change):
    """A copy of a folder, with other tensors in its file."""
    shutil.copytree(source, folder)
    path = next(folder.glob("*.safetensors"))
    weights = change(load_file(path))
    save_file({name: weight.contiguous() for name, weight in weights.items()}, path, metadata={"format": "pt"})
    return folder


def without(part):
    return lambda weights: {name: weight for name, weight in weights.items() if part not in name}


def with_more_layers(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["num_hidden_layers"] += 1
    config["text_config"].pop("layer_types", None)
    path.write_text(json.dumps(config))


FAULTS = {
    "a layer's part": (
        without(LAYER),
        r"tensors missing: 3 \(model.language_model.layers.0.mlp.down_proj.weight, \S+gate_proj.weight, \S+up_proj",
    ),
    "the tower": (without("visual"), r"tensors missing: 30 \((model.visual\S+, ){4}\S+ and 25 more\)\. Download"),
    "the head": (without("lm_head"), r"tensors missing: 1 \(lm_head.weight\)"),
    "one too many": (
        lambda weights: weights | {"model.layers.7.x.weight": torch.zeros(2)},
        r"tensors without a place: 1 \(model.language_model.layers.7.x.weight\)",
    ),
    "a shape": (
        lambda weights: weights | {"lm_head.weight": torch.zeros(5, 128)},
        r"tensors of another shape: 1 \(lm_head.weight: 5×128, not 576×128\)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_does_not_fit_is_refused_everywhere(tiny_model, tmp_path, monkeypatch, fault):
    change, message = FAULTS[fault]
    folder = changed(tiny_model, tmp_path / "model", change)
    for backend in ("transformers", "vllm"):
        pytest.importorskip(backend)
        with pytest.raises(ModelError, match=message) as refused:
            open_judge(ServiceSettings(model=ModelSettings(name=str(folder), backend=backend)))
        assert str(refused.value).startswith(f"{folder}: its checkpoint does not hold this model: ")
        assert len(str(refused.value)) < 600 + len(str(folder))
    with pytest.raises(ModelError, match=message):
        open_backbone(BackboneSettings(name=str(folder)))


def test_fewer_layers_than_the_configuration_says(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    with_more_layers(tmp_path / "model")
    with pytest.raises(ModelError, match=r"tensors missing: 12 \(model.language_model.layers.3\."):
        check_checkpoint(str(tmp_path / "model"), None)


@pytest.mark.parametrize("family", MAKERS)
def test_whole_checkpoints_pass_and_torn_towers_do_not(family, tmp_path):
    """Published names of towers are other than transformers' own today."""
    MAKERS[family](tmp_path / "whole")
    check_checkpoint(str(tmp_path / "whole"), None)
    tower = "visual" if family.startswith("qwen") else "vision_tower"
    changed(tmp_path / "whole", tmp_path / "blind", without(tower))
    with pytest.raises(ModelError, match=r"tensors missing: \d+ \("):
        check_checkpoint(str(tmp_path / "blind"), None)


def test_a_tied_head_is_not_missing(tiny_model, tmp_path):
    folder = changed(tiny_model, tmp_path / "tied", without("lm_head"))
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"tie_word_embeddings": True}
    config["text_config"]["tie_word_embeddings"] = True
    path.write_text(json.dumps(config))
    check_checkpoint(str(folder), None)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"{" * 999])
def test_a_file_that_is_no_checkpoint_is_one_short_line(tiny_model, tmp_path, content):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match=r"^its weights cannot be read \(\w+: .*\)\. Download the model again$"):
        check_checkpoint(str(tmp_path / "model"), None)


def packed(weights):
    """As AWQ packs: every linear layer's weight becomes three tensors."""
    found = {}
    for name, weight in weights.items():
        layer, _, kind = name.rpartition(".")
        if ".mlp." in layer and "visual" not in layer and kind == "weight":
            rows, columns = weight.shape
            found[f"{layer}.qweight"] = torch.zeros(columns, rows // 8, dtype=torch.int32)
            found[f"{layer}.qzeros"] = torch.zeros(columns // 32, rows // 8, dtype=torch.int32)
            found[f"{layer}.scales"] = torch.zeros(columns // 32, rows, dtype=torch.float16)
        else:
            found[name] = weight
    return found


def test_packed_weights_count_by_layer(tiny_model, tmp_path):
    folder = changed(tiny_model, tmp_path / "packed", packed)
    path = folder / "config.json"
    awq = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": awq}))
    check_checkpoint(str(folder), None)
    changed(folder, tmp_path / "torn", without(f"{LAYER}.up_proj"))
    with pytest.raises(ModelError, match=r"tensors missing: 1 \(model.language_model.layers.0.mlp.up_proj.weight\)"):
        check_checkpoint(str(tmp_path / "torn"), None)


ADAPTERS = {
    "missing": (without("layers.1."), r"tensors missing: 4 \(base_model\S+layers.1\."),
    "without a place": (
        lambda weights: weights | {"base_model.model.elsewhere.lora_A.weight": torch.zeros(4, 128)},
        r"tensors without a place: 1 \(base_model.model.elsewhere.lora_A.weight\)",
    ),
    "of another shape": (
        lambda weights: {name: weight[:, :-1] for name, weight in weights.items()},
        r"tensors of another shape: 12 \((base_model\S+: \S+, not \S+, ){4}\S+: 4×127, not 4×128 and 7 more\)",
    ),
}


@pytest.mark.parametrize("fault", ADAPTERS)
def test_an_adapter_that_does_not_fit_is_refused(tiny_model, tmp_path, fault):
    change, message = ADAPTERS[fault]
    settings = BackboneSettings(name=str(tiny_model))
    backbone = open_backbone(settings)
    add_lora(backbone, LoraSettings(rank=4, targets=("q_proj", "v_proj")))
    Adapter(backbone.model).save(tmp_path / "whole")
    open_backbone(settings.model_copy(update={"adapter": tmp_path / "whole"}))
    folder = changed(tmp_path / "whole", tmp_path / "spoiled", change)
    with pytest.raises(ModelError, match=message) as refused:
        open_backbone(settings.model_copy(update={"adapter": folder}))
    assert str(refused.value).startswith(f"{folder}: this adapter does not fit the model (tensors ")
    with pytest.raises(ModelError, match=message):  # a run that goes on
        Adapter(backbone.model).load(folder)
