"""The checks of `unijudge check` for each kind of folder: which files are missing, damaged, foreign or changed.

A check continues after a fault, and names the first few faults.
"""

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path, PurePosixPath

from unijudge.errors import DataError
from unijudge.formats.candidates import CANDIDATES, CandidateManifest
from unijudge.formats.corpus import Corpus, CorpusManifest, Item, Query
from unijudge.formats.datasets import DatasetManifest, check_dataset_file, every, read_parts
from unijudge.formats.model_folders import AdapterConfig, check_weights
from unijudge.formats.parts import PartManifest, part_path
from unijudge.formats.rankings import Evaluation, read_rankings
from unijudge.formats.scores import SCORES, ScoreManifest
from unijudge.formats.tables import Table
from unijudge.formats.triples import TripleManifest, read_triples
from unijudge.formats.vectors import ENTRY_KINDS, VectorManifest, check_part
from unijudge.provenance import Beginning, Versions
from unijudge.storage.files import names_in, read_json, read_text
from unijudge.storage.locations import inside_store, is_local, locate

PLANNED = "candidates"
"""The subfolder of a score folder with the candidates of the job."""


def missing_vectors(folder: Path, manifest: VectorManifest, _: Mapping[str, int]) -> list[str]:
    """Returns the parts that do not exist yet."""
    kinds = [manifest.parts(kind) for kind in ENTRY_KINDS]
    return [
        part_path(folder, part, parts.prefix).name
        for parts in kinds
        for part in parts.missing(folder)
    ]


def missing_parts(folder: Path, manifest: PartManifest, _: Mapping[str, int]) -> list[str]:
    """Returns the parts that do not exist yet."""
    return [part_path(folder, part).name for part in manifest.parts.missing(folder)]


def missing_planned(
    folder: Path, manifest: CandidateManifest, sizes: Mapping[str, int]
) -> list[str]:
    """Returns the missing parts of the candidates inside a score folder."""
    return [f"{PLANNED}/{name}" for name in missing_parts(folder / PLANNED, manifest, sizes)]


def missing_files(_: Path, manifest: DatasetManifest, sizes: Mapping[str, int]) -> list[str]:
    """Returns the missing files."""
    return [name for name in manifest.files if name not in sizes]


def missing_run(_: Path, __: Beginning, sizes: Mapping[str, int]) -> list[str]:
    """Returns the files of a finished run that this run lacks."""
    wanted = {
        "environment.json": "environment.json",
        "metrics.jsonl": "metrics.jsonl",
        "adapter": "adapter/",
    }

    def lacks(start: str) -> bool:
        return not any(file.startswith(start) for file in sizes)

    return [name for name, start in wanted.items() if lacks(start)]


def check_corpus(folder: Path, manifest: CorpusManifest) -> str:
    """Checks the tables, and then every picture."""
    corpus = check_tables(folder, manifest)

    def read(row: int) -> int:
        items = len(corpus.items)
        corpus.content(corpus.items[row] if row < items else corpus.queries[row - items])
        return 1

    return f"{every(read, range(len(corpus.items) + len(corpus.queries)))} rows read"


def check_tables(folder: Path, manifest: CorpusManifest) -> Corpus:
    """Opens a corpus, and compares its tables with its manifest."""
    corpus = Corpus(folder)
    for name, found in [("items", len(corpus.items)), ("queries", len(corpus.queries))]:
        if found != getattr(manifest, name):
            raise DataError(
                f"{folder}: {found} {name}, but corpus.json says {getattr(manifest, name)}. Import again"
            )
    return corpus


def check_vectors(folder: Path, manifest: VectorManifest) -> str:
    """Checks part by part."""
    paths = chain.from_iterable(manifest.parts(kind).paths(folder) for kind in ENTRY_KINDS)
    rows = every(lambda path: check_part(path, manifest), list(paths))
    if rows != manifest.items + manifest.queries:
        raise DataError(
            f"{folder}: {rows} vectors, but vectors.json says {manifest.items + manifest.queries}. Embed again"
        )
    return f"{rows} rows read"


def check_scores(folder: Path, manifest: ScoreManifest) -> str:
    """Checks shard by shard."""
    rows = _rows_of_parts(folder, manifest, SCORES)
    if rows != manifest.queries:
        raise DataError(
            f"{folder}: {rows} queries, but its manifest says {manifest.queries}. Score again elsewhere"
        )
    return f"{rows} rows read"


def check_planned(folder: Path, manifest: CandidateManifest) -> str:
    """Checks the candidates inside a score folder."""
    return check_candidates(folder / PLANNED, manifest)


def check_candidates(folder: Path, manifest: CandidateManifest) -> str:
    """Checks part by part."""
    rows = _rows_of_parts(folder, manifest, CANDIDATES)
    if rows != manifest.queries:
        raise DataError(
            f"{folder}: {rows} queries, but candidates.json says {manifest.queries}. Delete the folder, and it will be "
            "made again"
        )
    return f"{rows} rows read"


