"""What lies where an output is to go is replaced only if it is of the output's own kind."""

import pytest
from pydantic import BaseModel

from unijudge.errors import DataError
from unijudge.outputs import check_file, check_folder, is_json_of


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
