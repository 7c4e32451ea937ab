"""Overrides by a person: the effect of each verdict on a row, and the file from export to selection."""

import pytest
from typer.testing import CliRunner

from miner.cli import app
from miner.selection.negatives import select_negatives
from miner.selection.resolve import Case
from miner.selection.select import select
from miner.selection.settings import SelectSettings
from miner.selection.statistics import Statistics
from tests.miner.rows import (
    judged,
    names,
    override_file,
    query,
    random_rows,
    score_folder,
    text_corpus,
)
from unijudge.errors import DataError
from unijudge.formats.triples import Scale, TripleManifest, read_triples
from unijudge.storage.files import read_json

SETTINGS = SelectSettings(scores="unused", corpus="unused", out="unused", num_negatives=2)


def test_a_match_is_never_a_negative_and_becomes_an_extra_positive():
    row = query(0.9, [0.1, 0.2])
    choice = select_negatives(Case(row, overrides={"c0": "match"}), SETTINGS)
    assert names(choice) == ["c1", "c1"]
    assert [one.item_id for one in choice.triple.extra_positives] == ["c0"]
    assert choice.dropped == 0
    for preset in ("topk", "cyclic", "paper"):
        assert "c0" not in names(
            select_negatives(
                Case(row, overrides={"c0": "match"}), SETTINGS.model_copy(update={"preset": preset})
            )
        )
    drawn = [judged("x", None), judged("y", None)]
    at_random = SETTINGS.model_copy(update={"preset": "random"})
    chosen = select_negatives(Case(row, overrides={"x": "match"}), at_random, drawn=drawn)
    assert names(chosen) == ["y", "y"]


def test_a_negative_is_eligible_whatever_the_judge_says_and_its_label_is_0():
    row = query(0.9, [0.99, 0.98])
    assert select_negatives(Case(row), SETTINGS).reason == "no survivor"
    choice = select_negatives(
        Case(row, overrides={"c0": "negative"}),
        SETTINGS.model_copy(update={"extra_positives": True}),
    )
    assert names(choice) == ["c0", "c0"]
    assert [one.item_id for one in choice.triple.extra_positives] == ["c1"]
    assert choice.triple.labels([Scale()]) == [pytest.approx(0.9), 0.0, 0.0]
    one = SETTINGS.model_copy(update={"extra_positives": True, "num_negatives": 1})
    choice = select_negatives(Case(query(0.9, [0.1, 0.99]), overrides={"c1": "negative"}), one)
    assert (names(choice), choice.triple.extra_positives) == (["c0"], []), (
        "not taken, and no further positive either"
    )
    row.candidates[:] = [judged("c0", None, 0)]
    unjudged = select_negatives(Case(row, overrides={"c0": "negative"}), SETTINGS)
    assert names(unjudged) == ["c0", "c0"], "a person's word needs no verdict"
    assert unjudged.triple.labels([Scale()]) == [pytest.approx(0.9), 0.0, 0.0]


def test_a_positive_confirmed_by_a_person_has_the_label_1_without_a_verdict():
    """The cut uses the judge's own score: σ⁺ = .4 of p2. σ⁺ is 1 if no positive has a score."""
    row = query(None, [0.25, 0.35, 0.95])
    assert select_negatives(Case(row), SETTINGS).reason == "unjudged"
    choice = select_negatives(Case(row, overrides={"p": "match"}), SETTINGS)
    assert names(choice) == ["c0", "c1"]
    assert choice.triple.labels([Scale()]) == pytest.approx([1.0, 0.25, 0.35])
    assert not choice.suspect
    row.positives.append(judged("p2", 0.4))
    choice = select_negatives(Case(row, overrides={"p": "match"}), SETTINGS)
    assert (choice.triple.positive.item_id, names(choice)) == ("p", ["c0", "c0"])
    assert choice.triple.judges == {0}
    row.positives[:] = [judged("p", 0.4), judged("p2", 0.9)]
    choice = select_negatives(Case(row, overrides={"p": "match"}), SETTINGS)
    assert (choice.triple.positive.item_id, choice.dropped) == ("p", 1), (
        "what a person affirms stands in the row"
    )


def test_a_match_has_the_label_1_whatever_the_judge_says():
    row = query(0.9, [0.02, None, 0.3])
    choice = select_negatives(Case(row, overrides={"c0": "match", "c1": "match"}), SETTINGS)
    assert [one.label([Scale()]) for one in choice.triple.extra_positives] == [1.0, 1.0]
    assert names(choice) == ["c2", "c2"]
    counted = Statistics()
    counted.count(
        select_negatives(Case(row, overrides={"c2": "negative", "c0": "match"}), SETTINGS), 2
    )
    assert counted.table(None)["expected false negatives (at face value)"] == 0


