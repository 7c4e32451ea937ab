"""What a folder is, what made it, and whether it is whole: `unijudge describe` and `unijudge check`."""

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
from unijudge.provenance import MADE, Beginning
from unijudge.settings import flattened
from unijudge.storage.access_errors import unreadable
from unijudge.storage.files import read_json
from unijudge.storage.locations import is_local
from unijudge.storage.stores import again, exists


def describe(folder: Path) -> str:
    """What a folder is, how much of it is there, its manifest, and what made it; for people.

    Raises:
        DataError: It is not a folder of ours.
    """
    kind, manifest = _open(folder)
    sizes = _sizes(folder)
    missing = kind.missing(folder, manifest, sizes)
    state = f"{len(missing)} files missing, first {missing[0]}" if missing else "every file is there"
    values = manifest.model_dump(mode="json", exclude=MADE | {"files"})
    made = dict(manifest).get("made")
    lines = [*_lines(values), *([] if made is None else _lines({"made": made.model_dump(mode="json")}))]
    lines.append(
        ("on disk" if is_local(folder) else "in the store", f"{len(sizes)} files, {sum(sizes.values()):,} bytes")
    )
    width = min(40, max(len(name) for name, _ in lines))
    return "\n".join([f"{folder}: {kind.name}; {state}", *(f"  {name:<{width}}  {value}" for name, value in lines)])


def check(folder: Path) -> str:
    """Reads every file of a folder and compares it with its manifest.

    Raises:
        DataError: Something is missing, torn, foreign or changed; the first few faults are named.
    """
    kind, manifest = _open(folder)
    missing = kind.missing(folder, manifest, _sizes(folder))
    if missing:
        raise DataError(f"{folder}: {len(missing)} files are missing, first {missing[0]}; run its writer again")
    return f"{folder}: {kind.name}, whole: {kind.check(folder, manifest)}"


@dataclass(frozen=True)
class _FolderKind:
    """One kind of folder."""

    name: str
    file: str
    """Its manifest."""
    model: type[BaseModel]
    check: Callable[[Path, Any], str]
    """Reads everything, and says how much that was."""
    missing: Callable[[Path, Any, Mapping[str, int]], list[str]] = lambda *_: []
    """The files that are not there yet, of those that are (name → bytes)."""


def is_ours(folder: Path) -> bool:
    """Whether a folder holds a manifest of ours.

    Raises:
        DataError: It cannot be looked into.
    """
    return _kind_of(folder) is not None


def _kind_of(folder: Path) -> _FolderKind | None:
    return next((kind for kind in KINDS if exists(folder / kind.file)), None)


def _open(folder: Path) -> tuple[_FolderKind, BaseModel]:
    kind = _kind_of(folder)
    if kind is not None:
        return kind, read_json(folder / kind.file, kind.model)
    names = ", ".join(kind.file for kind in KINDS)
    raise DataError(f"{folder}: not a folder of unijudge (none of {names} is there), or not finished")


def manifest_in(folder: Path) -> str | None:
    """The name of the manifest that makes a folder one of ours; None where it is none."""
    for kind in KINDS:
        try:
            if exists(folder / kind.file):
                read_json(folder / kind.file, kind.model)
                return kind.file
        except DataError:  # a file of somebody else, of the same name
            continue
    return None


def _sizes(folder: Any) -> dict[str, int]:
    """The files of a folder and their bytes; of a store in one listing."""
    if is_local(folder):
        return {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    try:
        found = again(folder, lambda: folder.fs.find(folder.path, detail=True))
    except Exception as error:  # each store has its own family of errors
        raise unreadable(folder, error) from error
    return {name.removeprefix(folder.path).strip("/"): entry["size"] for name, entry in found.items()}


def _lines(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Dotted name and text of each value that is there."""
    for name, value in flattened(values):
        if value is not None:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            yield name, f"{value:,.10g}" if number else str(value)


KINDS = (
    _FolderKind("scored dataset", "dataset.json", DatasetManifest, checks.check_dataset, checks.missing_files),
    _FolderKind("corpus", "corpus.json", CorpusManifest, checks.check_corpus),
    _FolderKind("vectors", "vectors.json", VectorManifest, checks.check_vectors, checks.missing_vectors),
    _FolderKind("scores", "manifest.json", ScoreManifest, checks.check_scores, checks.missing_scores),
    _FolderKind(
        "scores, planned", "candidates/candidates.json", CandidateManifest, checks.check_planned, checks.missing_planned
    ),
    _FolderKind("candidates", "candidates.json", CandidateManifest, checks.check_candidates, checks.missing_candidates),
    _FolderKind("triples", "triples.json", TripleManifest, checks.check_triples),
    _FolderKind("run", "settings.json", Beginning, checks.check_run, checks.missing_run),
    _FolderKind("evaluation", "metrics.json", Evaluation, checks.check_evaluation),
    _FolderKind("adapter", "adapter_config.json", AdapterConfig, check_model, missing_weights),
    _FolderKind("model", "config.json", ModelConfig, check_model, missing_weights),
)
