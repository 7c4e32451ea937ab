"""What a folder is, what made it, and whether it is whole: `unijudge describe` and `unijudge check`."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from unijudge.candidates import CANDIDATES, CandidateManifest, part_path
from unijudge.candidates import missing_parts as missing_candidates
from unijudge.corpus import Corpus, CorpusManifest, Item, Query
from unijudge.datasets import DatasetManifest, check_files, each, read_parts
from unijudge.errors import DataError
from unijudge.files import file_sha256, read_json, read_text
from unijudge.locations import is_local
from unijudge.provenance import MADE, Beginning
from unijudge.rankings import Evaluation, read_rankings
from unijudge.refused import unreadable
from unijudge.scores import ScoreManifest, missing_shards, read_scores
from unijudge.triples import TripleManifest, read_triples
from unijudge.vectors import VectorManifest, check_part, missing_parts


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
        DataError: Something is missing, torn, foreign or changed; the first fault is named.
    """
    kind, manifest = _open(folder)
    missing = kind.missing(folder, manifest, _sizes(folder))
    if missing:
        raise DataError(f"{folder}: {len(missing)} files are missing, first {missing[0]}; run its writer again")
    return f"{folder}: {kind.name}, whole: {kind.check(folder, manifest)}"


@dataclass(frozen=True)
class _Kind:
    """One kind of folder."""

    name: str
    file: str
    """Its manifest."""
    model: type[BaseModel]
    check: Callable[[Path, Any], str]
    """Reads everything, and says how much that was."""
    missing: Callable[[Path, Any, Mapping[str, int]], list[str]] = lambda *_: []
    """The files that are not there yet, of those that are (name → bytes)."""


def _open(folder: Path) -> tuple[_Kind, BaseModel]:
    try:
        for kind in KINDS:
            if (folder / kind.file).exists():
                return kind, read_json(folder / kind.file, kind.model)
    except DataError:
        raise
    except Exception as error:  # each store has its own family of errors
        raise unreadable(folder, error) from error
    names = ", ".join(kind.file for kind in KINDS)
    raise DataError(f"{folder}: not a folder of unijudge (none of {names} is there), or not finished")


