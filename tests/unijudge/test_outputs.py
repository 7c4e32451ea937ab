"""What lies where an output is to go is replaced only if it is of the output's own kind."""

import pytest
from pydantic import BaseModel

from unijudge.errors import DataError
from unijudge.outputs import check_absent, check_file, check_folder, is_json_of, replacing


class Small(BaseModel):
    number: int


def test_a_file_of_its_own_kind_may_be_replaced_and_no_other(tmp_path):
    path, own = tmp_path / "out.json", is_json_of(Small)
    check_file(path, own, "small one")
    path.write_text('{"number": 1}')
    check_file(path, own, "small one")
    for other in ("", '{"letter": "a"}', "\x00"):
        path.write_text(other)
        with pytest.raises(DataError, match=r"out\.json: is there already, and is no small one; give another file"):
            check_file(path, own, "small one")
        assert path.read_text() == other
    with pytest.raises(DataError, match="is a folder; give the name of a file"):
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
    with pytest.raises(DataError, match=r"out: holds v, w, x and 2 more already.*; give another folder"):
        check_folder(out, {"a.json", "b.json"})
    with pytest.raises(DataError, match="is a file; give a folder"):
        check_folder(out / "a.json")


def test_an_older_output_goes_when_the_new_one_is_whole_and_comes_back_when_it_is_not(tmp_path):
    out = tmp_path / "out"

    def write(text, *, fails=False, overwrite=True, own=True):
        with replacing(out, lambda _: own, "thing", overwrite=overwrite):
            check_absent(out)
            if fails:
                raise RuntimeError("full disk")
            out.mkdir(exist_ok=True)
            (out / "thing.txt").write_text(text)

    write("first")
    with pytest.raises(DataError, match=r"out: exists already .it holds thing\.txt.; .* --overwrite"):
        write("second", overwrite=False)
    with pytest.raises(DataError, match="exists already, and is no thing; give another output"):
        write("second", own=False)
    with pytest.raises(RuntimeError):
        write("second", fails=True)
    assert (out / "thing.txt").read_text() == "first"
    write("second")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "thing.txt").read_text() == "second"
    out.rename(tmp_path / ".out.replaced.unijudge-draft")  # as a kill leaves it
    with pytest.raises(DataError, match="exists already"):
        write("third", overwrite=False)
    assert (out / "thing.txt").read_text() == "second"
