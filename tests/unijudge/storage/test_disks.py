"""Disks, mounts and stores that differ from a plain folder: each fault is reported by its name."""

import errno
import os
import shutil
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.folders import make_corpus, make_vectors
from unijudge.errors import DataError, Unreachable
from unijudge.formats.inventory import check
from unijudge.storage.access_errors import unreadable, unwritable
from unijudge.storage.files import names_in, publish_text, publishing_folder
from unijudge.storage.leases import lease
from unijudge.storage.listing import all_files
from unijudge.storage.locations import locate
from unijudge.storage.outputs import check_absent, check_folder, replacing
from unijudge.storage.stores import exists, is_file, is_folder


def refusing(number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture
def box():
    """An empty folder of a store in memory."""
    place = locate("memory://disks/box")
    yield place
    place.fs.rm("/disks", recursive=True) if place.fs.exists("/disks") else None


def test_a_folder_created_in_a_store_console_is_empty(bucket):
    place = locate(bucket) / "made"
    place.fs.call_s3("put_object", Bucket=locate(bucket).path.strip("/"), Key="made/", Body=b"")
    assert names_in(place) == set()
    check_absent(place)
    check_folder(place)


@pytest.mark.parametrize(
    ("code", "passes", "reason"),
    [
        ("ExpiredToken", True, "Renew the credentials, and check the clock of this machine"),
        ("RequestTimeTooSkewed", True, "Renew the credentials"),
        ("IncompleteBody", True, "said no"),
        ("AccessDenied", False, "said no"),
        ("SlowDown", True, "said no"),
    ],
)
def test_expired_credentials_are_not_an_error_of_a_picture(code, passes, reason, tmp_path):
    """An error of a pair would be stored forever. So the job stops, and the same command resumes."""
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    error = translate_boto_error(
        ClientError({"Error": {"Code": code, "Message": "said no"}}, "GetObject")
    )
    said = unreadable(locate("s3://bucket/a.png"), error)
    assert isinstance(said, Unreachable) is passes
    assert reason in str(said)
    assert "mounted" not in str(unwritable(locate("s3://bucket/a.png"), error))
    assert ("Renew the cred" in str(unwritable(locate("s3://bucket/a.png"), error))) is (
        "Renew" in reason
    )


def test_a_full_temporary_folder_is_named_with_the_cure(box, monkeypatch):
    """A file for a store is first written into the temporary folder."""
    monkeypatch.setattr(Path, "write_text", refusing(errno.ENOSPC))
    with pytest.raises(
        DataError, match=r"a\.txt: cannot be written .*set TMPDIR to a folder of a larger disk"
    ):
        publish_text(box / "a.txt", "whole")


def test_a_refusing_web_server_is_not_reported_as_a_missing_file(monkeypatch):
    monkeypatch.setattr("unijudge.storage.stores.LONGEST_WAIT_S", 0)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(int(self.path.strip("/").split(".")[0]))

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        place = locate(f"http://127.0.0.1:{server.server_port}")
        assert not exists(place / "404.jsonl")
        assert not is_folder(place / "410")
        for name, kind in {
            "401.jsonl": DataError,
            "403.jsonl": DataError,
            "503.jsonl": Unreachable,
        }.items():
            with pytest.raises(kind, match=rf"{name}: cannot be read \({name[:3]}, ") as raised:
                is_file(place / name)
            assert type(raised.value) is kind
        server.shutdown()
    with pytest.raises(Unreachable, match=r"cannot be read \(Connect call failed"):
        is_folder(place / "404")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("s3:/bucket/a", "has one slash where a URL has two. Write s3://…"),
        ("https:/host/a", "Write https://…"),
        ("s3:///a", "names no bucket or host. Write s3://NAME/…"),
    ],
)
def test_a_url_mistaken_for_a_path_is_named(place, reason):
    """A program that joins paths turns two slashes into one.

    Without this check, a folder with the name s3: would be written here.
    """
    with pytest.raises(ValueError, match=reason):
        locate(place)
    assert locate("exp:1/a") == Path("exp:1/a")


def test_a_name_with_a_colon_is_not_a_url(tmp_path, monkeypatch):
    """Arrow takes a relative path for a URL if its first part looks like one."""
    monkeypatch.chdir(tmp_path)
    make_vectors(Path("run:1/vectors"), make_corpus(Path("run:1/corpus"), Path("run:1/images")))
    assert "corpus, whole" in check(Path("run:1/corpus"))
    assert "whole" in check(Path("run:1/vectors"))


