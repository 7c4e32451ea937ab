"""`unijudge describe` and `unijudge check`: the kind of a folder, its provenance, and its completeness."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from unijudge.errors import DataError
from unijudge.formats import checks
from unijudge.formats.candidates import CandidateManifest
from unijudge.formats.corpus import CorpusManifest
from unijudge.formats.datasets import DatasetManifest
from unijudge.formats.model_folders import AdapterConfig, ModelConfig, check_model, missing_weights
from unijudge.formats.rankings import Evaluation
from unijudge.formats.scores import ScoreManifest
from unijudge.formats.triples import TripleManifest
from unijudge.formats.vectors import VectorManifest
from unijudge.pages.terminal import aligned
from unijudge.provenance import MADE, Beginning
from unijudge.settings import flattened
from unijudge.storage.access_errors import unreadable
from unijudge.storage.files import read_json
from unijudge.storage.locations import is_local
from unijudge.storage.stores import again, exists, is_file, is_folder


def facts(folder: Path) -> dict[str, Any]:
    """Returns the kind of a folder, its missing files, its manifest with provenance, and its size in bytes, as JSON.

    Raises:
        DataError: The folder is not a folder of this program.
    """
    kind, manifest = _open(folder)
    sizes = _sizes(folder)
    values = manifest.model_dump(mode="json", exclude=MADE | {"files"})
    made = dict(manifest).get("made")
    if made is not None:
        values["made"] = made.model_dump(mode="json")
    return {
        "folder": str(folder),
        "kind": kind.name,
        "missing": kind.missing(folder, manifest, sizes),
        "manifest": values,
        "files": len(sizes),
        "bytes": sum(sizes.values()),
    }


def describe(folder: Path) -> str:
    """Returns the facts of a folder as text for people.

    Raises:
        DataError: The folder is not a folder of this program.
    """
    found = facts(folder)
    missing = found["missing"]
    state = (
        f"{len(missing)} files missing, first {missing[0]}" if missing else "every file is there"
    )
    size = f"{found['files']} files, {found['bytes']:,} bytes"
    lines = [*_lines(found["manifest"]), ("on disk" if is_local(folder) else "in the store", size)]
    head = f"{folder}: {found['kind']}; {state}"
    return "\n".join([head, *(f"  {line}" for line in aligned(lines, left=2))])


def checked(folder: Path) -> dict[str, Any]:
    """Reads every file of a folder and compares it with its manifest. Returns the kind and what was read, as JSON.

    Raises:
        DataError: A file is missing, damaged, foreign or changed. The message names the first few faults.
    """
    kind, manifest = _open(folder)
    missing = kind.missing(folder, manifest, _sizes(folder))
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} files are missing, first {missing[0]}. Run its writer again"
        )
    return {"folder": str(folder), "kind": kind.name, "read": kind.check(folder, manifest)}


def check(folder: Path) -> str:
    """Does the same as `checked`, and returns the result as text for people."""
    found = checked(folder)
    return f"{folder}: {found['kind']}, whole: {found['read']}"


@dataclass(frozen=True)
class _FolderKind:
    """A kind of folder."""

    name: str
    file: str
    """The name of the manifest."""
    model: type[BaseModel]
    check: Callable[[Path, Any], str]
    """A function that reads all files, and returns in words how much it read."""
    missing: Callable[[Path, Any, Mapping[str, int]], list[str]] = lambda *_: []
    """A function that returns the missing files; its last argument is the existing files (name → bytes)."""


def is_ours(folder: Path) -> bool:
    """Whether a folder holds a manifest of this program.

    Raises:
        DataError: The folder cannot be read.
    """
    return _kind_of(folder) is not None


def _kind_of(folder: Path) -> _FolderKind | None:
    return next((kind for kind in KINDS if exists(folder / kind.file)), None)


def _open(folder: Path) -> tuple[_FolderKind, BaseModel]:
    kind = _kind_of(folder)
    if kind is not None:
        return kind, read_json(folder / kind.file, kind.model)
    if not is_folder(folder):
        found = "a file" if is_file(folder) else "no such folder"
        raise DataError(f"{folder}: not a folder of unijudge ({found}). Check the path")
    names = ", ".join(kind.file for kind in KINDS)
    raise DataError(
        f"{folder}: not a folder of unijudge (none of {names} is there), or not finished. Check the path"
    )


def manifest_in(folder: Path) -> str | None:
    """Returns the name of the manifest of this program in a folder, or None."""
    for kind in KINDS:
        try:
            if exists(folder / kind.file):
                read_json(folder / kind.file, kind.model)
                return kind.file
        except DataError:  # another program's file with the same name
            continue
    return None


def _sizes(folder: Any) -> dict[str, int]:
    """Returns the files of a folder and their bytes. In a store, it makes a single listing."""
    if is_local(folder):
        return {
            p.relative_to(folder).as_posix(): p.stat().st_size
            for p in folder.rglob("*")
            if p.is_file()
        }
    try:
        found = again(folder, lambda: folder.fs.find(folder.path, detail=True))
    except Exception as error:  # each store has its own family of errors
        raise unreadable(folder, error) from error
    return {
        name.removeprefix(folder.path).strip("/"): entry["size"] for name, entry in found.items()
    }


def _lines(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the dotted name and the text of each value that is not None."""
    for name, value in flattened(values):
        if value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        text = f"{value:,.10g}" if is_number else str(value)
        yield name, text


KINDS = (
    _FolderKind(
        "scored dataset",
        "dataset.json",
        DatasetManifest,
        checks.check_dataset,
        checks.missing_files,
    ),
    _FolderKind("corpus", "corpus.json", CorpusManifest, checks.check_corpus),
    _FolderKind(
        "vectors", "vectors.json", VectorManifest, checks.check_vectors, checks.missing_vectors
    ),
    _FolderKind(
        "scores", "manifest.json", ScoreManifest, checks.check_scores, checks.missing_parts
    ),
    _FolderKind(
        "scores, planned",
        "candidates/candidates.json",
        CandidateManifest,
        checks.check_planned,
        checks.missing_planned,
    ),
    _FolderKind(
        "candidates",
        "candidates.json",
        CandidateManifest,
        checks.check_candidates,
        checks.missing_parts,
    ),
    _FolderKind("triples", "triples.json", TripleManifest, checks.check_triples),
    _FolderKind("run", "settings.json", Beginning, checks.check_run, checks.missing_run),
    _FolderKind("evaluation", "metrics.json", Evaluation, checks.check_evaluation),
    _FolderKind("adapter", "adapter_config.json", AdapterConfig, check_model, missing_weights),
    _FolderKind("model", "config.json", ModelConfig, check_model, missing_weights),
)
