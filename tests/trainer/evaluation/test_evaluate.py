"""The counts of an evaluation, computed by hand: ties, questions of several rows, and queries that are also items."""

import numpy as np
import pytest

from tests.trainer.evaluation.measured import BOTH_WAYS, PAIRS, SWAPPED, measured, texts
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.settings import EvaluateSettings
from unijudge.alike import Exclusions
from unijudge.errors import DataError, FolderBusy
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus
from unijudge.metrics import gold_rank, ndcg
from unijudge.storage.leases import lease


@pytest.mark.parametrize("count", [5, 6, 7, 8, 33])
def test_equal_vectors_tie_in_any_order(tmp_path, count):
    """BLAS gives other last bits to equal rows if their number is not a multiple of four."""
    dice = np.random.default_rng(count)
    vector = dice.normal(size=301)
    items = texts(*(f"i{n}" for n in range(count)))
    queries = [Query(f"q{n}", "x", (f"i{n}",), text=f"ask {n}") for n in range(count)]
    report, _ = measured(
        tmp_path / "c", items, queries, [vector] * count, dice.normal(size=(count, 301))
    )
    assert report.subsets["x"]["precision@1"] == 0
    assert report.subsets["x"]["mrr"] == pytest.approx(1 / count)


def test_scores_within_the_tolerance_are_ties():
    assert gold_rank(np.array([0.5, 0.5 - 4e-7, 0.4], np.float32), [0]) == 2
    assert gold_rank(np.array([0.5, 0.5 - 4e-6, 0.4], np.float32), [0]) == 1
    assert ndcg(np.array([0.5, 0.5 - 4e-7], np.float32), [0], 5) == pytest.approx(1 / np.log2(3))


def test_a_query_is_not_a_wrong_answer_to_itself(tmp_path):
    """The rows are A→B and B→A. Each query is also an item, with a cosine of 1."""
    report, rows = measured(tmp_path / "open", SWAPPED, BOTH_WAYS, PAIRS, PAIRS)
    measures = report.subsets["x"]
    assert (measures["precision@1"], measures["left out"], measures["candidates"]) == (1, 1, 3)
    assert rows[0].item_ids[0] == "B"
    assert (rows[0].positive_ids, rows[0].candidates) == (["B"], 3)
    letter, rows = measured(
        tmp_path / "letter", SWAPPED, BOTH_WAYS, PAIRS, PAIRS, to_the_letter=True
    )
    assert (letter.subsets["x"]["precision@1"], letter.subsets["x"]["left out"]) == (0, 0)
    assert rows[0].item_ids[:2] == ["A", "B"]


def test_a_closed_list_is_ranked_as_it_is(tmp_path):
    closed = [Query(query.query_id, "x", query.positive_ids, text=query.text, candidates=(0, 1, 2, 3))
              for query in BOTH_WAYS]  # fmt: skip
    report, rows = measured(tmp_path, SWAPPED, closed, PAIRS, PAIRS, keep=2)
    assert (report.subsets["x"]["precision@1"], report.subsets["x"]["left out"]) == (0, 0)
    assert [(row.item_ids, row.candidates) for row in rows[:2]] == [
        (["A", "B"], 4),
        (["B", "A"], 4),
    ], "two are kept"


def test_positives_of_all_rows_that_ask_the_same_are_right(tmp_path):
    """The first row's positive is nearer, and is right for the second row too.

    Another spelling of a positive is neither right nor wrong.
    """
    items = texts("cat", "kitten", "CAT ", "dog")
    queries = [
        Query("q0", "x", ("cat",), text="meows?"),
        Query("q1", "x", ("kitten",), text=" meows?"),
    ]
    vectors, asked = [[1, 0], [0.9, 0.1], [1, 0], [0.95, 0.05]], [[1, 0], [1, 0]]
    report, rows = measured(tmp_path / "a", items, queries, vectors, asked)
    assert report.subsets["x"]["precision@1"] == 1
    assert (report.subsets["x"]["united"], report.subsets["x"]["left out"]) == (1, 1)
    assert [row.positive_ids for row in rows] == [["cat", "kitten"]] * 2
    assert report.subsets["x"]["ndcg@10"] == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)))
    letter, _ = measured(tmp_path / "b", items, queries, vectors, asked, to_the_letter=True)
    assert (letter.subsets["x"]["precision@1"], letter.subsets["x"]["united"]) == (0, 0)


