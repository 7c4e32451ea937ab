"""Every engine refuses a checkpoint that lacks a tensor, for judge, embedder and adapter, before its first use."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from tests.families import MAKERS
from trainer.models.backbone import open_backbone
from trainer.models.lora import Adapter, add_lora
from trainer.models.settings import BackboneSettings, LoraSettings
from unijudge.errors import ModelError
from unijudge.modeling.checkpoints import check_checkpoint

WEIGHTS = "model.safetensors"
LAYER = "model.layers.0.mlp"


def changed(source, folder, change):
    """A copy of a folder whose file has other tensors."""
    shutil.copytree(source, folder)
    path = next(folder.glob("*.safetensors"))
    weights = change(load_file(path))
    save_file(
        {name: weight.contiguous() for name, weight in weights.items()},
        path,
        metadata={"format": "pt"},
    )
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
    "the tower": (
        without("visual"),
        r"tensors missing: 30 \((model.visual\S+, ){4}\S+ and 25 more\)\. Download",
    ),
    "the head": (without("lm_head"), r"tensors missing: 1 \(lm_head.weight\)"),
    "one too many": (
        lambda weights: weights | {"model.layers.7.x.weight": torch.zeros(2)},
        r"tensors unexpected: 1 \(model.language_model.layers.7.x.weight\)",
    ),
    "a shape": (
        lambda weights: weights | {"lm_head.weight": torch.zeros(5, 128)},
        r"tensors of another shape: 1 \(lm_head.weight: 5×128, not 576×128\)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_does_not_fit_is_refused_everywhere(
    tiny_model, tmp_path, monkeypatch, fault
):
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


def test_a_checkpoint_with_fewer_layers_than_its_configuration_is_refused(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    with_more_layers(tmp_path / "model")
    with pytest.raises(ModelError, match=r"tensors missing: 12 \(model.language_model.layers.3\."):
        check_checkpoint(str(tmp_path / "model"), None)


@pytest.mark.parametrize("family", MAKERS)
def test_complete_checkpoints_pass_and_truncated_towers_do_not(family, tmp_path):
    """The published names of towers differ from the names that transformers uses today."""
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


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"{" * 999]
)
def test_a_file_that_is_not_a_checkpoint_is_reported_in_one_short_line(
    tiny_model, tmp_path, content
):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / WEIGHTS).write_bytes(content)
    with pytest.raises(
        ModelError,
        match=r"^its weights cannot be read: .*model\.safetensors: .*(damaged or foreign|git lfs pull)",
    ):
        check_checkpoint(str(tmp_path / "model"), None)


@pytest.mark.parametrize("content", [b"nothing", b"cos\nsystem\n(S'true'\ntR."])
def test_damaged_pickled_weights_are_named_without_torchs_advice(tiny_model, tmp_path, content):
    """torch's own message explains how to run the code in the file."""
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / WEIGHTS).unlink()
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(
        ModelError, match=r"pytorch_model\*\.bin holds no tensors, or holds code too"
    ) as refused:
        check_checkpoint(str(tmp_path / "model"), None)
    assert "weights_only" not in str(refused.value)


def packed(weights):
    """Every linear layer's weight as three tensors, as AWQ packs them."""
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
    awq = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "zero_point": True,
        "version": "gemm",
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": awq}))
    check_checkpoint(str(folder), None)
    changed(folder, tmp_path / "torn", without(f"{LAYER}.up_proj"))
    with pytest.raises(
        ModelError, match=r"tensors missing: 1 \(model.language_model.layers.0.mlp.up_proj.weight\)"
    ):
        check_checkpoint(str(tmp_path / "torn"), None)


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}


def packed_by(folder, method):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": method}))
    return folder


@pytest.mark.parametrize("lost", ["qweight", "qzeros", "scales"])
def test_a_packed_layer_without_one_of_its_tensors(tiny_model, tmp_path, lost):
    folder = packed_by(changed(tiny_model, tmp_path / "packed", packed), AWQ)
    changed(folder, tmp_path / "torn", without(f"{LAYER}.up_proj.{lost}"))
    reason = rf"1 layers that are packed by awq lack a part \(first {LAYER}.up_proj: no {lost}\)"
    if lost == "qweight":
        reason = rf"{reason}|tensors missing: 1 \(\S+up_proj.weight\)"
    with pytest.raises(ModelError, match=reason):
        check_checkpoint(str(tmp_path / "torn"), None)


def in_eight_bits(weights):
    """The weight in eight bits and its scale, as FP8 packs them."""
    found = dict(weights)
    for name in [
        name
        for name in weights
        if ".mlp." in name and "visual" not in name and name.endswith("weight")
    ]:
        found[name] = weights[name].to(torch.float8_e4m3fn)
        found[f"{name}_scale_inv"] = torch.ones(1, 1)
    return found


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (
            "up_proj.weight_scale_inv",
            r"1 layers that are packed by fp8 .* no weight_scale or weight_scale_inv\)",
        ),
        ("up_proj.weight", r"tensors missing: 1 \(\S+layers.0.mlp.up_proj.weight\)"),
    ],
)
def test_eight_bits_need_weight_and_scale(tiny_model, tmp_path, lost, reason):
    folder = packed_by(
        changed(tiny_model, tmp_path / "packed", in_eight_bits), {"quant_method": "fp8"}
    )
    check_checkpoint(str(folder), None)
    ends = f"{LAYER}.{lost}"
    changed(
        folder,
        tmp_path / "torn",
        lambda weights: {k: v for k, v in weights.items() if not k.endswith(ends)},
    )
    with pytest.raises(ModelError, match=reason):
        check_checkpoint(str(tmp_path / "torn"), None)