def _sizes(folder: Any) -> dict[str, int]:
    """The files of a folder and their bytes; of a store in one listing."""
    if is_local(folder):
        return {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    try:
        found = folder.fs.find(folder.path, detail=True)
    except Exception as error:  # each store has its own family of errors
        raise unreadable(folder, error) from error
    return {name.removeprefix(folder.path).strip("/"): entry["size"] for name, entry in found.items()}


def _lines(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and text of each value."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{prefix}{name}.")
        elif value is not None:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            yield f"{prefix}{name}", f"{value:,.10g}" if number else str(value)


def _missing_vectors(folder: Path, manifest: VectorManifest, _: Mapping[str, int]) -> list[str]:
    return [path.name for kind in ("items", "queries") for path, _ in missing_parts(folder, manifest, kind)]


def _missing_scores(folder: Path, manifest: ScoreManifest, _: Mapping[str, int]) -> list[str]:
    return [f"part-{shard:05d}.parquet" for shard in missing_shards(folder, manifest)]


def _missing_files(_: Path, manifest: DatasetManifest, sizes: Mapping[str, int]) -> list[str]:
    return [name for name in manifest.files if name not in sizes]


def _missing_run(_: Path, __: Beginning, sizes: Mapping[str, int]) -> list[str]:
    wanted = {"environment.json": "environment.json", "metrics.jsonl": "metrics.jsonl", "adapter": "adapter/"}
    return [name for name, start in wanted.items() if not any(file.startswith(start) for file in sizes)]


def _check_corpus(folder: Path, manifest: CorpusManifest) -> str:
    corpus = _check_tables(folder, manifest)

    def read(entry: Item | Query) -> None:
        corpus.content(entry)

    each(read, corpus.items)
    each(read, corpus.queries)
    return f"{len(corpus.items) + len(corpus.queries)} rows read"


def _check_tables(folder: Path, manifest: CorpusManifest) -> Corpus:
    corpus = Corpus(folder)
    for name, found in [("items", len(corpus.items)), ("queries", len(corpus.queries))]:
        if found != getattr(manifest, name):
            raise DataError(f"{folder}: {found} {name}, but corpus.json says {getattr(manifest, name)}; import again")
    return corpus


def _check_vectors(folder: Path, manifest: VectorManifest) -> str:
    rows = sum(check_part(folder / name, manifest) for kind in ("items", "queries") for name, _ in manifest.parts(kind))
    if rows != manifest.items + manifest.queries:
        raise DataError(
            f"{folder}: {rows} vectors, but vectors.json says {manifest.items + manifest.queries}; embed again"
        )
    return f"{rows} rows read"


def _check_scores(folder: Path, manifest: ScoreManifest) -> str:
    rows = sum(1 for _ in read_scores(folder))
    if rows != manifest.queries:
        raise DataError(f"{folder}: {rows} queries, but its manifest says {manifest.queries}; score again elsewhere")
    return f"{rows} rows read"


def _missing_candidates(folder: Path, manifest: CandidateManifest, _: Mapping[str, int]) -> list[str]:
    return [part_path(folder, part).name for part in missing_candidates(folder, manifest)]


def _check_candidates(folder: Path, manifest: CandidateManifest) -> str:
    parts = range(len(manifest.parts()))
    rows = sum(1 for part in parts for _ in CANDIDATES.read(part_path(folder, part), manifest.stamp(part)))
    if rows != manifest.queries:
        raise DataError(f"{folder}: {rows} queries, but it says {manifest.queries}; delete it: it is made anew")
    return f"{rows} rows read"


def _check_triples(folder: Path, manifest: TripleManifest) -> str:
    return f"{sum(1 for _ in read_triples(folder, manifest.corpus))} rows read"


def _check_dataset(folder: Path, manifest: DatasetManifest) -> str:
    """Files by their hashes, then each part as a folder of its own; images were read with the files."""
    check_files(folder, manifest)
    scores, triples = (folder / name if getattr(manifest, name) else None for name in ("scores", "triples"))
    parts = read_parts(folder / "corpus", scores, triples)
    found = (parts.corpus.fingerprint, parts.scores_sha256, parts.triples_sha256)
    if found != (manifest.corpus, manifest.scores, manifest.triples):
        raise DataError(f"{folder}: its parts are not those that dataset.json names; publish it again")
    corpus = _check_tables(folder / "corpus", parts.corpus)
    entries: Iterator[Item | Query] = chain(corpus.items, corpus.queries)
    for entry in (entry for entry in entries if entry.image and manifest.images):
        file = manifest.files.get(f"images/{entry.image}")
        if file is None or file.sha256 != entry.image_sha256:
            raise DataError(f"{folder}: image {entry.image} is not inside, or not the one imported; publish it again")
    if scores and parts.scores:
        _check_scores(scores, parts.scores)
    if triples and parts.triples:
        _check_triples(triples, parts.triples)
    return f"{len(manifest.files)} files read"


def _check_run(folder: Path, _: Beginning) -> str:
    """Metrics line by line; of every weight file, that its bytes are all there."""
    steps = 0
    for number, line in enumerate(read_text(folder / "metrics.jsonl").splitlines(), start=1):
        try:
            json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{folder / 'metrics.jsonl'}:{number}: not JSON ({error.msg}); train again") from error
        steps = number
    weights = sorted(folder.rglob("*.safetensors"))
    for path in weights:
        _check_safetensors(path)
    return f"{steps} steps and {len(weights)} files of weights read"


def _check_safetensors(path: Path) -> None:
    """By the format: eight bytes of the header's length, the header with every tensor's place, the tensors."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            found = path.stat().st_size
    except ValueError as error:
        raise DataError(f"{path}: torn or foreign ({error}); train again") from error
    except OSError as error:
        raise unreadable(path, error) from error
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if found != 8 + length + max(ends, default=0):
        raise DataError(f"{path}: {found} bytes, but its header says {8 + length + max(ends, default=0)}; train again")


def _check_evaluation(folder: Path, manifest: Evaluation) -> str:
    path = folder / "rankings.parquet"
    if manifest.rankings_sha256 not in (None, file_sha256(path)):
        raise DataError(f"{path}: changed since it was written; evaluate again")
    rows = sum(1 for _ in read_rankings(path))
    queries = sum(measures["queries"] for measures in manifest.subsets.values())
    if rows != queries:
        raise DataError(f"{path}: {rows} queries, but metrics.json says {queries:g}; evaluate again")
    return f"{rows} rows read"


KINDS = (
    _Kind("scored dataset", "dataset.json", DatasetManifest, _check_dataset, _missing_files),
    _Kind("corpus", "corpus.json", CorpusManifest, _check_corpus),
    _Kind("vectors", "vectors.json", VectorManifest, _check_vectors, _missing_vectors),
    _Kind("scores", "manifest.json", ScoreManifest, _check_scores, _missing_scores),
    _Kind("candidates", "candidates.json", CandidateManifest, _check_candidates, _missing_candidates),
    _Kind("triples", "triples.json", TripleManifest, _check_triples),
    _Kind("run", "settings.json", Beginning, _check_run, _missing_run),
    _Kind("evaluation", "metrics.json", Evaluation, _check_evaluation),
)
