"""A cascade of two judges: the decisions of each judge, and a whole selection."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from miner.cli import app
from miner.selection.negatives import select_negatives
from miner.selection.resolve import Case
from miner.selection.select import select
from miner.selection.settings import SelectSettings
from miner.settings import ScoreSettings
from miner.sweep.settings import SweepSettings
from miner.sweep.sweep import sweep
from tests.miner.rows import (
    calibration,
    identity,
    judged,
    names,
    query,
    random_rows,
    score_folder,
    text_corpus,
)
from tests.miner.selection.bands import band
from tests.miner.selections import manifest
from unijudge.errors import DataError, SettingsError
from unijudge.formats.scores import JudgedQuery, ScoreManifest, read_scores
from unijudge.formats.triples import (
    Scale,
    TripleManifest,
    finish_triples,
    read_triples,
    write_triples,
)
from unijudge.settings import load_settings
from unijudge.storage.files import publish_json, read_json

SETTINGS = SelectSettings(scores="unused", corpus="unused", out="unused", num_negatives=2)


def large_row(positive, **scores):
    """A row of the second judge with some of the candidates."""
    candidates = [judged(name, p, int(name[1:])) for name, p in scores.items()]
    return JudgedQuery("q", "s", bytes(16), [judged("p", positive)], candidates)


def test_each_candidate_is_compared_with_the_positives_score_by_the_same_judge():
    """β = .1.

    First judge: σ⁺ = .9, c0 .85 is dropped, c1 .5 survives, c2 .82 is dropped. Second judge: σ⁺ = .6, c0 .4 survives,
    c2 .55 is dropped, and c1 was not judged.
    """
    small = query(0.9, [0.85, 0.5, 0.82])
    choice = select_negatives(Case(small, large=large_row(0.6, c0=0.4, c2=0.55)), SETTINGS)
    assert names(choice) == ["c0", "c1"]
    assert [negative.judge for negative in choice.triple.negatives] == [1, 0]
    assert [one.score for one in choice.picked] == pytest.approx([0.4, 0.5])
    assert choice.dropped == 1
    assert choice.triple.positive_judge == 1
    assert choice.triple.labels([Scale(), Scale(slope=2.0)]) == pytest.approx(
        [
            1 / (1 + math.exp(-2 * math.log(0.6 / 0.4))),
            1 / (1 + math.exp(-2 * math.log(0.4 / 0.6))),
            0.5,
        ]
    )


def test_the_second_judge_decides_only_where_it_answered():
    small = query(0.9, [0.85, 0.5])
    alone = select_negatives(Case(small), SETTINGS)
    nothing = JudgedQuery("q", "s", bytes(16), [], [])
    assert select_negatives(Case(small, large=nothing), SETTINGS) == alone
    unsure = select_negatives(Case(small, large=large_row(0.6, c0=None)), SETTINGS)
    assert unsure.triple.negatives == alone.triple.negatives
    assert select_negatives(Case(small, large=large_row(None, c0=0.1)), SETTINGS) == alone, (
        "without its σ⁺ nothing can be said"
    )


def test_a_persons_negative_needs_no_positive_of_its_judge():
    """The first judge has no σ⁺. The overrides and the second judge's answers count, and c0 is not chosen."""
    offering = SETTINGS.model_copy(update={"extra_positives": True})
    choice = select_negatives(
        Case(
            query(None, [0.3, 0.95, 0.2]),
            large=large_row(0.6, c2=0.4),
            overrides={"c1": "negative"},
        ),
        offering,
    )
    assert (names(choice), choice.triple.extra_positives) == (["c1", "c2"], [])


probabilities = st.floats(0.01, 0.99)


@given(probabilities, st.lists(st.tuples(probabilities, probabilities), max_size=20), probabilities)
def test_a_band_of_everything_is_the_full_selection_and_a_band_of_nothing_the_first(
    positive, scores, large_positive
):
    small = query(positive, [p for p, _ in scores])
    full = query(large_positive, [p for _, p in scores])
    choice, expected = (
        select_negatives(Case(small, large=full), SETTINGS),
        select_negatives(Case(full), SETTINGS),
    )
    assert (choice.reason, choice.dropped, choice.survivors, choice.tie, choice.suspect) == (
        expected.reason, expected.dropped, expected.survivors, expected.tie, expected.suspect,
    )  # fmt: skip
    if expected.triple:
        assert choice.triple.positive == expected.triple.positive
        assert choice.triple.negatives == [
            replace(negative, judge=1) for negative in expected.triple.negatives
        ]
    empty = JudgedQuery("q", "s", bytes(16), [], [])
    assert select_negatives(Case(small, large=empty), SETTINGS) == select_negatives(
        Case(small), SETTINGS
    )


