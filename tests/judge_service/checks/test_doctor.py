"""`judge doctor`: the existing and the missing requirements, each with its cure."""

import math
import socket

import pytest
from typer.testing import CliRunner

from judge_service import gpus
from judge_service.checks import doctor
from judge_service.cli import app
from judge_service.replica.known_pairs import ASKED_RED, KNOWN_BLUE, KNOWN_RED, KNOWN_YES
from unijudge.judging.verdicts import PairError, Verdict


def run(*settings):
    """Returns (exit status, {name: (state, text)})."""
    overrides = list(settings)
    done = CliRunner().invoke(app, ["doctor", *overrides])
    rows = [(line[:6].strip(), line[7:21].strip(), line[22:]) for line in done.stdout.splitlines()]
    return done.exit_code, {thing: (state, text) for state, thing, text in rows}


def test_a_machine_with_all_requirements(tiny_model):
    model = (f"model.name={tiny_model}", "model.backend=transformers", "port=0")
    status, found = run(*model, "health.min_label_mass=0")
    state, text = found["a pair"]
    assert "by tiny (transformers" in text
    assert "scores 0." in text
    # Random weights may prefer the mismatch. Then the doctor reports this.
    untrained = state == "LACKS"
    assert status == int(untrained)
    assert {thing for thing, (state, _) in found.items() if state == "LACKS"} == (
        {"a pair"} if untrained else set()
    )
    assert found["torch"][0] == found["transformers"][0] == found["ray"][0] == "ok"
    assert "llava_onevision" in found["families"][1]


@pytest.mark.parametrize(
    ("settings", "thing", "cure"),
    [
        ("gpus_per_replica=2 replicas=3", "gpus", "no GPU is visible: torch is a CPU build"),
        ("model.name=/nowhere", "a pair", "/nowhere: no such folder, and not a hub name"),
        ("model.name=TINY model.max_tokens=99999", "a pair", "the model accepts at most 16383"),
        (
            "model.name=TINY health.min_label_mass=0.9",
            "a pair",
            "Check that chat template, label words, image processor and model belong together",
        ),
        ("model.name=TINY replicas=9999999", "memory", "lower replicas, or choose a smaller model"),
    ],
)
def test_each_missing_requirement_has_a_cure(tiny_model, settings, thing, cure):
    status, found = run(
        "model.backend=transformers", "port=0", *settings.replace("TINY", str(tiny_model)).split()
    )
    assert status == 1
    assert found[thing][0] == "LACKS"
    assert cure in found[thing][1]


class Judge:
    """A judge that tells known pairs apart, and that can fail for pictures or for everything."""

    def __init__(self, identity, *, pictures=True, error=None):
        self.identity, self._pictures, self._error = identity, pictures, error

    async def judge(self, query, candidates):
        if self._error:
            raise self._error
        return [self._answer(query, candidate) for candidate in candidates]

    def _answer(self, query, candidate):
        if candidate.image and not self._pictures:
            return PairError(
                code="token_count", message="the engine made 9 tokens of a prompt of 7"
            )
        seen = KNOWN_BLUE if query != ASKED_RED else KNOWN_RED
        if self._pictures == "unseen":
            seen = KNOWN_RED
        yes = 0.9 if candidate in (KNOWN_YES, seen) else 0.1
        if self._pictures == "inverted":
            yes = 1 - yes
        return Verdict(
            yes_logprob=math.log(yes), no_logprob=math.log(1 - yes), argmax_is_label=True
        )


@pytest.mark.parametrize(
    ("changes", "state", "text"),
    [
        ({}, "ok", "a match scores 0.900, a mismatch 0.100; P(Yes) + P(No) = 1"),
        ({}, "ok", "with pictures a match scores 0.900, a mismatch 0.100; a match scores 0.900"),
        (
            {"pictures": "unseen"},
            "LACKS",
            "a picture of another colour 0.900 (4.39 log-odds behind): this judge cannot tell pictures apart;",
        ),
        (
            {"pictures": "inverted"},
            "LACKS",
            "a known mismatch 0.900 (4.39 log-odds behind): this judge cannot tell a match from a mismatch; a picture",
        ),
        (
            {"pictures": False},
            "LACKS",
            "a picture gets no verdict (token_count: the engine made 9 tokens of a prompt",
        ),
        (
            {"error": RuntimeError("CUDA\nerror")},
            "LACKS",
            "known pairs cannot be judged|RuntimeError: CUDA error",
        ),
    ],
)
def test_a_judge_that_serve_refuses_is_refused_by_the_doctor(
    identity, monkeypatch, changes, state, text
):
    """Also, if an engine raises any error, the other findings are shown."""
    monkeypatch.setattr(doctor, "open_judge", lambda settings: Judge(identity, **changes))
    status, found = run("model.backend=transformers", "model.name=some/model", "port=0")
    assert status == int(state == "LACKS")
    assert found["a pair"][0] == state
    assert found["a pair"][1].startswith("by test (scripted")
    assert any(part in found["a pair"][1] for part in text.split("|"))
    assert found["port"][0] == "ok"


