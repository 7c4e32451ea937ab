"""Builds the images without Docker: runs the steps of deploy/Dockerfile in an empty folder, then tries the programs.

`make images-check` runs this script. The script reads the steps from the Dockerfile, with three differences:

* A virtual environment replaces the image's own Python, so `ENV UV_SYSTEM_PYTHON` is left out.
* A `RUN` that changes the system (packages of the distribution, users) is reported and not run.
* Instead of mounted secrets and build arguments, the steps see this machine's variables and pip's configuration.

The judge's image downloads several GB, so CI does not run this script.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
GIB = 2**30

CHANGES_THE_SYSTEM = ("apt-get", "useradd")
"""Words of a `RUN` step that changes the system, and is therefore not run."""
NOT_PASSED_ON = (
    "UV_SYSTEM_PYTHON",
    "UV_FIND_LINKS",
    "UV_PYTHON",
    "PIP_FIND_LINKS",
    "PYTHONPATH",
    "PYTHONHOME",
)
"""Variables that would change the steps. For example, a folder of wheels may contain the CPU build of torch."""

MOUNTS = re.compile(r"^(--mount=\S+ )+")
"""The mounts of a `RUN` step."""
PIP_CONF = Path(".config/pip/pip.conf")
"""The configuration of pip in a home folder."""

CHECKS = {
    "judge": (
        "unijudge judge --help",
        'python -c "import vllm, torch, ray"',
        "unijudge judge doctor deploy/judge.toml",
    ),
    "mine": ("unijudge mine --help", 'python -c "import faiss"'),
    "mine-gpu": (
        "unijudge mine --help",
        'python -c "import faiss; faiss.StandardGpuResources, faiss.knn_gpu"',
    ),
    "train": (
        "unijudge train --help",
        "torchrun --help",
        'python -c "import torch, transformers, peft, accelerate, bitsandbytes, tensorboard, wandb"',
    ),
}
"""Commands that must succeed in each image, after `unijudge --help`."""
MAY_FAIL = ("unijudge judge doctor",)
"""Commands that end with status 1 on a machine without a GPU. They still must not print a traceback."""


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile."""

    instruction: str
    text: str


def read_steps(dockerfile: str) -> list[Step]:
    """Returns the instructions in their order, each on one line, without comments."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "")
    steps = []
    for line in joined.splitlines():
        instruction, _, text = line.partition(" ")
        steps.append(Step(instruction, " ".join(text.split())))
    return steps


@dataclass
class Image:
    """A folder that replaces an image."""

    program: str
    folder: Path
    python: str
    """The interpreter that replaces the interpreter of the base image."""
    workdir: Path = field(init=False)
    environment: dict[str, str] = field(init=False)
    failed: bool = False

    def __post_init__(self) -> None:
        """Sets the variables of this machine, without those that would change the steps, and a new home folder."""
        self.workdir = self.folder
        home = self.folder / "home"
        home.mkdir(parents=True)
        own_settings = Path.home() / PIP_CONF
        if own_settings.exists():
            (home / PIP_CONF).parent.mkdir(parents=True)
            shutil.copy(own_settings, home / PIP_CONF)
        kept = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
        path = f"{self.folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = kept | {
            "HOME": str(home),
            "VIRTUAL_ENV": str(self.folder / "venv"),
            "PATH": path,
        }

    def take(self, step: Step) -> None:
        """Executes one instruction.

        Raises:
            ValueError: The instruction is unknown.
        """
        match step.instruction:
            case "FROM":
                self._start_from(step.text)
            case "ARG":
                name, _, default = step.text.partition("=")
                given = self.program if name == "PROGRAM" else os.environ.get(name, default)
                self.environment[name] = given
            case "ENV":
                name, _, value = step.text.partition("=")
                if name not in NOT_PASSED_ON:
                    self.environment[name] = value
            case "WORKDIR":
                self.workdir = self.folder / step.text.lstrip("/")
                self.workdir.mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(step.text.split())
            case "RUN" if any(word in step.text for word in CHANGES_THE_SYSTEM):
                self._say("skipped: changes the system", step.text)
            case "RUN":
                self.run(MOUNTS.sub("", step.text))
            case "USER" | "ENTRYPOINT":
                pass
            case _:
                raise ValueError(
                    f"{step.instruction}: unknown instruction. Add it to Image.take in images_check.py."
                )

    def _start_from(self, base: str) -> None:
        wanted = re.fullmatch(r"python:(\d+\.\d+)-slim", base)
        if wanted is None:
            raise ValueError(
                f"FROM {base}: not a python:X.Y-slim image. Change Image._start_from, too."
            )
        found = python_version(self.python)
        if found != wanted[1]:
            raise ValueError(
                f"{self.python}: not Python {wanted[1]} ({found}). Give its path: make images-check IMAGE_PYTHON=PATH"
            )
        subprocess.run([self.python, "-m", "venv", self.folder / "venv"], check=True)

    def _copy(self, words: list[str]) -> None:
        *sources, target = words
        for source in sources:
            path = ROOT / source
            if path.is_dir():
                # .dockerignore leaves this folder out, too.
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(path, self.workdir / target, ignore=ignored, dirs_exist_ok=True)
            else:
                shutil.copy(path, self.workdir / target)

    def run(self, command: str, *, show: bool = False) -> None:
        """Runs a shell command in the image's folder, and prints its time and the new size of the environment."""
        if self.failed:
            return
        began = time.perf_counter()
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            check=False, cwd=self.workdir, env=self.environment, capture_output=True, text=True,
        )  # fmt: skip
        seconds = time.perf_counter() - began

        output = done.stdout + done.stderr
        may_fail = command.startswith(MAY_FAIL) and done.returncode == 1
        self.failed = "Traceback" in output or (done.returncode != 0 and not may_fail)
        state = f"FAILS, status {done.returncode}" if self.failed else "ok"
        self._say(f"{state} | {seconds:.1f} | {gib(self.folder / 'venv'):.2f}", command)
        if show or self.failed:
            print(output, file=sys.stderr, flush=True)

    def _say(self, state: str, command: str) -> None:
        columns = state if "|" in state else f"{state} | – | –"
        print(f"| {self.program} | `{command}` | {columns} |", flush=True)