def test_a_cascade_of_folders_and_how_much_of_the_full_run_it_reproduces(tmp_path):
    corpus = text_corpus(tmp_path, 40)
    small, large = random_rows(corpus, 1), random_rows(corpus, 2)
    score_folder(tmp_path / "small", corpus, small, "small")
    score_folder(tmp_path / "full", corpus, large, "large")
    score_folder(tmp_path / "band", corpus, list(band(small, large, 2)), "large", in_shard=9)
    common = SelectSettings(scores="unused", corpus=corpus.folder, out="unused", num_negatives=3)

    def run(out, scores, **changes):
        made = common.model_copy(
            update={"scores": tuple(tmp_path / s for s in scores), "out": tmp_path / out} | changes
        )
        return select(made), {
            row.query_id: row for row in read_triples(made.out, corpus.fingerprint)
        }

    _, full = run("t-full", ["full"])
    table, cascade = run("t-cascade", ["small", "band"], compare=tmp_path / "t-full")
    expected = {
        one.query_id: select_negatives(Case(one, large=other), common).triple
        for one, other in zip(
            read_scores(tmp_path / "small"), read_scores(tmp_path / "band"), strict=True
        )
    }
    assert {key: [n.item_id for n in row.negatives] for key, row in cascade.items()} == {
        key: [n.item_id for n in row.negatives] for key, row in expected.items() if row is not None
    }
    assert any(len({n.judge for n in row.negatives}) == 2 for row in cascade.values())
    sets = [
        {key: {n.item_id for n in row.negatives} for key, row in rows.items()}
        for rows in (full, cascade)
    ]
    kept = sum(key in sets[1] for key in sets[0])
    same = sum(sets[1].get(key) == value for key, value in sets[0].items())
    negatives = sum(len(value & sets[1].get(key, set())) for key, value in sets[0].items())
    assert table["compared: its rows kept here too"] == pytest.approx(kept / len(full), abs=1e-4)
    assert table["compared: its rows with the same negatives"] == pytest.approx(
        same / len(full), abs=1e-4
    )
    total = sum(map(len, sets[0].values()))
    assert table["compared: its negatives chosen here too"] == pytest.approx(
        negatives / total, abs=1e-4
    )
    assert 0 < same < len(full), "the example says something"
    itself, _ = run("t-again", ["full"], compare=tmp_path / "t-full")
    assert [value for name, value in itself.items() if name.startswith("compared")] == [1, 1, 1]
    stranger = [
        replace(row, candidates=[replace(one, item_id="i-none") for one in row.candidates])
        for row in large
    ]
    score_folder(tmp_path / "stranger", corpus, stranger, "large")
    cascade = {"corpus": corpus.folder, "scores": (tmp_path / "small", tmp_path / "stranger")}
    refuse = pytest.raises(DataError, match=r"stranger: has a candidate that .*small does not have")
    with refuse:
        select(SelectSettings(**cascade, out=tmp_path / "no"))
    with refuse:
        sweep(SweepSettings(**cascade))
    with pytest.raises(DataError, match="was scored by the same judge as"):
        run("t-twice", ["full", "band"])


def test_a_calibration_for_each_judge_is_read_and_travels_along(tmp_path):
    corpus = text_corpus(tmp_path, 20)
    small, large = random_rows(corpus, 1), random_rows(corpus, 2)
    folders = (
        score_folder(tmp_path / "small", corpus, small, "small"),
        score_folder(tmp_path / "large", corpus, large, "large"),
    )
    files = {}
    for name, slope in [("small", 0.5), ("large", 2.0), ("other", 1.0)]:
        files[name] = tmp_path / f"{name}.json"
        publish_json(files[name], calibration(identity(name).digest, slope, -1.0))
    common = SelectSettings(scores=folders, corpus=corpus.folder, out=tmp_path / "t")
    table = select(common.model_copy(update={"calibration": (files["large"], files["small"])}))
    assert read_json(tmp_path / "t" / "triples.json", TripleManifest).scales == (
        Scale(slope=0.5, intercept=-1.0),
        Scale(slope=2.0, intercept=-1.0),
    )
    assert "expected false negatives" in table
    half = select(
        common.model_copy(update={"calibration": (files["large"],), "out": tmp_path / "half"})
    )
    assert "expected false negatives (at face value)" in half
    with pytest.raises(
        DataError,
        match=r"other\.json: was fitted to judge .* but the scores are of small .* and large",
    ):
        select(common.model_copy(update={"calibration": (files["other"],), "out": tmp_path / "o"}))
    with pytest.raises(DataError, match="Give one calibration for each"):
        select(
            common.model_copy(update={"calibration": (files["small"],) * 2, "out": tmp_path / "o"})
        )


