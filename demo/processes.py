"""Prints, runs and times the commands of the demo, and starts and stops its services."""

import contextlib
import multiprocessing
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing import forkserver
from pathlib import Path

from demo.commands import PIXELS
from unijudge import cli

START_LIMIT_S = 600
QUIET = {
    "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}  # fmt: skip
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
"""Variables for commands that run at the same time. With more threads than cores they would slow each other down."""
LOADED_ONCE = [
    "trainer.embedding.embed", "trainer.training.embedder", "trainer.training.reranker",
    "trainer.evaluation.evaluate", "peft",
    "transformers.models.auto", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
]  # fmt: skip
"""Modules that are imported once for all parallel commands. Imports take over half of the time of a small command."""
FORKS = multiprocessing.get_context("forkserver")


def run(command: str) -> None:
    """Prints a command and runs it. A failure ends the demo."""
    print(f"\n$ {command}", flush=True)
    done = subprocess.run(_arguments(command), env=os.environ | QUIET, check=False)
    _check(command, done.returncode)


def run_side_by_side(chains: Sequence[Sequence[str]], at_once: int = 2) -> None:
    """Runs chains of `unijudge` commands, several at the same time. Prints each command and its output when it is done.

    Each command is a fork of one process that has already imported the modules.
    """
    FORKS.set_forkserver_preload(LOADED_ONCE)
    with _environment(QUIET | ONE_THREAD):
        forkserver.ensure_running()
    failed = threading.Event()
    with ThreadPoolExecutor(at_once) as pool:
        for done in as_completed([pool.submit(_run_chain, chain, failed) for chain in chains]):
            done.result()


def _run_chain(chain: Sequence[str], failed: threading.Event) -> None:
    """Runs the commands of a chain, and starts no command after another chain has failed."""
    for command in chain:
        if failed.is_set():
            return
        with tempfile.TemporaryDirectory() as folder:
            output, errors = Path(folder) / "output", Path(folder) / "errors"
            process = FORKS.Process(target=_command, args=(shlex.split(command), output, errors))
            process.start()
            process.join()
            printed = output.read_text().strip()
            if process.exitcode:
                printed += errors.read_text()
        print(f"\n$ {command}\n{printed}", flush=True)
        if process.exitcode:
            failed.set()
        _check(command, process.exitcode or 0)


def _command(words: list[str], output: Path, errors: Path) -> None:
    """Runs one command in this forked process. Its output goes to two files."""
    for stream, path in ((sys.stdout, output), (sys.stderr, errors)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = words
    cli.main()


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Sets environment variables during the block. A process that starts in the block keeps them."""
    before = dict(os.environ)
    os.environ.update(variables)
    yield
    os.environ.clear()
    os.environ.update(before)


def _check(command: str, status: int) -> None:
    if status:
        raise SystemExit(
            f"the demo stops: `{command}` ended with status {status}. See its output above"
        )


@contextlib.contextmanager
def serving(model: Path, backend: str, log: Path, replicas: int = 2) -> Iterator[str]:
    """Starts a judge service on a free port, yields its URL when the service is ready, and stops it at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = (
        f"unijudge judge serve deploy/judge.toml port={port} replicas={replicas} gpus_per_replica=0 "
        f"model.name={model.absolute()} model.backend={backend} model.dtype=float32 "
        f"{PIXELS} model.max_tokens=1024 "
        "front.max_ongoing_requests=32 "
        "health.canary_every_s=0"  # canaries are plain English, and this judge knows only the words of its world
    )
    with started(command, url, log):
        yield url


@contextlib.contextmanager
def started(command: str, url: str, log: Path) -> Iterator[None]:
    """Prints the command of a service, starts it, yields when the service is ready, and stops it at the end.

    Args:
        command: A command line, as a user would type it.
        url: The URL of the service.
        log: The file for the output of the service.

    Raises:
        SystemExit: The service ended, or was not ready in time.
    """
    print(f"\n$ {command} &", flush=True)
    with log.open("w") as file:
        process = subprocess.Popen(
            _arguments(command), env=os.environ | QUIET, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        begun = time.monotonic()
        while not _ready(url):
            if process.poll() is not None:
                raise SystemExit(
                    f"the service ended with status {process.returncode}. Its log:\n{log.read_text()}"
                )
            if time.monotonic() - begun > START_LIMIT_S:
                raise SystemExit(
                    f"the service was not ready after {START_LIMIT_S} s. Its log:\n{log.read_text()}"
                )
            time.sleep(0.5)
        print(f"ready at {url}", flush=True)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the wall-clock time of the block to a stage."""
    begun = time.monotonic()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - begun


def _arguments(command: str) -> list[str]:
    program, *rest = shlex.split(command)
    return [str(Path(sys.executable).parent / program), *rest]


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:  # noqa: S310  our own http:// URL
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
