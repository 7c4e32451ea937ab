"""JSON of any size, value by value, through a window of any size."""

import json

import pytest

from unijudge.errors import DataError
from unijudge.foreign import json_rows


@pytest.mark.parametrize("window", [1, 7, 2**20])
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[{"a": "b]"}, 12345, "é", [], {}, null , true]', None),
        (" [ ] \n", None),
        ("\ufeff[1]", None),
        ('[{"a": 1}, {"a": 2', "broken at row 2"),
        ('[{"a": 1}, {"a": 2}', "broken at row 2 (expected , or ], found the end)"),
        ('[{"a": 1} {"a": 2}]', "broken at row 1 (expected , or ], found {)"),
        ('[{"a": 1}, {"a" 2}]', "broken at row 2 (Expecting ':' delimiter)"),
        ("[1, ]", "broken at row 2 (Expecting value)"),
        ("[1] x", "broken at row 1 ('x' after the end)"),
        ('[1, {"a": 1, "b": 2, "a": 3}]', "broken at row 2 (duplicate key 'a')"),
        ('{"a": 1}', "broken at its beginning (expected [, found {)"),
        ("", "broken at its beginning (expected [, found the end)"),
    ],
)
def test_a_json_array_is_read_through_any_window(tmp_path, monkeypatch, window, text, error):
    monkeypatch.setattr(json_rows, "WINDOW", window)
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    if error is None:
        assert list(json_rows.array_rows(path)) == json.loads(text.removeprefix("\ufeff"))
    else:
        with pytest.raises(DataError) as raised:
            list(json_rows.array_rows(path))
        assert error in str(raised.value)


def test_json_that_never_ends_a_row_is_not_read_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "WINDOW", 64)
    monkeypatch.setattr(json_rows, "LONGEST_ROW", 1000)
    path = tmp_path / "a.json"
    path.write_text('["' + "x" * 100_000 + '"]')
    with pytest.raises(DataError, match=r"broken at row 1 .Unterminated string"):
        list(json_rows.array_rows(path))
    path.write_text("[" * 500 + "1" + "]" * 500)
    assert len(list(json_rows.array_rows(path))) == 1
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"broken at row 1 .maximum recursion depth"):
        list(json_rows.array_rows(path))
    monkeypatch.setattr(json_rows, "LONGEST_ROW", 10_000)
    path.write_text("[1" + "0" * 5000 + "]")
    with pytest.raises(DataError, match=r"broken at row 1 .Exceeds the limit"):
        list(json_rows.array_rows(path))
    path.write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match=r"a\.json: is not UTF-8"):
        list(json_rows.array_rows(path))
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        list(json_rows.array_rows(tmp_path / "none.json"))
