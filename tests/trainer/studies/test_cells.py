"""The steps of a study that run: one run for each combination of values that a step depends on, and refused studies."""

import pytest
from pydantic import ValidationError

from tests.trainer.studies.made import STEP, small_study
from trainer.studies.cells import cells_of
from trainer.studies.commands import check_commands
from trainer.studies.study import placeholders
from unijudge.errors import SettingsError


def test_a_step_runs_once_for_each_value_that_it_depends_on():
    cells = cells_of(small_study())
    worlds = [name for name in cells if name.startswith("world/")]
    runs = [name for name in cells if name.startswith("run/")]
    assert worlds == ["world/seed=0", "world/seed=1", "world/seed=2"]
    assert len(runs) == 2 * 2 * 3
    assert "run/k=8,way=bad,seed=2" in runs
    assert cells["run/k=8,way=bad,seed=2"].needs == ("world/seed=2",)


def test_needed_cells_come_first():
    order = list(cells_of(small_study()))
    assert order.index("world/seed=2") < order.index("run/k=4,way=good,seed=0")


def test_a_step_that_names_no_seed_runs_once():
    steps = {"base": {"command": f"{STEP} world {{out}} 0"}}
    assert list(cells_of(small_study(steps=steps, measures={}, comparisons={}))) == ["base/all"]


def test_indirect_dependencies_of_a_step_count():
    steps = {
        "rows": {"command": f"{STEP} world {{out}} {{way}}"},
        "student": {"command": f"{STEP} run {{out}} {{rows}} {{k}}"},
        "evaluation": {"command": f"{STEP} run {{out}} {{student}}"},
    }
    cells = cells_of(small_study(steps=steps, measures={}, comparisons={}))
    assert cells["evaluation/k=4,way=bad"].needs == ("student/k=4,way=bad",)


def test_a_combination_that_is_left_out_has_no_cells():
    cells = cells_of(small_study(leave_out=[{"k": "8", "way": "bad"}]))
    assert sum(name.startswith("run/") for name in cells) == 9


def test_a_digest_follows_what_the_step_needs():
    before, after = cells_of(small_study()), cells_of(small_study(names={"x": "y"}))
    assert before["run/k=4,way=good,seed=0"].digest == after["run/k=4,way=good,seed=0"].digest
    steps = small_study().model_dump()["steps"]
    steps["world"]["command"] += " --other"
    changed = cells_of(small_study(steps=steps))
    assert before["run/k=4,way=good,seed=0"].digest != changed["run/k=4,way=good,seed=0"].digest


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"a": {"command": "python -m x {out} {nobody}"}}, "steps.a: {nobody} has no value"),
        (
            {"a": {"command": "python -m x {out} {b}"}, "b": {"command": "python -m x {out} {a}"}},
            "need each other",
        ),
        ({"a": {"command": "python -m x"}}, "the command lacks {out}"),
        ({"a": {"command": "python -m x {out} {service}"}}, "{service} has no value"),
        ({"a": {"command": "python -m x {out} {"}}, "steps.a: Single '{'"),
        ({"a": {"command": "python -m x {out} {0!r}"}}, "is not a placeholder"),
    ],
    ids=[
        "placeholder_without_value",
        "cycle",
        "no_output",
        "no_service",
        "open_brace",
        "conversion",
    ],
)
def test_a_study_that_cannot_be_run_is_refused_by_name(steps, message):
    with pytest.raises(SettingsError, match=r".*") as caught:
        cells_of(small_study(steps=steps, measures={}, comparisons={}))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": {"k": "1"}}, "names.k already has this name"),
        ({"axes": {"out": [1]}}, "a placeholder of every study already has this name"),
        ({"axes": {"way": {"a/b": "1"}}, "comparisons": {}}, "part of a file name"),
        ({"measures": {"m": {"steps": ["nothing"]}}}, "there is no step 'nothing'"),
        ({"measures": {"m": {"steps": ["run"], "file": "a.json"}}}, "key: required for a.json"),
        ({"leave_out": [{"way": "ugly"}]}, "has no value 'ugly'"),
        (
            {"comparisons": {"c": {"axis": "z", "left": "a", "right": "b", "claim": "It"}}},
            "no axis 'z'",
        ),
    ],
    ids=[
        "name_twice",
        "own_name",
        "label",
        "measure_of_no_step",
        "measure_without_key",
        "left_out",
        "no_axis",
    ],
)
def test_a_study_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ValidationError) as caught:
        small_study(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("unijudge mine scroe {out}", "unijudge mine has no command 'scroe'"),
        ("unijudge mine {out}", "unijudge mine has no command"),
        ("unijudge {out}", "unijudge has no command"),
        ("python -m tests.no_such_module {out}", "no Python module 'tests.no_such_module'"),
        ("no-such-program {out}", "no program 'no-such-program'"),
        ("python 'a {out}", "Close the quote"),
    ],
)
def test_an_unknown_command_is_named_before_anything_runs(command, message):
    cells = cells_of(small_study(steps={"a": {"command": command}}, measures={}, comparisons={}))
    with pytest.raises(SettingsError) as caught:
        check_commands(cells.values())
    assert message in str(caught.value)


def test_commands_that_exist_are_accepted():
    commands = ["unijudge mine select out={out}", "python -m json.tool {out}", "true {out}"]
    steps = {f"step{number}": {"command": command} for number, command in enumerate(commands)}
    check_commands(cells_of(small_study(steps=steps, measures={}, comparisons={})).values())


def test_a_doubled_brace_is_a_brace():
    assert placeholders("a {{b}} {c}") == ["c"]
