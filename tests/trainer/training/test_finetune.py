"""The checks of a training's model and rows: bad rows, kinds of LoRA, memory, trackers, and stores."""

import hashlib
import json
import resource
import shutil
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from safetensors.torch import load_file
from torch.autograd.graph import saved_tensors_hooks

from tests.trainer.conftest import COLORS, write_rows
from tests.trainer.runs import quiet, run_settings
from tests.trainer.training.toy_training import SETTINGS, train
from trainer.data.dataset import Examples
from trainer.losses.settings import LossSettings
from trainer.models.backbone import open_backbone
from trainer.models.embedder import embed
from trainer.models.lora import Adapter, add_lora, save_merged
from trainer.models.settings import LoraSettings
from trainer.training.checkpoints import Checkpoints
from trainer.training.embedder import train_embedder
from trainer.training.run_folder import Run
from trainer.training.settings import EmbedderSettings
from unijudge.alike import sign_of
from unijudge.content import Content
from unijudge.errors import DataError, ModelError, SettingsError, TrainingError
from unijudge.formats.corpus import Corpus
from unijudge.formats.triples import TripleManifest, finish_triples, read_triples, write_triples
from unijudge.settings import load_settings
from unijudge.storage.files import read_json
from unijudge.storage.locations import locate


@pytest.fixture
def copied(folder, corpus, tmp_path):
    """A copy of the corpus and its images, which the test damages."""
    for name in ("corpus", "images"):
        shutil.copytree(folder / name, tmp_path / name)
    return Corpus(tmp_path / "corpus")


def test_a_resumed_run_may_change_only_settings_without_effect_on_the_result(
    corpus, triples, model, tmp_path
):
    settings = run_settings(corpus, triples, model, tmp_path / "run")
    Run(tmp_path / "run", settings, {})
    more = {"max_tokens": 8192, "max_source_pixels": 10**9, "batch_tokens": 64}
    elsewhere = model.model_copy(update={"vision_cache_mb": 1, "device": "auto"} | more)
    Run(
        tmp_path / "run",
        settings.model_copy(update={"model": elsewhere, "gradient_checkpointing": True}),
        {},
    )
    Run(
        tmp_path / "run", settings.model_copy(update={"out": tmp_path / "there" / ".." / "run"}), {}
    )
    other = settings.model_copy(update={"lora": LoraSettings(rank=4, alpha=16)})
    with pytest.raises(DataError, match=r"with other settings or inputs: lora\.rank was 8, is 4"):
        Run(tmp_path / "run", other, {})


