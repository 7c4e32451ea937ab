"""An existing output is replaced only if it has the kind of the new output."""

import os

import pytest
from pydantic import BaseModel

from unijudge.errors import DataError, FolderBusy
from unijudge.storage.outputs import (
    check_absent,
    check_file,
    check_folder,
    is_folder_of,
    is_json_of,
    replacing,
)


class Small(BaseModel):
    number: int


def test_only_a_file_of_the_same_kind_may_be_replaced(tmp_path):
    path, own = tmp_path / "out.json", is_json_of(Small)
    check_file(path, own, "small one")
    path.write_text('{"number": 1}')
    check_file(path, own, "small one")
    for other in ("", '{"letter": "a"}', "\x00"):
        path.write_text(other)
        with pytest.raises(
            DataError,
            match=r"out\.json: exists already, but is not this command's output .small one.. Give another file",
        ):
            check_file(path, own, "small one")
        assert path.read_text() == other
    with pytest.raises(DataError, match=r"is a folder. Give the name of a file"):
        check_file(tmp_path, own, "small one")


def test_a_folder_may_hold_what_the_command_writes_there(tmp_path):
    out = tmp_path / "out"
    check_folder(out)
    out.mkdir()
    check_folder(out)
    for name in ("a.json", "b.json.unijudge-draft"):
        (out / name).touch()
    check_folder(out, {"a.json", "b.json"})
    for name in "vwxyz":
        (out / name).touch()
    with pytest.raises(DataError, match=r"out: holds v, w, x, y, z already.*. Give another folder"):
        check_folder(out, {"a.json", "b.json"})
    with pytest.raises(DataError, match=r"is a file. Give a folder"):
        check_folder(out / "a.json")


def test_an_older_output_is_removed_after_success_and_restored_after_a_failure(tmp_path):
    out = tmp_path / "out"

    def write(text, *, fails=False, overwrite=True, own=True):
        with replacing(out, lambda _: own, "thing", overwrite=overwrite):
            check_absent(out)
            if fails:
                raise RuntimeError("full disk")
            out.mkdir(exist_ok=True)
            (out / "thing.txt").write_text(text)

    write("first")
    with pytest.raises(
        DataError, match=r"out: exists already .it holds thing\.txt.\. .* --overwrite"
    ):
        write("second", overwrite=False)
    with pytest.raises(
        DataError,
        match=r"exists already, but is not this command's output .thing.. Give another output",
    ):
        write("second", own=False)
    with pytest.raises(RuntimeError):
        write("second", fails=True)
    assert (out / "thing.txt").read_text() == "first"
    write("second")
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out.lease"}
    assert (out / "thing.txt").read_text() == "second"
    out.rename(tmp_path / ".out.replaced.unijudge-draft")  # a kill leaves this name
    with pytest.raises(DataError, match="exists already"):
        write("third", overwrite=False)
    assert (out / "thing.txt").read_text() == "second"


def test_a_second_command_does_not_move_the_old_output_of_the_first(tmp_path):
    """The second command is refused anyway.

    Without the lease, it would move the older result back, and damage the result of the first command.
    """
    out = tmp_path / "out"
    out.write_text("old")
    with replacing(out, lambda _: True, "thing", overwrite=True):
        for overwrite in (False, True):
            with (
                pytest.raises(FolderBusy, match=rf"out: process {os.getpid()} is writing there"),
                replacing(out, lambda _: True, "thing", overwrite=overwrite),
            ):
                pass
        assert not out.exists()
        out.write_text("new")
    assert out.read_text() == "new"


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    real.mkdir(parents=True)
    (real / "thing.txt").write_text("0")
    link.symlink_to(real)
    for number in "12":
        with replacing(link, lambda _: True, "thing", overwrite=True) as place:
            check_absent(place)
            place.mkdir()
            (place / "thing.txt").write_text(number)
        assert link.is_symlink()
        assert (real / "thing.txt").read_text() == number
    with (
        replacing(link, lambda _: True, "thing", overwrite=False) as place,
        pytest.raises(DataError, match="exists"),
    ):
        check_absent(place)


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with (
        pytest.raises(DataError, match=r"a: cannot be read .*loop"),
        replacing(tmp_path / "a", lambda _: True, "thing", overwrite=True),
    ):
        pass


def test_the_target_of_a_link_is_not_removed_with_the_old_output(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious.txt").touch()
    (tmp_path / "out").touch()
    (tmp_path / ".out.replaced.unijudge-draft").symlink_to(victim)
    with replacing(tmp_path / "out", lambda _: True, "thing", overwrite=True) as place:
        place.write_text("new")
    assert (victim / "precious.txt").exists()
    assert (tmp_path / "out").read_text() == "new"


@pytest.mark.parametrize("strange", ["thesis.tex", "notes/thesis.tex", ".git/config", "part-1.txt"])
def test_a_folder_is_removed_only_if_it_holds_only_its_own_files(tmp_path, strange):
    """`{}` is no manifest.

    A folder of the product with a foreign file is not replaced. A draft that a kill left is the product's own.
    """
    out, is_own = (
        tmp_path / "out",
        is_folder_of("small.json", Small, lambda small, name: name == f"{small.number}.txt"),
    )

    def replace():
        with replacing(out, is_own, "small folder", overwrite=True):
            out.mkdir(exist_ok=True)

    out.mkdir()
    (out / "small.json").write_text("{}")
    with pytest.raises(
        DataError,
        match=r"out: exists already, but is not this command's output .small folder.",
    ):
        replace()
    (out / "small.json").write_text('{"number": 7}')
    (out / strange).parent.mkdir(exist_ok=True)
    (out / strange).write_text("years of work")
    with pytest.raises(
        DataError,
        match=rf"out: holds {strange}, which --overwrite would delete too. Move these files",
    ):
        replace()
    assert (out / strange).read_text() == "years of work"
    (out / strange).unlink()
    for name in ("7.txt", "7.txt.unijudge-draft"):
        (out / name).touch()
    replace()
    assert not list(out.iterdir())
