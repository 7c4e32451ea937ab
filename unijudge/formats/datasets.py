"""A scored dataset: one folder {corpus/, images/, scores/, triples/, README.md, dataset.json}, to publish and to pull.

`mine publish` writes it, `train pull` fetches it, from and to a disk or any store. dataset.json names every file with
its size and sha256, and is written last: a folder that has it is whole. Its parts are ordinary folders of ours: a
corpus, scores and training rows, tied by their fingerprints.
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

AT_ONCE = 16
"""Files that are copied at the same time."""
BLOCK = 1 << 20
"""Bytes that are copied together."""
FILES_BETWEEN_NEWS = 1024
FAULTS_NAMED = 5

logger = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Stored:
    """A file's bytes, as they must be."""

    size: int
    sha256: str


def _listed(name: str) -> str:
    if str(PurePosixPath(name)) in (MANIFEST, UNFINISHED):
        raise ValueError(f"{name!r} is the manifest's own name, and no file of the dataset")
    return inside(name)


class DatasetManifest(BaseModel):
    """dataset.json: every file, and what ties them together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    corpus: str
    """Fingerprint of corpus/."""
    scores: str | None = None
    """sha256 of scores/manifest.json; None without scores."""
    triples: str | None = None
    """sha256 of triples/triples.json; None without training rows."""
    judge: JudgeIdentity | None = None
    """Who scored; None without scores."""
    images: bool
    """Whether the images are inside."""
    license: str | None = None
    files: dict[Annotated[str, AfterValidator(_listed)], Stored]
    """Path inside the folder → what must be there; dataset.json itself is none of them."""
    made: Provenance | None = None


@dataclass(frozen=True)
class Parts:
    """The manifests of folders that belong together."""

    corpus: CorpusManifest
    scores: ScoreManifest | None
    scores_sha256: str | None
    triples: TripleManifest | None
    triples_sha256: str | None


def read_parts(corpus: Path, scores: Path | None, triples: Path | None) -> Parts:
    """The manifests of a corpus, its scores and its training rows.

    Raises:
        DataError: One is missing, or was made from another corpus or other scores: both fingerprints are named.
    """
    found = read_json(corpus / "corpus.json", CorpusManifest)
    judged = read_json(scores / "manifest.json", ScoreManifest) if scores else None
    chosen = read_json(triples / "triples.json", TripleManifest) if triples else None
    judged_sha256 = file_sha256(scores / "manifest.json") if scores else None
    for folder, made in [(scores, judged), (triples, chosen)]:
        if made is not None and made.corpus != found.fingerprint:
            raise DataError(
                f"{folder}: belongs to the corpus with fingerprint {made.corpus}, but that of {corpus} is "
                f"{found.fingerprint}; give the corpus that it was made from"
            )
    if judged_sha256 and chosen and chosen.scores != judged_sha256:
        raise DataError(
            f"{triples}: was selected from scores whose manifest.json has the sha256 {chosen.scores}, but that of "
            f"{scores} is {judged_sha256}; give the scores that it was selected from"
        )
    return Parts(found, judged, judged_sha256, chosen, file_sha256(triples / "triples.json") if triples else None)


def copied(source: Path, target: Path, sha256: str | None = None, size: int | None = None) -> Stored:
    """Streams one file to another place, where it is whole or absent.

    Args:
        source: What to read.
        target: Where to.
        sha256: What it must be, if that is known.
        size: Likewise; whoever sends more is not listened to.

    Returns:
        Its size and sha256.

    Raises:
        DataError: It cannot be read or written, or is not what it must be: then nothing was written.
    """
    digest, found = hashlib.sha256(), 0
    with publishing(target) as draft, draft.open("wb") as out:
        for block in _blocks(source):
            out.write(block)
            digest.update(block)
            found += len(block)
            if size is not None and found > size:
                raise DataError(
                    f"{source}: has more than the {size:,} bytes that its dataset lists, so it was not read on; ask "
                    "who published it"
                )
        if sha256 not in (None, digest.hexdigest()):
            raise DataError(
                f"{source}: changed: its sha256 is {digest.hexdigest()}, but must be {sha256}; restore it, or make it "
                "anew with what lists it"
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
    """The size and sha256 of a file.

    Raises:
        DataError: It cannot be read.
    """
    return Stored(path.stat().st_size, file_sha256(path))


def each(work: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """Does something with each of many files, some at once, and tells how far it is; the results in order."""
    done: list[R] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, len(things), FILES_BETWEEN_NEWS):
            done += pool.map(work, things[start : start + FILES_BETWEEN_NEWS])
            if len(things) > FILES_BETWEEN_NEWS:
                logger.info("%d of %d", len(done), len(things))
    return done


def every(work: Callable[[T], int], things: Sequence[T]) -> int:
    """Reads each of many files or pictures, goes on after a fault, and returns the sum of what they hold.

    Raises:
        DataError: What `work` raised: of several faults how many, and the first few.
    """

    def attempt(thing: T) -> int | str:
        """What it holds, or the fault."""
        try:
            return work(thing)
        except DataError as error:
            return str(error)

    found = each(attempt, things)
    # Each fault once, in the order of the files.
    faults = list(dict.fromkeys(one for one in found if isinstance(one, str)))
    if len(faults) == 1:
        raise DataError(faults[0])
    if faults:
        named = [f"  {fault}" for fault in faults[:FAULTS_NAMED]]
        named += [f"  … and {len(faults) - FAULTS_NAMED:,} more"] if len(faults) > FAULTS_NAMED else []
        raise DataError("\n".join([f"{len(faults):,} faults:", *named]))
    return sum(one for one in found if isinstance(one, int))


def pull(source: Path, out: Path) -> DatasetManifest:
    """Fetches a scored dataset, or what is left of it: files that are there already, and whole, are not fetched again.

    Args:
        source: The folder or URL of the dataset.
        out: Where to. dataset.json appears there last.

    Raises:
        DataError: `out` holds something else, a file is not what dataset.json says, or its corpus names files outside
            of the dataset: it is named.
    """
    manifest = read_json(source / MANIFEST, DatasetManifest)

    def fetch(name: str) -> None:
        wanted, target = manifest.files[name], out / name
        if not exists(target) or stored(target) != wanted:
            copied(source / name, target, wanted.sha256, wanted.size)

    with lease(out):
        for begun in (out / MANIFEST, out / UNFINISHED):
            if exists(begun):
                if read_json(begun, DatasetManifest) != manifest:
                    raise DataError(f"{out}: holds another dataset than {source}; give another folder")
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
    """Opens a copy of the corpus: what it names lies inside of the dataset, or nothing is written where it is wanted.

    Raises:
        DataError: It does not, or its files are not what dataset.json says.
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
    """Reads one file of a dataset; returns 1.

    Raises:
        DataError: It is missing, or is not what dataset.json says: it is named.
    """
    if file_sha256(folder / name) != manifest.files[name].sha256:
        raise DataError(f"{folder / name}: changed: it is not what {MANIFEST} says; run `train pull` again")
    return 1
