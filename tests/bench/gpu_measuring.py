"""`make gpu` on a machine without a GPU."""

import json
import os
import re
import subprocess
import sys

from bench.gpu.running import ROOT

OWN_PATH = re.compile(r"(?<![\w.:/…])/\w")
"""The beginning of an absolute path."""


def measure(out, *options, hidden=()):
    """Runs `python -m bench.gpu --dry-run` without some packages. Returns its status, page and figures."""
    hiding = out / "hiding"
    hiding.mkdir(parents=True)
    (hiding / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({hidden!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu", "--dry-run", "--limit-s", "240", "--out", str(out), *options],
        capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{hiding}:{ROOT}"},
    )  # fmt: skip
    assert (out / "gpu.md").exists(), done.stdout + done.stderr
    return (
        done.returncode,
        (out / "gpu.md").read_text(),
        json.loads((out / "gpu.json").read_text())["outcomes"],
    )


def states(outcomes):
    return {
        f"{name}/{way}": one["state"]
        for name, ways in outcomes.items()
        for way, one in ways.items()
    }
