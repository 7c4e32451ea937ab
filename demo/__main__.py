"""The whole pipeline on this machine: `python -m demo FOLDER`, which is what `make demo` runs.

Every step is a command that a person could type; it is printed before it runs.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

MARK = ".unijudge-demo"
START_LIMIT_S = 180
TRAINING = "--set steps=60 --set warmup_steps=6 --set learning_rate=1e-3"


def steps(out: Path, service: str) -> list[tuple[str, str]]:
    """(stage, command), in order, once the service answers."""
    model = f"--set model.name={out}/model --set model.min_pixels=3136 --set model.max_pixels=3136"
    train, held_out, images = f"{out}/train", f"{out}/eval", f"{out}/data/images"
    base = f"--set corpus={train}/corpus --set vectors={train}/vectors"
    commands = f"""
        import: unijudge mine import mmeb {out}/data/mmeb {train}/corpus --images {images}
        import: unijudge mine import pairs {out}/data/eval.jsonl {held_out}/corpus --images {images}
        embed: unijudge train embed {model} --set corpus={train}/corpus --set out={train}/vectors
        embed: unijudge train embed {model} --set corpus={held_out}/corpus --set out={held_out}/base
        score: unijudge mine score {base} --set service={service} --set queries_in_shard=64 --set min_mass=0 --set out={train}/scores
        select: unijudge mine select {base} --set scores={train}/scores --set out={train}/triples
        train: unijudge train embedder {model} --set corpus={train}/corpus --set triples={train}/triples {TRAINING} --set out={out}/run
        embed: unijudge train embed {model} --set model.adapter={out}/run/adapter --set corpus={held_out}/corpus --set out={held_out}/trained
        evaluate: unijudge train evaluate --set corpus={held_out}/corpus --set vectors={held_out}/base --set out={held_out}/base-metrics
        evaluate: unijudge train evaluate --set corpus={held_out}/corpus --set vectors={held_out}/trained --set out={held_out}/trained-metrics
    """  # noqa: E501
    lines = [line.strip().partition(": ") for line in commands.strip().splitlines()]
    return [(stage, command) for stage, _, command in lines]


def main(out: Path) -> None:
    """Runs everything into `out`, which is emptied first if an earlier demo made it."""
    if out.exists() and not (out / MARK).exists():
        sys.exit(f"{out}: exists, and no demo made it; give another folder")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).touch()
    seconds: dict[str, float] = {}
    with timed(seconds, "prepare"):
        run(f"python -m demo.digits {out}/data")
        run(f"python -m demo.tiny_model {out}/model")
    with contextlib.ExitStack() as stack:
        with timed(seconds, "serve"):
            service = stack.enter_context(serving(out))
        for stage, command in steps(out, service):
            with timed(seconds, stage):
                run(command)
    close(out, seconds)


def run(command: str) -> None:
    """Shows a command and runs it to its end; a failure ends the demo."""
    print(f"\n$ {command}", flush=True)
    done = subprocess.run(_arguments(command), check=False)
    if done.returncode:
        sys.exit(f"the demo stops: this command ended with status {done.returncode}")


@contextlib.contextmanager
def serving(out: Path) -> Iterator[str]:
    """The judge service on a free port, with its log in a file; yields its URL once a real pair was scored."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = (
        f"unijudge judge serve deploy/judge.toml --set port={port} --set replicas=2 --set gpus_per_replica=0 "
        f"--set model.name={out.absolute()}/model --set model.dtype=float32 "
        "--set model.backend=auto --set model.min_pixels=3136 --set model.max_pixels=3136 --set model.max_tokens=1024 "
        "--set health.min_mass=0 --set health.canary_every_s=0"  # the judge is untrained
    )
    print(f"\n$ {command} &", flush=True)
    with (out / "service.log").open("w") as log:
        process = subprocess.Popen(_arguments(command), stdout=log, stderr=subprocess.STDOUT)
    try:
        begun = time.monotonic()
        while not _ready(url):
            if process.poll() is not None or time.monotonic() - begun > START_LIMIT_S:
                sys.exit(f"the service did not start:\n{(out / 'service.log').read_text()}")
            time.sleep(0.5)
        print(f"ready at {url}", flush=True)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@contextlib.contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds a stage's wall time."""
    begun = time.monotonic()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - begun


def close(out: Path, seconds: dict[str, float]) -> None:
    """The closing table: what changed, and what each stage took."""
    before, after = (
        json.loads((out / "eval" / f"{name}-metrics" / "metrics.json").read_text())["subsets"]
        for name in ("base", "trained")
    )
    print(f"\n{'precision@1':<24}{'base':>8}{'trained':>9}{'queries':>9}{'candidates':>12}")
    for subset, values in before.items():
        print(
            f"{subset:<24}{values['precision@1']:>8.3f}{after[subset]['precision@1']:>9.3f}"
            f"{values['queries']:>9.0f}{values['candidates']:>12.0f}"
        )
    print("\nJudge and base are untrained, with random weights: these numbers say that the pipeline runs, no more.")
    print("\nseconds: " + " · ".join(f"{stage} {took:.0f}" for stage, took in seconds.items()))
    print(f"everything is in {out}; `unijudge describe {out}/train/scores` says what made a folder")


def _arguments(command: str) -> list[str]:
    program, *rest = shlex.split(command)
    here = Path(sys.executable).parent
    return [str(here / program), *rest]


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:  # noqa: S310  our own http:// URL
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    main(Path(sys.argv[1]))
