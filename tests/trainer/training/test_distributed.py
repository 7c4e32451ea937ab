"""Several processes give the results of one process: updates, resuming, refusals and embedding.

The processes are real, use gloo, and run on a CPU.
"""

import functools
import hashlib
import json
import os
import shutil
from collections import Counter
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import load_file

from tests.trainer.launched import launched
from tests.trainer.runs import run_settings
from tests.trainer.training.toy_training import SETTINGS, train
from trainer.embedding.embed import embed_corpus
from trainer.embedding.settings import EmbedSettings
from trainer.losses.gradcache import embed_in_chunks
from trainer.models.backbone import open_backbone
from trainer.models.embedder import embed
from trainer.models.fsdp import shard_frozen
from trainer.models.lora import add_lora
from trainer.models.settings import LoraSettings
from trainer.training.distributed import processes
from trainer.training.embedder import train_embedder
from unijudge.content import Content
from unijudge.errors import NonFiniteLoss, SettingsError, TrainingError
from unijudge.storage.leases import lease

FOUR = SETTINGS.model_copy(update={"gradient_accumulation_steps": 4})


def quiet(*_):
    pass


def plain_training(folder, **options):
    model, _, steps = train(folder, settings=FOUR, **options)
    return {"weights": model.weight.tolist(), "steps": steps}


def test_an_update_is_the_same_on_any_number_of_processes(tmp_path):
    """The run has dropout, and a short batch in every epoch. Only the first process writes and reports."""
    found = {}
    for count in (1, 2, 4):
        ranks = launched(
            functools.partial(plain_training, tmp_path / f"run-{count}"),
            count,
            tmp_path / f"on-{count}",
        )
        assert all(one["weights"] == ranks[0]["weights"] for one in ranks)
        assert [one["steps"] for one in ranks] == [list(range(1, 13))] + [[]] * (count - 1)
        found[count] = torch.tensor(ranks[0]["weights"]), metrics(tmp_path / f"run-{count}")
    for count in (2, 4):
        assert (found[count][0] - found[1][0]).abs().max() < 1e-6
        for line, expected in zip(found[count][1], found[1][1], strict=True):
            assert line == pytest.approx(expected, abs=1e-6)


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def killed(folder):
    """The whole process ends after step 8, as after a kill."""

    def report(step, _):
        if step == 8:
            os._exit(9)

    train(folder, settings=FOUR, report=report)


def test_a_killed_and_resumed_training_is_bitwise_the_uninterrupted_one(tmp_path):
    [whole, _] = launched(functools.partial(plain_training, tmp_path / "whole"), 2, tmp_path / "a")
    with pytest.raises(Exception, match="exit code 9"):
        launched(functools.partial(killed, tmp_path / "twice"), 2, tmp_path / "b")
    shutil.copytree(tmp_path / "twice", tmp_path / "fewer")
    [resumed, _] = launched(
        functools.partial(plain_training, tmp_path / "twice"), 2, tmp_path / "c"
    )
    assert resumed["steps"][0] == 6
    fewer = plain_training(tmp_path / "fewer")
    assert fewer["steps"] == resumed["steps"], "a run may go on with fewer processes"
    assert (torch.tensor(fewer["weights"]) - torch.tensor(whole["weights"])).abs().max() < 1e-6
    assert resumed["weights"] == whole["weights"]
    assert metrics(tmp_path / "twice") == metrics(tmp_path / "whole")


def poisoned(folder):
    """In the third update, one of the two processes gets a loss that is not a number."""
    accelerator, calls = Accelerator(cpu=True), []

    def loss(module, batch):
        calls.append(1)
        bad = accelerator.process_index == 1 and len(calls) == 5
        return {"mean": module(batch).mean() * (float("nan") if bad else 1.0)}

    try:
        train(folder, settings=FOUR, loss=loss, accelerator=accelerator)
    except NonFiniteLoss as error:
        return str(error)


def test_a_nan_loss_in_one_process_stops_all_before_the_update(tmp_path):
    told = launched(functools.partial(poisoned, tmp_path / "run"), 2, tmp_path / "ranks")
    assert [one.split(",")[0] for one in told] == ["step 3: loss nan"] * 2
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2]