def _rows_of_parts(folder: Path, manifest: PartManifest, table: Table) -> int:
    """Reads every part, and returns the number of rows."""

    def read(part: int) -> int:
        return sum(1 for _ in table.read(part_path(folder, part), manifest.stamp(part)))

    return every(read, range(len(manifest.parts)))


def check_triples(folder: Path, manifest: TripleManifest) -> str:
    """Checks all rows, and that their corpus exists: rows hold only ids, which are useless without the corpus."""
    rows = sum(1 for _ in read_triples(folder, manifest.corpus))
    named = manifest.selection.get("corpus")
    if named is None:
        return f"{rows} rows read"
    found = {place: _corpus_at(place) for place in _places(folder, str(named))}
    if manifest.corpus not in found.values():
        others = [place for place, fingerprint in found.items() if fingerprint is not None]
        what = f"{others[0]} holds another corpus" if others else "no corpus is there"
        raise DataError(
            f"{folder}: {rows} rows are valid, but they were selected from the corpus {named} with the fingerprint "
            f"{manifest.corpus[:12]}, and {what}. Put the corpus back there or beside this folder, or select again"
        )
    return f"{rows} rows read"


def _places(folder: Path, named: str) -> list[Path]:
    """Returns the paths where the corpus of some rows may lie: beside the rows, if both were moved, or its old path.

    A stranger may have written the manifest, so a URL in the manifest is only used if it is in the folder's own store.
    """
    last = PurePosixPath(named.rstrip("/")).name
    places = [folder.parent / last, folder.parent / "corpus"]

    # The first three parts of a URL name its store: the scheme, an empty part, and the bucket.
    store = str(folder).split("/")[:3]
    in_own_store = not is_local(folder) and named.split("/")[:3] == store
    scheme = named.partition("://")[0] if "://" in named else ""
    if in_own_store:
        places.append(inside_store(folder, named))
    elif scheme in ("", "file", "local"):
        places.append(locate(named))
    return list(dict.fromkeys(places))


def _corpus_at(place: Path) -> str | None:
    """Returns the fingerprint of the corpus in a folder, or None if no corpus can be read there."""
    try:
        if "corpus.json" not in names_in(place):
            return None
        return read_json(place / "corpus.json", CorpusManifest).fingerprint
    except DataError:
        return None


def check_dataset(folder: Path, manifest: DatasetManifest) -> str:
    """Checks all files by their hashes, including the images, and then each part as a folder."""
    every(lambda name: check_dataset_file(folder, manifest, name), list(manifest.files))
    scores, triples = (
        folder / name if getattr(manifest, name) else None for name in ("scores", "triples")
    )
    parts = read_parts(folder / "corpus", scores, triples)
    found = (parts.corpus.fingerprint, parts.scores_sha256, parts.triples_sha256)
    if found != (manifest.corpus, manifest.scores, manifest.triples):
        raise DataError(f"{folder}: its parts do not match dataset.json. Publish the dataset again")
    corpus = check_tables(folder / "corpus", parts.corpus)
    for entry in chain[Item | Query](corpus.items, corpus.queries):
        file = manifest.files.get(f"images/{entry.image}")
        if entry.image and manifest.images and (file is None or file.sha256 != entry.image_sha256):
            raise DataError(
                f"{folder}: image {entry.image} is missing, or changed since the import. Publish the dataset again"
            )
    if scores and parts.scores:
        check_scores(scores, parts.scores)
    if triples and parts.triples:
        check_triples(triples, parts.triples)
    return f"{len(manifest.files)} files read"


def check_run(folder: Path, _: Beginning) -> str:
    """Checks the metrics line by line, the JSON of adapter and environment, and the size of every weight file."""
    read_json(folder / "environment.json", Versions)
    if "adapter_config.json" in names_in(folder / "adapter"):
        read_json(folder / "adapter" / "adapter_config.json", AdapterConfig)
    steps = 0
    for number, line in enumerate(read_text(folder / "metrics.jsonl").splitlines(), start=1):
        try:
            json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{folder / 'metrics.jsonl'}:{number}: not JSON ({error}). Train again"
            ) from error
        steps = number
    return f"{steps} steps and {check_weights(folder)} files of weights read"


def check_evaluation(folder: Path, manifest: Evaluation) -> str:
    """Checks the rankings."""
    path = folder / "rankings.parquet"
    manifest.check_rankings(path)
    rows = sum(1 for _ in read_rankings(path))
    queries = sum(measures["queries"] for measures in manifest.subsets.values())
    if rows != queries:
        raise DataError(
            f"{path}: {rows} queries, but metrics.json says {queries:g}. Evaluate again"
        )
    return f"{rows} rows read"
