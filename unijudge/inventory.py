"""What a folder is, what made it, and whether it is whole: `unijudge describe` and `unijudge check`."""

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from unijudge.corpus import Corpus, CorpusManifest
from unijudge.errors import DataError
from unijudge.files import file_sha256, read_json
from unijudge.scores import ScoreManifest, missing_shards, read_scores
from unijudge.triples import TripleManifest, read_triples
from unijudge.vectors import VectorManifest, check_part, missing_parts


def describe(folder: Path) -> str:
    """The manifest of a folder, and how much of it is there.

    Raises:
        DataError: It is not a folder of ours.
    """
    kind, manifest = _open(folder)
    missing = _missing(folder, manifest)
    state = f"{len(missing)} files missing, first {missing[0]}" if missing else "every file is there"
    return f"{folder}: {kind}; {state}\n{manifest.model_dump_json(indent=2)}"


def check(folder: Path) -> str:
    """Reads every file of a folder and compares it with its manifest.

    Raises:
        DataError: Something is missing, torn, foreign or changed; the first fault is named.
    """
    kind, manifest = _open(folder)
    missing = _missing(folder, manifest)
    if missing:
        raise DataError(f"{folder}: {len(missing)} files are missing, first {missing[0]}; run its writer again")
    rows = _CHECKS[kind](folder, manifest)
    return f"{folder}: {kind}, whole: {rows} rows read"


def _open(folder: Path) -> tuple[str, BaseModel]:
    for kind, (name, model) in _MANIFESTS.items():
        if (folder / name).exists():
            return kind, read_json(folder / name, model)
    names = ", ".join(name for name, _ in _MANIFESTS.values())
    raise DataError(f"{folder}: not a folder of unijudge (none of {names} is there), or not finished")


def _missing(folder: Path, manifest: BaseModel) -> list[str]:
    match manifest:
        case ScoreManifest():
            return [f"part-{shard:05d}.parquet" for shard in missing_shards(folder, manifest)]
        case VectorManifest():
            return [path.name for kind in ("items", "queries") for path, _ in missing_parts(folder, manifest, kind)]
        case _:
            return []


def _check_corpus(folder: Path, manifest: CorpusManifest) -> int:
    for name, expected in [("items", manifest.items_sha256), ("queries", manifest.queries_sha256)]:
        if file_sha256(folder / f"{name}.parquet") != expected:
            raise DataError(f"{folder / name}.parquet: changed since it was written; import again")
    corpus = Corpus(folder)
    for item in corpus.items:
        corpus.content(item)
    for query in corpus.queries:
        corpus.content(query)
    return len(corpus.items) + len(corpus.queries)


def _check_vectors(folder: Path, manifest: VectorManifest) -> int:
    return sum(check_part(folder / name, manifest) for kind in ("items", "queries") for name, _ in manifest.parts(kind))


def _check_scores(folder: Path, manifest: ScoreManifest) -> int:
    rows = sum(1 for _ in read_scores(folder))
    if rows != manifest.queries:
        raise DataError(f"{folder}: {rows} queries, but its manifest says {manifest.queries}; score again elsewhere")
    return rows


_MANIFESTS: dict[str, tuple[str, type[BaseModel]]] = {
    "corpus": ("corpus.json", CorpusManifest),
    "vectors": ("vectors.json", VectorManifest),
    "scores": ("manifest.json", ScoreManifest),
    "triples": ("triples.json", TripleManifest),
}
_CHECKS: dict[str, Callable[..., int]] = {
    "corpus": _check_corpus,
    "vectors": _check_vectors,
    "scores": _check_scores,
    "triples": lambda folder, manifest: sum(1 for _ in read_triples(folder, manifest.corpus)),
}
