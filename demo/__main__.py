"""Runs the whole pipeline on this machine: `python -m demo FOLDER`. `make demo` runs this command.

Every step is a command that a user could type. Each command is printed before it runs.
"""

import argparse
import contextlib
import json
import shutil
from pathlib import Path

from demo.commands import JUDGE, QUICK, Demo, Size
from demo.processes import run, run_side_by_side, serving, timed
from unijudge.storage.files import publish_text

MARK = ".unijudge-demo"


def main(out: Path, size: Size, *, seeds: int, backend: str) -> None:
    """Runs everything, with output in `out`. If an earlier demo made this folder, the folder is emptied first."""
    if len(f"{out} {Path.cwd()}".split()) != 2:
        raise SystemExit(
            f"{out}, {Path.cwd()}: the demo's commands accept no path with a space. Give another folder"
        )
    if out.exists() and not (out / MARK).exists():
        raise SystemExit(f"{out}: exists, and was not made by the demo. Give another folder")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).touch()
    demo, seconds = Demo(out, size, seeds), dict[str, float]()
    for stage, commands in {"data": demo.make_data(), "import": demo.import_all()}.items():
        with timed(seconds, stage):
            for command in commands:
                run(command)
    with timed(seconds, "embed"):
        run_side_by_side(demo.embed_base())
    with contextlib.ExitStack() as running:
        with timed(seconds, "serve"):
            service = running.enter_context(
                serving(JUDGE, backend, out / "judge.log", size.replicas)
            )
        for stage, command in demo.judge_all(service):
            with timed(seconds, stage):
                run(command)
    with timed(seconds, "select"):
        for command in demo.select_all():
            run(command)
    with timed(seconds, "train"):
        run_side_by_side(demo.train_all())
    with contextlib.ExitStack() as running:
        with timed(seconds, "serve"):
            service = running.enter_context(
                serving(out / "runs/reranker/merged", backend, out / "reranker.log", size.replicas)
            )
        with timed(seconds, "rerank"):
            run(demo.rerank(service, "reranker"))
    publish_text(out / "seconds.json", json.dumps(seconds))
    run(f"python -m demo.report.results {out}")
    run(f"python -m demo.report {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m demo")
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--seeds", type=int, default=1, help="number of training worlds, each with its own students"
    )
    parser.add_argument(
        "--backend", default="auto", help="backend of the judge: auto, vllm or transformers"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run every step with little data; the results mean nothing",
    )
    given = parser.parse_args()
    if given.seeds < 1:
        parser.error(
            f"--seeds {given.seeds}: at least one training world is needed. Give 1 or more"
        )
    main(given.out, QUICK if given.quick else Size(), seeds=given.seeds, backend=given.backend)