def test_an_extra_positive_keeps_the_judge_that_scored_it(tmp_path):
    """First judge: σ⁺ = .5, and c0 with .7 scores above it.

    Second judge: σ⁺ = .6, and c1 with .8 scores above it. A person calls c2 a match.
    """
    small, large = query(0.5, [0.7, 0.5, 0.9, 0.1]), large_row(0.6, c1=0.8, c2=0.3)
    made = SETTINGS.model_copy(update={"extra_positives": True})
    choice = select_negatives(Case(small, large=large, overrides={"c2": "match"}), made)
    assert [(one.item_id, one.judge) for one in choice.triple.extra_positives] == [
        ("c2", 1),
        ("c0", 0),
        ("c1", 1),
    ]
    write_triples(tmp_path, [choice.triple])
    scales = (Scale(), Scale(slope=2.0))
    finish_triples(tmp_path, manifest("c" * 64, 1, scales=scales))
    (read,) = read_triples(tmp_path, "c" * 64)
    labels = [one.label(scales) for one in read.extra_positives]
    assert labels == pytest.approx([1.0, 0.7, 0.64 / 0.68]), (
        "p² / (p² + (1 − p)²) at a slope of 2; 1 by a person"
    )


def test_scores_of_two_judges_that_are_not_calibrated_are_named(tmp_path, caplog):
    corpus = text_corpus(tmp_path, 20)
    small, large = random_rows(corpus, 1), random_rows(corpus, 2)
    folders = (
        score_folder(tmp_path / "small", corpus, small, "small"),
        score_folder(tmp_path / "band", corpus, list(band(small, large, 2)), "large"),
    )
    settings = SelectSettings(
        scores=folders, corpus=corpus.folder, out=tmp_path / "t", num_negatives=3
    )
    select(settings)
    rows = list(read_triples(settings.out, corpus.fingerprint))
    mixed = sum(len({row.positive_judge, *(n.judge for n in row.negatives)}) == 2 for row in rows)
    assert 0 < mixed < len(rows), "the example says something"
    (warning,) = [message for message in caplog.messages if "two judges" in message]
    assert f"{mixed} rows have scores of two judges that are not both calibrated" in warning
    assert not read_json(settings.out / "triples.json", TripleManifest).calibrated
    caplog.clear()
    select(settings.model_copy(update={"scores": folders[:1], "out": tmp_path / "one"}))
    files = (tmp_path / "small.json", tmp_path / "large.json")
    for path in files:
        publish_json(path, calibration(identity(path.stem).digest, 1.0))
    select(settings.model_copy(update={"calibration": files, "out": tmp_path / "fitted"}))
    assert read_json(tmp_path / "fitted" / "triples.json", TripleManifest).calibrated
    assert not any("two judges" in message for message in caplog.messages)


def test_a_band_around_another_cut_is_named(tmp_path, caplog):
    corpus = text_corpus(tmp_path, 20)
    small, large = random_rows(corpus, 1), random_rows(corpus, 2)
    first = score_folder(tmp_path / "small", corpus, small, "small")
    drawn = {"scores": fingerprint(first), "beta": 0.1, "width": 0.2, "slope": 1, "intercept": 0}
    second = score_folder(
        tmp_path / "band", corpus, list(band(small, large, 2)), "large", band=drawn
    )
    folders = (first, second)
    files = (tmp_path / "small.json", tmp_path / "large.json")
    for path in files:
        publish_json(path, calibration(identity(path.stem).digest, 0.5, -1.0))
    settings = SelectSettings(
        scores=folders, corpus=corpus.folder, out=tmp_path / "t", calibration=files
    )
    select(settings)
    (warning,) = [message for message in caplog.messages if "near the cut of scores" in message]
    assert (
        "candidates near the cut of scores with slope 1 and intercept 0, but this selection cuts"
        in warning
    )
    assert "with the cascade.calibration and cascade.log_odds_divisor of this selection" in warning
    caplog.clear()
    plain = settings.model_copy(update={"calibration": (), "out": tmp_path / "plain"})
    select(plain)
    assert not any("near the cut of scores" in message for message in caplog.messages)
    select(plain.model_copy(update={"log_odds_divisor": 1.05, "out": tmp_path / "divided"}))
    assert any("near the cut of scores" in message for message in caplog.messages)