def uneven(folder):
    with pytest.raises(
        TrainingError,
        match=r"gradient_accumulation_steps = 2: the batches of an update .* among 4 processes",
    ):
        train(folder)


def test_batches_that_cannot_be_divided_among_processes_are_refused(tmp_path):
    launched(functools.partial(uneven, tmp_path / "run"), 4, tmp_path / "ranks")


def uneven_training(settings):
    with pytest.raises(
        TrainingError,
        match=r"gradient_accumulation_steps = 1: the batches of an update .* among 2 processes",
    ):
        train_embedder(settings, quiet)


def test_refused_batches_leave_no_folder_that_blocks_the_cure(corpus, triples, model, tmp_path):
    """The command is README's command with the default settings.

    The error comes before the settings of the run are written.
    """
    settings = run_settings(corpus, triples, model, tmp_path / "run", gradient_accumulation_steps=1)
    launched(functools.partial(uneven_training, settings), 2, tmp_path / "ranks")
    assert not (tmp_path / "run" / "settings.json").exists()


def as_fsdp(plugin):
    """The state that accelerate makes from its FSDP configuration on GPUs. accelerate has no such configuration for
    CPUs.
    """
    state = Accelerator(cpu=True).state
    PartialState().distributed_type, state.fsdp_plugin = DistributedType.FSDP, plugin


def embedder_training(settings, *, sharded=False):
    if sharded:
        as_fsdp(FullyShardedDataParallelPlugin(fsdp_version=2))
    with mock.patch("trainer.training.finetune.shard_frozen", wraps=shard_frozen) as split:
        train_embedder(settings, quiet)
    return split.call_count


def test_an_embedder_is_the_same_from_two_processes(corpus, triples, model, tmp_path):
    """The run has dropout, DoRA and gradient checkpointing.

    The weights are whole in each process, or the frozen weights are split (FSDP2).
    """
    settings = run_settings(
        corpus, triples, model, tmp_path / "one", max_steps=3, batch_size=2, gradient_accumulation_steps=2,
        save_steps=2,
        gradient_checkpointing=True, batch_strategy="homogeneous",
    )  # fmt: skip
    lora = settings.lora.model_copy(update={"dropout": 0.1, "dora": True, "init": "gaussian"})
    settings = settings.model_copy(update={"lora": lora})
    alone = load_file(train_embedder(settings, quiet) / "adapter_model.safetensors")
    for sharded in (False, True):
        two = settings.model_copy(update={"out": tmp_path / f"sharded-{sharded}"})
        work = functools.partial(embedder_training, two, sharded=sharded)
        assert launched(work, 2, tmp_path / f"ranks-{sharded}") == [sharded] * 2
        together = load_file(two.out / "adapter" / "adapter_model.safetensors")
        assert alone.keys() == together.keys()
        assert max((alone[name] - together[name]).abs().max().item() for name in alone) < 1e-6


def split(model):
    """Returns the share of each parameter in a process before and after training, and its gradient if the processes
    have different inputs.
    """
    accelerator = Accelerator(cpu=True)
    backbone = open_backbone(model.model_copy(update={"batch_tokens": 60}))
    torch.manual_seed(0)
    add_lora(backbone, LoraSettings(rank=2, dropout=0.5))
    backbone.model.train()
    contents = [
        Content(text="a " * length)
        for length in ((3, 40, 80) if accelerator.process_index else (5,))
    ]
    before, expected = sizes(backbone.model), gradient(backbone, contents)
    shard_frozen(backbone)
    differences = [(expected - gradient(backbone, contents)).abs().max().item()]
    backbone.model.eval()  # without dropout, because chunks draw other random numbers
    cached = functools.partial(embed_in_chunks, size=2)
    differences.append(
        (gradient(backbone, contents) - gradient(backbone, contents, cached)).abs().max().item()
    )
    return [before, sizes(backbone.model), max(differences), expected.abs().max().item()]


def gradient(backbone, contents, embedding=embed):
    torch.manual_seed(1)
    embedding(backbone, contents).sum().backward()
    trained = [one for one in backbone.model.parameters() if one.requires_grad]
    found = torch.cat([one.grad.ravel() for one in trained])
    backbone.model.zero_grad()
    return found


