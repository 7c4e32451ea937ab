"""A symbolic link in the place of a lock or a draft does not lead to another file."""

import os

import pytest

from unijudge.errors import DataError
from unijudge.storage.files import publish_text
from unijudge.storage.leases import lease


def test_a_lock_is_not_written_through_a_symbolic_link(tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    (tmp_path / ".scores.lease").symlink_to(victim)
    with (
        pytest.raises(
            DataError,
            match=r"\.scores\.lease: cannot be written .*This is a symbolic link: remove it",
        ),
        lease(tmp_path / "scores"),
    ):
        pass
    assert victim.read_text() == "precious"
    (tmp_path / ".scores.lease").unlink()
    (tmp_path / ".scores.lease").write_text("a process with a long number, 123456789")
    with lease(tmp_path / "scores"):
        assert (tmp_path / ".scores.lease").read_text() == str(os.getpid())


def test_a_draft_is_not_written_through_a_symbolic_link(tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    (tmp_path / "page.html.unijudge-draft").symlink_to(victim)
    publish_text(tmp_path / "page.html", "a page")
    assert victim.read_text() == "precious"
    assert (tmp_path / "page.html").read_text() == "a page"
    assert not (tmp_path / "page.html").is_symlink()