def test_a_folder_that_another_process_still_reads_is_left(tmp_path, monkeypatch, caplog):
    """A network disk keeps an open file under another name, so its folder is not empty."""
    old = tmp_path / "out"
    old.mkdir()
    (old / "a.txt").write_text("old")
    with (
        monkeypatch.context() as patch,
        replacing(old, lambda _: True, "result", overwrite=True) as place,
    ):
        place.mkdir()
        (place / "a.txt").write_text("new")
        patch.setattr(shutil, "rmtree", refusing(errno.ENOTEMPTY))
    assert (old / "a.txt").read_text() == "new"
    assert "not removed (Directory not empty). You can delete this folder" in caplog.text
    with replacing(old, lambda _: True, "result", overwrite=True) as place:
        place.mkdir()
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out.lease"}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_disk_that_cannot_sync_folders_is_written_to(tmp_path, monkeypatch, number):
    sync = os.fsync

    def files_only(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            refusing(number)()
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    publish_text(tmp_path / "a.txt", "whole")
    with publishing_folder(tmp_path / "folder") as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "b.txt").write_text("whole")
    assert (
        (tmp_path / "a.txt").read_text()
        == (tmp_path / "folder" / "sub" / "b.txt").read_text()
        == "whole"
    )


def test_a_disk_that_cannot_sync_a_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(DataError, match=r"a\.txt: cannot be written \(Input/output error\)"):
        publish_text(tmp_path / "a.txt", "whole")
    assert not (tmp_path / "a.txt").exists()


def test_the_files_of_a_fresh_disk_are_not_results(tmp_path):
    for name in ("lost+found", ".snapshot", "#recycle"):
        (tmp_path / name).mkdir()
    (tmp_path / ".gitkeep").touch()
    check_folder(tmp_path)
    check_absent(tmp_path)


def test_a_mount_point_cannot_be_replaced_by_a_folder(tmp_path, monkeypatch):
    """No folder can replace a mount point, so the files of the mount stay."""
    (tmp_path / "lost+found").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    with (
        pytest.raises(
            DataError, match=r"A disk is mounted at this path: give a folder inside that disk"
        ),
        publishing_folder(tmp_path),
    ):
        pytest.fail("the work would have been in vain")
    assert (tmp_path / "lost+found").is_dir()


def test_a_lock_that_cannot_be_written_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", refusing(errno.EACCES))
    with (
        pytest.raises(
            DataError,
            match=r"\.out\.lease: cannot be written .*is beside the output: fix the permissions there, or",
        ),
        lease(tmp_path / "out"),
    ):
        pass


def test_files_behind_links_are_listed_once(tmp_path):
    """The hub's cache has such links, and people link large disks into a folder of data."""
    far, near = tmp_path / "far", tmp_path / "near"
    (far / "sub").mkdir(parents=True)
    near.mkdir()
    for name in ("a.JSON", "sub/b.json", "sub/c.txt", ".hidden.json"):
        (far / name).touch()
    (near / "linked").symlink_to(far)
    (near / "again").symlink_to(far / "sub")
    (near / "one.json").symlink_to(far / "a.JSON")
    (far / "sub" / "round").symlink_to(near)
    (near / "gone.json").symlink_to(tmp_path / "nowhere")
    found = [path.relative_to(near).as_posix() for path in all_files(near, ".json")]
    assert found == ["again/b.json", "linked/a.JSON", "one.json"]


def test_a_subfolder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    listed = Path.iterdir
    monkeypatch.setattr(
        Path,
        "iterdir",
        lambda path: refusing(errno.EACCES)() if path.name == "sub" else listed(path),
    )
    with pytest.raises(DataError, match=r"sub: cannot be read \(Permission denied\)"):
        all_files(tmp_path, ".json")


def test_files_in_a_store_are_listed(box, monkeypatch):
    for name in ("a.json", "sub/b.JSON", "sub/.c.json", ".cache/d.json", "e.txt"):
        (box / name).write_text("a")
    assert all_files(box, ".json") == [box / "a.json", box / "sub" / "b.JSON"]
    assert all_files(box / "nowhere", ".json") == []
    monkeypatch.setattr(box.fs, "find", refusing(errno.EACCES))
    with pytest.raises(DataError, match=r"box: cannot be read \(Permission denied\)"):
        all_files(box, ".json")


def test_a_page_of_links_is_a_folder_of_the_web(tmp_path):
    """Servers list such a page with or without a slash at the end."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.txt").write_text("a")
    serving = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), serving) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        place = locate(f"http://127.0.0.1:{server.server_port}/images")
        assert (exists(place), is_folder(place), is_file(place)) == (True, True, False)
        assert (exists(place / "a.txt"), is_folder(place / "a.txt"), is_file(place / "a.txt")) == (
            True,
            False,
            True,
        )
        server.shutdown()
