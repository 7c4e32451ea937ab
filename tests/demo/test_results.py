"""The sentences about the demo's numbers follow from the numbers."""

import numpy as np
import pytest

from demo.report.results import compare
from demo.report.story import effect, sentences


def test_differences_are_taken_query_by_query():
    left = {"a": np.array([0.0, 0, 1, 1]), "b": np.array([0.0, 1.0])}
    right = {"a": np.array([1.0, 0, 1, 1]), "b": np.array([0.0, 1.0])}
    found = compare([left], [right])
    assert found["difference"] == pytest.approx((0.25 + 0) / 2)
    assert found["error"] == pytest.approx(2 * np.sqrt(np.var([1, 0, 0, 0], ddof=1) / 4 / 4))
    same = compare([left], [left])
    assert (same["difference"], same["error"]) == (0, 0)


def test_the_spread_of_seeds_is_part_of_the_error():
    left = [{"a": np.tile([0.0, 1.0], 50)}] * 2
    agreeing = compare(left, [{"a": np.tile([1.0, 1.0], 50)}] * 2)
    seeds = [{"a": np.tile([1.0, 1.0], 50)}, {"a": np.tile([0.0, 1.0], 50)}]
    assert compare(left, seeds)["error"] > agreeing["error"] + 0.1
    assert compare(seeds, left) == {
        "difference": -compare(left, seeds)["difference"],
        "error": compare(left, seeds)["error"],
    }
    assert compare(seeds, seeds) == {"difference": 0, "error": 0}, "seeds are paired"
    assert compare(left[:1], seeds) == compare(left, seeds), "one run stands against each"


@pytest.mark.parametrize(
    ("difference", "error", "said"),
    [
        (0.1, 0.02, "helped: +0.100"),
        (-0.1, 0.02, "did harm: -0.100"),
        (0.01, 0.02, "did not show an effect"),
        (0, 0, "not"),
    ],
)
def test_a_difference_within_its_error_is_not_an_effect(difference, error, said):
    assert said in effect({"difference": difference, "error": error})


def results(**changes):
    row = {"before": 0.4, "judge": 0.6, "reranker": 0.3} | {
        f"{name}_{what}": 0.1 for name in ("judge", "reranker") for what in ("gained", "lost")
    }
    names = (
        "random",
        "unfiltered",
        "mined",
        "chosen",
        "soft",
        "judge_reranks",
        "reranker_beats_judge",
    )
    return {
        "judge": {"pairs": 10, "roc_auc": 0.9, "roc_auc_hard": 0.8, "by_kind": {"swap_att": 0.9, "add_obj": 0.5}},
        "false_negatives": {
            "recall": 0.8, "precision": 0.2, "dropped": 0.1,
            "rate": dict.fromkeys(["top_k", "random", "topk_unfiltered", "unime_v2"], 0.1),
        },
        "comparisons": {name: {"difference": -0.2, "error": 0.1} for name in names},
        "rerank": {"Task": row, "mean": row},
        "reranker_terms": {"listwise": {"first": 20.0, "last": 4.0}},
        "rerank_effects": {
            "judge": {"Task": {"difference": 0.2, "error": 0.1}, "Other": {"difference": -0.01, "error": 0.1}},
            "reranker": {"Task": {"difference": -0.2, "error": 0.1}},
        },
    } | changes  # fmt: skip


def test_the_sentences_report_harm():
    told = "\n".join(sentences(results()))
    assert told.count("did harm") == 7 + 1
    assert "On Task, reranking with the reranker did harm: -0.200 ± 0.100" in told
    assert "On Other, reranking with the judge did not show an effect" in told
    assert "On Task, reranking with the judge" not in told
    assert "weakest kind is add object (0.500)" in told
    assert "price of caution" in told
    assert (
        "from 20.00 to 4.00 nats, and random guessing has 1.32. This half was not learned" in told
    )
    for last, said in {0.5: "half was learned", 1.3: "half is no better than guessing"}.items():
        terms = {"listwise": {"first": 20.0, "last": last}}
        assert said in "\n".join(sentences(results(reranker_terms=terms)))
    none_found = results()["false_negatives"] | {"recall": None, "precision": None}
    assert "The filter" not in "\n".join(sentences(results(false_negatives=none_found)))
