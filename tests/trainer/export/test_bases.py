"""The folder of an adapter records its base weights, and the folder of a merged model records its input format."""

import logging
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from judge_service.settings import ModelSettings
from tests.trainer.exported import LOOP, quiet, trained_embedder, trained_reranker
from trainer.export.export import export
from trainer.models.backbone import open_backbone
from trainer.models.input_formats import check_base
from trainer.models.lora import save_merged
from trainer.training.embedder import train_embedder
from trainer.training.settings import EmbedderSettings, RerankerSettings
from unijudge.errors import DataError, ModelError, SettingsError
from unijudge.judging.prompt import Prompt
from unijudge.judging.reranker_file import JudgingManifest, served_otherwise
from unijudge.settings import load_settings
from unijudge.storage.files import folder_sha256, publish_json, read_json


@pytest.fixture
def base(model, tmp_path):
    """A copy of the tiny model, which the test overwrites."""
    shutil.copytree(model.name, tmp_path / "base")
    return model.model_copy(update={"name": str(tmp_path / "base")})


def overwrite(base):
    """Other weights with the same shapes, as in a newer download."""
    path = f"{base.name}/model.safetensors"
    weights = load_file(path)
    save_file({name: tensor * 1.5 for name, tensor in weights.items()}, path, {"format": "pt"})


@pytest.mark.parametrize(
    "trained", [trained_embedder, trained_reranker], ids=["embedder", "reranker"]
)
def test_an_adapter_is_refused_on_other_weights_whose_shapes_fit(
    trained, corpus, triples, model, base, tmp_path
):
    run = trained(corpus, triples, base, tmp_path / "run")
    adapted = model.model_copy(update={"adapter": run / "adapter"})
    open_backbone(adapted)  # the same weights in another folder
    overwrite(base)
    with pytest.raises(
        ModelError, match=r"adapter: was trained on other weights .* Give the base model"
    ):
        open_backbone(adapted.model_copy(update={"name": base.name}))
    for form in ("merged", "adapter"):
        with pytest.raises(ModelError, match="was trained on other weights"):
            export(run, tmp_path / "out", form)
    assert not (tmp_path / "out").exists()


def test_a_run_does_not_resume_with_other_weights(corpus, triples, base, tmp_path):
    def stop(step, _loss):
        if step == 3:
            raise KeyboardInterrupt

    settings = EmbedderSettings(
        corpus=corpus.folder,
        triples=triples,
        out=tmp_path / "run",
        model=base,
        **LOOP,
        save_steps=2,
    )
    with pytest.raises(KeyboardInterrupt):
        train_embedder(settings, stop)
    overwrite(base)
    with pytest.raises(
        DataError, match="holds a run with other settings or inputs: the base model differ"
    ):
        train_embedder(settings, quiet)


def test_a_revision_and_a_digest_cannot_be_compared_and_a_warning_says_so(tmp_path, caplog):
    publish_json(
        tmp_path / "judging.json",
        JudgingManifest(prompt=Prompt(), min_pixels=1, max_pixels=2, base="a" * 40),
    )
    with caplog.at_level(logging.WARNING):
        check_base(tmp_path, "b" * 16)
    assert "It is unknown whether the weights bbbbbbbbbbbbbbbb are the same" in caplog.text
    with pytest.raises(ModelError):
        check_base(tmp_path, "b" * 40)
    check_base(tmp_path / "foreign", "b" * 40)  # this folder does not record its base


def test_a_models_digest_covers_the_loaded_files(model, tmp_path):
    shutil.copytree(model.name, tmp_path / "copy")
    for name in (".DS_Store", "._model.safetensors", "Thumbs.db", "README.md"):
        (tmp_path / "copy" / name).write_text("left by somebody")
    (tmp_path / "copy" / ".cache").mkdir()
    assert folder_sha256(tmp_path / "copy") == folder_sha256(Path(model.name))
    (tmp_path / "copy" / "chat_template.jinja").write_text("other")
    assert folder_sha256(tmp_path / "copy") != folder_sha256(Path(model.name))


def test_a_merged_embedder_records_its_input_format(corpus, triples, model, tmp_path, caplog):
    student = model.model_copy(update={"encoding": "vlm2vec"})
    run = trained_embedder(corpus, triples, student, tmp_path / "run")
    save_merged(student, run / "adapter", tmp_path / "merged")
    export(run, tmp_path / "exported")
    for folder in (tmp_path / "merged", tmp_path / "exported"):
        caplog.clear()
        open_backbone(student.model_copy(update={"name": str(folder)}))
        assert not caplog.records
        with pytest.raises(SettingsError, match=r"'chat', but .* was trained with 'vlm2vec'"):
            open_backbone(model.model_copy(update={"name": str(folder)}))
        open_backbone(student.model_copy(update={"name": str(folder), "max_pixels": 4 * 3136}))
        assert "model.max_pixels is 12544, but" in caplog.text


def test_a_reranker_is_trained_on_the_pictures_that_the_judge_serves(
    corpus, triples, model, tmp_path
):
    settings = load_settings(
        RerankerSettings, None, ["corpus=c", "triples=t", "out=o", "model.name=m"]
    )
    served = ModelSettings()
    assert (settings.model.min_pixels, settings.model.max_pixels) == (
        served.min_pixels,
        served.max_pixels,
    )
    merged = trained_reranker(corpus, triples, model, tmp_path / "run") / "merged"
    told = read_json(merged / "judging.json", JudgingManifest)
    assert (told.prompt, told.max_pixels, told.base) == (Prompt(), model.max_pixels, None)
    assert served_otherwise(merged, Prompt(), model.min_pixels, model.max_pixels) == []
    other = served_otherwise(merged, Prompt(yes="True"), model.min_pixels, served.max_pixels)
    assert [doubt.partition(" ")[0] for doubt in other] == ["model.max_pixels", "prompt.yes"]
    assert f"Set model.max_pixels = {model.max_pixels}" in other[0]
    assert served_otherwise(tmp_path / "no", Prompt(), 1, 2) == []
