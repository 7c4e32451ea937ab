"""Step 4: whether `judge serve` starts on the GPU, and whether `judge verify` confirms its scores."""

import re
import subprocess
import time
from collections.abc import Mapping

from bench.gpu.options import Options, service_settings
from bench.gpu.step import NOT_MEASURED, Case, Figures, Outcome, Step, Table, Wrong, number
from bench.judge import UNTRAINED
from bench.made_up import UNIJUDGE, serving
from judge_service.gpus import has_cuda_vllm, visible_gpus
from unijudge.settings import overrides_of

SERVICE_SHARE = 0.5
"""Share of the GPU memory for the service. The reference of `judge verify` needs the rest."""
STOP_S = 25
"""Seconds of a case that are reserved for imports and for stopping the service."""
ROOM_FOR_FLOAT32 = 60 * 2**30
"""Least GPU memory for a reference in float32, in bytes. With less memory the reference runs in bfloat16."""


def serve_and_verify(options: Options) -> Figures:
    """Starts a service with one replica, compares its scores with transformers, and stops it."""
    # A CUDA build of vLLM cannot run on the CPU of a dry run.
    backend = "transformers" if options.dry_run and has_cuda_vllm() else "auto"
    settings = service_settings(
        options, backend, memory_share=None if options.dry_run else SERVICE_SHARE
    )
    overrides = overrides_of(settings)
    chosen = dict(line.split("=", 1) for line in overrides)
    begun = time.perf_counter()
    with serving(
        chosen | ({} if options.model else UNTRAINED), start_s=options.limit_s - STOP_S
    ) as url:
        ready_s = time.perf_counter() - begun
        command = [
            *UNIJUDGE,
            "judge",
            "verify",
            url,
            "--queries",
            str(options.scale.verify_queries),
        ]
        command += ["--device", options.device, "--dtype", reference_dtype(options)]
        for override in overrides:
            command += [override]
        left_s = max(1, options.limit_s - STOP_S - ready_s)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=left_s
            )
        except subprocess.TimeoutExpired as late:
            cause = f"judge verify: not done in the remaining {left_s:.0f} s. Increase --limit-s"
            raise Wrong(cause, {"ready_s": ready_s}) from late

    figures = {
        "ready_s": ready_s,
        "reference": reference_dtype(options),
        "report": report_of(done.stdout),
    }
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["NOT the model's own scores"])[-1]
        raise Wrong(f"judge verify: {last}", figures)
    return figures


def reference_dtype(options: Options) -> str:
    """Returns the dtype of the reference, so that it fits into the GPU memory next to the service."""
    if options.dry_run:
        return "float32"
    return "float32" if visible_gpus().found[0].memory_bytes >= ROOM_FOR_FLOAT32 else "bfloat16"


def report_of(printed: str) -> list[list[str]]:
    r"""Returns the lines of `judge verify` as names and values.

    Example:
        >>> report_of("http://x: model\npairs                        14\nlikely cause: another prompt")
        [['pairs', '14'], ['likely cause', 'another prompt']]
    """
    rows = []
    for line in printed.splitlines():
        parts = re.split(r"\s{2,}|(?<=^likely cause): ", line.strip(), maxsplit=1)
        if len(parts) == 2:
            rows.append(parts)
    return rows


def tables(outcomes: Mapping[str, Outcome]) -> list[Table]:
    """Returns a table of the findings."""
    figures = outcomes["serve"].figures
    rows = [["from start to ready, s", number(figures.get("ready_s"), ".1f")]]
    rows.append(["dtype of the reference", figures.get("reference", NOT_MEASURED)])
    rows += figures.get("report", [["judge verify", NOT_MEASURED]])
    return [Table(["judge serve and judge verify", "found"], rows)]


STEP = Step(
    name="service",
    title="Service",
    about="`judge serve` on Ray Serve with one replica in bfloat16, then `judge verify`.",
    cases={
        "serve": Case(
            "serve, verify, stop", serve_and_verify, ["ray", "fastapi", "torch", "transformers"]
        )
    },
    tables=tables,
    models=["judge"],
)
