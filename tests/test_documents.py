"""README and ARCHITECTURE say what is there: their files, functions, commands and code are tried."""

import ast
import re
from pathlib import Path

import pytest

from judge_service.backends.scripted import ScriptedJudge
from tests.miner.conftest import serving
from tests.pictures import png
from tests.promised import check_command, check_routes, commands
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
    """Its options and settings, too."""
    found = commands(README)
    assert len(found) > 20
    for words in found:
        check_command(words)


def test_every_route_of_the_readme_is_one():
    check_routes(README)


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
