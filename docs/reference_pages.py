"""Writes the pages of the reference from the code: settings, commands, HTTP API, folder formats, Python API."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from sphinx.pycode import ModuleAnalyzer

import unijudge
from judge_service.backends.scripted import ScriptedJudge
from judge_service.replica.app import create_app
from judge_service.replica.health import WatchedJudge
from judge_service.settings import HealthSettings, LimitSettings
from unijudge import cli
from unijudge.formats.candidates import CANDIDATES, CandidateManifest
from unijudge.formats.corpus import ITEMS, QUERIES, CorpusManifest
from unijudge.formats.labelled_scores import LABELLED_SCORES
from unijudge.formats.rankings import RANKINGS
from unijudge.formats.scores import SCORES, ScoreManifest, ScoreTotals
from unijudge.formats.triples import TRIPLES, TripleManifest
from unijudge.formats.vectors import VectorManifest
from unijudge.job import JobCommand, settings_by_table
from unijudge.judging.prompt import Prompt
from unijudge.pages.markdown import table

Command = tuple[str, Any]
"""The words after `unijudge`, and the command."""

COMMANDS_INTRO = """# Commands

Every command of `unijudge`, in the order of `--help`. This page is written from the code."""
SETTINGS_INTRO = """# Settings

A command that takes settings reads an optional TOML file first, and then `key=value` words, which replace those of the
file. A dotted key such as `model.name` stands in the table `[model]` of the file. `--example` prints a commented file.
This page is written from the code."""
HTTP_INTRO = """# HTTP API

The routes of `unijudge judge serve`. The service itself shows the same at `/docs`. [Serve a judge](../guides/serve.md)
says how a client should behave. This page is written from the code."""
FOLDERS_INTRO = """# Folder formats

Each folder has a manifest in JSON and tables in Parquet. The manifest says what made the folder. `unijudge describe`
prints the manifest, and `unijudge check` reads the whole folder. This page is written from the code."""
PYTHON_INTRO = """# Python API

