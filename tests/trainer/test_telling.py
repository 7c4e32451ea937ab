"""What the commands print."""

from trainer.cli import _tell


def test_numbers_stand_under_the_ends_of_their_names(capsys):
    _tell(
        {
            "a": {"queries": 12, "precision@1": 0.1, "mrr": 0.0},
            "b": {"queries": 3, "precision@1": 1.0},
        }
    )
    head, *lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["a", "12", "0.100", "0"], ["b", "3", "1", "–"]]
    ends = [head.index(name) + len(name) for name in ("queries", "precision@1", "mrr")]
    for line in lines:
        assert all(line[end - 1] != " " and line[end : end + 1] in ("", " ") for end in ends)
