"""Makes a scored dataset of a corpus, its scores and its training rows, with a card that says what is in it.

What it promises: the parts belong together, are whole, and are what their manifests say; every image is the one that
was judged; no path of this machine is told. What it does not do: choose, judge, or go on with a publication that was
stopped.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from miner.publishing.dataset_card import card
from miner.publishing.redaction import copied_table
from unijudge.errors import DataError, SettingsError
from unijudge.formats.corpus import Corpus
from unijudge.formats.datasets import DatasetManifest, DatasetParts, Stored, copied, each, read_parts, stored
from unijudge.formats.image_roots import MANIFEST, PUBLISHED_IMAGES
from unijudge.formats.parts import part_path
from unijudge.formats.scores import SCORES, ScoreManifest
from unijudge.formats.tables import Table
from unijudge.formats.triples import TRIPLES, TripleManifest
from unijudge.pages.markdown import check_license
from unijudge.provenance import Provenance, without_places, without_places_in
from unijudge.storage.files import file_sha256, publish_json, publish_text, publishing_folder
from unijudge.storage.listing import foreign_files
from unijudge.storage.locations import is_local
from unijudge.storage.outputs import check_absent, is_folder_of, replacing

IMAGES_FOLDER = "images"
MOST_IN_A_FOLDER = 10_000
"""Files that the Hugging Face hub takes."""

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)

is_dataset = is_folder_of(MANIFEST, DatasetManifest, lambda manifest, name: name in manifest.files)
"""Whether a folder is what `publish` writes, and holds nothing else."""


@dataclass(frozen=True, slots=True)
class _SourceFile:
    """One file to copy."""

    root: Path
    path: str
    name: str
    """In the dataset."""
    sha256: str | None = None
    """What it must be, where that is known."""
    table: Table | None = None
    """Whose errors may name a place of the machine that scored."""
    stamp: str = ""
    """Of the table."""

    def copied(self, draft: Path) -> Stored:
        """Copies it into the dataset."""
        if self.table is not None:
            return copied_table(self.root / self.path, draft / self.name, self.table, self.stamp)
        return copied(self.root / self.path, draft / self.name, self.sha256)


def publish(
    out: Path,
    corpus: Path,
    scores: Path | None = None,
    triples: Path | None = None,
    *,
    images: bool = True,
    license: str | None = None,  # noqa: A002  what the hub calls it
    overwrite: bool = False,
) -> DatasetManifest:
    """Writes a scored dataset; dataset.json comes last.

    Args:
        out: A folder or a URL; nothing may be there yet.
        corpus: The corpus folder.
        scores: Its judge scores.
        triples: The training rows that were selected from them. One of the two is needed.
        images: Copy the images too.
        license: What the card says, in the hub's short form, such as `cc-by-4.0`.
        overwrite: Replace an older scored dataset.

    Raises:
        SettingsError: No short form of a licence; neither scores nor triples; or one of the two folders of scores that
            triples were selected from.
        DataError: The parts do not belong together, are not whole or have changed, or `out` exists.
    """
    if scores is None and triples is None:
        raise SettingsError("--scores, --triples: give at least one; a corpus alone is no scored dataset")
    check_license(license)
    parts = read_parts(corpus, scores, triples)
    _check_cascade(scores, triples, parts)
    opened = Corpus(corpus)
    files = [*_corpus_files(corpus, parts), *_score_files(scores, parts), *_triple_files(triples, parts)]
    files += _image_files(opened) if images else []
    with replacing(out, is_dataset, "scored dataset", overwrite=overwrite) as place:
        check_absent(place)
        with _draft(place) as draft:
            found = _copy(files, draft)
            parts = _write_manifests(parts, draft)
            publish_text(draft / "README.md", card(out, parts, found, opened.images, license=license, images=images))
            found |= {name: stored(draft / name) for name in (*_manifests(parts), "README.md")}
            manifest = _manifest(parts, found, images=images, license=license)
            publish_json(draft / MANIFEST, manifest)
    _tell_full_folders(out, manifest)
    return manifest


def _tell_full_folders(out: Path, manifest: DatasetManifest) -> None:
    """Warns of what the hub refuses at the end of an upload."""
    folders = Counter(name.rpartition("/")[0] for name in manifest.files)
    full = {folder: files for folder, files in folders.items() if files > MOST_IN_A_FOLDER}
    if full:
        logger.warning(
            "%s: %s holds %s files, and the Hugging Face hub takes %s in a folder; import from a zip of the images to "
            "have them in 256 folders, or publish elsewhere",
            out, *next((folder, f"{files:,}") for folder, files in full.items()), f"{MOST_IN_A_FOLDER:,}",
        )  # fmt: skip


def _check_cascade(scores: Path | None, triples: Path | None, parts: DatasetParts) -> None:
    """A dataset holds one folder of scores: of two, it could not say what the rows were selected from."""
    if scores is not None and parts.triples is not None and parts.triples.large_scores is not None:
        raise SettingsError(
            f"--scores {scores}: {triples} was selected from two folders of scores, and the second judge's (its "
            f"manifest.json has the sha256 {parts.triples.large_scores}) would be missing; publish these rows without "
            "--scores, they hold what both judges said, and each folder of scores as a dataset of its own"
        )


def _manifests(parts: DatasetParts) -> dict[str, BaseModel]:
    """Path in the dataset → manifest, of each part."""
    made = {
        "corpus/corpus.json": parts.corpus,
        "scores/manifest.json": parts.scores,
        "triples/triples.json": parts.triples,
    }
    return {name: manifest for name, manifest in made.items() if manifest is not None}


def _write_manifests(parts: DatasetParts, draft: Path) -> DatasetParts:
    """Writes the manifests as strangers may read them, without the paths of this machine, and ties them anew."""
    corpus = _without_place(parts.corpus, images=PUBLISHED_IMAGES, source=without_places(parts.corpus.source))
    publish_json(draft / "corpus" / "corpus.json", corpus)
    parts = replace(parts, corpus=corpus)
    if parts.scores is not None:
        scores = _without_place(parts.scores)
        publish_json(draft / "scores" / "manifest.json", scores)
        parts = replace(parts, scores=scores, scores_sha256=file_sha256(draft / "scores" / "manifest.json"))
    if parts.triples is not None:
        tied = {} if parts.scores_sha256 is None else {"scores": parts.scores_sha256}
        # The corpus lies beside the rows now, wherever it was.
        selection = without_places_in(parts.triples.selection) | {"corpus": "corpus"}
        triples = _without_place(parts.triples, selection=selection, **tied)
        publish_json(draft / "triples" / "triples.json", triples)
        parts = replace(parts, triples=triples, triples_sha256=file_sha256(draft / "triples" / "triples.json"))
    return parts


def _without_place(manifest: M, **changes: Any) -> M:
    """A manifest with some changes, whose `made` names no path of this machine."""
    made: Provenance | None = getattr(manifest, "made", None)
    return manifest.model_copy(update={"made": made and made.published(), **changes})


def _copy(files: Sequence[_SourceFile], draft: Path) -> dict[str, Stored]:
    copies = each(lambda file: file.copied(draft), files)
    return {file.name: copy for file, copy in zip(files, copies, strict=True)}


def _manifest(
    parts: DatasetParts,
    files: dict[str, Stored],
    *,
    images: bool,
    license: str | None,  # noqa: A002
) -> DatasetManifest:
    return DatasetManifest(
        corpus=parts.corpus.fingerprint,
        scores=parts.scores_sha256,
        triples=parts.triples_sha256,
        judge=parts.scores.judge if parts.scores else None,
        images=images,
        license=license,
        files=files,
        made=Provenance.now().published(),
    )


def _draft(out: Path) -> AbstractContextManager[Path]:
    """Where files are written: on a disk, a folder that becomes `out`; in a store, `out` itself, file by file."""
    return publishing_folder(out) if is_local(out) else contextlib.nullcontext(out)


def _corpus_files(folder: Path, parts: DatasetParts) -> Iterator[_SourceFile]:
    hashes = {"items.parquet": parts.corpus.items_sha256, "queries.parquet": parts.corpus.queries_sha256}
    for name, sha256 in hashes.items():
        yield _SourceFile(folder, name, f"corpus/{name}", sha256)


def _score_files(folder: Path | None, parts: DatasetParts) -> Iterator[_SourceFile]:
    if folder is None or parts.scores is None:
        return
    _check_scores(folder, parts.scores)
    for shard in range(len(parts.scores.parts)):
        name = part_path(folder, shard).name
        yield _SourceFile(folder, name, f"scores/{name}", table=SCORES, stamp=parts.scores.stamp(shard))


def _triple_files(folder: Path | None, parts: DatasetParts) -> Iterator[_SourceFile]:
    if folder is None or parts.triples is None:
        return
    names = [path.name for path in foreign_files(folder, "part-*.parquet")]
    _check_triples(folder, names, parts.triples)
    for name in names:
        yield _SourceFile(folder, name, f"triples/{name}", table=TRIPLES)


def _image_files(corpus: Corpus) -> list[_SourceFile]:
    """Each image path once."""
    both = pa.concat_tables(
        [entries.table.select(["image", "image_sha256"]) for entries in (corpus.items, corpus.queries)]
    )
    distinct = both.filter(pc.is_valid(both["image"])).group_by(["image", "image_sha256"]).aggregate([])
    names = zip(distinct["image"].to_pylist(), distinct["image_sha256"].to_pylist(), strict=True)
    return [_SourceFile(corpus.images, image, f"{IMAGES_FOLDER}/{image}", sha256) for image, sha256 in names]


def _check_scores(folder: Path, manifest: ScoreManifest) -> None:
    """Of every shard its place, its plan and its number of rows; no row is read."""
    if missing := manifest.parts.missing(folder):
        raise DataError(
            f"{folder}: {len(missing)} of {len(manifest.parts)} shards are missing (first: {missing[0]}); run the same "
            "`mine score` again to finish it, then publish"
        )
    rows = 0
    for shard in range(len(manifest.parts)):
        with SCORES.open(part_path(folder, shard), manifest.stamp(shard)) as file:
            rows += file.metadata.num_rows
    if rows != manifest.queries:
        raise DataError(f"{folder}: {rows} queries, but its manifest says {manifest.queries}; score again elsewhere")


def _check_triples(folder: Path, names: list[str], manifest: TripleManifest) -> None:
    rows = 0
    for name in names:
        with TRIPLES.open(folder / name) as file:
            rows += file.metadata.num_rows
    if rows != manifest.rows:
        raise DataError(f"{folder}: {rows} rows, but triples.json says {manifest.rows}; select again")