def sizes(model):
    total = Counter()
    for name, one in model.named_parameters():
        kind = "trained" if one.requires_grad else "block" if ".layers." in name else "other"
        total[kind] += getattr(one, "_local_tensor", one).numel()
    return total


def test_frozen_blocks_are_split_and_nothing_else(model, tmp_path):
    """This also holds if one process needs one pass and the other process three, with and without chunks: the gradients
    equal those of the whole weights.
    """
    ranks = launched(functools.partial(split, model), 2, tmp_path)
    for before, after, difference, largest in ranks:
        assert [after[kind] for kind in ("trained", "other")] == [
            before[kind] for kind in ("trained", "other")
        ]
        assert difference < 1e-6 * largest
    assert sum(after["block"] for _, after, *_ in ranks) == ranks[0][0]["block"]
    assert max(after["block"] for _, after, *_ in ranks) < 0.6 * ranks[0][0]["block"]


def test_an_error_in_one_process_ends_all(folder, corpus, triples, model, tmp_path):
    for name in ("corpus", "images"):
        shutil.copytree(folder / name, tmp_path / name)
    (tmp_path / "images" / "white.png").unlink()
    settings = run_settings(
        corpus, triples, model, tmp_path / "run", batch_size=1, gradient_accumulation_steps=2
    )
    settings = settings.model_copy(update={"corpus": tmp_path / "corpus"})
    with pytest.raises(Exception, match=r"the row of query '.*': .*white\.png: cannot be read"):
        launched(functools.partial(embedder_training, settings), 2, tmp_path / "ranks")


def test_two_processes_embed_the_same_files_as_one(corpus, model, tmp_path):
    def digests(folder):
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.glob("*.parquet")
        }

    settings = EmbedSettings(corpus=corpus.folder, out=tmp_path / "one", model=model, batch_size=3)
    embed_corpus(settings, quiet)
    other = settings.model_copy(update={"out": tmp_path / "two"})
    launched(functools.partial(embedding, other), 2, tmp_path / "ranks")
    assert digests(tmp_path / "one") == digests(tmp_path / "two") != {}
    (tmp_path / "two" / "queries-00000.parquet").unlink()
    with (
        lease(other.out),
        pytest.raises(Exception, match=f"process {os.getpid()} is writing there"),
    ):
        launched(functools.partial(embedding, other), 2, tmp_path / "refused")
    told = launched(functools.partial(embedding, other), 2, tmp_path / "again")
    assert told == [[[6, 8], [8, 8]], []], (
        "the missing part alone, and the first process tells of both"
    )
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def embedding(settings):
    told = []
    embed_corpus(settings, lambda done, total: told.append((done, total)))
    return told


def test_a_configuration_that_would_empty_the_weights_is_refused(tmp_path):
    plugin = SimpleNamespace(cpu_ram_efficient_loading=True)
    told = launched(functools.partial(refused, plugin, tmp_path / "run"), 2, tmp_path)
    assert all(
        one.startswith("fsdp_cpu_ram_efficient_loading: this option leaves every process")
        for one in told
    )


@pytest.mark.parametrize("kind", ["DEEPSPEED", "MEGATRON_LM"])
def test_another_way_to_split_a_model_is_refused(kind, tmp_path, monkeypatch):
    # Neither library is installed here.
    found = SimpleNamespace(distributed_type=DistributedType[kind])
    monkeypatch.setattr("trainer.training.distributed.Accelerator", lambda **_: found)
    told = rf"{kind}: .* Use deploy/recipes/accelerate/ddp.yaml or fsdp.yaml"
    with pytest.raises(SettingsError, match=told), processes("cpu", tmp_path / "run"):
        pass


def refused(plugin, folder):
    as_fsdp(plugin)
    with pytest.raises(SettingsError) as error, processes("cpu", folder):
        pass
    return str(error.value)


def test_a_process_group_of_other_libraries_stays(tmp_path):
    """vLLM makes a process group in the same process."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        with processes("cpu", tmp_path / "out"):
            pass
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()
