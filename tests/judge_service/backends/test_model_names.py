"""Names that cannot be names of models are refused before Ray starts."""

import pytest

from judge_service.backends import check_model_name
from judge_service.settings import ModelSettings
from unijudge.errors import SettingsError


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "model.name: is empty. Set a hub name"),
        ("./nowhere", "no such folder, and not a hub name"),
        ("/nowhere/model", "no such folder, and not a hub name"),
        ("a/b/c", "no such folder, and not a hub name"),
        ("here", "here: holds no config.json, so it is not a model"),
    ],
)
def test_a_name_that_cannot_be_a_model_is_refused(name, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(SettingsError) as refused:
        check_model_name(ModelSettings(name=name))
    assert reason in str(refused.value)


def test_a_name_that_can_be_a_model_is_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    for name in ("Qwen/Qwen2.5-VL-7B-Instruct", "gpt2", "model", "./model"):
        check_model_name(ModelSettings(name=name))
    check_model_name(ModelSettings(backend="scripted"))