def test_a_scale_without_its_weight_is_a_missing_tensor(tiny_model, tmp_path):
    def as_scales(weights):
        name = f"{LAYER}.up_proj.weight"
        return weights | {f"{name}_scale": weights.pop(name)}

    folder = packed_by(changed(tiny_model, tmp_path / "scales", as_scales), {"quant_method": "new"})
    with pytest.raises(ModelError, match=r"tensors missing: 1 \(\S+up_proj.weight\)"):
        check_checkpoint(str(folder), None)


def test_whole_numbers_where_nothing_is_packed(tiny_model, tmp_path):
    name = f"{LAYER}.up_proj.weight"
    folder = changed(
        tiny_model,
        tmp_path / "ints",
        lambda weights: weights | {name: weights[name].to(torch.int8)},
    )
    reason = rf"names no quantisation, but 1 tensors are not floating-point .*\(first {name}: I8\)"
    with pytest.raises(ModelError, match=reason):
        check_checkpoint(str(folder), None)


def test_an_adapter_beside_a_model_is_refused_everywhere(tiny_model, tmp_path):
    backbone = open_backbone(BackboneSettings(name=str(tiny_model)))
    add_lora(backbone, LoraSettings(rank=4, target_modules=("q_proj", "v_proj")))
    Adapter(backbone.model).save(tmp_path / "adapter")
    shutil.copytree(tiny_model, tmp_path / "both")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(tmp_path / "adapter" / file, tmp_path / "both" / file)
    for open_model in (judged, lambda name: open_backbone(BackboneSettings(name=name))):
        with pytest.raises(
            ModelError,
            match=r"an adapter is beside the model's weights.*\. Merge the adapter, or",
        ):
            open_model(str(tmp_path / "both"))
        with pytest.raises(
            ModelError, match=r"this folder holds an adapter and no model\. For a reranker, serve"
        ):
            open_model(str(tmp_path / "adapter"))


def judged(name):
    return open_judge(ServiceSettings(model=ModelSettings(name=name, backend="transformers")))


def test_two_sets_of_weights_are_refused(tiny_model, tmp_path):
    """transformers reads the single file. vLLM reads the files that an index or a consolidated file names, otherwise
    all files.
    """
    shard, index = "model-00001-of-00001.safetensors", "model.safetensors.index.json"
    folder = tmp_path / "two"
    shutil.copytree(tiny_model, folder)
    shutil.copy(folder / WEIGHTS, folder / shard)
    message = (
        "its folder holds two sets of weights: transformers would read model.safetensors, vLLM "
    )
    with pytest.raises(ModelError, match=f"{message}{shard}, {WEIGHTS}. Move away the files"):
        check_checkpoint(str(folder), None)
    names = list(load_file(folder / WEIGHTS))
    (folder / index).write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, shard)})
    )
    with pytest.raises(ModelError, match=f"{message}{shard}. Move"):
        check_checkpoint(str(folder), None)
    (folder / WEIGHTS).unlink()
    check_checkpoint(str(folder), None)  # an index and its shards
    shutil.copy(folder / shard, folder / "older.safetensors")
    check_checkpoint(str(folder), None)  # both engines ignore this file
    shutil.copy(folder / shard, folder / "consolidated.safetensors")
    with pytest.raises(
        ModelError, match=f"transformers would read {shard}, vLLM consolidated.safetensors"
    ):
        check_checkpoint(str(folder), None)


def test_pickled_weights_beside_others(tiny_model, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model, folder)
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    check_checkpoint(str(folder), None)  # both engines prefer the other format
    (folder / WEIGHTS).rename(folder / "older.safetensors")
    with pytest.raises(
        ModelError,
        match=r"transformers would read pytorch_model.bin, vLLM older.safetensors\. Move",
    ):
        check_checkpoint(str(folder), None)
    (folder / "older.safetensors").unlink()
    check_checkpoint(str(folder), None)


ADAPTERS = {
    "missing": (without("layers.1."), r"tensors missing: 4 \(base_model\S+layers.1\."),
    "unexpected": (
        lambda weights: weights | {"base_model.model.elsewhere.lora_A.weight": torch.zeros(4, 128)},
        r"tensors unexpected: 1 \(base_model.model.elsewhere.lora_A.weight\)",
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
    add_lora(backbone, LoraSettings(rank=4, target_modules=("q_proj", "v_proj")))
    Adapter(backbone.model).save(tmp_path / "whole")
    open_backbone(settings.model_copy(update={"adapter": tmp_path / "whole"}))
    folder = changed(tmp_path / "whole", tmp_path / "spoiled", change)
    with pytest.raises(ModelError, match=message) as refused:
        open_backbone(settings.model_copy(update={"adapter": folder}))
    assert str(refused.value).startswith(
        f"{folder}: this adapter does not match the model (tensors "
    )
    with pytest.raises(ModelError, match=message):  # a run that is resumed
        Adapter(backbone.model).load(folder)
