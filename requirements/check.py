"""Checks that the pins and the extras resolve. `make pins-check` runs it.

It resolves against the package index and reads metadata only: no wheel is downloaded, nothing is installed.

* A file of pins must resolve together with its extras and torch's CUDA build, on every supported Python and processor,
  from wheels alone. Nothing may be left without a pin, except what `requirements/torch.txt` keeps apart.
* An extra must resolve without pins, as `pip install '.[judge]'` does.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
UV = Path(sys.executable).with_name("uv")
AT_ONCE = 4

PYTHONS = ("3.11", "3.12", "3.13")
PROCESSORS = ("x86_64", "aarch64")
GLIBC = "manylinux_2_35"
"""The C library of Ubuntu 22.04. Every newer system takes the same wheels."""

KEPT_APART = {"torch", "torchaudio", "torchcodec", "torchvision", "triton"}
"""Packages that `make pins` leaves out of the files."""

PINS = {
    "judge": ("judge",),
    "mine": ("mine",),
    "mine-gpu": ("mine-gpu",),
    "train": ("train", "qlora", "trackers"),
}
"""Each image's file of pins, and the extras that it serves."""
WITHOUT_TORCH = ("mine", "mine-gpu")
ONLY_ON = {"mine-gpu": ("x86_64",)}
"""Files that some processors have no wheels for: faiss-gpu is built for x86-64 alone."""

EXTRAS = (
    ("service",),
    ("judge",),
    ("judge", "mine", "s3"),
    ("mine",),
    ("mine", "mine-ray", "s3"),
    ("mine-gpu",),
    ("judge", "train", "mine-gpu", "qlora"),
    ("train",),
    ("train", "qlora", "trackers"),
    ("demo",),
    ("docs",),
    ("dev",),
)
"""Extras that are installed together."""
NOT_ON_THE_INDEX = {"judge-cpu": "it needs torch 2.13.0+cpu, which has an index of its own"}


@dataclass(frozen=True)
class Check:
    """One resolution."""

    name: str
    arguments: tuple[str, ...]
    pinned: frozenset[str] | None = None
    """The packages of a file of pins. None: an extra, whose packages need no pin."""


@dataclass(frozen=True)
class Outcome:
    """The result of one resolution."""

    name: str
    packages: int
    seconds: float
    fault: str
    """Why it failed. Empty where it resolved."""


def pins_check(file: str, python: str, processor: str) -> Check:
    """A file of pins with its extras and torch, for one Python and one processor."""
    path = f"requirements/{file}.txt"
    arguments = ["pyproject.toml", path]
    if file not in WITHOUT_TORCH:
        arguments.append("requirements/torch.txt")
    for extra in PINS[file]:
        arguments += ["--extra", extra]
    arguments += [
        "--python-version",
        python,
        "--python-platform",
        f"{processor}-{GLIBC}",
        "--only-binary",
        ":all:",
    ]
    return Check(
        f"{path} {python} {processor}", tuple(arguments), frozenset(package_names(ROOT / path))
    )


def extras_check(extras: tuple[str, ...]) -> Check:
    """Extras without pins, for all Pythons at once."""
    arguments = ["pyproject.toml", "--universal", "--python-version", PYTHONS[0]]
    for extra in extras:
        arguments += ["--extra", extra]
    return Check(f".[{','.join(extras)}]", tuple(arguments))


def all_checks() -> list[Check]:
    """Every file of pins on every Python and processor that it serves, then the extras."""
    checks = []
    for file in PINS:
        for processor in ONLY_ON.get(file, PROCESSORS):
            checks += [pins_check(file, python, processor) for python in PYTHONS]
    return checks + [extras_check(extras) for extras in EXTRAS]


def package_names(source: Path | str) -> set[str]:
    """The packages that a requirements file, or what uv printed, has a version for."""
    text = source.read_text() if isinstance(source, Path) else source
    return set(re.findall(r"^([a-z0-9][a-z0-9.-]*)==", text, re.MULTILINE))


def resolve(check: Check, options: Iterable[str] = ()) -> Outcome:
    """Resolves, and looks for packages without a pin."""
    # A folder of wheels may hold torch's CPU build, which would take the CUDA build's place.
    environment = {name: value for name, value in os.environ.items() if name != "UV_FIND_LINKS"}
    command = [
        UV,
        "pip",
        "compile",
        *check.arguments,
        "--python",
        sys.executable,
        "--no-header",
        "--no-annotate",
    ]

    began = time.perf_counter()
    command += [*options, "--quiet"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began

    packages = package_names(done.stdout)
    fault = done.stderr.strip() if done.returncode else ""
    if not fault and check.pinned is not None:
        loose = sorted(packages - check.pinned - KEPT_APART)
        fault = f"without a pin: {', '.join(loose)}. Run make pins." if loose else ""
    return Outcome(check.name, len(packages), seconds, fault)


def main() -> int:
    """Prints a line for each resolution. Returns 1 if one failed."""
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(resolve, all_checks()))

    for outcome in outcomes:
        state = "FAILS" if outcome.fault else "ok"
        print(
            f"{state:<5} {outcome.name:<46} {outcome.packages:>4} packages {outcome.seconds:6.1f} s"
        )
    failed = [outcome for outcome in outcomes if outcome.fault]
    for outcome in failed:
        print(f"\n{outcome.name}: {outcome.fault}")
    print(f"{len(outcomes)} resolutions, {len(failed)} failed, {time.perf_counter() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
