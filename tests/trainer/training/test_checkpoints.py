"""Checkpoints are complete or absent, two are kept, damage is detected, and training never restarts silently."""

import errno
import os
from pathlib import Path

import pytest
import torch

from tests.trainer.training.toy_training import SETTINGS, lines, train
from trainer.training.checkpoints import Checkpoints, load_state
from trainer.training.run_folder import Run
from unijudge.errors import DataError


def write(folder):
    folder.mkdir()
    (folder / "weights.pt").write_bytes(b"weights")


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path / "checkpoints")
    for step in (5, 10, 15):
        made.save(step, {"step": step, "moments": torch.arange(100)}, write)
    return made


def names(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_two_checkpoints_are_kept(checkpoints):
    assert names(checkpoints) == ["step-000010", "step-000015"]
    assert load_state(checkpoints.last_whole())["step"] == 15


def test_steps_may_outgrow_their_six_digits(checkpoints):
    for step in (999_999, 1_000_000):
        checkpoints.save(step, {}, write)
    assert names(checkpoints) == ["step-1000000", "step-999999"]
    assert checkpoints.last_whole().name == "step-1000000"


@pytest.mark.parametrize("name", ["state.pt", "adapter/weights.pt", "files.json"])
def test_a_truncated_checkpoint_is_reported_and_the_previous_one_is_used(checkpoints, caplog, name):
    path = checkpoints.folder / "step-000015" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert checkpoints.last_whole().name == "step-000010"
    assert "step-000015: damaged" in caplog.text
    assert name in caplog.text
    assert names(checkpoints) == ["damaged-step-000015", "step-000010"], (
        "what is damaged is not met again"
    )
    for step in (15, 20):
        checkpoints.save(step, {"step": step}, write)
    assert checkpoints.last_whole().name == "step-000020"


def test_a_missing_file_counts_as_damage(checkpoints):
    for step in ("step-000015", "step-000010"):
        (checkpoints.folder / step / "adapter" / "weights.pt").unlink()
        if step == "step-000015":
            assert checkpoints.last_whole().name == "step-000010"
    with pytest.raises(
        DataError,
        match=r"every checkpoint is damaged .step-000010.. Restore a checkpoint, or delete",
    ):
        checkpoints.last_whole()
    assert names(checkpoints) == ["damaged-step-000015", "step-000010"]


def test_files_of_a_file_manager_are_not_damage(checkpoints):
    for place in ("adapter/.DS_Store", ".DS_Store", "adapter/Thumbs.db"):
        (checkpoints.folder / "step-000015" / place).write_text("")
    assert checkpoints.last_whole().name == "step-000015"
    assert names(checkpoints) == ["step-000010", "step-000015"]


@pytest.mark.parametrize("name", ["state.pt", "files.json"])
def test_a_file_that_cannot_be_read_now_is_not_damage(checkpoints, monkeypatch, name):
    """A disk that is unavailable for a moment says nothing about the bytes of the file.

    No file is moved, and training does not go back to an earlier checkpoint.
    """

    def away(method):
        def refusing(path, *args, **options):
            if path.name == name and "000015" in str(path):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return method(path, *args, **options)

        return refusing

    for method in ("open", "read_bytes"):
        monkeypatch.setattr(Path, method, away(getattr(Path, method)))
    with pytest.raises(DataError, match=rf"{name}: cannot be read .Stale file handle"):
        checkpoints.last_whole()
    monkeypatch.undo()
    assert checkpoints.last_whole().name == "step-000015"


def test_a_full_disk_leaves_the_previous_checkpoint(checkpoints):
    def half(folder):
        write(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(
        DataError,
        match=r"step-000020: cannot be written .No space left.*run the same command again",
    ):
        checkpoints.save(20, {}, half)
    assert names(checkpoints) == ["step-000010", "step-000015"]
    assert checkpoints.last_whole().name == "step-000015"


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="a device that is always full is Linux's"
)
def test_a_disk_that_fills_up_under_the_optimizers_state(checkpoints):
    def full(folder):
        write(folder)
        (folder.parent / "state.pt").symlink_to("/dev/full")

    with pytest.raises(DataError, match=r"step-000020: cannot be written .No space left"):
        checkpoints.save(20, {"moments": torch.arange(10_000)}, full)
    assert checkpoints.last_whole().name == "step-000015"
    run = Run(checkpoints.folder.parent / "run", SETTINGS, {})
    (run.folder / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"metrics\.jsonl: cannot be written .No space left"):
        run.log(step=1)


def test_a_run_resumes_from_the_intact_checkpoint_with_the_same_result(tmp_path):
    whole, run, _ = train(tmp_path / "whole")
    _, broken, _ = train(tmp_path / "broken", stop_at=11)
    state = broken.checkpoints.folder / "step-000010" / "state.pt"
    state.write_bytes(state.read_bytes()[:100])
    resumed, again, steps = train(tmp_path / "broken")
    assert steps[0] == 6
    assert torch.equal(whole.weight, resumed.weight)
    assert lines(run) == lines(again)
