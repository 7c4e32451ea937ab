"""`train export --overwrite` replaces an exported model, but never a folder that a person made."""

import json

import pytest

from trainer.export.sentence_transformers_files import is_exported
from unijudge.errors import DataError

CARD = "---\ntags:\n- unijudge\n- multimodal\n---\n"
MODEL = {"config.json": json.dumps({"model_type": "qwen2_5_vl"}), "model.safetensors": "w"}
ADAPTER = {
    "adapter_config.json": json.dumps({"peft_type": "LORA"}),
    "adapter_model.safetensors": "w",
}
BESIDE = {
    "embedding.json": "{}",
    "1_Pooling/config.json": "{}",
    "merges.txt": "",
    "chat_template.jinja": "",
}


def folder_of(tmp_path, files):
    for name, text in files.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "model"


@pytest.mark.parametrize("weights", [MODEL, ADAPTER])
def test_an_exported_model_may_be_replaced_unless_somebody_put_files_there(tmp_path, weights):
    folder = folder_of(tmp_path, weights | BESIDE | {"README.md": CARD})
    assert is_exported(folder)
    folder_of(tmp_path, {"notes/thesis.tex": "years of work"})
    with pytest.raises(
        DataError, match=r"model: holds notes/thesis\.tex, which --overwrite would delete"
    ):
        is_exported(folder)


@pytest.mark.parametrize(
    "files",
    [
        {"README.md": CARD},
        {"README.md": CARD, "dataset.json": "{}"},
        MODEL | {"README.md": CARD},
        BESIDE | {"README.md": CARD, "config.json": MODEL["config.json"]},
        BESIDE | {"README.md": CARD, "config.json": "{}", "model.safetensors": "w"},
        MODEL | BESIDE | {"README.md": "made with something like - unijudge"},
        MODEL | BESIDE,
    ],
)
def test_a_folder_without_a_part_of_an_export_is_not_an_export(tmp_path, files):
    """The card of a published dataset has the same tag, and a foreign model has weights."""
    assert not is_exported(folder_of(tmp_path, files))
