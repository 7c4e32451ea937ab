"""Tables of plain text."""

from rich.console import Console

from unijudge.pages.markdown import table
from unijudge.pages.terminal import aligned, print_table


def test_columns_are_aligned_in_any_script():
    rows = [["subset", "queries"], ["颜色", "7"], ["colors", "1,200"]]
    assert aligned(rows) == ["subset  queries", "颜色          7", "colors    1,200"]
    assert aligned(rows, left=2) == ["subset  queries", "颜色    7", "colors  1,200"]
    assert aligned([]) == []


def test_a_terminal_gets_lines_and_a_marked_row(monkeypatch, capsys):
    print_table(["β", "rows"], [["0.1", "12"], ["0.01", "9"]], marked=1)
    assert capsys.readouterr().out == "β     rows\n0.1     12\n0.01     9\n"
    monkeypatch.setattr(
        "unijudge.pages.terminal.Console", lambda: Console(force_terminal=True, width=40)
    )
    print_table(["β", "rows"], [["0.1", "12"], ["0.01", "9"]], marked=1)
    lines = capsys.readouterr().out.splitlines()
    assert ["\x1b[1m" in line and "0.01" in line for line in lines].count(True) == 1
    assert len(lines) > 3


def test_a_padded_table_is_aligned_as_text():
    lines = table(["name", ""], [["a|b", 1], ["longer", ""]], padded=True).splitlines()
    assert lines == ["| name   |   |", "|--------|---|", "| a\\|b   | 1 |", "| longer |   |"]
