"""An export that is impossible is refused, and leaves no files."""

import json
import resource
import shutil

import pytest
from safetensors.torch import load_file, save_file

from tests.families import MAKERS
from tests.trainer.exported import (
    evaluation_of,
    trained_embedder,
)
from trainer.export.export import export
from unijudge.errors import DataError, ModelError, SettingsError

pytest.importorskip("torchvision")  # transformers' processors need torchvision


@pytest.mark.parametrize(("family", "encoding"), [("qwen2_vl", "lamra"), ("llava_next", "vlm2vec")])
def test_prompts_that_no_file_can_describe_are_refused(
    family, encoding, corpus, triples, wide, tmp_path
):
    MAKERS[family](tmp_path / family)
    model = wide.model_copy(update={"name": str(tmp_path / family), "encoding": encoding})
    run = trained_embedder(corpus, triples, model, tmp_path / "run")
    with pytest.raises(
        SettingsError, match=f"{encoding}' of {family}, which the files of an export cannot"
    ):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_refused_export_leaves_no_files(embedder, corpus, triples, wide, tmp_path, monkeypatch):
    def refused(error, match, run=embedder, **given):
        with pytest.raises(error, match=match):
            export(run, tmp_path / "out", **given)
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob("out*"))

    refused(DataError, r"settings\.json: no such file", run=tmp_path)
    refused(
        SettingsError, "--license 'Apache 2.0': not a short name of the hub", license="Apache 2.0"
    )
    unfinished = shutil.copytree(embedder, tmp_path / "unfinished")
    shutil.rmtree(unfinished / "adapter")
    refused(DataError, "unfinished: the training is not finished", run=unfinished)
    foreign = shutil.copytree(embedder, tmp_path / "foreign")
    config = json.loads((foreign / "adapter" / "adapter_config.json").read_text())
    (foreign / "adapter" / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "other"})
    )
    refused(ModelError, "is an adapter for other, but the run trained an adapter for", run=foreign)
    older = shutil.copytree(embedder, tmp_path / "older")
    (older / "settings.json").write_text(
        (older / "settings.json").read_text().replace('"batch_size"', '"rows_at_once"')
    )
    refused(
        DataError,
        r"not the settings of this kind of training in this version \(rows_at_once: ",
        run=older,
    )
    for name, torn, match in [
        (
            "environment.json",
            '{"torch":',
            r"environment\.json: no run's environment of this version .Invalid JSON",
        ),
        ("metrics.jsonl", "", "torn: no step is logged yet"),
        ("metrics.jsonl", "[1]\n", r"metrics\.jsonl:1: not the metrics of a step"),
        (
            "adapter/adapter_config.json",
            '{"peft_ty',
            r"adapter_config\.json: no adapter config of this version",
        ),
    ]:
        broken = shutil.copytree(embedder, tmp_path / "torn", dirs_exist_ok=True)
        (broken / name).write_text(torn)
        refused(DataError, match, run=broken)
    other = evaluation_of(corpus, wide, tmp_path)
    refused(DataError, "evaluates vectors of another adapter", evaluations=[other])

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"taken: .*mine\.txt"):
        export(embedder, tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_a_truncated_adapter_or_one_with_missing_layers_is_refused(form, embedder, tmp_path):
    run = shutil.copytree(embedder, tmp_path / "run")
    weights = run / "adapter" / "adapter_model.safetensors"
    kept = {name: tensor for name, tensor in load_file(weights).items() if ".layers.0." in name}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"does not match the model \(tensors missing: 28 "):
        export(run, tmp_path / "out", form)
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ModelError, match="does not match the model"):
        export(run, tmp_path / "out", form)
    assert not list(tmp_path.glob("out*"))


def test_a_full_disk_leaves_nothing(embedder, tmp_path):
    """A limit on the size of files replaces the full disk. The weights are the first file that does not fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            DataError, match=r"out: cannot be written .*No partial file was left there"
        ):
            export(embedder, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("out*"))