What a client of the judge needs. `import unijudge` loads no engine; each name is loaded when it is asked for."""


def write_reference(folder: Path) -> None:
    """Writes each page into a folder."""
    folder.mkdir(exist_ok=True)
    pages = {
        "commands.md": _commands_page(),
        "settings.md": _settings_page(),
        "http.md": _http_page(),
        "folders.md": _folders_page(),
        "python.md": _python_page(),
    }
    for name, text in pages.items():
        path = folder / name
        # An equal page is not built again.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _commands() -> list[Command]:
    """Every command, in the order of `--help`."""
    return list(_commands_below(typer.main.get_command(cli.whole()), ""))


def _commands_below(command: Any, name: str) -> Iterator[Command]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    context = typer.Context(command)
    for word in command.list_commands(context):
        yield from _commands_below(command.commands[word], f"{name} {word}".strip())


def _commands_page() -> str:
    """Every command with its arguments and options."""
    parts = [COMMANDS_INTRO]
    for name, command in _commands():
        parts += [f"## `unijudge {name}`", _help(command.help or "")]
        if isinstance(command, JobCommand):
            parts.append(
                f"Takes a TOML file, `key=value`, or both: [its settings](settings.md#{_anchor(name)})."
            )
        rows = [
            _parameter(parameter)
            for parameter in command.params
            if not getattr(parameter, "hidden", False)
        ]
        if rows:
            parts.append(_filled_table(["", "", "default"], rows))
    return "\n\n".join(parts) + "\n"


def _parameter(parameter: Any) -> tuple[str, str, str]:
    """The name, the meaning and the default of one argument or option."""
    is_option = parameter.param_type_name == "option"
    name = ", ".join(f"`{word}`" for word in (*parameter.opts, *parameter.secondary_opts))
    if not is_option:
        name = f"`{parameter.metavar or parameter.name.upper()}`"
    default = parameter.default
    shown = "" if default in (None, False, ()) or callable(default) else f"`{default}`"
    return name, _help(parameter.help or ""), shown


def _settings_page() -> str:
    """The settings of every job. Commands with equal settings refer to the first of them."""
    parts = [SETTINGS_INTRO]
    first: dict[Any, str] = {}
    for name, command in _commands():
        if not isinstance(command, JobCommand):
            continue
        parts += [f"({_anchor(name)})=", f"## `unijudge {name}`"]
        same = first.setdefault(command.kind, name)
        if same != name:
            parts.append(f"The same settings as [`unijudge {same}`](#{_anchor(same)}).")
            continue
        for title, rows in settings_by_table(command.kind):
            cells = [
                (f"`{key}`", f"`{default}`" if default else "", meaning)
                for key, default, meaning in rows
            ]
            parts += [f"**{title}**", table(["key", "default", "meaning"], cells)]
    return "\n\n".join(parts) + "\n"


def _http_page() -> str:
    """The routes of the judge service, from its OpenAPI description."""
    judge = WatchedJudge(ScriptedJudge(Prompt()), HealthSettings())
    described = create_app(judge, LimitSettings()).openapi()
    parts = [HTTP_INTRO]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts += [f"## `{method.upper()} {path}`", _plain(operation.get("description", ""))]
            bodies = [("Request", operation.get("requestBody", {}).get("content", {}))]
            bodies += [
                (f"Response {status}", answer.get("content", {}))
                for status, answer in operation["responses"].items()
            ]
            for title, content in bodies:
                names = [_schema_name(body.get("schema", {})) for body in content.values()]
                parts += [f"{title}: [`{name}`](#{name.lower()})" for name in names if name]
    parts += ["## Schemas", "The fields of what is sent and answered."]
    models = {model.__name__: model for model in _subclasses(BaseModel)}
    for name, schema in sorted(described["components"]["schemas"].items()):
        parts += [f"### {name}", _plain(schema.get("description", ""))]
        required = schema.get("required", ())
        meanings = _meanings(models[name]) if name in models else {}
        rows = []
        for field, kind in schema.get("properties", {}).items():
            is_required = "yes" if field in required else ""
            rows.append((f"`{field}`", _type(kind), is_required, meanings.get(field, "")))
        if rows:
            parts.append(_filled_table(["field", "type", "required", "meaning"], rows))
    return "\n\n".join(part for part in parts if part) + "\n"


def _schema_name(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _type(schema: dict[str, Any]) -> str:
    """The type of a field, in a word or two."""
    if "$ref" in schema:
        return _schema_name(schema)
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(_type(choice) for choice in choices)
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


TABLES = {
    "corpus/items.parquet": ITEMS,
    "corpus/queries.parquet": QUERIES,
    "candidates/part-*.parquet": CANDIDATES,
    "scores/part-*.parquet": SCORES,
    "triples/part-*.parquet": TRIPLES,
    "evaluation/rankings.parquet": RANKINGS,
    "judge bench/scores.parquet": LABELLED_SCORES,
}
MANIFESTS = {
    "corpus/corpus.json": CorpusManifest,
    "vectors/vectors.json": VectorManifest,
    "candidates/candidates.json": CandidateManifest,
    "scores/manifest.json": ScoreManifest,
    "scores/totals.json": ScoreTotals,
    "triples/triples.json": TripleManifest,
}


def _folders_page() -> str:
    """The columns of every table, and the fields of every manifest."""
    parts = [FOLDERS_INTRO]
    for place, manifest in MANIFESTS.items():
        meanings = _meanings(manifest)
        rows = [(f"`{name}`", meanings.get(name, "")) for name in manifest.model_fields]
        parts += [
            f"## `{place}`",
            _plain(manifest.__doc__ or ""),
            _filled_table(["field", "meaning"], rows),
        ]
    for place, kind in TABLES.items():
        rows = [
            (f"`{field.name}`", f"`{field.type}`", "" if field.nullable else "never null")
            for field in kind.schema
        ]
        parts += [
            f"## `{place}`",
            f"Table `{kind.name}`, version {kind.version}.",
            _filled_table(["column", "type", ""], rows),
        ]
    return "\n\n".join(parts) + "\n"


def _python_page() -> str:
    """The names that `from unijudge import …` gives."""
    parts = [PYTHON_INTRO]
    for name in unijudge.__all__:
        kind = "autofunction" if name == "judge_now" else "autoclass"
        options = "" if kind == "autofunction" else ":members:\n"
        parts.append(
            f"```{{eval-rst}}\n.. {kind}:: unijudge.{name}\n"
            + (f"   {options}" if options else "")
            + "```"
        )
    return "\n\n".join(parts) + "\n"


def _filled_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without the columns that are empty in every row."""
    filled = [number for number in range(len(head)) if any(row[number] for row in rows)]
    return table(
        [head[number] for number in filled], [[row[number] for number in filled] for row in rows]
    )


def _subclasses(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The subclasses of a class in this project, at every depth."""
    for below in kind.__subclasses__():
        if below.__module__.startswith("unijudge."):
            yield below
        yield from _subclasses(below)


def _meanings(kind: type[BaseModel]) -> dict[str, str]:
    """The docstring of each field: name → text."""
    meanings = {}
    for base in reversed(kind.__mro__):
        if not base.__module__.startswith("unijudge."):
            continue
        for (owner, field), lines in (
            ModuleAnalyzer.for_module(base.__module__).find_attr_docs().items()
        ):
            if owner == base.__name__:
                meanings[field] = _plain(" ".join(lines))
    return meanings


def _anchor(name: str) -> str:
    return "settings-" + name.replace(" ", "-")


def _help(text: str) -> str:
    """A help text in one paragraph, with its options as code. Otherwise their two dashes would become one."""
    return re.sub(r"(?<![\w`-])--[a-z][\w-]*", r"`\g<0>`", _plain(text))


def _plain(text: str) -> str:
    """Text in one paragraph."""
    return " ".join(text.split())
