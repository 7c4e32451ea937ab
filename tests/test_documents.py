"""README, ARCHITECTURE and docs/ are true: their files, functions and commands exist, and their code runs."""

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
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
DOCS = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name != "reference"]
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "README.md", *DOCS)}
GENERATED = ("reference/", "../reference/")
"""Links to pages that are written when the documentation is built; Sphinx checks them."""


@pytest.mark.parametrize("name", [*PAGES, "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_the_target_of_every_link_exists(name):
    path = ROOT / name
    links = re.findall(r"\]\(([^)#]+)", path.read_text())
    ours = [link for link in links if not link.startswith(("https://", *GENERATED))]
    assert [link for link in ours if not (path.parent / link).exists()] == []


def definitions(path):
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = (ast.FunctionDef, ast.AsyncFunctionDef)
            names |= {
                f"{node.name}.{method.name}" for method in node.body if isinstance(method, inner)
            }
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


@pytest.mark.parametrize("name", PAGES)
def test_every_command_in_the_documents_exists(name):
    """The options and the settings of each command exist too."""
    for words in commands(PAGES[name]):
        check_command(words)


def test_the_readme_has_commands():
    assert len(commands(PAGES["README.md"])) > 10


@pytest.mark.parametrize("name", PAGES)
def test_every_route_in_the_documents_exists(name):
    check_routes(PAGES[name])


@pytest.mark.parametrize("name", ["README.md", "docs/guides/serve.md"])
def test_the_python_code_of_the_documents_runs(name, tmp_path, monkeypatch, capsys):
    """The code runs without a change, except for the port."""
    (code,) = re.findall(r"```python\n(.+?)```", PAGES[name], re.DOTALL)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png())
    (tmp_path / "images" / "b.png").write_bytes(b"broken")
    monkeypatch.chdir(tmp_path)
    with serving(ScriptedJudge(Prompt())) as url:
        exec(code.replace("http://127.0.0.1:8000", url), {})  # noqa: S102
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"images/a\.png 0\.\d{3}", first)
    assert second == "images/b.png not a JPEG, PNG or WebP image"


def test_the_errors_of_the_troubleshooting_page_are_messages():
    """Each heading is a part of a message in the source. Messages of other programs are left out."""
    page = PAGES["docs/troubleshooting.md"]
    headings = set(re.findall(r"^### `(.+)`$", page, re.MULTILINE))
    assert len(headings) > 15
    source = ""
    for package in ("unijudge", "judge_service", "miner", "trainer"):
        for path in (ROOT / package).rglob("*.py"):
            source += re.sub(r'"\s*\n\s*f?"', "", path.read_text())
    missing = [heading for heading in headings if heading not in source]
    assert sorted(missing) == ["Failed to fetch", "invalid peer certificate"]