def test_a_question_of_many_rows_is_evaluated_once(tmp_path):
    """The ranking of a row names its own positives and its own candidates, not those of all rows with the same
    question.
    """
    items = texts(*(f"i{n}" for n in range(40)))
    queries = [Query(f"q{n}", "x", (f"i{n}",), text="which?") for n in range(40)]
    angles = np.arange(40) / 20
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    report, rows = measured(tmp_path, items, queries, vectors, vectors, keep=3)
    assert (report.subsets["x"]["precision@1"], report.subsets["x"]["ndcg@10"]) == (
        1,
        pytest.approx(1),
    )
    assert all(set(row.positive_ids) == {*row.item_ids, f"i{n}"} for n, row in enumerate(rows))
    exclusions = Exclusions(Corpus(tmp_path))
    for found in (exclusions.positives, exclusions.rows, exclusions.of):
        assert found(0) is found(39)


def test_two_evaluations_never_write_one_folder(tmp_path):
    measured(tmp_path, SWAPPED, BOTH_WAYS, PAIRS, PAIRS)
    with lease(tmp_path / "e"), pytest.raises(FolderBusy):
        evaluate(EvaluateSettings(corpus=tmp_path, vectors=tmp_path / "v", out=tmp_path / "e"))


def test_a_pool_holds_its_own_subset_or_everything(tmp_path):
    """The item of the other subset is nearer to the query."""
    items = [Item("near", ("y",), text="near"), Item("far", ("x",), text="far")]
    queries = [Query("q0", "x", ("far",), text="one?"), Query("q1", "y", ("near",), text="two?")]
    vectors, asked = [[1, 0], [0.6, 0.8]], [[1, 0], [1, 0]]
    for pool, ranks, candidates in [("subset", [1, 1], [1, 1]), ("global", [2, 1], [2, 2])]:
        _, rows = measured(tmp_path / pool, items, queries, vectors, asked, pool=pool)
        assert [row.gold_rank for row in rows] == ranks
        assert [row.candidates for row in rows] == candidates


def test_a_corpus_without_queries_is_refused(tmp_path):
    write_corpus(tmp_path, SWAPPED, [], images=tmp_path, rejects=0, source="t")
    with pytest.raises(DataError, match="has no queries, so there is nothing to evaluate"):
        evaluate(EvaluateSettings(corpus=tmp_path, vectors=tmp_path / "v", out=tmp_path / "e"))
    assert not (tmp_path / "e").exists()


def test_an_evaluation_of_something_else_is_replaced_only_with_overwrite(tmp_path):
    measured(tmp_path, SWAPPED, BOTH_WAYS, PAIRS, PAIRS)
    job = EvaluateSettings(corpus=tmp_path, vectors=tmp_path / "v", out=tmp_path / "e")
    before = (tmp_path / "e" / "rankings.parquet").read_bytes()
    evaluate(job)  # the same command again
    (tmp_path / "v").rename(tmp_path / "older")
    other = [[1, 0, 0], [1, 0.1, 0], [0, 0, 1], [0, 0.1, 1]]
    with pytest.raises(
        DataError, match=r"metrics\.json: exists already, and differs in vectors\. .* --overwrite"
    ):
        measured(tmp_path, SWAPPED, BOTH_WAYS, other, other, weights="others")
    with pytest.raises(DataError, match=r"differs in keep, vectors. Give another output"):
        evaluate(job.model_copy(update={"keep": 3}))
    assert (tmp_path / "e" / "rankings.parquet").read_bytes() == before
    evaluate(job, overwrite=True)
    assert (tmp_path / "e" / "rankings.parquet").read_bytes() != before
