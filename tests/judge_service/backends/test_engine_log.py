"""The reason of an engine's death is found in its log: the first error, not its consequences.

The message has a cure.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from judge_service.backends.engine_log import FILES_KEPT, cause_in, explained, new_log, printing_to
from unijudge.errors import SettingsError

PARENT = RuntimeError(
    "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
)
HEAD = "(EngineCore pid=4711) ERROR 11-29 20:26:37 [core.py:1187] "
NO_MEMORY = (
    "ValueError: Free memory on device cuda:0 (20.1/79.1 GiB) on startup is less than desired GPU memory utilization "
    "(0.92, 72.8 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)


def log_of(cause):
    """The output of vLLM for a dead engine: the error in the log, the same error without a prefix, and the error of the
    parent process.
    """
    trace = [
        "EngineCore failed to start.",
        "Traceback (most recent call last):",
        '  File "vllm/v1/engine/core.py", line 1161, in run_engine_core',
        "    engine_core = EngineCoreProc(...)",
        cause,
    ]  # fmt: skip
    bare = ["Process EngineCore:", *trace[1:]]
    return "\n".join([*(HEAD + line for line in trace), *bare, f"RuntimeError: {PARENT}"]) + "\n"


@pytest.mark.parametrize(
    ("cause", "cure"),
    [
        (NO_MEMORY, "Lower engine.gpu_memory_utilization, or stop other programs on the GPU"),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a capacity of 22 GiB",
            "Lower engine.max_num_batched_tokens or model.max_num_seqs, or split the model with tensor_parallel_size",
        ),
        (
            "RuntimeError: Failed to find C compiler. Please specify via CC environment variable",
            "Install gcc and its headers, or set CC to a compiler",
        ),
        ("RuntimeError: Ninja build failed", "Set engine.sampler = 'torch'"),
        (
            "ValueError: No available memory for the cache blocks.",
            "Lower model.max_tokens or engine.max_num_batched_tokens",
        ),
        (
            "safetensors_rust.SafetensorError: Error while deserializing header: incomplete",
            "download the model again",
        ),
        (
            "ValueError: A head_dtype different from the model dtype is only supported for an unquantized lm_head.",
            "Set model.head_dtype = 'model'",
        ),
        ("AssertionError: something new", "The log has the whole error"),
        (
            "triton.runtime.errors.OutOfResources: out of resource: shared memory",
            "The log has the whole error",
        ),
        (
            "RuntimeError: shape '[2, 8]' is invalid for input of size 3",
            "The log has the whole error",
        ),
    ],
)
def test_the_message_has_the_cause_and_the_cure(tmp_path, cause, cure):
    log = tmp_path / "engine.log"
    log.write_text(
        "(EngineCore pid=4711) WARNING 11-29 20:26:30 [x.py:1] a warning\n" + log_of(cause)
    )
    message = explained(PARENT, log)
    assert message.startswith(cause[:60])
    assert cure in message
    assert message.endswith(f"Log: {log}")
    assert "\n" not in message
    assert len(message) < 700


def test_a_worker_of_several_gpus_names_the_cause_first(tmp_path):
    """With tensor parallelism, the engine's own error is also only a consequence."""
    log = tmp_path / "engine.log"
    worker = log_of(NO_MEMORY).replace("(EngineCore pid=4711)", "(Worker_TP1 pid=4712)")
    log.write_text(
        worker + log_of("Exception: WorkerProc initialization failed due to an exception")
    )
    assert explained(PARENT, log).startswith("ValueError: Free memory on device cuda:0")


def test_an_engine_that_the_system_killed(tmp_path):
    """The engine prints nothing, so the parent process knows only the signal."""
    killed = RuntimeError(
        "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': -9}"
    )
    message = explained(killed, tmp_path / "gone.log")
    assert (
        "The system killed the engine, probably because main memory ran out: lower replicas"
        in message
    )


def test_a_compiler_that_names_only_its_command(tmp_path):
    log = tmp_path / "engine.log"
    failed = log_of(
        "subprocess.CalledProcessError: Command '['/usr/bin/gcc', ...]' returned status 1."
    )
    log.write_text("main.c:5:10: fatal: Python.h: No such file or directory\n" + failed)
    assert "Install the headers of Python" in explained(PARENT, log)


def test_the_death_of_a_running_engine_is_not_blamed_on_an_earlier_request(tmp_path):
    log = tmp_path / "engine.log"
    earlier = "Traceback (most recent call last):\n  File x\nValueError: a picture of one request\n"
    died = (
        HEAD
        + "EngineCore encountered a fatal error.\n"
        + log_of("RuntimeError: CUDA error: an illegal access")
    )
    log.write_text(earlier + died)
    dead = Exception("EngineCore encountered an issue. See stack trace (above) for the root cause.")
    assert explained(dead, log).startswith("RuntimeError: CUDA error: an illegal access")