def test_a_refused_run_leaves_no_files_and_foreign_folders_are_not_changed(
    corpus, triples, model, tmp_path
):
    with pytest.raises(TrainingError, match="num_negatives = 50"):
        train_embedder(
            run_settings(corpus, triples, model, tmp_path / "run", num_negatives=50), quiet
        )
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"mine: holds notes\.txt already, which would be mixed"):
        train_embedder(run_settings(corpus, triples, model, tmp_path / "mine", max_steps=1), quiet)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_learning_rate_that_is_never_reached_is_reported(
    corpus, triples, model, tmp_path, caplog
):
    settings = run_settings(corpus, triples, model, tmp_path / "run", max_steps=2, warmup_steps=5)
    train_embedder(settings, quiet)
    assert (
        "warmup_steps = 5, max_steps = 2: the training never reaches learning_rate" in caplog.text
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_the_row_of_an_image_that_is_gone_is_named(copied, model, tmp_path, workers):
    (tmp_path / "images" / "white.png").unlink()
    settings = run_settings(
        copied, write_rows(copied, tmp_path / "rows"), model, tmp_path / "run", workers=workers
    )
    query_id = copied.queries[3].query_id
    with pytest.raises(
        DataError,
        match=rf"the row of query '{query_id}': .*white\.png: cannot be read .no such file",
    ):
        train_embedder(settings, quiet)
    assert not (tmp_path / "run" / "adapter").exists()


def test_the_row_of_a_picture_that_is_too_large_is_named(corpus, triples, model, tmp_path):
    """The model can refuse a picture only when the batch is made, ahead of its step. The error still names the row."""
    small = model.model_copy(update={"max_source_pixels": 100})
    with pytest.raises(
        DataError,
        match=r"the row of query 'squares\.jsonl:\d': image of 60×60 pixels: more than 100",
    ):
        train_embedder(run_settings(corpus, triples, small, tmp_path / "run"), quiet)


def test_rows_of_another_version_are_refused(corpus, triples, tmp_path):
    shutil.copytree(triples, tmp_path / "rows")
    manifest = json.loads((triples / "triples.json").read_text())
    (tmp_path / "rows" / "triples.json").write_text(json.dumps(manifest | {"version": 2}))
    with pytest.raises(
        DataError, match=r"triples\.json: no triple manifest of this version .version: Input should"
    ):
        Examples(corpus, tmp_path / "rows", negatives=1)


def test_known_positives_are_those_of_every_query_with_the_same_content(corpus, triples):
    examples = Examples(corpus, triples, negatives=3)
    for row in range(8):
        assert [examples[row].excluded.holds(sign_of(color, None)) for color in COLORS] == [
            color == COLORS[row] for color in COLORS
        ]
    assert examples.groups.tolist() == [0] * 8
    assert examples.query_id(2) == corpus.queries[2].query_id


def test_rows_and_images_in_an_object_store_train_the_same(copied, model, bucket, tmp_path):
    """Every process reads URLs. Only the folder of the run is on a disk."""
    rows = write_rows(copied, tmp_path / "rows")
    store = locate(bucket)
    for name in ("corpus", "images", "rows"):
        store.fs.put(str(tmp_path / name), f"{store.path.rstrip('/')}/{name}", recursive=True)
    here = run_settings(copied, rows, model, tmp_path / "here", max_steps=2)
    there = here.model_copy(
        update={"corpus": store / "corpus", "triples": store / "rows", "out": tmp_path / "there"}
    )
    digests = [
        hashlib.sha256(
            (train_embedder(one, quiet) / "adapter_model.safetensors").read_bytes()
        ).digest()
        for one in (here, there)
    ]
    assert digests[0] == digests[1]


def gradients(model, *, checkpointing):
    backbone = open_backbone(model)
    torch.manual_seed(0)
    add_lora(backbone, LoraSettings(rank=2))
    if checkpointing:
        backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
    backbone.model.train()
    kept = []
    with saved_tensors_hooks(
        lambda tensor: kept.append(tensor.nbytes) or tensor, lambda tensor: tensor
    ):
        found = embed(backbone, [Content(text="a red square"), Content(text="green")])
        product = found[0] @ found[1]
    product.backward()
    return {
        name: one.grad for name, one in backbone.model.named_parameters() if one.requires_grad
    }, sum(kept)


def test_gradient_checkpointing_changes_no_gradient(model):
    (plain, everything), (again, kept) = (
        gradients(model, checkpointing=one) for one in (False, True)
    )
    assert kept < everything / 3
    assert plain.keys() == again.keys()
    assert max((plain[name] - again[name]).abs().max() for name in plain) < 1e-6
    assert max(one.abs().max() for one in plain.values()) > 1e-3


def test_an_adapter_in_float32_learns_on_weights_in_bfloat16(model):
    """The result is equal within a tenth, the possible loss of bfloat16. A gradient that underflowed would be 0."""
    dtypes = ("float32", "bfloat16")
    exact, rough = (
        gradients(model.model_copy(update={"dtype": one}), checkpointing=False)[0] for one in dtypes
    )
    assert {one.dtype for one in rough.values()} == {torch.float32}
    exact, rough = (torch.cat([one.ravel() for one in found.values()]) for found in (exact, rough))
    assert (exact - rough).norm() < 0.1 * exact.norm()


def test_dora_and_a_gaussian_start(model):
    """DoRA has one length for each row of a weight. A Gaussian start has PEFT's deviation of 1 / rank."""
    backbone = open_backbone(model.model_copy(update={"dtype": "bfloat16"}))
    add_lora(backbone, LoraSettings(rank=4, dora=True, init="gaussian"))
    trained = {name: one for name, one in backbone.model.named_parameters() if one.requires_grad}
    assert {one.dtype for one in trained.values()} == {torch.float32}
    assert sum("lora_magnitude_vector" in name for name in trained) == 7 * 3
    first = torch.cat([one.ravel() for name, one in trained.items() if "lora_A" in name])
    assert first.std().item() == pytest.approx(1 / 4, rel=0.05)
    kurtosis = (first / first.std()).pow(4).mean().item()
    assert kurtosis == pytest.approx(3, abs=0.3), "uniform would be 1.8"


def test_one_missing_target_module_is_refused(model):
    with pytest.raises(
        ModelError,
        match=r"target_modules: v_porj: no such linear layer .*\. Choose from down_proj, gate_proj, k_proj",
    ):
        add_lora(open_backbone(model), LoraSettings(target_modules=("q_proj", "v_porj")))
    with pytest.raises(SettingsError, match=r"lora\.target_modules"):
        load_settings(
            EmbedderSettings, None, ["corpus=c", "triples=t", "out=o", "lora.target_modules=[]"]
        )


def test_a_disk_that_fills_up_under_the_weights_is_an_error_of_the_disk(model, tmp_path):
    """safetensors has its own error for a full disk. A limit on the size of files replaces the full disk."""
    backbone = open_backbone(model)
    add_lora(backbone, LoraSettings(rank=2))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(
            DataError, match=r"step-000001: cannot be written .*run the same command again"
        ):
            Checkpoints(tmp_path).save(1, {}, Adapter(backbone.model).save)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not any(tmp_path.iterdir())


def test_four_bits_need_a_gpu(model):
    with pytest.raises(
        ModelError, match=r"model\.dtype = 'nf4': needs a GPU and the package bitsandbytes"
    ):
        open_backbone(model.model_copy(update={"dtype": "nf4"}))


def test_a_four_bit_training_is_merged_in_bfloat16(corpus, triples, model, tmp_path):
    adapter = train_embedder(
        run_settings(corpus, triples, model, tmp_path / "run", max_steps=1), quiet
    )
    save_merged(model.model_copy(update={"dtype": "nf4"}), adapter, tmp_path / "merged")
    assert {one.dtype for one in load_file(tmp_path / "merged" / "model.safetensors").values()} == {
        torch.bfloat16
    }


def test_a_missing_tracker_is_reported(corpus, triples, model, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        SettingsError,
        match=r"trackers: wandb is not installed. Run pip install .unijudge\[trackers\]",
    ):
        train_embedder(
            run_settings(corpus, triples, model, tmp_path / "run", trackers=("wandb",)), quiet
        )


class Notebook(GeneralTracker):
    """A tracker like any other tracker of accelerate."""

    name = "notebook"
    requires_logging_directory = False

    def __init__(self):
        super().__init__()
        self.lines = []

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values):
        self.lines.append(values)

    def log(self, values, step, **_):
        self.lines.append({"step": step} | values)