def test_a_failed_check_does_not_hide_other_checks(monkeypatch):
    def fails(_):
        raise PermissionError(13, "Permission denied", "shared memory")

    monkeypatch.setattr(doctor.shutil, "disk_usage", fails)
    status, found = run("model.backend=scripted", "port=0")
    assert status == 1
    assert found["disk"] == (
        "LACKS",
        "not checked: PermissionError: [Errno 13] Permission denied: 'shared memory'",
    )
    assert found["port"][0] == "ok"


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, found = run("model.backend=scripted", f"port={port}")
    assert status == 1
    assert run("model.backend=scripted", "port=0")[0] == 0
    assert found["port"][0] == "LACKS"
    assert found["port"][1].startswith(
        f"cannot listen on 127.0.0.1:{port} (Address already in use)"
    )


def test_packages_that_are_missing_or_of_another_version(monkeypatch):
    def version(name):
        if name == "fastapi":
            raise doctor.PackageNotFoundError
        return {"torch": "2.12.1+cpu"}.get(name, "1")

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    _, found = run("model.backend=scripted", "port=0")
    assert found["fastapi"] == (
        "LACKS",
        "not installed: pip install 'unijudge[judge]', or [judge-cpu]",
    )
    cure = "but unijudge is tested with torch==2.13.0: reinstall unijudge with its extra"
    assert found["torch"] == ("LACKS", f"2.12.1+cpu, {cure}")
    assert found["vllm"][0] == "note"
    _, found = run("model.backend=vllm", "model.name=/nowhere", "port=0")
    assert found["vllm"][0] == "LACKS"


def test_a_package_that_cannot_be_imported_does_not_stop_the_doctor(monkeypatch, tiny_model):
    def gone(*_):
        raise ImportError("No module named 'torch'")

    monkeypatch.setattr(doctor, "load_sizes", gone)
    status, found = run("model.backend=transformers", f"model.name={tiny_model}", "port=0")
    assert status == 1
    assert found["memory"][0] == "LACKS"
    assert "No module named 'torch'" in found["memory"][1]
    assert found["port"][0] == "ok"


def test_weights_are_counted_as_they_are_loaded(tiny_model):
    from safetensors.numpy import load_file

    stored = sum(array.size for array in load_file(tiny_model / "model.safetensors").values())
    sizes = doctor.load_sizes(str(tiny_model), None)
    assert sizes.weight_bytes(4) == 4 * stored
    assert sizes.weight_bytes(2) == 2 * stored


def test_files_that_were_read_lately_are_free_memory(tmp_path, monkeypatch):
    """A container of 8 GiB: its processes use 2 GiB, and files that were read lately use 5 GiB."""
    monkeypatch.setattr(gpus, "CGROUP", tmp_path)
    without_limit = gpus.available_bytes()
    assert without_limit > 2**28
    (tmp_path / "memory.max").write_text(f"{8 * 2**20}\n")
    (tmp_path / "memory.current").write_text(f"{7 * 2**20}\n")
    (tmp_path / "memory.stat").write_text(f"anon {2 * 2**20}\ninactive_file {5 * 2**20}\n")
    assert gpus.available_bytes() == 6 * 2**20
    (tmp_path / "memory.max").write_text("max\n")
    assert gpus.available_bytes() > 2**28


def test_a_service_for_everybody_without_a_key_is_noted():
    _, found = run("model.backend=scripted", "port=0", "host=0.0.0.0")
    assert found["key"][0] == "note"
    assert "unijudge judge key" in found["key"][1]
