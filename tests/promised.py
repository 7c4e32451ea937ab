"""The commands, settings and routes in a text, compared with the real ones."""

import re
import shlex
import tomllib
from pathlib import Path

import typer

from judge_service.compatible import routes as compatible
from judge_service.replica import app as service
from unijudge import cli
from unijudge.job import JobCommand, is_setting
from unijudge.settings import example, load_settings

ROOT = Path(__file__).parents[1]
ELSEWHERE = {"/v1/embeddings"}
"""Routes of vLLM."""


def commands(text):
    """The words after `unijudge` of each command in code or between backticks."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = re.findall(r"^unijudge (.+)$", joined, re.MULTILINE)
    lines += re.findall(r"`unijudge ([^`\n]+)`", joined)
    return [shlex.split(line) for line in lines]


def check_command(words):
    """Checks that the command, its options and its settings exist, and that the values are valid.

    Three dots stand for further words.
    """
    command, words = typer.main.get_command(cli.whole()), list(words)
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, words
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options, words
    if isinstance(command, JobCommand):
        file = ROOT / words[0] if words and words[0].endswith(".toml") else None
        check_settings(
            command.kind, file if file and file.exists() else None, list(filter(is_setting, words))
        )


def check_settings(kind, file, words):
    """Checks settings. A required setting that is not given gets any valid value."""
    given = {word.partition("=")[0] for word in words} | (
        set(tomllib.loads(file.read_text())) if file else set()
    )
    required = [name for name, field in kind.model_fields.items() if field.is_required()]
    load_settings(kind, file, [*(f"{name}=x" for name in required if name not in given), *words])


def check_routes(text):
    """Checks that each route exists in the service."""
    named = set(re.findall(r"/v1/[\w/]+", text))
    assert named - ELSEWHERE <= routes(), named


def routes():
    """The routes of the judge service, read from its source."""
    sources = (Path(module.__file__).read_text() for module in (service, compatible))
    return {path for text in sources for path in re.findall(r'@app\.\w+\("(/v1/\w+)', text)}


def check_keys(text, kinds):
    """Checks that each dotted setting between backticks, such as `model.encoding`, is in the example of one of these
    classes.
    """
    for table, key in re.findall(r"`(\w+)\.(\w+)(?: = [^`]+)?`", text):
        examples = [example(kind) for kind in kinds]
        assert any(
            f"[{table}]" in one and re.search(rf"^#? ?{key} = ", one, re.MULTILINE)
            for one in examples
        ), key
