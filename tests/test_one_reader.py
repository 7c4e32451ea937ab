"""Files, folders, JSON and models are read in one place each, so that foreign data meets the same checks everywhere.

A file that needs its own call is listed here with the reason. A line that no file needs any more must be removed.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("unijudge", "judge_service", "miner", "trainer")
READERS = {
    "open",
    "read_text",
    "read_bytes",
    "iterdir",
    "glob",
    "rglob",
    "loads",
    "from_pretrained",
}
"""Calls past `texts`, `files` and `listing` of `unijudge.storage`, and past the loaders; `open` is the function."""

ALLOWED = {
    # These files define the readers.
    "unijudge/storage/files.py": ({"iterdir", "rglob"}, "lists folders for all others, and the drafts that it wrote"),
    "unijudge/storage/listing.py": ({"glob"}, "lists the folders of strangers for all others"),
    "unijudge/modeling/inputs.py": (
        {"from_pretrained", "loads"},
        "loads tokenizer and processor for all others; what the library wrote of a tokenizer",
    ),
    "unijudge/modeling/model_source.py": ({"from_pretrained"}, "loads the configuration for all others"),
    "unijudge/modeling/checkpoints.py": ({"from_pretrained"}, "compares the weights with what a model needs"),
    "unijudge/settings.py": ({"loads"}, "reads TOML for all others"),
    "unijudge/foreign/tables.py": ({"loads"}, "reads rows for all importers, a line of JSON at a time"),
    # These files read weights.
    "judge_service/backends/transformers.py": ({"from_pretrained"}, "its weights, which were checked before"),
    "judge_service/backends/model_sizes.py": ({"from_pretrained"}, "a configuration without weights"),
    "trainer/models/backbone.py": ({"from_pretrained"}, "its weights, which were checked before"),
    "trainer/models/attaching.py": ({"from_pretrained"}, "adapters, whose files were checked before"),
    # These files read JSON that is not a foreign file, or whose text came from the common reader.
    "judge_service/gpus.py": ({"loads", "read_text"}, "the system's own files, and a variable of Ray's"),
    "miner/importers/building/build.py": ({"loads"}, "the ledger's own lines"),
    "miner/importers/building/ledger.py": ({"loads"}, "the ledger's own lines"),
    "miner/importers/sentence_transformers.py": ({"loads"}, "a list in a cell"),
    "trainer/models/lora.py": ({"loads"}, "a configuration that a library just wrote"),
    "trainer/export/export.py": ({"loads"}, "a configuration that was checked before"),
    "trainer/training/run_folder.py": ({"loads", "read_text"}, "the run's own metrics, whose last line may be torn"),
    "trainer/benchmarks/published.py": ({"loads", "read_text"}, "a file of this package"),
    "unijudge/formats/checks.py": ({"loads"}, "text of the one reader; a fault is named with its line"),
    "unijudge/modeling/chat_encoder.py": ({"loads"}, "what a tokenizer says of itself"),
    "unijudge/formats/image_roots.py": ({"loads"}, "text of the one reader; another file of that name is no fault"),
    "unijudge/formats/model_folders.py": ({"loads"}, "headers of weights, and JSON that is only checked"),
    # These files read only folders and files that this program wrote.
    "judge_service/backends/engine_log.py": ({"glob", "open", "read_text"}, "logs of its own engines"),
    "judge_service/front/blobs.py": ({"read_bytes"}, "pictures that it stored under their hashes"),
    "judge_service/process.py": ({"glob"}, "folders of services that were killed"),
    "miner/inspection/page.py": ({"read_text"}, "scripts of this package"),
    "miner/scoring/ray_executor.py": ({"glob"}, "drafts of its own shards"),
    "trainer/training/checkpoints.py": ({"glob", "rglob"}, "checkpoints of its own run"),
    "unijudge/formats/inventory.py": ({"rglob"}, "a folder of ours, whose every file is looked at"),
    "unijudge/storage/outputs.py": ({"rglob"}, "whether an output folder holds anything at all"),
    # These files read the folder of a model.
    "trainer/embedding/sentence_transformers.py": ({"rglob"}, "a model's files, those of its folders too"),
}  # fmt: skip


ASKERS = {"exists", "is_dir", "is_file"}
"""Calls past `unijudge.storage.stores`, which tells a store that does not answer from one that has nothing there."""

ON_A_DISK = {
    "unijudge/storage/stores.py": "asks for all others",
    "unijudge/storage/locations.py": "refuses devices and pipes of a disk",
    "unijudge/storage/files.py": "drafts lie on a disk",
    "unijudge/formats/inventory.py": "lists a folder of a disk; of a store in one call",
    "unijudge/storage/outputs.py": "what is moved aside lies on a disk",
    "judge_service/backends/__init__.py": "models are on a disk, or on the hub",
    "unijudge/modeling/inputs.py": "models lie on a disk, or on the hub",
    "unijudge/modeling/model_source.py": "models lie on a disk, or on the hub",
    "unijudge/modeling/checkpoints.py": "models",
    "unijudge/judging/reranker_file.py": "models",
    "unijudge/modeling/weight_files.py": "models",
    "trainer/models/lora.py": "models",
    "trainer/models/attaching.py": "models",
    "trainer/export/model_card.py": "models",
    "trainer/models/input_formats.py": "models",
    "trainer/export/usage.py": "models",
    "trainer/embedding/sentence_transformers.py": "models",
    "trainer/training/checkpoints.py": "runs lie on a disk",
    "trainer/export/export.py": "runs",
    "trainer/training/finetune.py": "runs",
    "trainer/training/run_folder.py": "runs",
    "trainer/training/reranker.py": "runs",
    "judge_service/checks/doctor.py": "the machine's own files",
    "judge_service/backends/preflight.py": "the machine's own files",
    "judge_service/service.py": "its own file of states",
    "judge_service/backends/engine_log.py": "processes",
}


def called(path, readers=READERS):
    """The readers that a file calls directly, and not through the product's functions of the same name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr != "open":
            found.add(node.func.attr)
        if isinstance(node.func, ast.Name) and node.func.id == "open":
            found.add("open")
    return found & readers


def test_files_are_read_only_through_the_one_reader():
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): called(path) for path in paths}
    expected = {name: calls for name, (calls, _) in ALLOWED.items()}
    assert {name: calls for name, calls in found.items() if calls} == expected


def test_existence_in_a_store_is_only_checked_in_one_place():
    """If a store does not answer, a path's own `exists` returns False."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    asking = {path.relative_to(ROOT).as_posix() for path in paths if called(path, ASKERS)}
    assert asking == set(ON_A_DISK)
