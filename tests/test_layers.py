"""The import rules of ARCHITECTURE.md, enforced on the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "unijudge": {
        "pydantic", "numpy", "pyarrow", "PIL", "anyio", "httpx2", "tenacity", "typer", "transformers", "jinja2",
        "markupsafe", "upath", "packaging", "rich",
    },
    "judge_service": {
        "unijudge", "judge_service", "pydantic", "numpy", "PIL", "fastapi", "starlette", "typer", "rich", "torch",
        "transformers", "safetensors", "ray", "vllm", "packaging",
        "uvicorn",
    },
    "miner": {"unijudge", "miner", "pydantic", "numpy", "pyarrow", "faiss", "typer", "rich", "ray", "aiohttp"},
    "trainer": {
        "unijudge", "trainer", "pydantic", "numpy", "typer", "rich", "torch", "transformers", "safetensors", "peft",
        "accelerate", "sentence_transformers", "httpx2", "tenacity", "ray",
    },
}  # fmt: skip
ONLY_IN = {
    "transformers": {
        "unijudge/inputs.py", "unijudge/checkpoints.py",
        "judge_service/backends/model_sizes.py", "judge_service/backends/transformers.py",
        "trainer/adapters.py", "trainer/attaching.py", "trainer/backbone.py",
        "trainer/pretrained.py",
        "trainer/runs.py",
    },
    "ray": {
        "judge_service/replica.py", "judge_service/service.py", "judge_service/cluster.py",
        "miner/ray_engine.py", "miner/jobs.py", "trainer/studies/engines.py"},
    "aiohttp": {"miner/jobs.py"},
    "uvicorn": {"judge_service/front/connections.py", "judge_service/front/proxy.py"},
    "vllm": {"judge_service/backends/vllm.py", "judge_service/backends/vllm_engines.py"},
    "faiss": {"miner/retrieve.py"},
    "anyio": {"unijudge/concurrency.py"},
    "httpx2": {"unijudge/reaching.py", "unijudge/connection.py", "unijudge/client.py", "trainer/systems/endpoint.py"},
    "sentence_transformers": {"trainer/systems/sentence_transformers.py"},
    "jinja2": {"unijudge/pages.py"},
    "upath": {"unijudge/locations.py"},
    "packaging": {"unijudge/unexpected.py", "judge_service/doctor.py"},
    "typer": {
        "unijudge/cli.py", "unijudge/job.py",
        "judge_service/cli.py", "miner/cli.py", "miner/exporters/cli.py", "miner/importers/cli.py",
        "miner/jobs_cli.py",
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
    wrong = [line for path in paths for line in violations(package, str(path.relative_to(ROOT)), imports(path))]
    assert not wrong, "\n".join(wrong)


def test_the_rules_would_notice(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import torch\nfrom trainer.loop import fit\nimport json\n")
    assert violations("miner", "miner/bad.py", imports(bad)) == [
        "miner/bad.py imports torch",
        "miner/bad.py imports trainer",
    ]
    bad.write_text("import faiss\n")
    assert len(violations("miner", "miner/bad.py", imports(bad))) == 1
