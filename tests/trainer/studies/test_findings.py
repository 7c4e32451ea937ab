"""The findings of a study: the smallest detectable difference, and the sentences that answer the question."""

import pytest

from tests.trainer.studies.made import run, small_study
from trainer.studies.findings import Results, StudyFinding, powers
from trainer.studies.plan import Plan
from trainer.studies.statistics import Difference
from trainer.studies.study import Comparison

BETTER = Comparison(axis="way", left="bad", right="good", claim="The good way,")


def _finding(measure: str, difference: Difference) -> StudyFinding:
    return StudyFinding("better", measure, BETTER, {}, difference)


def test_a_study_reports_the_smallest_difference_that_its_queries_detect():
    """Two intervals of ± 0.01 and ± 0.03 over queries, one without width, and a measure without rankings."""
    narrow = Difference(0.0, 5, (0.0, 0.1), (-0.01, 0.01), 1000)
    wide = Difference(0.0, 5, (0.0, 0.1), (-0.03, 0.03), 1000)
    level = _finding("precision@1", Difference(0.0, 5, (0.0, 0.1), (0.0, 0.0), 1000))
    plain = _finding("loss", Difference(0.02, 5, (0.0, 0.1), None))
    findings = [_finding("precision@1", narrow), _finding("precision@1", wide), level, plain]
    sentence = (
        "With 1,000 queries, the smallest detectable difference of precision@1 is 0.010 to 0.030 (95 %, paired "
        "by query)."
    )
    assert powers(findings, None) == [sentence]
    assert powers(findings, 0.03) == [sentence]
    (lacking,) = powers(findings, 0.015)
    assert lacking.startswith(
        f"{sentence} 1,000 queries are too few to detect a difference of 0.015: 4,000 are needed"
    )
    assert powers([level, plain], 0.01) == []


def test_the_answer_is_the_named_comparison_at_the_named_values(tmp_path):
    study = small_study(answer={"better": {"k": "8"}})
    run(study, tmp_path)
    (sentence,) = Results.of(Plan.of(study, tmp_path)).answers()
    assert sentence.startswith("The good way, against the bad one (k 8) helped: score +1.000")


def test_an_answer_without_runs_names_what_is_missing(tmp_path):
    """Only the bad way runs, so no seed has both sides of the comparison."""
    bad_way_only = small_study(leave_out=({"way": "good"},), answer={"better": {}})
    run(bad_way_only, tmp_path)
    (sentence,) = Results.of(Plan.of(bad_way_only, tmp_path)).answers()
    assert sentence == "The good way, against the bad one: no seed has finished both sides."


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"worse": {}}, "answer: there is no comparison 'worse'. Choose from better"),
        ({"better": {"k": "9"}}, "answer.better: the axis k has no value '9'. Choose from 4, 8"),
    ],
)
def test_an_answer_names_a_comparison_and_values_of_the_study(answer, message):
    with pytest.raises(ValueError, match=message):
        small_study(answer=answer)
