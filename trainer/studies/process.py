"""Runs one cell: its command in a separate process, and a judge service if the cell needs a service."""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trainer.studies import tied
from trainer.studies.commands import is_ours, words_of
from trainer.studies.study import PORT, RESULTS, SERVICE
from unijudge.storage.access_errors import LONGEST_REASON

START_LIMIT_S = 1800
"""The time limit for the start of a service, in seconds. A large model is downloaded and compiled in this time."""
STOP_LIMIT_S = 120
"""The time limit for the end of a process after SIGTERM, in seconds."""
SERVICE_LOOK_EVERY_S = 0.5
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""The environment variables of processes that run in parallel. Variables of the caller have priority."""


@dataclass(frozen=True)
class CellJob:
    """A command to run, with its folders and resources."""

    name: str
    command: str
    service: str | None
    results: Path
    """The absolute path of the study's folder of results."""
    folder: Path
    """The folder in which the command runs. Paths in a study's file are relative to this folder."""
    cpus: float = 1
    gpus: float = 0

    @property
    def log(self) -> Path:
        """The file with the output of the processes."""
        return self.results / f"{self.name}.log"


@dataclass(frozen=True)
class Ended:
    """The result of a finished job."""

    name: str
    seconds: float
    failure: str | None = None
    """The reason of a failure, or None if the job succeeded."""


def run_job(job: CellJob) -> Ended:
    """Runs a job to its end. If this process ends, the processes of the job end as well.

    An interrupt (KeyboardInterrupt) ends the processes and is raised again.
    """
    begun = time.monotonic()
    if not is_ours(job.command):  # commands of unijudge resume from the files of an interrupted run
        shutil.rmtree(job.results / job.name, ignore_errors=True)
    try:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with (
            job.log.open("w", encoding="utf-8") as log,
            _service(job, log) as url,
            _process(job, job.command, {SERVICE: url or ""}, log) as process,
        ):
            status = process.wait()
        failure = f"status {status}" if status else None
    except OSError as error:  # also a full disk below the log
        failure = str(error)
    if failure:
        with contextlib.suppress(OSError):  # the log could not be written
            failure = f"{failure}: {_last_line(job.log)} (full output: {job.log})"
    return Ended(job.name, time.monotonic() - begun, failure)


@contextlib.contextmanager
def _service(job: CellJob, log: IO[str]) -> Iterator[str | None]:
    """Starts the service of the job, and yields its URL once the service is ready. Yields None without a service.

    Raises:
        OSError: The service ended, or did not become ready in time.
    """
    if job.service is None:
        yield None
        return
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with _process(job, job.service, {PORT: str(port)}, log) as process:
        limit = time.monotonic() + START_LIMIT_S
        while not _is_ready(url):
            if process.poll() is not None:
                raise OSError(f"the service ended with status {process.returncode}")
            if time.monotonic() > limit:
                raise OSError(f"the service was not ready within {START_LIMIT_S} s")
            time.sleep(SERVICE_LOOK_EVERY_S)
        yield url


@contextlib.contextmanager
def _process(
    job: CellJob, command: str, values: Mapping[str, str], log: IO[str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Starts a command. At the end of the block, the process is stopped if it still runs."""
    filling = {**values, RESULTS: str(job.results)}
    words = [filled(word, filling) for word in words_of(command)]
    log.write(f"$ {shlex.join(words)}\n")
    log.flush()
    process = subprocess.Popen(  # noqa: S603  the study's own command, without a shell
        [sys.executable, "-S", "-E", tied.__file__, *words],
        cwd=job.folder,
        env=_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def filled(word: str, values: Mapping[str, str]) -> str:
    """Returns a word with its placeholders filled.

    Example:
        >>> filled("out={results}/a", {"results": "/data/my study"})
        'out=/data/my study/a'
    """
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment without the variables of Ray. With them, a service would join the study's cluster."""
    kept = {name: value for name, value in ours.items() if not name.startswith("RAY_")}
    return {**ONE_THREAD, **kept}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _is_ready(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy
    try:
        with direct.open(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _last_line(log: Path) -> str:
    # The output of a command may contain bytes that are not UTF-8.
    with log.open(encoding="utf-8", errors="replace") as file:
        lines = deque((line.strip() for line in file if line.strip()), maxlen=1)
    return lines[0][:LONGEST_REASON] if lines else "the command printed nothing"