def test_a_signal_is_the_cause_unless_the_log_has_one(tmp_path):
    """A running engine that is killed prints nothing. Its log has only lines about single requests."""
    log = tmp_path / "engine.log"
    earlier = "Traceback (most recent call last):\n  File x\nValueError: a picture of one request\n"
    log.write_text(earlier)
    killed = RuntimeError("EngineCore was ended by SIGKILL")
    message = explained(killed, log, had_started=True)
    assert message.startswith(
        "EngineCore was ended by SIGKILL. The system killed the engine, probably because main"
    )
    log.write_text(
        earlier
        + HEAD
        + "EngineCore encountered a fatal error.\n"
        + log_of("RuntimeError: CUDA error: x")
    )
    ended = RuntimeError("EngineCore was ended by SIGTERM")
    assert explained(ended, log, had_started=True).startswith(
        "RuntimeError: CUDA error: x. The log has the whole"
    )


def test_without_a_cause_the_message_of_the_parent_is_reported(tmp_path):
    log = tmp_path / "engine.log"
    log.write_bytes(b"\xff killed\n")
    assert cause_in(log.read_text(errors="replace")) == ""
    assert explained(PARENT, log).startswith(
        "Engine core initialization failed. See root cause above"
    )
    assert explained(ValueError("max_num_seqs is wrong"), log).startswith(
        "max_num_seqs is wrong. The log has"
    )


PRINTS = """
import os, subprocess, sys
from pathlib import Path
from judge_service.backends.engine_log import printing_to

print("before", flush=True)
with printing_to(Path(sys.argv[1])):
    print("ours")
    os.write(2, b"from C\\n")
    other = subprocess.Popen([sys.executable, "-c", "input(); print('later')"], stdin=subprocess.PIPE)
print("after", flush=True)
other.communicate(b"\\n")
"""


def test_all_that_is_printed_goes_to_the_log(tmp_path):
    """The log has the output of this process, of a program in another language, and of a process that outlives the
    start.
    """
    log = new_log(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PRINTS, log], check=True, capture_output=True, text=True
    )
    assert sorted(log.read_text().split("\n")) == ["", "from C", "later", "ours"]
    assert (done.stdout, done.stderr) == ("before\nafter\n", "")


def test_old_logs_are_removed(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    for number in range(FILES_KEPT + 5):
        (tmp_path / f"engine-2026010{number // 10}T00000{number % 10}-{ended.pid}.log").touch()
    foreign = tmp_path / "engine-room-1.log"
    living = tmp_path / f"engine-20250101T000000-{os.getppid()}.log"
    foreign.touch()
    living.touch()
    newest = new_log(tmp_path)
    left = sorted(tmp_path.glob("engine-2*.log"))
    assert len(left) == FILES_KEPT + 1, "twenty, and the log of a process that lives"
    assert newest in left
    assert living.exists()
    assert foreign.exists()


def test_only_this_user_can_read_the_logs(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first, second = new_log(None), new_log(None)
    assert first != second
    assert first.parent.stat().st_mode & 0o777 == 0o700
    assert first.stat().st_mode & 0o777 == 0o600
    assert new_log(tmp_path / "mine" / "logs").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("trap", "reason"),
    [
        (lambda folder: folder.symlink_to("/etc"), "is a link or a file, not a folder"),
        (lambda folder: folder.touch(), "is a link or a file, not a folder"),
        (lambda folder: (folder.mkdir(), folder.chmod(0o777)), "can be written by other users"),
    ],
)
def test_a_folder_of_somebody_else_is_not_used_for_logs(tmp_path, monkeypatch, trap, reason):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"unijudge-logs-{os.getuid()}"
    trap(folder)
    with pytest.raises(
        SettingsError, match=rf"^log_folder: {folder}: {reason}\. Set it to a folder that this user"
    ):
        new_log(None)


def test_a_folder_of_another_user(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("os.getuid", lambda: 4711)
    (tmp_path / "unijudge-logs-4711").mkdir(mode=0o700)
    with pytest.raises(SettingsError, match="belongs to another user"):
        new_log(None)


def test_a_log_that_became_a_link_is_not_written(tmp_path):
    log, victim = tmp_path / "engine.log", tmp_path / "victim"
    victim.write_text("whole")
    log.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"), printing_to(log):
        pass
    assert victim.read_text() == "whole"


@pytest.mark.parametrize("folder", ["/proc/nowhere", "FILE"])
def test_a_folder_that_cannot_be_written(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(
        SettingsError, match=r"log_folder: .*: cannot be written \(.+\)\. Set it to a folder"
    ):
        new_log(Path(folder.replace("FILE", str(tmp_path / "file"))))
