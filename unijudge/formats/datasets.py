"""A scored dataset: a folder {corpus/, images/, scores/, triples/, README.md, dataset.json} to publish and download.

`mine publish` writes a dataset, and `train pull` downloads it, from and to a disk or any store. dataset.json lists all
files with their sizes and sha256. It is written last, so a folder with this file is complete. The parts are an ordinary
corpus, scores and training rows, which refer to each other by fingerprints.
"""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict

from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus, CorpusManifest
from unijudge.formats.image_roots import MANIFEST, UNFINISHED
from unijudge.formats.scores import ScoreManifest
from unijudge.formats.triples import TripleManifest
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.provenance import Provenance
from unijudge.storage.access_errors import unreadable
from unijudge.storage.files import file_sha256, publish_json, publishing, read_json
from unijudge.storage.leases import lease
from unijudge.storage.locations import check_regular
from unijudge.storage.names import inside
from unijudge.storage.outputs import check_folder
from unijudge.storage.stores import again, exists

FILES_AT_ONCE = 16
"""Files that are copied at the same time."""
BLOCK = 1 << 20
"""Bytes of a block in a copy."""
FILES_BETWEEN_NEWS = 1024
FAULTS_NAMED = 5

logger = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Stored:
    """The expected size and hash of a file."""

    size: int
    sha256: str


def _listed(name: str) -> str:
    if str(PurePosixPath(name)) in (MANIFEST, UNFINISHED):
        raise ValueError(f"{name!r} is the name of the manifest, not a file of the dataset")
    return inside(name)


