"""Refusals by a store, the number of retries, and a lost lease, with a local S3 server."""

import contextlib
import errno
import json
import os
from pathlib import Path

import pytest

from miner.selection.overrides import read_overrides
from tests.folders import make_corpus, make_scores, make_triples, make_vectors
from tests.unijudge.storage.entries import names
from unijudge.errors import DataError
from unijudge.formats.candidates import CandidateManifest, start_candidates
from unijudge.formats.datasets import pull
from unijudge.formats.inventory import describe
from unijudge.formats.scores import ScoreManifest, read_scores
from unijudge.formats.triples import read_triples
from unijudge.formats.vectors import (
    VectorFolder,
    VectorManifest,
    missing_vector_parts,
    start_vectors,
)
from unijudge.storage.access_errors import unwritable
from unijudge.storage.files import publish_text, read_json, read_text
from unijudge.storage.leases import lease
from unijudge.storage.locations import locate


@pytest.mark.parametrize(
    "refusal", [OSError("Forbidden: key"), PermissionError(13, "denied"), RuntimeError("slow down")]
)
@pytest.mark.parametrize("moment", ["_fetch_range", "__init__"])
def test_a_store_that_refuses_says_nothing_about_a_file(
    bucket, identity, monkeypatch, refusal, moment
):
    """Some stores raise an error without a number, of the class that Arrow uses for incomplete bytes."""
    from s3fs.core import S3File

    root = locate(bucket)
    corpus = make_corpus(root / "corpus", root / "images")
    make_vectors(root / "vectors", corpus)
    make_scores(root / "scores", corpus, identity)

    before = getattr(S3File, moment)

    def refuse(file, *args, **kwargs):
        if (args[1] if moment == "__init__" else file.path).endswith(".parquet"):
            raise refusal
        return before(file, *args, **kwargs)

    monkeypatch.setattr(S3File, moment, refuse)
    for read, name in [
        (lambda: list(read_scores(root / "scores")), r"part-00000\.parquet"),
        (lambda: VectorFolder(root / "vectors", corpus).whole("items"), r"items-00000\.parquet"),
    ]:
        with pytest.raises(DataError, match=rf"{name}: cannot be read") as caught:
            read()
        assert "delete" not in str(caught.value).lower()


def test_a_picture_or_a_text_that_a_store_refuses_is_named(bucket, monkeypatch):
    """The error belongs to the store's own family of errors, and is no OSError."""
    from botocore.exceptions import EndpointConnectionError

    root = locate(bucket)
    corpus = make_corpus(root / "corpus", root / "corpus" / "images")
    publish_text(root / "a.txt", "a")

    async def refuse(*_, **__):
        raise EndpointConnectionError(endpoint_url="http://gone")

    monkeypatch.setattr(type(root.fs), "_call_s3", refuse)
    with pytest.raises(DataError, match=r"red#1\.png: cannot be read \(Could not connect"):
        corpus.content(corpus.items[0])
    with pytest.raises(DataError, match=r"a\.txt: cannot be read \(Could not connect"):
        read_text(root / "a.txt")


def test_a_store_that_may_not_be_listed_is_one_clear_error(bucket, identity, monkeypatch):
    root = locate(bucket)
    corpus = make_corpus(root / "corpus", root / "images")
    make_triples(root / "triples", corpus, make_scores(root / "scores", corpus, identity))
    vectors = make_vectors(root / "vectors", corpus) / "vectors.json"
    retrieval = CandidateManifest(
        corpus="c", vectors="v", queries=1, k=1, pool="global", retrieval={}
    )

    async def refuse(*_, **__):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(root.fs), "_lsdir", refuse)
    monkeypatch.setattr(type(root.fs), "_find", refuse)
    for action in (
        lambda: list(read_scores(root / "scores")),
        lambda: list(read_triples(root / "triples", corpus.fingerprint)),
        lambda: start_vectors(root / "vectors", read_json(vectors, VectorManifest)),
        lambda: start_candidates(root / "candidates", retrieval),
        lambda: describe(root / "scores"),
    ):
        with pytest.raises(DataError, match=r"cannot be read \(Access Denied\)"):
            action()