def fingerprint(folder):
    return read_json(folder / "manifest.json", ScoreManifest).fingerprint


def test_a_band_of_other_scores_is_refused(tmp_path):
    """There are two first judges.

    The band was drawn around the cut of one of them, and is given with the scores of the other.
    """
    corpus = text_corpus(tmp_path, 20)
    small, large = random_rows(corpus, 1), random_rows(corpus, 2)
    first = score_folder(tmp_path / "small", corpus, small, "small")
    other = score_folder(tmp_path / "other", corpus, small, "another small one")
    drawn = {"scores": fingerprint(first), "beta": 0.1, "width": 0.2, "slope": 1, "intercept": 0}
    second = score_folder(
        tmp_path / "band", corpus, list(band(small, large, 2)), "large", band=drawn
    )
    reason = rf"band: is the second step .* fingerprint {drawn['scores'][:16]}, but .*other has .*\. Give the folder"
    for run, kind in ((select, SelectSettings), (sweep, SweepSettings)):
        with pytest.raises(DataError, match=reason):
            run(kind(scores=(other, second), corpus=corpus.folder, out=tmp_path / "no"))
    assert not (tmp_path / "no").exists()
    select(SelectSettings(scores=(first, second), corpus=corpus.folder, out=tmp_path / "yes"))


@pytest.mark.parametrize(
    ("betas", "far"),
    [(None, None), (0.3, None), (0.31, "0.31"), ((0.1, 0.5), "0.5"), ((0.5, 0.4), "0.4, 0.5")],
)
def test_a_margin_outside_of_the_band_is_named(tmp_path, caplog, betas, far):
    """The band was drawn for β = 0.1 with a width of 0.2.

    The margins of the preset, 0.1 … 0.001, are inside the band.
    """
    corpus = text_corpus(tmp_path, 20)
    small, large = random_rows(corpus, 1), random_rows(corpus, 2)
    first = score_folder(tmp_path / "small", corpus, small, "small")
    drawn = {"scores": fingerprint(first), "beta": 0.1, "width": 0.2, "slope": 1, "intercept": 0}
    second = score_folder(
        tmp_path / "band", corpus, list(band(small, large, 2)), "large", band=drawn
    )
    select(
        SelectSettings(
            scores=(first, second), corpus=corpus.folder, out=tmp_path / "t", betas=betas
        )
    )
    overrides = [
        message for message in caplog.messages if "the second judge scored only" in message
    ]
    assert len(overrides) == (far is not None)
    assert (
        far is None
        or f"within 0.2 of the cut at β = 0.1, but this selection cuts at β = {far}. "
        in overrides[0]
    )


def test_a_divisor_beside_a_calibration_is_refused():
    words = ["scores=a", "corpus=b", "out=c", "calibration=d", "log_odds_divisor=1.05"]
    with pytest.raises(
        SettingsError,
        match=r"log_odds_divisor = 1\.05 cannot be combined .* Leave out one of the two",
    ):
        load_settings(SelectSettings, None, words)
    words = ["corpus=b", "out=c", "cascade.calibration=d", "cascade.log_odds_divisor=1.05"]
    with pytest.raises(
        SettingsError, match=r"log_odds_divisor = 1\.05 cannot be combined with a calibration"
    ):
        load_settings(ScoreSettings, None, words)


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "large").mkdir()
    done = CliRunner().invoke(app, ["select", str(tmp_path / "large")])
    assert isinstance(done.exception, SettingsError)
    assert (
        f"Give a folder of scores as scores={tmp_path / 'large'}, or two folders as scores=["
        in str(done.exception)
    )
