"""Models of a hub by name: all files come from one commit, and the commit identifies the weights."""

import asyncio
import shutil

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from judge_service.backends import open_judge
from judge_service.checks import doctor
from judge_service.settings import ModelSettings, ServiceSettings
from trainer.models.backbone import open_backbone
from trainer.models.pretrained import base_weights
from trainer.models.settings import BackboneSettings
from unijudge.errors import ModelError
from unijudge.modeling.model_source import commit_of, weights_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEWER = "fedcba9876543210fedcba9876543210fedcba98"
NAME = "acme/tiny"


@pytest.fixture
def hub(tiny_model, tmp_path, monkeypatch):
    """The cache of a hub on a machine without a network: a model with two commits, of which `main` is the older one."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--acme--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    for commit in (COMMIT, NEWER):
        shutil.copytree(tiny_model, folder / "snapshots" / commit)
    path = folder / "snapshots" / NEWER / "model.safetensors"
    save_file(
        {name: 2 * tensor for name, tensor in load_file(path).items()},
        path,
        metadata={"format": "pt"},
    )
    return folder


def settings_of(**model):
    return ServiceSettings(
        model=ModelSettings(**{"name": NAME, "backend": "transformers"} | model), port=0
    )


@pytest.mark.parametrize(
    ("revision", "commit"), [(None, COMMIT), ("main", COMMIT), (COMMIT, COMMIT), (NEWER, NEWER)]
)
def test_a_revision_is_a_commit_everywhere(hub, revision, commit):
    judge = open_judge(settings_of(revision=revision))
    assert judge.identity.weights == commit
    assert judge.identity.model == NAME
    assert judge.inputs.settings.revision == commit
    backbone = BackboneSettings(name=NAME, revision=revision)
    assert base_weights(backbone) == open_backbone(backbone).inputs.weights == commit


def test_an_upload_between_two_reads_does_not_mix_commits(hub, monkeypatch):
    """`main` moves to a new commit after the judge's inputs are loaded. The weights come from the old commit."""
    from judge_service import backends

    check = backends.check_checkpoint

    def upload(*arguments):
        (hub / "refs" / "main").write_text(NEWER)
        check(*arguments)

    monkeypatch.setattr(backends, "check_checkpoint", upload)
    judge = open_judge(settings_of())
    stored = load_file(hub / "snapshots" / COMMIT / "model.safetensors")["lm_head.weight"]
    assert judge.identity.weights == COMMIT
    assert (judge._model.lm_head.weight == stored).all()
    assert open_judge(settings_of()).identity.weights == NEWER


def test_vllm_is_given_the_commit(hub, monkeypatch):
    from judge_service.backends import vllm

    class Started(Exception):
        pass

    def started(_, options, log):
        raise Started(options["model"], options["revision"])

    monkeypatch.setattr(vllm, "_started", started)
    monkeypatch.setattr(vllm, "has_cuda_vllm", lambda: False)
    pytest.importorskip("vllm")
    with pytest.raises(Started) as found:
        open_judge(settings_of(backend="vllm", device="cpu"))
    assert found.value.args == (NAME, COMMIT)


def test_the_doctor_scores_a_pair(hub):
    pair = asyncio.run(doctor.examine(settings_of()))[-1]
    assert "by acme/tiny (transformers" in pair.found


def test_a_model_missing_in_the_cache_is_reported_in_one_line(hub):
    for name, revision in [("acme/gone", None), (NAME, "v2"), (NAME, "0" * 40)]:
        with pytest.raises(ModelError, match=r"Check the name") as refused:
            open_judge(settings_of(name=name, revision=revision))
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 400
        with pytest.raises(ModelError, match=f"{name}: cannot be loaded as a model"):
            base_weights(BackboneSettings(name=name, revision=revision))


def test_a_folder_has_a_digest_and_no_commit(tiny_model):
    assert commit_of(str(tiny_model), "main") is None
    assert len(weights_of(str(tiny_model), "main")) == 16


def test_hub_variables_of_the_environment_are_named_if_a_model_is_not_found(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:1")
    with pytest.raises(
        ModelError, match=r"Check the name, and the environment variables of the hub: HF_ENDPOINT"
    ) as found:
        commit_of("acme/unknown", None)
    assert "HTTPS_PROXY" in str(found.value)
    assert "secret" not in str(found.value)


@pytest.mark.parametrize("name", ["/no/such/model", "./missing", "models/acme/tiny", "my model"])
def test_a_missing_folder_is_not_searched_on_a_hub(hub, name):
    with pytest.raises(
        ModelError, match=r"^no such folder, and not a hub name \(owner/model\)\. Check the path$"
    ):
        commit_of(name, None)