def test_missing_shards_and_parts_are_found_by_one_listing(bucket, identity, monkeypatch):
    """This holds for any number of files. A page of a listing has a thousand names."""
    root = locate(bucket)
    corpus = make_corpus(root / "corpus", root / "images")
    plan = read_json(
        make_scores(root / "scores", corpus, identity) / "manifest.json", ScoreManifest
    )
    vectors = read_json(make_vectors(root / "vectors", corpus) / "vectors.json", VectorManifest)
    retrieval = CandidateManifest(
        corpus="c", vectors="v", queries=500_000, k=1, pool="global", retrieval={}
    )
    start_candidates(root / "candidates", retrieval)
    asked = []
    call = type(root.fs)._call_s3

    async def counted(store, method, *args, **kwargs):
        asked.append(method)
        return await call(store, method, *args, **kwargs)

    monkeypatch.setattr(type(root.fs), "_call_s3", counted)
    more = plan.model_copy(update={"queries": 400})
    for find, found in [
        (lambda: more.parts.missing(root / "scores"), list(range(2, 200))),
        (lambda: retrieval.parts.missing(root / "candidates"), list(range(62))),
        (lambda: list(missing_vector_parts(root / "vectors", vectors, "items")), []),
    ]:
        asked.clear()
        assert find() == found
        assert asked == ["list_objects_v2"]


def test_a_lease_that_was_lost_tells_its_holder(bucket, monkeypatch):
    """Another process took the lease over, and may have finished.

    Or the lease was only not renewed, which is no loss.
    """
    monkeypatch.setattr("unijudge.storage.leases.RENEW_EVERY_S", 0.01)
    out, lock = locate(bucket) / "out", locate(bucket) / ".out.lease"
    other = {"holder": "process 1 on another machine", "token": "t", "until": 4e9}
    with lease(out) as lost:
        assert not lost.wait(0.1)
        for _ in range(100):  # a running renewal may end after the change that it has not read
            if lost.wait(0.1):
                break
            lock.fs.pipe_file(lock.path, json.dumps(other).encode())
        assert lost.is_set()
    assert json.loads(lock.fs.cat_file(lock.path)) == other, "it is the other's, and stays"
    lock.fs.rm_file(lock.path)
    with lease(out) as lost:
        for _ in range(100):
            if lost.wait(0.1):
                break
            with contextlib.suppress(FileNotFoundError):
                lock.fs.rm_file(lock.path)
        assert lost.is_set()
    assert names(locate(bucket)) == []


def test_credentials_that_expire_do_not_undo_a_finished_job(bucket, monkeypatch):
    from botocore.exceptions import NoCredentialsError

    out = locate(bucket) / "out"

    async def refuse(*_, **__):
        raise NoCredentialsError

    with lease(out) as lost:
        monkeypatch.setattr(type(out.fs), "_call_s3", refuse)
    assert not lost.is_set()


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "Free space"), (errno.EROFS, "Fix the permissions"), (errno.EIO, "Check the disk"),
        (errno.EISDIR, "This path is taken: give another"), (errno.ENOTDIR, "A part of the path is a file"),
    ],
)  # fmt: skip
def test_the_cure_fits_the_error_of_the_disk(number, cure):
    said = str(unwritable(Path("a.txt"), OSError(number, os.strerror(number))))
    assert said.startswith(f"a.txt: cannot be written ({os.strerror(number)}). ")
    assert f". {cure}" in said
    assert said.endswith(", then run the same command again")


def test_a_folder_in_the_place_of_a_file_is_not_called_a_full_disk(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(
        DataError, match=r"a\.txt: cannot be written \(Is a directory\).*This path is taken"
    ):
        publish_text(tmp_path / "a.txt", "a")


def test_an_unreachable_server_is_not_reported_as_a_missing_file(tmp_path):
    with pytest.raises(
        DataError,
        match=r"http://127\.0\.0\.1:9/x/dataset\.json: not found \(Cannot connect to host",
    ):
        pull(locate("http://127.0.0.1:9/x"), tmp_path / "out")
    with pytest.raises(DataError, match=r"^o\.json: no such file. Check the path"):
        read_overrides(Path("o.json"), "c")


def test_a_file_of_another_kind_is_named_in_words(tmp_path):
    path = tmp_path / "o.json"
    for text, reason in [
        ("[]", r"Input should be an object"),
        ('{"corpus": "c"}', "overrides: Field required"),
    ]:
        path.write_text(text)
        with pytest.raises(
            DataError,
            match=rf"o\.json: no file of overrides of this version \({reason}.*another program",
        ):
            read_overrides(path, "c")
    with pytest.raises(DataError, match=r"o\.json: no score manifest of this version"):
        read_json(path, ScoreManifest)


def test_a_full_disk_is_named_whichever_library_writes(tmp_path):
    """safetensors gives no error number, but only a text. pyarrow gives a number and a longer text."""
    path = tmp_path / "weights"
    written_in_rust = RuntimeError("I/O error: No space left on device (os error 28)")
    by_arrow = OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space")
    for error in (written_in_rust, by_arrow):
        assert str(unwritable(path, error)) == (
            f"{path}: cannot be written (No space left on device). No partial file was left there. Free space, then "
            "run the same command again"
        )