def python_version(python: str) -> str:
    """Returns the version of an interpreter as X.Y, or the reason why the interpreter does not run."""
    code = "import sys; print('{}.{}'.format(*sys.version_info))"
    try:
        done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    except subprocess.CalledProcessError as error:
        return error.stderr.strip()
    return done.stdout.strip()


def gib(folder: Path) -> float:
    """Returns the size of all files of a folder, in GiB."""
    sizes = [path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()]
    return sum(sizes) / GIB


def build(program: str, folder: Path, python: str) -> bool:
    """Executes all steps, then runs the checks of the program. Returns whether everything succeeded."""
    steps = read_steps(DOCKERFILE.read_text(encoding="utf-8"))
    image = Image(program, folder / program, python)
    for step in steps:
        image.take(step)

    entrypoint = next(json.loads(step.text) for step in steps if step.instruction == "ENTRYPOINT")
    image.run(f"{' '.join(entrypoint)} --help")
    image.run("uv pip check")
    for command in CHECKS[program]:
        image.run(command, show=command.startswith(MAY_FAIL))
    return not image.failed


def main() -> int:
    """Builds the named images, or all images, and prints a table of the steps. Returns 1 if a step failed."""
    parser = argparse.ArgumentParser(
        description="Runs the steps of deploy/Dockerfile without Docker."
    )
    parser.add_argument(
        "programs", nargs="*", help=f"images to build: {', '.join(CHECKS)}. Default: all images"
    )
    parser.add_argument(
        "--python", default="python3.12", help="a Python of the base image's version"
    )
    parser.add_argument(
        "--folder", type=Path, help="an empty folder for the build, kept afterwards"
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.programs) - set(CHECKS))
    if unknown:
        parser.error(f"unknown image {', '.join(unknown)}. Choose from {', '.join(CHECKS)}")

    kept = arguments.folder
    folder = kept or Path(tempfile.mkdtemp(prefix="unijudge-images-"))
    print(
        "| image | step | outcome | seconds | environment, GiB |\n|---|---|---|---|---|", flush=True
    )
    good = True
    try:
        for program in arguments.programs or CHECKS:
            good = build(program, folder, arguments.python) and good
            if kept is None:
                shutil.rmtree(folder / program)
    except ValueError as error:
        print(error, file=sys.stderr)
        good = False
    finally:
        if kept is None:
            shutil.rmtree(folder)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