def test_a_denied_positive_leaves_the_row_to_the_other_positives():
    row = query(0.9, [0.5])
    row.positives.append(judged("p2", 0.7))
    choice = select_negatives(Case(row, overrides={"p": "negative"}), SETTINGS)
    assert choice.triple.positive.item_id == "p2"
    assert choice.triple.negatives[0].beta == 0.1
    left = select_negatives(Case(row, overrides={"p": "negative", "p2": "negative"}), SETTINGS)
    assert (left.triple, left.reason) == (None, "override")


def test_a_confirmed_positive_is_not_suspect_and_a_row_may_be_dropped():
    row = query(0.2, [0.05])
    lighter = SETTINGS.model_copy(update={"suspect_action": "down_weight"})
    assert select_negatives(Case(row), lighter).triple.weight == pytest.approx(0.4)
    trusted = select_negatives(Case(row, overrides={"p": "match"}), lighter).triple
    assert (trusted.suspect, trusted.weight) == (False, 1.0)
    assert select_negatives(Case(row, overrides={None: "drop"}), SETTINGS).reason == "override"


def test_a_file_of_overrides_is_applied_and_a_foreign_file_is_named(tmp_path):
    corpus = text_corpus(tmp_path, 30)
    rows = random_rows(corpus)
    scores = score_folder(tmp_path / "scores", corpus, rows)
    common = SelectSettings(scores=scores, corpus=corpus.folder, out=tmp_path / "plain")
    before = select(common)
    plain = {row.query_id: row for row in read_triples(common.out, corpus.fingerprint)}
    first, second, third = list(plain)[:3]
    item = plain[first].negatives[0].item_id
    file = override_file(
        tmp_path / "o.json", corpus, (first, item, "match"), (second, None, "drop"),
        *((third, one.item_id, "negative") for row in rows if row.query_id == third for one in row.positives),
    )  # fmt: skip
    made = common.model_copy(update={"overrides": file, "out": tmp_path / "told"})
    after = select(made)
    told = {row.query_id: row for row in read_triples(made.out, corpus.fingerprint)}
    assert set(plain) - set(told) - {first} == {second, third}
    assert after["left out by a person"] == before["left out by a person"] + 2
    if first in told:
        assert item not in {negative.item_id for negative in told[first].negatives}
        assert [one.item_id for one in told[first].extra_positives] == [item]
        assert after["extra positives offered"] == 1
    same = set(told) - {first}
    assert [told[key] for key in same] == [plain[key] for key in same]

    def refused(name, *entries):
        bad = override_file(tmp_path / f"{name}.json", corpus, *entries)
        return select(made.model_copy(update={"overrides": bad, "out": tmp_path / name}))

    with pytest.raises(
        DataError, match=r"item\.json: query 'q1', item 'i-none' is not among the scores"
    ):
        refused("item", ("q1", "i-none", "match"))
    with pytest.raises(DataError, match=r"query\.json: query 'q-none' is not among the scores"):
        refused("query", ("q-none", None, "drop"))
    assert not (tmp_path / "query").exists()


def test_the_command_takes_two_folders_and_a_file(tmp_path):
    corpus = text_corpus(tmp_path, 20)
    folders = [
        score_folder(tmp_path / name, corpus, random_rows(corpus, seed), name)
        for seed, name in enumerate("ab")
    ]
    file = override_file(tmp_path / "o.json", corpus, ("q1", None, "drop"))
    words = [f"scores=[{folders[0]}, {folders[1]}]", f"overrides={file}", f"corpus={corpus.folder}"]
    done = CliRunner().invoke(app, ["select", *words, f"out={tmp_path / 't'}"])
    assert done.exit_code == 0, done.output
    made = read_json(tmp_path / "t" / "triples.json", TripleManifest)
    assert made.selection["scores"] == list(map(str, folders))
    assert made.large_scores is not None
    assert made.statistics["left out by a person"] == 1
    assert "mean similarity among a row's negatives" not in made.statistics, (
        "no vectors, no such line"
    )


def test_an_older_selection_is_replaced_only_with_the_flag(tmp_path):
    corpus = text_corpus(tmp_path, 20)
    folder = score_folder(tmp_path / "a", corpus, random_rows(corpus, 0), "a")
    words = ["select", f"scores={folder}", f"corpus={corpus.folder}", f"out={tmp_path / 't'}"]
    assert CliRunner().invoke(app, words).exit_code == 0
    refused = CliRunner().invoke(app, [*words, "num_negatives=3"])
    assert "exists already (it holds part-00000.parquet, triples.json). Give another output" in str(
        refused.exception
    )
    assert read_json(tmp_path / "t" / "triples.json", TripleManifest).negatives_in_row != 3
    assert CliRunner().invoke(app, [*words, "num_negatives=3", "--overwrite"]).exit_code == 0
    assert read_json(tmp_path / "t" / "triples.json", TripleManifest).negatives_in_row == 3
    assert {path.suffix for path in tmp_path.glob(".t*")} <= {".lease"}
