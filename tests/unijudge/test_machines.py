"""Effects of machines and shells on any command: home folders, locales, file systems without locks, full outputs."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from judge_service.settings import ServiceSettings
from miner.settings import ScoreSettings
from trainer.embedding.settings import EmbedSettings
from unijudge import cli
from unijudge.errors import DataError, SettingsError
from unijudge.settings import load_settings
from unijudge.storage.files import publish_text, publishing_folder
from unijudge.storage.leases import lease
from unijudge.storage.locations import locate

ROOT = Path(__file__).parents[2]


def python(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "unijudge", *map(str, words)],
        check=False, text=True, capture_output="stdout" not in options, cwd=ROOT, **options,
    )  # fmt: skip


def test_a_leading_tilde_is_the_home_folder_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/corpus") == tmp_path / "corpus"
    assert locate(Path("~/corpus")) == tmp_path / "corpus"
    assert locate("a/~/corpus") == Path("a/~/corpus")
    assert locate("~$letter.csv") == Path("~$letter.csv"), "a user of this name does not exist"
    (tmp_path / "job.toml").write_text(
        'corpus = "~/c"\nvectors = "~/v"\nout = "~/o"\nkey_file = "~/key"\n'
    )
    job = load_settings(ScoreSettings, tmp_path / "job.toml", ["reuse=['~/old']"])
    paths = (job.corpus, job.vectors, job.out, job.key_file, *job.reuse)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "c",
        "v",
        "o",
        "key",
        "old",
    ]
    served = load_settings(
        ServiceSettings, None, ["model.name=~/m", "log_folder=~/l", "blobs.folder=~/b"]
    )
    assert (served.model.name, served.log_folder, served.blobs.folder) == (
        str(tmp_path / "m"), tmp_path / "l", tmp_path / "b",
    )  # fmt: skip
    embedded = load_settings(
        EmbedSettings, None, ["corpus=c", "out=o", "model.name=~/m", "model.adapter=~/a"]
    )
    assert (embedded.model.name, embedded.model.adapter) == (str(tmp_path / "m"), tmp_path / "a")


def test_a_user_without_a_home_folder_is_an_error(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(
        SettingsError,
        match=r"out: value error, '~/o': this user has no home folder here. Write the",
    ):
        load_settings(ScoreSettings, None, ["corpus=c", "vectors=v", "out=~/o"])


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_synchronise_folders_is_written_to(tmp_path, monkeypatch, number):
    sync = os.fsync

    def refuse(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    publish_text(tmp_path / "a" / "page.txt", "a page")
    with publishing_folder(tmp_path / "b") as draft:
        (draft / "page.txt").write_text("another")
    assert [path.read_text() for path in sorted(tmp_path.rglob("*.txt"))] == ["a page", "another"]


def test_a_disk_that_fails_to_synchronise_is_still_an_error(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DataError, match=r"page\.txt: cannot be written \(Input/output error\)"):
        publish_text(tmp_path / "page.txt", "a page")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(DataError, match="This file system has no locks: mount it with locks"),
        lease(tmp_path / "out"),
    ):
        pass


def test_a_full_output_is_reported_in_one_line():
    with Path("/dev/full").open("w") as full:
        done = python("mine", "select", "--example", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == (
        "error: the output of this command: No space left on device. Free space, then run the same command again\n"
    )


def test_too_many_open_files_are_reported_in_one_line(monkeypatch, capsys):
    def refuse(_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "corpus/items.parquet")

    monkeypatch.setattr(cli.inventory, "check", refuse)
    assert cli._status(["check", "corpus"]) == 1
    assert capsys.readouterr().err == (
        "error: corpus/items.parquet: Too many open files. Too many files are open: raise the limit (ulimit -n), then "
        "run the same command again\n"
    )


def test_a_locale_that_is_not_utf_8_is_named():
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = python("check", "café", env=plain)
    assert done.returncode == 2
    assert "the locale of this shell is not UTF-8" in done.stderr
    assert "PYTHONUTF8=1" in done.stderr
    assert "rename" not in done.stderr.lower()


def test_a_command_with_closed_streams_writes_its_results(tmp_path):
    (tmp_path / "pairs.csv").write_text("query_text,positive_text\na,b\n")
    command = f"exec {sys.executable} -m unijudge mine import pairs {tmp_path}/pairs.csv {tmp_path}/c <&- >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", command], check=False, cwd=ROOT).returncode == 0
    checked = python("check", tmp_path / "c")
    assert checked.stdout == f"{tmp_path}/c: corpus, whole: 2 rows read\n"
