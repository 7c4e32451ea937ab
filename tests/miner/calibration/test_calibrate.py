"""The fit of a slope and an intercept: values that were computed by hand, simulated labels, and labels that cannot be
fitted.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from miner.calibration.calibrate import calibrate
from miner.calibration.settings import CalibrateSettings
from miner.cli import app
from miner.inspection.labels import Label, LabelFile, LabelSample
from miner.selection.platt import Calibration, chances, cross_validated, fit_calibration, measures
from tests.miner.rows import identity, override_file, random_rows, score_folder, text_corpus
from unijudge.errors import DataError
from unijudge.formats.scores import Judged, JudgedQuery, read_scores
from unijudge.storage.files import publish_json, read_json


def simulated(slope, intercept, size=20_000, seed=0):
    dice = np.random.default_rng(seed)
    log_odds = dice.normal(1, 3, size)
    return log_odds, dice.random(size) < chances(slope * log_odds + intercept)


def test_a_known_slope_and_intercept_are_found_again():
    log_odds, matches = simulated(0.4, -1.2)
    assert fit_calibration(log_odds, matches, "platt") == pytest.approx((0.4, -1.2), abs=0.05)
    log_odds, matches = simulated(0.4, 0.0)
    assert fit_calibration(log_odds, matches, "temperature") == (pytest.approx(0.4, abs=0.02), 0.0)


@given(st.floats(0.1, 3), st.floats(-3, 3), st.sampled_from(["platt", "temperature"]))
def test_a_fit_is_a_minimum(slope, intercept, kind):
    """No small change of the parameters makes the smoothed labels more probable. So the fit is a minimum."""
    log_odds, matches = simulated(slope, intercept, size=60)
    found = np.array(fit_calibration(log_odds, matches, kind))
    positives, negatives = matches.sum(), (~matches).sum()
    targets = np.where(matches, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(weights):
        x = weights[0] * log_odds + weights[1]
        return (np.logaddexp(0, x) - targets * x).sum()

    for step in ([1e-3, 0], [-1e-3, 0], *([[0, 1e-3], [0, -1e-3]] if kind == "platt" else [])):
        assert loss(found + step) >= loss(found) - 1e-9


@pytest.mark.parametrize("kind", ["platt", "temperature"])
def test_labels_that_can_be_separated_do_not_diverge(kind):
    """Ten labels on each side.

    Platt's targets are 11/12 and 1/12, so the best fit gives exactly these probabilities.
    """
    log_odds = np.array([-5.0] * 10 + [5.0] * 10)
    slope, intercept = fit_calibration(log_odds, log_odds > 0, kind)
    assert chances(slope * log_odds + intercept) == pytest.approx(
        [1 / 12] * 10 + [11 / 12] * 10, abs=1e-4
    )
    wide, _ = fit_calibration(
        np.array([-500.0, -400, 400, 500]), np.array([False, False, True, True]), kind
    )
    assert 0 < wide < 0.1


def test_measures_by_hand():
    found = measures(np.array([0.8, 0.8, 0.3, 0.3]), np.array([True, False, False, False]))
    assert found.log_loss == pytest.approx(-np.log([0.8, 0.2, 0.7, 0.7]).mean())
    assert found.calibration_error == pytest.approx((0.3 + 0.3) / 2)
    assert np.isfinite(measures(np.array([0.0]), np.array([True])).log_loss)


def test_each_fold_is_measured_by_a_fit_to_the_other_folds():
    """A flipped label changes no probability in its own fold, and changes the probabilities in the other folds."""
    log_odds, matches = simulated(1, 0, size=40)
    before = cross_validated(log_odds, matches, "platt", 4, seed=0)
    shifted = log_odds + np.where(np.arange(40) == 3, 5.0, 0.0)
    after = cross_validated(shifted, matches, "platt", 4, seed=0)
    unmoved = np.isclose(before, after, atol=1e-12)
    assert 5 <= unmoved.sum() <= 14, "its own part, but for itself"
    assert not unmoved[3]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrate")
    corpus = text_corpus(folder, 60)
    rows = random_rows(corpus)
    score_folder(folder / "scores", corpus, rows)
    dice = np.random.default_rng(0)
    labels = [
        (
            row.query_id,
            one.item_id,
            bool(dice.random() < chances(np.float64(0.5 * one.log_odds - 1))),
        )
        for row in rows
        for one in (*row.positives, *row.candidates)
        if one.log_odds is not None
    ]
    failed = next(
        (r.query_id, one.item_id) for r in rows for one in r.candidates if one.log_odds is None
    )
    return folder, corpus, labels, failed


def write(path, labels):
    rows = [{"query_id": q, "item_id": i, "match": int(match)} for q, i, match in labels]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sampled(path, corpus, labels, judge="small", more=0):
    """The export of a page whose sampled pairs are labelled, except `more` pairs."""
    said = [Label(query_id=q, item_id=i, match=match) for q, i, match in labels]
    digest = identity(judge).digest
    sample = {"corpus": corpus.fingerprint, "judge": digest, "seed": 0, "sampled": len(said) + more}
    publish_json(path, LabelFile(**sample, labels=said))
    return path


def test_overrides_are_not_a_sample_and_a_sample_should_be_labelled_completely(
    world, tmp_path, caplog
):
    folder, corpus, labels, _ = world
    verdicts = [(q, i, "match" if match else "negative") for q, i, match in labels]
    common = {"scores": folder / "scores", "out": tmp_path / "c.json"}

    def fitted(file):
        return calibrate(CalibrateSettings(**common, labels=file))

    overrides = override_file(tmp_path / "overrides.json", corpus, *verdicts)
    with pytest.raises(
        DataError, match=r"overrides\.json: holds overrides .* biased\. Label the random sample"
    ):
        fitted(overrides)
    with pytest.raises(
        DataError, match=r"its sample was drawn evenly over the scores of judge .*, but these"
    ):
        fitted(sampled(tmp_path / "other.json", corpus, labels, judge="large"))
    assert not (tmp_path / "c.json").exists()
    fitted(sampled(tmp_path / "half.json", corpus, labels, more=30))
    assert any(
        f"{len(labels)} of the {len(labels) + 30} sampled pairs have a label" in one
        for one in caplog.messages
    )


def test_a_fit_to_overrides_is_wrong_and_a_fit_to_the_sample_is_right():
    """The scores of the judge are probabilities, so the slope is 1.

    A person corrects wrong verdicts, and confirms three of ten right verdicts.
    """
    log_odds, matches = simulated(1.0, 0.0)
    dice = np.random.default_rng(0)
    corrected = ((log_odds > 0) != matches) | (dice.random(len(matches)) < 0.3)
    assert fit_calibration(log_odds[corrected], matches[corrected], "platt")[0] < 0.6
    rows = [
        JudgedQuery(f"q{n}", "s", bytes(16), [], [Judged("i", bytes(16), 0, 0.5, value, 0.0)])
        for n, value in enumerate(log_odds.tolist())
    ]
    sample = LabelSample(4000, seed=0)
    for row in rows:
        sample.add(row)
    places = np.array([int(query_id[1:]) for query_id, _, _ in sample.pairs()])
    assert len(places) == 4000
    assert fit_calibration(log_odds[places], matches[places], "platt")[0] == pytest.approx(
        1, abs=0.1
    )
    tenths = np.histogram(chances(log_odds[places]), bins=10, range=(0, 1))[0]
    assert tenths.max() - tenths.min() <= 1, "evenly over the scores"
    assert sample.pairs() != sorted(sample.pairs(), key=lambda pair: int(pair[0][1:]))


def test_a_folder_is_calibrated_from_any_kind_of_labels(world, tmp_path):
    folder, corpus, labels, failed = world
    files = [
        write(tmp_path / "labels.jsonl", [*labels, (*failed, True)]),
        write(tmp_path / "labels.parquet", [*labels, (*failed, True)]),
        sampled(tmp_path / "labels.json", corpus, [*labels, (*failed, True)]),
    ]
    made = [
        calibrate(
            CalibrateSettings(
                scores=folder / "scores", labels=file, out=tmp_path / f"{file.suffix}.json"
            )
        )
        for file in files
    ]
    assert made[0] == made[1] == made[2] == read_json(tmp_path / ".jsonl.json", Calibration)
    done = made[0]
    assert (done.slope, done.intercept) == (
        pytest.approx(0.5, abs=0.25),
        pytest.approx(-1, abs=0.4),
    )
    assert done.judge == identity("small").digest
    assert done.matches + done.negatives == len(labels)
    assert done.without_verdict == 1
    assert done.after.log_loss < done.before.log_loss
    assert done.after.calibration_error < done.before.calibration_error


def test_labels_that_cannot_be_fitted_are_refused(world, tmp_path):
    folder, _, labels, _ = world

    def run(labels, **changes):
        file = write(tmp_path / "l.jsonl", labels)
        return calibrate(
            CalibrateSettings(
                scores=folder / "scores", labels=file, out=tmp_path / "c.json", **changes
            )
        )

    with pytest.raises(
        DataError, match=r"19 labelled pairs with a verdict, fewer than min_labels = 20"
    ):
        run(labels[:19])
    with pytest.raises(
        DataError, match=r"30 pairs match and 0 do not, but a fit needs at least two of each"
    ):
        run([(q, i, True) for q, i, _ in labels[:30]])
    with pytest.raises(DataError, match=r"pairs that match have lower scores"):
        run([(q, i, not match) for q, i, match in labels])
    with pytest.raises(
        DataError, match=r"1 labelled pairs are not among the scores .*query 'q0', item 'x'"
    ):
        run([*labels, ("q0", "x", True)])
    with pytest.raises(DataError, match=r"is labelled both as a match and as a negative"):
        run([*labels, (*labels[0][:2], not labels[0][2])])
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"query_id": "q0", "item_id": "i0", "match": [1]}\n')
    with pytest.raises(
        DataError,
        match=r"bad\.jsonl:1: expected the strings query_id and item_id, and match as 0 or 1",
    ):
        calibrate(CalibrateSettings(scores=folder / "scores", labels=bad, out=tmp_path / "c.json"))
    assert not (tmp_path / "c.json").exists()


def test_a_calibration_that_makes_scores_worse_is_reported(world, tmp_path, caplog):
    """The labels are drawn from the scores themselves, so a fit to twenty labels can only add noise."""
    folder, _, labels, _ = world
    odds = {
        (row.query_id, one.item_id): one.log_odds
        for row in read_scores(folder / "scores")
        for one in (*row.positives, *row.candidates)
    }
    dice = np.random.default_rng(1)
    drawn = [
        (q, i, bool(dice.random() < chances(np.float64(odds[q, i])))) for q, i, _ in labels[:20]
    ]
    files = write(tmp_path / "few.jsonl", drawn), write(tmp_path / "all.jsonl", labels)
    few, many = (
        calibrate(
            CalibrateSettings(
                scores=folder / "scores", labels=file, out=tmp_path / f"{file.stem}.json"
            )
        )
        for file in files
    )
    assert few.after.log_loss > few.before.log_loss, "the example says something"
    assert many.gain("log_loss") > 0 < many.gain("calibration_error")
    (said,) = caplog.messages
    assert said.startswith(
        f"{tmp_path / 'few.json'}: the calibration makes the scores of held-out pairs worse"
    )
    assert "log loss" in said


def test_only_an_older_calibration_is_replaced(world, tmp_path):
    folder, _, labels, _ = world
    file = write(tmp_path / "labels.jsonl", labels)
    before = file.read_text()
    with pytest.raises(
        DataError,
        match=r"labels\.jsonl: exists already, but is not this command's output .calibration.. Give another file",
    ):
        calibrate(CalibrateSettings(scores=folder / "scores", labels=file, out=file))
    assert file.read_text() == before
    settings = CalibrateSettings(scores=folder / "scores", labels=file, out=tmp_path / "c.json")
    assert calibrate(settings) == calibrate(settings)


def test_the_command_prints_the_fit(world, tmp_path):
    folder, _, labels, _ = world
    words = [
        f"scores={folder / 'scores'}",
        f"labels={write(tmp_path / 'l.jsonl', labels)}",
        f"out={tmp_path / 'c.json'}",
    ]
    done = CliRunner().invoke(app, ["calibrate", *words])
    assert done.exit_code == 0, done.output
    assert "slope 0." in done.output
    assert "log loss" in done.output
    assert "calibration error" in done.output
