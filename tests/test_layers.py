"""The import rules of ARCHITECTURE.md, enforced on the source."""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "unijudge": {
        "pydantic", "numpy", "pyarrow", "PIL", "anyio", "httpx2", "tenacity", "typer", "transformers", "jinja2",
        "markupsafe", "upath", "packaging", "rich", "cachetools", "torch",
    },
    "judge_service": {
        "unijudge", "judge_service", "pydantic", "numpy", "PIL", "fastapi", "starlette", "typer", "rich", "torch",
        "transformers", "safetensors", "ray", "vllm", "packaging",
        "uvicorn",
    },
    "miner": {"unijudge", "miner", "pydantic", "numpy", "pyarrow", "faiss", "typer", "rich", "ray", "aiohttp"},
    "trainer": {
        "unijudge", "trainer", "pydantic", "numpy", "typer", "rich", "torch", "transformers", "safetensors", "peft",
        "accelerate", "sentence_transformers", "httpx2", "tenacity", "ray", "cachetools",
    },
}  # fmt: skip
ONLY_IN = {
    "transformers": {
        "unijudge/modeling/inputs.py", "unijudge/modeling/model_source.py", "unijudge/modeling/checkpoints.py",
        "judge_service/backends/model_sizes.py", "judge_service/backends/transformers.py",
        "trainer/models/lora.py", "trainer/models/attaching.py", "trainer/models/backbone.py",
        "trainer/models/pretrained.py",
        "trainer/training/run_folder.py",
    },
    "ray": {
        "judge_service/replica/replica.py", "judge_service/replica_history.py", "judge_service/service.py",
        "judge_service/cluster.py",
        "miner/scoring/ray_executor.py", "miner/scoring/ray_jobs.py", "trainer/studies/engines.py"},
    "aiohttp": {"miner/scoring/ray_jobs.py"},
    "uvicorn": {"judge_service/front/connections.py", "judge_service/front/proxy.py"},
    "vllm": {"judge_service/backends/vllm.py", "judge_service/backends/vllm_engines.py",
        "judge_service/backends/engine_arguments.py"},
    "faiss": {"miner/retrieval/retrievers.py"},
    "anyio": {"unijudge/client/concurrency.py"},
    "cachetools": {"unijudge/images/image_processing.py", "unijudge/modeling/vision_cache.py"},
    "httpx2": {"unijudge/storage/reaching.py", "unijudge/client/http.py", "unijudge/client/client.py",
        "trainer/embedding/endpoint.py"},
    "sentence_transformers": {"trainer/embedding/sentence_transformers.py"},
    "jinja2": {"unijudge/pages/pages.py", "unijudge/pages/markdown.py"},
    "upath": {"unijudge/storage/locations.py"},
    "packaging": {"unijudge/unexpected.py", "judge_service/checks/doctor.py"},
    "typer": {
        "unijudge/cli.py", "unijudge/job.py",
        "judge_service/cli.py", "miner/cli.py", "miner/exporters/cli.py", "miner/importers/cli.py",
        "miner/importers/command.py", "miner/scoring/cli.py",
        "trainer/cli.py", "trainer/studies/cli.py", "trainer/studies/commands.py",
    },
}  # fmt: skip


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").partition(".")[0])
    return found


def violations(package: str, path: str, found: set[str]) -> list[str]:
    import sys

    foreign = found - set(sys.stdlib_module_names) - {package}
    wrong = [f"{path} imports {name}" for name in sorted(foreign - MAY_IMPORT[package])]
    return wrong + [
        f"{path} imports {name}, which only {sorted(files)} may"
        for name, files in ONLY_IN.items()
        if name in found and path not in files
    ]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_it_may(package):
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    wrong = [
        line
        for path in paths
        for line in violations(package, str(path.relative_to(ROOT)), imports(path))
    ]
    assert not wrong, "\n".join(wrong)


def test_one_file_of_the_shared_package_needs_torch():
    """The miner imports the shared package without torch."""
    paths = [path for path in (ROOT / "unijudge").rglob("*.py") if "torch" in imports(path)]
    assert paths == [ROOT / "unijudge/modeling/vision_cache.py"]


def test_the_import_rules_detect_a_violation(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import torch\nfrom trainer.training.loop import fit\nimport json\n")
    assert violations("miner", "miner/bad.py", imports(bad)) == [
        "miner/bad.py imports torch",
        "miner/bad.py imports trainer",
    ]
    bad.write_text("import faiss\n")
    assert len(violations("miner", "miner/bad.py", imports(bad))) == 1


MOST_IN_A_FOLDER = 16
"""Python files in one folder of the product: more, and somebody who looks for a thing reads a list and not a name."""


def test_no_folder_holds_many_files():
    counts = Counter(
        path.parent for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py")
    )
    full = {
        folder.relative_to(ROOT).as_posix(): n
        for folder, n in counts.items()
        if n > MOST_IN_A_FOLDER
    }
    assert full == {}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def needs(path: Path, modules: set[str]) -> set[str]:
    """The modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {
                whole if (whole := f"{node.module}.{name.name}") in modules else str(node.module)
                for name in node.names
            }
    return (found & modules) - {module_of(path)}


def room(module: str) -> str:
    """The folder of a file. A file directly in a package counts as a separate folder."""
    return module.rpartition(".")[0] if module.count(".") > 1 else module


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Returns one circle of a graph, or nothing.

    Nodes that need no remaining node are removed, until all nodes are removed or a circle is left.
    """
    left = {name: set(needed) for name, needed in graph.items()}
    while free := {name for name, needed in left.items() if not needed & left.keys()}:
        left = {name: needed for name, needed in left.items() if name not in free}
    if not left:
        return []
    way = [min(left)]
    while way[-1] not in way[:-1]:
        way.append(min(left[way[-1]] & left.keys()))
    return way[way.index(way[-1]) :]


def test_no_circle_of_imports():
    """No circle of modules and no circle of folders exists. Imports inside functions count."""
    paths = [path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py")]
    modules = {module_of(path) for path in paths}
    graph = {module_of(path): needs(path, modules) for path in paths}
    assert circle(graph) == []
    rooms: dict[str, set[str]] = {}
    for module, needed in graph.items():
        rooms.setdefault(room(module), set()).update(
            {room(name) for name in needed} - {room(module)}
        )
    assert circle(rooms) == []


def test_no_test_file_imports_from_another():
    """Code that several test files need is in a separate module."""
    found = {}
    for path in (ROOT / "tests").rglob("*.py"):
        nodes = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom)
        ]
        if tests := [node.module for node in nodes if node.module and ".test_" in node.module]:
            found[path.name] = tests
    assert found == {}


def test_a_circle_of_imports_is_detected():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
