"""Folders in an object store, with a local S3 server: they are written completely or not at all, and read as from a
disk.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.folders import make_corpus, make_scores, make_triples, make_vectors
from tests.pictures import png
from tests.unijudge.storage.entries import names
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.settings import EvaluateSettings
from trainer.training.settings import EmbedderSettings
from unijudge.errors import DataError, FolderBusy, SettingsError, Unreachable
from unijudge.formats.corpus import Corpus
from unijudge.formats.inventory import check, describe
from unijudge.formats.scores import read_scores
from unijudge.formats.triples import read_triples
from unijudge.formats.vectors import VectorFolder
from unijudge.settings import load_settings
from unijudge.storage import leases, stores
from unijudge.storage.files import file_sha256, publish_text, publishing, publishing_folder
from unijudge.storage.leases import lease
from unijudge.storage.listing import all_files, matching
from unijudge.storage.locations import is_local, locate
from unijudge.storage.outputs import check_absent, check_file

UNIJUDGE = Path(sys.executable).parent / "unijudge"


def renewals(lock):
    """The number of renewals of a lease."""
    return json.loads(lock.fs.cat_file(lock.path))["renewed"]


@pytest.fixture
def quick(monkeypatch):
    """Leases that are renewed, checked and expired within seconds."""
    for name, value in {
        "RENEW_EVERY_S": 0.05,
        "LEASE_LOOK_EVERY_S": 0.1,
        "VOID_AFTER_S": 5,
        "STOP_BEFORE_S": 0.5,
    }.items():
        monkeypatch.setattr(leases, name, value)


def test_urls_become_locations_and_file_urls_become_paths(bucket, tmp_path):
    place = locate(f"{bucket}/folder") / "a.txt"
    assert str(place) == f"{bucket}/folder/a.txt"
    assert not is_local(place)
    assert locate(str(tmp_path)) == locate(f"file://{tmp_path}") == tmp_path
    assert is_local(locate(f"file://{tmp_path}"))
    with pytest.raises(SettingsError, match="nowhere://x: this kind of URL cannot be opened"):
        locate("nowhere://x")


def test_an_object_is_complete_or_absent(bucket):
    place = locate(bucket) / "folder" / "a.txt"

    def fail_in_the_middle():
        with publishing(place) as draft:
            draft.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    assert names(locate(bucket)) == []
    with publishing(place) as draft:
        draft.write_text("whole")
        assert not place.exists()
    assert place.read_text() == "whole"
    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    assert place.read_text() == "whole"
    assert names(locate(bucket)) == ["folder/a.txt"]


def test_a_folder_is_sent_with_its_manifest_last(bucket, monkeypatch):
    """If a store refuses one file, it does not get the manifest, even if the manifest was written before the file."""
    place = locate(bucket) / "folder"
    send = place.fs.put_file

    def refusing(draft, key):
        if key.endswith("z.txt"):
            raise PermissionError("Access Denied")
        send(draft, key)

    monkeypatch.setattr(place.fs, "put_file", refusing)
    written = ["z.txt", "manifest.json", "sub/b.txt", "a.txt"]

    def write():
        with publishing_folder(place) as draft:
            for name in written:
                publish_text(draft / name, name)
            assert names(place) in ([], ["a.txt", "sub/b.txt"])

    with pytest.raises(DataError, match=r"z\.txt: cannot be written"):
        write()
    assert names(place) == ["a.txt", "sub/b.txt"]
    monkeypatch.setattr(place.fs, "put_file", send)
    write()
    assert names(place) == sorted(written)


def test_a_corpus_with_its_images_is_read_back(bucket):
    root = locate(f"{bucket}/data")
    corpus = make_corpus(root / "corpus", root / "corpus" / "images")
    assert corpus.manifest.images == "images"
    assert corpus.content(corpus.items[1]).image == png("green")
    assert [query.query_id for query in corpus.queries] == ["q-red", "q-green", "q-blue"]
    assert "corpus, whole: 6 rows" in check(root / "corpus")
    elsewhere = make_corpus(root / "other", root / "pictures")
    assert elsewhere.manifest.images == f"{bucket}/data/pictures"
    assert elsewhere.content(elsewhere.items[2]).image == png("blue")
    (root / "pictures" / "a b" / "blue#1.png").write_bytes(png("white"))
    with pytest.raises(DataError, match=r"blue#1\.png: changed since it was imported"):
        check(root / "other")
    (root / "pictures" / "a b" / "blue#1.png").unlink()
    with pytest.raises(DataError, match=r"blue#1\.png: cannot be read"):
        check(root / "other")


def test_images_on_a_disk_are_no_images_of_a_corpus_in_a_store(bucket, tmp_path):
    with pytest.raises(DataError, match=r"its images .* are not. Copy them there first"):
        make_corpus(locate(bucket) / "corpus", tmp_path)
    assert names(locate(bucket)) == ["corpus/items.parquet", "corpus/queries.parquet"]


def test_vectors_scores_and_rows_are_read_back(bucket, tmp_path, identity):
    corpus = make_corpus(tmp_path / "corpus", tmp_path / "images")
    root = locate(bucket)
    make_vectors(root / "vectors", corpus)
    assert np.array_equal(
        VectorFolder(root / "vectors", corpus).whole("items"), np.eye(4, dtype=np.float32)[:3]
    )
    make_triples(root / "triples", corpus, make_scores(root / "scores", corpus, identity))
    assert [row.query_id for row in read_scores(root / "scores")] == ["q-red", "q-green", "q-blue"]
    assert [len(row.negatives) for row in read_triples(root / "triples", corpus.fingerprint)] == [
        2,
        2,
        2,
    ]
    for name in ("vectors", "scores", "triples"):
        assert f"{bucket}/{name}: {name}, whole: " in check(root / name)
    (root / "scores" / "part-00001.parquet").unlink()
    assert "1 files missing, first part-00001.parquet" in describe(root / "scores")
    with pytest.raises(DataError, match="1 of 2 shards are missing"):
        list(read_scores(root / "scores"))
    torn = (root / "scores" / "part-00000.parquet").read_bytes()[:-20]
    (root / "scores" / "part-00001.parquet").write_bytes(torn)
    with pytest.raises(DataError, match=r"part-00001\.parquet: not a whole Parquet file"):
        check(root / "scores")


def test_an_evaluation_reads_and_writes_a_store(bucket):
    root = locate(bucket)
    make_vectors(root / "vectors", make_corpus(root / "corpus", root / "images"))
    places = [f"{name}={bucket}/{name}" for name in ("corpus", "vectors", "out")]
    report = evaluate(load_settings(EvaluateSettings, None, places))
    assert report.subsets["colors"]["precision@1"] == 1
    assert check(root / "out") == f"{bucket}/out: evaluation, whole: 3 rows read"
    with pytest.raises(
        SettingsError, match=r"out: .* is in an object store, but checkpoints need a local disk"
    ):
        load_settings(EmbedderSettings, None, [*places[:1], f"triples={bucket}/triples", places[2]])


def test_a_second_holder_is_refused_until_the_first_releases_the_lease(bucket, quick):
    out = locate(bucket) / "out"
    with lease(out):
        with (
            pytest.raises(FolderBusy, match=f"process {os.getpid()} on .* is writing there"),
            lease(out),
        ):
            pass
        with lease(locate(bucket) / "other"):
            pass
    assert names(locate(bucket)) == []
    with lease(out):
        pass


def test_a_lease_is_renewed_while_its_holder_lives(bucket, quick):
    """Other writers are refused between two renewals and during a renewal."""
    out, lock = locate(bucket) / "out", locate(bucket) / ".out.lease"
    with lease(out):
        for _ in range(5):
            with pytest.raises(FolderBusy), lease(out):
                pass
        assert renewals(lock) > 0


def test_clocks_of_two_machines_are_never_compared(bucket, quick, monkeypatch):
    """A lease of an old version, or of a machine with a wrong clock, is checked by watching its renewals."""
    out, lock = locate(bucket) / "out", locate(bucket) / ".out.lease"
    left = {"holder": "process 1 on a machine that is gone", "token": "t", "until": 4e9}
    lock.fs.pipe_file(lock.path, json.dumps(left).encode())
    with lease(out):
        assert json.loads(lock.fs.cat_file(lock.path))["holder"].startswith(
            f"process {os.getpid()} on"
        )
        monkeypatch.setattr(time, "time", lambda: 4e9)
        with pytest.raises(FolderBusy, match=f"process {os.getpid()} on"), lease(out):
            pass
    assert names(locate(bucket)) == []
    lock.fs.pipe_file(lock.path, b"foreign")
    with pytest.raises(DataError, match="out: cannot be written"), lease(out):
        pass


def test_a_holder_that_cannot_renew_is_told_and_writes_no_more(bucket, monkeypatch):
    """The holder stops before the lease expires for others. Files in other places are not affected."""
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.05)
    monkeypatch.setattr(leases, "LEASE_LOOK_EVERY_S", 0.05)
    out, away = locate(bucket) / "out", locate(bucket) / "outer"
    with lease(out) as lost:
        publish_text(out / "a.txt", "a")
        monkeypatch.setattr(leases, "_claim", refuse)
        monkeypatch.setattr(leases, "STOP_BEFORE_S", leases.VOID_AFTER_S - 1)
        assert lost.wait(30)
        with pytest.raises(FolderBusy, match=r"out: the lease was lost .* written so far remain"):
            publish_text(out / "b.txt", "b")
        with pytest.raises(FolderBusy), publishing_folder(out / "folder") as draft:
            publish_text(draft / "c.txt", "c")
        publish_text(away / "d.txt", "d")
    assert names(locate(bucket)) == ["out/a.txt", "outer/d.txt"]
    publish_text(out / "e.txt", "e")


def refuse(*_):
    raise OSError("the store is away")


HOLD = """
import sys, time
from unijudge.storage import leases
from unijudge.storage.locations import locate
leases.RENEW_EVERY_S = 0.5
with leases.lease(locate(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lease_of_a_killed_holder_is_released(bucket, quick):
    out = locate(bucket) / "out"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(FolderBusy, match=f"process {holder.pid} on"), lease(out):
        pass
    holder.kill()
    holder.communicate()
    with lease(out), pytest.raises(FolderBusy, match=f"process {os.getpid()} on"), lease(out):
        pass


def test_a_wrong_bucket_is_one_clear_error(bucket):
    gone = locate("s3://no-such-bucket/corpus")
    with pytest.raises(
        DataError, match=r"s3://no-such-bucket/corpus/corpus\.json: not found .*. Check the URL"
    ):
        Corpus(gone)
    with pytest.raises(DataError, match="s3://no-such-bucket/corpus: not a folder of unijudge"):
        describe(gone)
    reason = r"no-such-bucket/a\.txt: cannot be written \(The specified bucket does not exist\)"
    with pytest.raises(DataError, match=reason):
        publish_text(locate("s3://no-such-bucket") / "a.txt", "a")
    with pytest.raises(DataError, match="cannot be written"), lease(gone):
        pass


def test_missing_credentials_are_one_clear_error(bucket, monkeypatch):
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    s3fs.S3FileSystem.clear_instance_cache()
    place = locate(f"{bucket}/corpus")
    for action in (Corpus, describe, check, lambda place: file_sha256(place / "a")):
        with pytest.raises(DataError, match=r"cannot be read \(Unable to locate credentials\)"):
            action(place)
    with (
        pytest.raises(DataError, match=r"cannot be written \(Unable to locate credentials\)"),
        lease(place),
    ):
        pass
    done = subprocess.run(
        [UNIJUDGE, "describe", str(place)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"error: {place}/dataset.json: cannot be read (Unable to locate credentials)\n"
    )


class Refusing:
    """A method of a store that refuses its first calls."""

    def __init__(self, times, error, method):
        self.left, self.error, self.method = times, error, method

    def __call__(self, *args, **options):
        if self.left:
            self.left -= 1
            raise self.error
        return self.method(*args, **options)


def test_a_store_that_refuses_once_loses_nothing(bucket, identity, monkeypatch):
    root = locate(bucket)
    methods = ["cat_file", "open", "put_file", "ls", "find", "pipe_file"]
    refusing = {
        name: Refusing(1, TimeoutError("no answer"), getattr(root.fs, name)) for name in methods
    }
    for name in methods:
        monkeypatch.setattr(root.fs, name, refusing[name])
    corpus = make_corpus(root / "corpus", root / "images")
    with lease(root / "scores"):
        make_scores(root / "scores", corpus, identity)
    assert "whole" in check(root / "corpus")
    assert len(list(read_scores(root / "scores"))) == 3
    assert [name for name in methods if refusing[name].left] == []


def test_temporary_and_final_errors_are_distinguished(bucket, monkeypatch):
    """A missing or forbidden file is requested only once."""
    root = locate(bucket)
    corpus = make_corpus(root / "corpus", root / "images")
    for error, asked, raised in [
        (TimeoutError("no answer"), stores.TRIES, Unreachable),
        (OSError("The service is unavailable"), stores.TRIES, Unreachable),
        (PermissionError("Forbidden"), 1, DataError),
        (FileNotFoundError("gone"), 1, DataError),
    ]:
        refusing = Refusing(100, error, root.fs.open)
        with monkeypatch.context() as patch:
            patch.setattr(root.fs, "open", refusing)
            with pytest.raises(DataError) as found:
                corpus.content(corpus.items[1])
        assert (type(found.value), 100 - refusing.left) == (raised, asked)


def unanswered(cause):
    """The error of a library about a file for which the store gave no answer."""
    error = FileNotFoundError("http://far/a.json")
    error.__cause__ = cause
    return error


class Answer(Exception):
    def __init__(self, status):
        self.status = status


@pytest.mark.parametrize(
    ("error", "is_known"),
    [
        (FileNotFoundError("gone"), True),
        (unanswered(Answer(404)), True),
        (unanswered(KeyError("gone")), True),
        (unanswered(TimeoutError("no answer")), False),
        (unanswered(Answer(503)), False),
        (ConnectionError("reset"), False),
        (OSError("The service is unavailable"), False),
        (PermissionError("Forbidden"), False),
    ],
)
def test_a_silent_store_is_not_an_empty_store(bucket, monkeypatch, error, is_known):
    place = locate(bucket) / "a.txt"
    publish_text(place, "text")
    assert stores.exists(place)
    assert stores.is_file(place)
    assert not stores.is_folder(place)
    assert stores.is_folder(locate(bucket))
    monkeypatch.setattr(stores, "LONGEST_WAIT_S", 0)
    refusing = Refusing(100, error, place.fs.info)
    monkeypatch.setattr(place.fs, "info", refusing)
    if is_known:
        assert not stores.exists(place)
        assert refusing.left == 99
        return
    for asks in (stores.exists, stores.is_file, stores.is_folder):
        with pytest.raises(DataError, match=r"a\.txt: cannot be read"):
            asks(place)
    refusing.left = 1
    if not isinstance(error, PermissionError):
        assert stores.exists(place), "asked again"


def test_no_result_is_overwritten_while_a_store_is_silent(bucket, monkeypatch):
    """If a store does not answer, a path's own `exists` returns False."""
    place = locate(bucket) / "page.html"
    publish_text(place, "somebody's own")
    monkeypatch.setattr(stores, "LONGEST_WAIT_S", 0)
    monkeypatch.setattr(place.fs, "info", Refusing(100, ConnectionError("reset"), place.fs.info))
    for refuses in (
        lambda: check_file(place, lambda _: False, "page"),
        lambda: check_absent(place),
    ):
        with pytest.raises(Unreachable, match=r"page\.html: cannot be read \(reset\)"):
            refuses()
    assert place.fs.cat_file(place.path) == b"somebody's own"


def test_a_listing_that_is_refused_once_lacks_nothing(bucket, monkeypatch):
    place = locate(bucket) / "folder"
    for name in ("a.zip", "sub/b.ZIP", "._a.zip"):
        publish_text(place / name, name)
    monkeypatch.setattr(stores, "LONGEST_WAIT_S", 0)
    for method in ("glob", "find"):
        monkeypatch.setattr(
            place.fs, method, Refusing(1, TimeoutError("no answer"), getattr(place.fs, method))
        )
    assert [path.name for path in matching(place, "*.zip")] == ["a.zip"]
    assert [path.name for path in all_files(place)] == ["a.zip", "b.ZIP"]
