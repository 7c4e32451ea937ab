"""An engine that does not start: one line with the reason, a cure, and the file of its log."""

import re
import shutil
from pathlib import Path

import pytest

from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from unijudge.errors import ModelError

pytest.importorskip("vllm")

DAMAGED = "The weights are damaged or incomplete: download the model again"


def load(folder, logs, **engine):
    model = {
        "name": str(folder),
        "backend": "vllm",
        "min_pixels": 3136,
        "max_pixels": 12544,
        "max_tokens": 1024,
    }
    return open_judge(ServiceSettings(model=ModelSettings(**model), engine=engine, log_folder=logs))


def failure(folder, logs, **engine):
    """Returns the one line of the error, and the content of the log that the line names."""
    with pytest.raises(ModelError) as error:
        load(folder, logs, **engine)
    message = str(error.value)
    assert "\n" not in message
    log = Path(re.search(r"Log: (.+)$", message).group(1))
    assert log.parent == logs
    return message, log.read_text()


@pytest.fixture
def torn(tiny_model, tmp_path, monkeypatch):
    """A checkpoint that is truncated after the judge has checked its files."""
    monkeypatch.setattr("judge_service.backends.check_checkpoint", lambda *_: None)
    folder = tmp_path / "torn"
    shutil.copytree(tiny_model, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200_000])
    return folder


def test_truncated_weights_are_reported(torn, tmp_path):
    message, _ = failure(torn, tmp_path / "logs")
    assert "Error while deserializing header: incomplete metadata" in message
    assert DAMAGED in message


def test_the_cause_in_a_separate_process_of_the_engine_is_reported(torn, tmp_path):
    """The parent process only knows that the engine died. The cause is in the log."""
    message, log = failure(torn, tmp_path / "logs", multiprocessing=True)
    assert "SafetensorError: Error while deserializing header: incomplete metadata" in message
    assert DAMAGED in message
    assert "See root cause above" not in message
    assert "EngineCore failed to start" in log


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (
            "Failed to find C compiler. Please specify via CC environment variable",
            "Install gcc and its headers",
        ),
        (
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.1 GiB free",
            "Lower engine.max_num_batched_tokens",
        ),
    ],
)
def test_failures_of_a_gpu_are_reported(tiny_model, tmp_path, monkeypatch, error, cure):
    """The call that fails on a GPU is made to fail here."""
    from vllm.v1.worker.cpu_worker import CPUWorker

    def fail(*_, **__):
        raise RuntimeError(error)

    monkeypatch.setattr(CPUWorker, "load_model", fail)
    message, _ = failure(tiny_model, tmp_path / "logs")
    assert error in message
    assert cure in message


def test_a_kubernetes_service_called_vllm_is_not_a_port(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_PORT", "tcp://10.0.0.1:8000")
    assert load(tiny_model, tmp_path / "logs").identity.backend == "vllm"