class DatasetManifest(BaseModel):
    """dataset.json: all files of the dataset, and the fingerprints of its parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    corpus: str
    """The fingerprint of corpus/."""
    scores: str | None = None
    """The sha256 of scores/manifest.json; None without scores."""
    triples: str | None = None
    """The sha256 of triples/triples.json; None without training rows."""
    judge: JudgeIdentity | None = None
    """The judge of the scores; None without scores."""
    images: bool
    """Whether the dataset includes the images."""
    license: str | None = None
    files: dict[Annotated[str, AfterValidator(_listed)], Stored]
    """Path inside the folder → size and hash of the file. dataset.json itself is not listed."""
    made: Provenance | None = None


@dataclass(frozen=True)
class DatasetParts:
    """The manifests of folders that belong to each other."""

    corpus: CorpusManifest
    scores: ScoreManifest | None
    scores_sha256: str | None
    triples: TripleManifest | None
    triples_sha256: str | None


def read_parts(corpus: Path, scores: Path | None, triples: Path | None) -> DatasetParts:
    """Reads the manifests of a corpus, its scores and its training rows.

    Raises:
        DataError: A manifest is missing, or was made from another corpus or other scores. The message has both
            fingerprints.
    """
    found = read_json(corpus / "corpus.json", CorpusManifest)
    judged = read_json(scores / "manifest.json", ScoreManifest) if scores else None
    chosen = read_json(triples / "triples.json", TripleManifest) if triples else None
    judged_sha256 = file_sha256(scores / "manifest.json") if scores else None
    for folder, made in [(scores, judged), (triples, chosen)]:
        if made is not None and made.corpus != found.fingerprint:
            raise DataError(
                f"{folder}: belongs to the corpus with fingerprint {made.corpus}, but {corpus} has the fingerprint "
                f"{found.fingerprint}. Give the corpus of {folder}"
            )
    if judged_sha256 and chosen and chosen.scores != judged_sha256:
        raise DataError(
            f"{triples}: was selected from scores whose manifest.json has the sha256 {chosen.scores}, but {scores} has "
            f"{judged_sha256}. Give the scores of {triples}"
        )
    return DatasetParts(
        found,
        judged,
        judged_sha256,
        chosen,
        file_sha256(triples / "triples.json") if triples else None,
    )


def copied(
    source: Path, target: Path, sha256: str | None = None, size: int | None = None
) -> Stored:
    """Copies a file in blocks. The copy is complete or absent.

    Args:
        source: The file to read.
        target: The path of the copy.
        sha256: The expected hash, if it is known.
        size: The expected size, if it is known. The copy stops when the source sends more bytes.

    Returns:
        The size and sha256 of the copy.

    Raises:
        DataError: The file cannot be read or written, or has another hash or size. Nothing was written then.
    """
    digest, found = hashlib.sha256(), 0
    with publishing(target) as draft, draft.open("wb") as out:
        for block in _blocks(source):
            out.write(block)
            digest.update(block)
            found += len(block)
            if size is not None and found > size:
                raise DataError(
                    f"{source}: has more than the {size:,} bytes that its dataset lists, so the copy was stopped. Ask "
                    "the publisher of the dataset"
                )
        if sha256 not in (None, digest.hexdigest()):
            raise DataError(
                f"{source}: changed: its sha256 is {digest.hexdigest()}, but must be {sha256}. Restore the file, or "
                "publish the dataset again"
            )
    return Stored(found, digest.hexdigest())


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        check_regular(path)
        with again(path, lambda: path.open("rb")) as file:
            while block := again(path, partial(_block, file, file.tell())):
                yield block
    except Exception as error:  # each store has its own family of errors
        raise unreadable(path, error) from error


def _block(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(BLOCK)


def stored(path: Path) -> Stored:
    """Returns the size and sha256 of a file.

    Raises:
        DataError: The file cannot be read.
    """
    return Stored(path.stat().st_size, file_sha256(path))


def each(work: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """Applies `work` to many things in parallel, logs the progress, and returns the results in order."""
    done: list[R] = []
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        for start in range(0, len(things), FILES_BETWEEN_NEWS):
            done += pool.map(work, things[start : start + FILES_BETWEEN_NEWS])
            if len(things) > FILES_BETWEEN_NEWS:
                logger.info("%d of %d", len(done), len(things))
    return done


def every(work: Callable[[T], int], things: Sequence[T]) -> int:
    """Applies `work` to many files or pictures, continues after a fault, and returns the sum of the results.

    Raises:
        DataError: `work` raised it. For several faults, the message has their number and the first few.
    """

    def attempt(thing: T) -> int | str:
        """Returns the result of `work`, or the fault."""
        try:
            return work(thing)
        except DataError as error:
            return str(error)

    found = each(attempt, things)
    # Several files may have the same fault, such as a missing folder: each fault is reported once, in order.
    faults = list(dict.fromkeys(result for result in found if isinstance(result, str)))
    if len(faults) == 1:
        raise DataError(faults[0])
    if faults:
        named = [f"  {fault}" for fault in faults[:FAULTS_NAMED]]
        named += (
            [f"  … and {len(faults) - FAULTS_NAMED:,} more"] if len(faults) > FAULTS_NAMED else []
        )
        raise DataError("\n".join([f"{len(faults):,} faults:", *named]))
    return sum(result for result in found if isinstance(result, int))


def pull(source: Path, out: Path) -> DatasetManifest:
    """Downloads a scored dataset, or resumes a download. Files that are already complete are not downloaded again.

    Args:
        source: The folder or URL of the dataset.
        out: The folder of the download. dataset.json is written last.

    Raises:
        DataError: `out` holds something else, a file does not match dataset.json, or the corpus names files outside the
            dataset. The message names the file.
    """
    manifest = read_json(source / MANIFEST, DatasetManifest)

    def fetch(name: str) -> None:
        wanted = manifest.files[name]
        target = out / name
        is_complete = exists(target) and stored(target) == wanted
        if not is_complete:
            copied(source / name, target, wanted.sha256, wanted.size)

    with lease(out):
        for begun in (out / MANIFEST, out / UNFINISHED):
            if exists(begun):
                if read_json(begun, DatasetManifest) != manifest:
                    raise DataError(
                        f"{out}: holds another dataset than {source}. Give another folder"
                    )
                break
        else:
            check_folder(out)
            _check_corpus(source, manifest)
        publish_json(out / UNFINISHED, manifest)
        (out / MANIFEST).unlink(missing_ok=True)
        each(fetch, list(manifest.files))
        publish_json(out / MANIFEST, manifest)
        (out / UNFINISHED).unlink()
    return manifest


def _check_corpus(source: Path, manifest: DatasetManifest) -> None:
    """Opens a temporary copy of the corpus before the download, so that an unsafe corpus writes nothing to the output.

    Raises:
        DataError: The corpus names files outside the dataset, or its files do not match dataset.json.
    """
    with tempfile.TemporaryDirectory(prefix="unijudge-") as name:
        copy = Path(name)
        publish_json(copy / MANIFEST, manifest)
        try:
            for file, wanted in manifest.files.items():
                if file.startswith("corpus/"):
                    copied(source / file, copy / file, wanted.sha256, wanted.size)
            Corpus(copy / "corpus")
        except DataError as error:
            raise DataError(str(error).replace(f"{copy}/", f"{source}/")) from error


def check_dataset_file(folder: Path, manifest: DatasetManifest, name: str) -> int:
    """Checks a file of a dataset; returns 1.

    Raises:
        DataError: The file is missing, or does not match dataset.json; the message names the file.
    """
    if file_sha256(folder / name) != manifest.files[name].sha256:
        raise DataError(
            f"{folder / name}: changed: its sha256 is not that of {MANIFEST}. Run `train pull` again"
        )
    return 1
