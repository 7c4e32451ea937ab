"""README and ARCHITECTURE say what is there: their files, functions, commands and code are tried."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer

from judge_service.backends.scripted import ScriptedJudge
from tests.miner.conftest import serving
from tests.pictures import png
from unijudge import cli
from unijudge.judging.prompt import Prompt

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_link_leads_somewhere(name):
    links = re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text())
    assert [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()] == []


def definitions(path):
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = (ast.FunctionDef, ast.AsyncFunctionDef)
            names |= {f"{node.name}.{method.name}" for method in node.body if isinstance(method, inner)}
    return names


def test_the_life_of_a_pair_names_functions_that_exist():
    life = ARCHITECTURE.split("## The life of one pair")[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in life.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for _, files, names in rows:
        paths = re.findall(r"`([^`]+)`", files)
        known = set().union(*(definitions(ROOT / path) for path in paths))
        missing = [name for name in re.findall(r"`([^`]+)`", names) if name not in known]
        assert not missing, f"{paths}: {missing}"


def test_every_command_of_the_readme_is_one():
    app = typer.Typer()
    for entry in cli.entry_points(group="unijudge.commands"):
        app.add_typer(entry.load(), name=entry.name)
    root = typer.main.get_command(app)
    commands = re.findall(r"^unijudge .+$", README, re.MULTILINE)
    assert len(commands) > 7
    for line in commands:
        group, words = root, shlex.split(line)[1:]
        while words and hasattr(group, "commands"):
            group = group.commands[words.pop(0)]
        options = {option for parameter in group.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_the_settings_of_the_readme_exist():
    from judge_service.settings import ServiceSettings
    from miner.inspection.settings import InspectSettings
    from miner.selection.settings import SelectSettings
    from miner.settings import ScoreSettings
    from miner.sweep.settings import SweepSettings
    from trainer.benchmarks.settings import BenchmarkSettings
    from trainer.embedding.settings import EmbedSettings
    from trainer.evaluation.settings import EvaluateSettings, RerankSettings
    from trainer.training.settings import EmbedderSettings, RerankerSettings
    from unijudge.job import is_setting
    from unijudge.settings import load_settings

    kinds = {
        "judge serve": ServiceSettings, "mine score": ScoreSettings, "mine select": SelectSettings,
        "mine estimate": ScoreSettings, "mine sweep": SweepSettings, "mine inspect": InspectSettings,
        "train embed": EmbedSettings, "train embedder": EmbedderSettings, "train evaluate": EvaluateSettings,
        "train reranker": RerankerSettings, "train rerank": RerankSettings, "train benchmark": BenchmarkSettings,
    }  # fmt: skip
    seen = set()
    for line in re.findall(r"^unijudge \S+ \S+ .*\w=\S.*$", README, re.MULTILINE):
        words = shlex.split(line)
        kind = " ".join(words[1:3])
        seen.add(kind)
        file = ROOT / words[3] if words[3].endswith(".toml") else None
        load_settings(kinds[kind], file, list(filter(is_setting, words)))
    assert seen == set(kinds)


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    """Word for word, but for the port."""
    (code,) = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png())
    (tmp_path / "images" / "b.png").write_bytes(b"broken")
    monkeypatch.chdir(tmp_path)
    with serving(ScriptedJudge(Prompt())) as url:
        exec(code.replace("http://127.0.0.1:8000", url), {})  # noqa: S102
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"images/a\.png 0\.\d{3}", first)
    assert second == "images/b.png not a JPEG, PNG or WebP image"
