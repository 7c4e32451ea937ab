"""Leases on a disk: a look at a lease does not disturb its holder, and a full disk is named."""

import errno
import fcntl
import os

import pytest

from unijudge.errors import DataError, FolderBusy
from unijudge.storage import leases
from unijudge.storage.leases import check_free, lease


def test_a_look_at_a_lease_neither_takes_nor_needs_the_lease(tmp_path):
    out = tmp_path / "deep" / "out"
    check_free(out)
    assert not out.parent.exists()
    with (
        lease(out),
        pytest.raises(FolderBusy, match=f"out: process {os.getpid()} is writing there"),
    ):
        check_free(out)
    check_free(out)
    with lease(out):
        assert (tmp_path / "deep" / ".out.lease").read_text() == str(os.getpid())


def test_a_process_that_only_looks_does_not_refuse_a_writer(tmp_path, monkeypatch):
    """The look ends while the writer waits for its second try."""
    with lease(tmp_path / "out"):
        pass
    with (tmp_path / ".out.lease").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr(leases.time, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
        with lease(tmp_path / "out"):
            pass


def test_a_full_disk_below_a_lock_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with (
        pytest.raises(
            DataError, match=r"\.out\.lease: cannot be written \(No space left on device\)"
        ),
        lease(tmp_path / "out"),
    ):
        pass
    monkeypatch.undo()
    with lease(tmp_path / "out"):
        assert (tmp_path / ".out.lease").read_text() == str(os.getpid())
