"""The arguments of a job: an optional file, then key=value."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from unijudge.errors import SettingsError
from unijudge.job import (
    ExampleOption,
    FileAndSettings,
    command_settings,
    file_and_settings,
    in_order,
    job,
)
from unijudge.settings import Settings


class Inner(Settings):
    """A table of the settings."""

    size: int = 3
    """How large."""


class Outer(Settings):
    """The settings of a job."""

    out: str
    """Where to."""
    name: str = "a"
    """What it is called."""
    inner: Inner = Inner()


@pytest.fixture
def app():
    app = typer.Typer()

    @app.command(cls=job(Outer))
    def run(words: FileAndSettings = None, example: ExampleOption = False) -> None:
        found = command_settings(Outer, words, example)
        typer.echo(f"{found.out} {found.name} {found.inner.size}")

    @app.command()
    def other() -> None:
        pass

    return app


def invoke(app, *words):
    return CliRunner().invoke(app, ["run", *words], env={"COLUMNS": "100"})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["job.toml", "a=1", "b.c=2"], (Path("job.toml"), ["a=1", "b.c=2"])),
        (["a=1"], (None, ["a=1"])),
        ([], (None, [])),
        (["runs/k=8/job.toml", "a=1"], (Path("runs/k=8/job.toml"), ["a=1"])),
        (["a=b=c"], (None, ["a=b=c"])),
        (["a=runs/k=8"], (None, ["a=runs/k=8"])),
    ],
)
def test_a_file_comes_before_the_settings(words, expected):
    assert file_and_settings(words) == expected


@pytest.mark.parametrize("words", [["a=1", "job.toml"], ["job.toml", "other.toml"]])
def test_an_unknown_word_is_named_with_the_cure(words):
    with pytest.raises(
        SettingsError, match=r"^\w+\.toml: not key=value\. Write a setting as in batch_size=8"
    ):
        file_and_settings(words)


def test_settings_replace_those_of_the_file(app, tmp_path):
    file = tmp_path / "job.toml"
    file.write_text('out = "o"\n[inner]\nsize = 5\n')
    assert invoke(app, str(file)).stdout == "o a 5\n"
    assert invoke(app, str(file), "inner.size=7", "name=b").stdout == "o b 7\n"
    assert invoke(app, "out=x").stdout == "x a 3\n"


def test_the_help_shows_the_settings_required_ones_first(app):
    shown = invoke(app, "--help").stdout
    places = [
        shown.index(text)
        for text in ("Required settings", "Where to.", "What it is called.", "Settings, inner")
    ]
    assert places == sorted(places)
    assert "inner.size" in shown
    assert "3" in shown[shown.index("inner.size") :]


def test_a_shell_completes_keys(app):
    command = typer.main.get_command(app).commands["run"]
    context = command.make_context("run", [], resilient_parsing=True)
    (words,) = [param for param in command.params if param.name == "words"]

    def offered(incomplete):
        return [item.value for item in words.shell_complete(context, incomplete)]

    assert offered("in") == ["inner.size="]
    assert offered("") == ["out=", "name=", "inner.size="]
    assert offered("name=") == []


def test_an_example_is_printed_without_what_is_required(app):
    assert "# out =  (required)" in invoke(app, "--example").stdout


def test_commands_are_listed_in_the_order_of_their_use():
    app = typer.Typer(cls=in_order("second", "first"))
    for name in ("first", "other", "second"):
        app.command(name)(lambda: None)
    shown = CliRunner().invoke(app, ["--help"]).stdout
    places = [shown.index(f" {name} ") for name in ("second", "first", "other")]
    assert places == sorted(places)