def test_trackers_get_what_the_metrics_file_has(tmp_path):
    notebook = Notebook()
    accelerator = Accelerator(cpu=True, log_with=notebook)
    accelerator.init_trackers("unijudge", {})
    _, run, _ = train(
        tmp_path / "run",
        settings=SETTINGS.model_copy(update={"max_steps": 3}),
        accelerator=accelerator,
    )
    assert notebook.lines[1:] == [
        json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()
    ]


def test_a_row_without_a_label_is_named_before_the_first_step(corpus, triples, model, tmp_path):
    """One of eight rows has a negative without a verdict. The error comes at the start, not at the step of the row."""
    rows = list(read_triples(triples, corpus.fingerprint))
    rows[5].negatives[1] = replace(
        rows[5].negatives[1], yes_logprob=None, no_logprob=None, error="too_long"
    )
    write_triples(tmp_path / "rows", rows)
    finish_triples(tmp_path / "rows", read_json(triples / "triples.json", TripleManifest))
    settings = run_settings(corpus, tmp_path / "rows", model, tmp_path / "run", max_steps=1)
    with pytest.raises(
        TrainingError, match=r"but 1 of 8 rows lack scores .the first: query 'squares\.jsonl:6'"
    ):
        train_embedder(settings, quiet)
    assert not (tmp_path / "run" / "settings.json").exists()
    infonce = settings.model_copy(update={"loss": LossSettings(name="infonce")})
    train_embedder(infonce, quiet)


def test_rows_record_which_negatives_are_random(corpus, triples, tmp_path):
    drawn = Examples(corpus, write_rows(corpus, tmp_path / "rows", fallback=True), negatives=3)
    assert (drawn[0].drawn, Examples(corpus, triples, negatives=3)[0].drawn) == (
        {1, 2, 3},
        frozenset(),
    )


def test_rows_that_repeat_negatives_are_counted(corpus, triples, tmp_path, caplog):
    rows = list(read_triples(triples, corpus.fingerprint))
    for row in rows[:3]:
        row.negatives[2] = replace(row.negatives[0], duplicate=True)
    write_triples(tmp_path / "rows", rows)
    finish_triples(tmp_path / "rows", read_json(triples / "triples.json", TripleManifest))
    Examples(corpus, tmp_path / "rows", negatives=2)
    assert not caplog.messages, "the third is not taken"
    Examples(corpus, tmp_path / "rows", negatives=3)
    assert (
        "3 of 8 rows repeat negatives, since fewer than num_negatives = 3 survived" in caplog.text
    )
