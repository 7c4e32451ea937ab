"""A model's small files may hold anything: judge and trainer refuse them in one line, never with a traceback."""

import json
import shutil

import pytest

from judge_service.rendering import open_inputs
from judge_service.settings import LimitSettings, ModelSettings
from trainer.pretrained import base_weights
from trainer.settings import BackboneSettings
from unijudge.errors import ModelError
from unijudge.prompt import Prompt

FAULTS = {
    "an empty tokenizer": ("tokenizer.json", "{}", "KeyError: 'added_tokens'"),
    "a list for a tokenizer": ("tokenizer.json", "[]", "TypeError: "),
    "a list for the tokenizer's settings": ("tokenizer_config.json", "[]", "AttributeError: "),
    "a list for the processor's settings": ("preprocessor_config.json", "[]", "AttributeError: "),
    "a torn file": ("preprocessor_config.json", "{", "OSError: .* is not a valid JSON file"),
    "a word for a width": ("config.json", '"hidden_size": "128"', "Field 'hidden_size' expected int"),
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
def test_a_damaged_file_is_one_line(tiny_model, tmp_path, fault):
    file, text, reason = FAULTS[fault]
    name = damaged(tiny_model, tmp_path / "model", file, text)
    cure = r"\. Check the name, or download its files again\)$"
    with pytest.raises(ModelError, match=f"{name}: cannot be loaded as a judge .*{reason}.*{cure}") as refused:
        open_inputs(ModelSettings(name=name), Prompt(), LimitSettings())
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400 + len(name)


@pytest.mark.parametrize("fault", [fault for fault, (file, *_) in FAULTS.items() if file == "config.json"])
def test_a_damaged_configuration_is_one_line_in_training(tiny_model, tmp_path, fault):
    name = damaged(tiny_model, tmp_path / "model", *FAULTS[fault][:2])
    with pytest.raises(ModelError, match=f"^{name}: cannot be loaded as a model .*{FAULTS[fault][2]}") as refused:
        base_weights(BackboneSettings(name=name))
    assert "\n" not in str(refused.value)
