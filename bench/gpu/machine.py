"""Step 1: whether torch uses the GPU, which tools are installed, and the findings of `judge doctor`."""

import asyncio
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import astuple

from bench.gpu.options import Options, service_settings
from bench.gpu.step import Case, Figures, Outcome, Step, Table, Wrong

TOOLS = {
    "cc": "Triton needs it at start, unless CC is set or gcc is installed",
    "gcc": "alternative to cc",
    "nvcc": "FlashInfer needs it to compile; not needed by default",
    "ninja": "FlashInfer needs it to build; not needed by default",
}
DRIVER_FIELDS = "name,driver_version,memory.total,memory.used,power.limit,clocks.max.sm"


def nvidia_smi() -> str:
    """Returns the line of `nvidia-smi` about the first GPU, or why there is no such line."""
    if not shutil.which("nvidia-smi"):
        return "not installed"
    command = ["nvidia-smi", f"--query-gpu={DRIVER_FIELDS}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else f"no output, status {done.returncode}"


def use_torch(options: Options) -> Figures:
    """Multiplies matrices on the device, and looks for compilers."""
    import torch

    checks = [
        ["nvidia-smi", nvidia_smi()],
        ["CUDA of torch", torch.version.cuda or "none: a CPU build"],
    ]

    # A product of whole numbers is exact in bfloat16, so the result must be equal to the CPU's result.
    numbers = torch.arange(64, dtype=torch.float32).remainder(5).reshape(8, 8)
    expected = numbers @ numbers.T
    found = numbers.bfloat16().to(options.device)
    equal = torch.equal((found @ found.T).float().cpu(), expected)
    checks.append([f"product on {options.device} in bfloat16", "correct" if equal else "WRONG"])

    for tool, use in TOOLS.items():
        state = "found" if shutil.which(tool) else "missing"
        checks.append([tool, f"{state} ({use})"])
    if not equal:
        raise Wrong(
            "torch computes a wrong product of whole numbers on this device", {"checks": checks}
        )
    return {"checks": checks}


def ask_doctor(options: Options) -> Figures:
    """Returns the findings of `judge doctor`. A pair is scored only with a real checkpoint, not with random weights."""
    from judge_service.checks.doctor import examine

    settings = service_settings(options, "auto")
    model = settings.model.model_copy(update={"name": options.model})
    findings = asyncio.run(examine(settings.model_copy(update={"model": model, "port": 0})))
    return {"findings": [astuple(finding) for finding in findings]}


def tables(outcomes: Mapping[str, Outcome]) -> list[Table]:
    """Returns a table of checks, and a table of findings."""
    found = []
    if checks := outcomes["torch"].figures.get("checks"):
        found.append(Table(["check", "found"], checks))
    if findings := outcomes["doctor"].figures.get("findings"):
        found.append(Table(["`judge doctor`", "thing", "found"], findings))
    return found


STEP = Step(
    name="preflight",
    title="Pre-flight",
    about="Whether torch computes on the device, which tools are installed, and the findings of `judge doctor`.",
    cases={
        "torch": Case("torch and tools", use_torch, ["torch"]),
        "doctor": Case("judge doctor", ask_doctor, ["torch", "transformers"]),
    },
    tables=tables,
)
