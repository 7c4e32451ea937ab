"""Publishes a corpus, its scores and its training rows as a scored dataset with a card.

The parts of a published dataset belong together, are complete and agree with their manifests. Every image is the image
that was judged. The dataset contains no path of this machine. A publication that was stopped cannot be resumed.
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
from unijudge.formats.datasets import (
    DatasetManifest,
    DatasetParts,
    Stored,
    copied,
    each,
    read_parts,
    stored,
)
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
"""Largest number of files in a folder that the Hugging Face hub accepts."""

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)

is_dataset = is_folder_of(MANIFEST, DatasetManifest, lambda manifest, name: name in manifest.files)
"""Returns whether a folder holds a scored dataset and nothing else."""


@dataclass(frozen=True, slots=True)
class _SourceFile:
    """One file to copy."""

    root: Path
    path: str
    """The path of the file under `root`."""
    name: str
    """The path of the copy in the dataset."""
    sha256: str | None = None
    """The expected sha256 of the file, if it is known."""
    table: Table | None = None
    """The table in the file, if its errors may contain paths of the machine that scored."""
    stamp: str = ""
    """The stamp of the table."""

    def copied(self, draft: Path) -> Stored:
        """Copies the file into the dataset."""
        source = self.root / self.path
        target = draft / self.name
        if self.table is not None:
            return copied_table(source, target, self.table, self.stamp)
        return copied(source, target, self.sha256)


def publish(
    out: Path,
    corpus: Path,
    scores: Path | None = None,
    triples: Path | None = None,
    *,
    images: bool = True,
    license: str | None = None,  # noqa: A002  the hub's name
    overwrite: bool = False,
) -> DatasetManifest:
    """Writes a scored dataset. dataset.json is written last.

    Args:
        out: A folder or a URL that does not exist yet.
        corpus: The corpus folder.
        scores: The folder of judge scores. Scores, triples or both must be given.
        triples: The folder of training rows that were selected from the scores.
        images: Whether to copy the images.
        license: The license on the card, in the hub's short form, such as `cc-by-4.0`.
        overwrite: Whether to overwrite an earlier scored dataset.

    Raises:
        SettingsError: The license is no short form, neither scores nor triples are given, or the triples were selected
            from a second folder of scores too.
        DataError: The parts do not belong together, are incomplete or have changed, or `out` exists.
    """
    if scores is None and triples is None:
        raise SettingsError(
            "--scores, --triples: both are missing, but a scored dataset needs one of them. Give at least one"
        )
    check_license(license)
    parts = read_parts(corpus, scores, triples)
    _check_cascade(scores, triples, parts)

    opened = Corpus(corpus)
    files = [
        *_corpus_files(corpus, parts),
        *_score_files(scores, parts),
        *_triple_files(triples, parts),
    ]
    if images:
        files += _image_files(opened)

    # The card and the manifest of the dataset list the copies, so they are written after the copies.
    with replacing(out, is_dataset, "scored dataset", overwrite=overwrite) as place:
        check_absent(place)
        with _draft(place) as draft:
            copies = _copy(files, draft)
            parts = _write_manifests(parts, draft)
            publish_text(
                draft / "README.md",
                card(out, parts, copies, opened.images, license=license, images=images),
            )
            copies |= {name: stored(draft / name) for name in (*_manifests(parts), "README.md")}
            manifest = _manifest(parts, copies, images=images, license=license)
            publish_json(draft / MANIFEST, manifest)
    _warn_of_full_folders(out, manifest)
    return manifest


def _warn_of_full_folders(out: Path, manifest: DatasetManifest) -> None:
    """Warns of a folder with more files than the hub accepts, because the hub rejects it only after the upload."""
    folders = Counter(name.rpartition("/")[0] for name in manifest.files)
    for folder, files in folders.items():
        if files > MOST_IN_A_FOLDER:
            logger.warning(
                "%s: %s holds %s files, but the Hugging Face hub accepts %s in a folder. Import from a zip file of the "
                "images, which spreads them over 256 folders, or publish elsewhere",
                out, folder, f"{files:,}", f"{MOST_IN_A_FOLDER:,}",
            )  # fmt: skip
            return


def _check_cascade(scores: Path | None, triples: Path | None, parts: DatasetParts) -> None:
    """Checks that rows of a cascade are published without scores, because a dataset holds only one folder of scores."""
    if scores is not None and parts.triples is not None and parts.triples.large_scores is not None:
        raise SettingsError(
            f"--scores {scores}: {triples} was selected from two folders of scores, so the second judge's folder (with "
            f"the sha256 {parts.triples.large_scores} of its manifest.json) would be missing. Publish these rows "
            "without --scores (they contain the verdicts of both judges), and publish each folder of scores as a "
            "separate dataset"
        )


def _manifests(parts: DatasetParts) -> dict[str, BaseModel]:
    """Returns path in the dataset → manifest, for each part."""
    manifests = {
        "corpus/corpus.json": parts.corpus,
        "scores/manifest.json": parts.scores,
        "triples/triples.json": parts.triples,
    }
    return {name: manifest for name, manifest in manifests.items() if manifest is not None}


def _write_manifests(parts: DatasetParts, draft: Path) -> DatasetParts:
    """Writes the manifests without paths of this machine, and updates the hashes by which they refer to each other."""
    corpus = _without_place(
        parts.corpus, images=PUBLISHED_IMAGES, source=without_places(parts.corpus.source)
    )
    publish_json(draft / "corpus" / "corpus.json", corpus)
    parts = replace(parts, corpus=corpus)
    if parts.scores is not None:
        scores = _without_place(parts.scores)
        publish_json(draft / "scores" / "manifest.json", scores)
        parts = replace(
            parts, scores=scores, scores_sha256=file_sha256(draft / "scores" / "manifest.json")
        )
    if parts.triples is not None:
        # In the dataset, the corpus is next to the rows.
        selection = without_places_in(parts.triples.selection) | {"corpus": "corpus"}
        hashes = {} if parts.scores_sha256 is None else {"scores": parts.scores_sha256}
        triples = _without_place(parts.triples, selection=selection, **hashes)
        publish_json(draft / "triples" / "triples.json", triples)
        parts = replace(
            parts, triples=triples, triples_sha256=file_sha256(draft / "triples" / "triples.json")
        )
    return parts


def _without_place(manifest: M, **changes: Any) -> M:
    """Returns a manifest with some changes, and without paths of this machine in its `made`."""
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
    """Returns the folder to write to: on a disk a draft that becomes `out`, in an object store `out` itself."""
    return publishing_folder(out) if is_local(out) else contextlib.nullcontext(out)


def _corpus_files(folder: Path, parts: DatasetParts) -> Iterator[_SourceFile]:
    hashes = {
        "items.parquet": parts.corpus.items_sha256,
        "queries.parquet": parts.corpus.queries_sha256,
    }
    for name, sha256 in hashes.items():
        yield _SourceFile(folder, name, f"corpus/{name}", sha256)


def _score_files(folder: Path | None, parts: DatasetParts) -> Iterator[_SourceFile]:
    if folder is None or parts.scores is None:
        return
    _check_scores(folder, parts.scores)
    for shard in range(len(parts.scores.parts)):
        name = part_path(folder, shard).name
        yield _SourceFile(
            folder, name, f"scores/{name}", table=SCORES, stamp=parts.scores.stamp(shard)
        )


def _triple_files(folder: Path | None, parts: DatasetParts) -> Iterator[_SourceFile]:
    if folder is None or parts.triples is None:
        return
    names = [path.name for path in foreign_files(folder, "part-*.parquet")]
    _check_triples(folder, names, parts.triples)
    for name in names:
        yield _SourceFile(folder, name, f"triples/{name}", table=TRIPLES)


def _image_files(corpus: Corpus) -> list[_SourceFile]:
    """Returns each image of the corpus once."""
    columns = ["image", "image_sha256"]
    entries = pa.concat_tables(
        [corpus.items.table.select(columns), corpus.queries.table.select(columns)]
    )
    distinct = entries.filter(pc.is_valid(entries["image"])).group_by(columns).aggregate([])
    images = zip(distinct["image"].to_pylist(), distinct["image_sha256"].to_pylist(), strict=True)
    return [
        _SourceFile(corpus.images, image, f"{IMAGES_FOLDER}/{image}", sha256)
        for image, sha256 in images
    ]


def _check_scores(folder: Path, manifest: ScoreManifest) -> None:
    """Checks that every shard exists, belongs to the plan, and that the number of rows is right. Reads no rows."""
    if missing := manifest.parts.missing(folder):
        raise DataError(
            f"{folder}: {len(missing)} of {len(manifest.parts)} shards are missing (first: {missing[0]}). Run the same "
            "`mine score` again to complete the folder, then publish"
        )
    rows = 0
    for shard in range(len(manifest.parts)):
        with SCORES.open(part_path(folder, shard), manifest.stamp(shard)) as file:
            rows += file.metadata.num_rows
    if rows != manifest.queries:
        raise DataError(
            f"{folder}: has {rows} queries, but its manifest says {manifest.queries}. Score again into another folder"
        )


def _check_triples(folder: Path, names: list[str], manifest: TripleManifest) -> None:
    rows = 0
    for name in names:
        with TRIPLES.open(folder / name) as file:
            rows += file.metadata.num_rows
    if rows != manifest.rows:
        raise DataError(
            f"{folder}: has {rows} rows, but triples.json says {manifest.rows}. Select again"
        )
