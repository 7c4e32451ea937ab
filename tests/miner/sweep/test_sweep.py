"""A sweep has the counts of a selection for every point of its grid. The recommendation is tested too."""

import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from miner.cli import app
from miner.selection.diversity import SAMPLED_ROWS, Reservoir
from miner.selection.select import select
from miner.selection.settings import SelectSettings
from miner.sweep.recommend import SweepPoint, comparison_table, recommend
from miner.sweep.settings import SweepSettings
from miner.sweep.sweep import Sweep, grid, sweep
from tests.miner.conftest import embed
from tests.miner.rows import (
    calibration,
    identity,
    override_file,
    random_rows,
    score_folder,
    text_corpus,
)
from tests.miner.selection.bands import band
from unijudge.errors import DataError
from unijudge.formats.triples import read_triples
from unijudge.formats.vectors import VectorFolder
from unijudge.storage.files import publish_json, read_json

GRID = {
    "presets": ("unime-v2", "paper", "topk", "cyclic"),
    "betas": (0.05, 0.3, (0.3, 0.1, 0.01)),
    "ks": ("all", 4),
    "strides": (5, 2),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A corpus, its vectors, the scores of two judges, and everything else that a selection may read."""
    folder = tmp_path_factory.mktemp("world")
    corpus = text_corpus(folder, 60)
    embed(corpus, folder / "vectors")
    small, large = random_rows(corpus, 1), random_rows(corpus, 2)
    score_folder(folder / "small", corpus, small, "small")
    score_folder(folder / "band", corpus, list(band(small, large, 3)), "large", in_shard=7)
    for name, slope in [("small", 0.7), ("large", 1.5)]:
        publish_json(folder / f"{name}.json", calibration(identity(name).digest, slope, -0.3))
    long = [row for row in small if len(row.candidates) > 3]
    override_file(
        folder / "overrides.json", corpus, ("q1", None, "drop"), ("q7", "i7", "negative"), ("q7", "i8", "match"),
        ("q2", "i2", "negative"), (long[0].query_id, long[0].candidates[0].item_id, "match"),
        *((row.query_id, row.candidates[1].item_id, "negative") for row in long[1:5]),
    )  # fmt: skip
    return folder, corpus


@pytest.mark.parametrize(
    "changes",
    [
        {"log_odds_divisor": 1.3},
        {"suspect_action": "leave_out", "suspect_below": 0.6, "num_negatives": 3},
        {"overrides": "overrides.json", "calibration": ["small.json"]},
        {
            "scores": ["small", "band"],
            "calibration": ["small.json", "large.json"],
            "overrides": "overrides.json",
        },
    ],
)
def test_every_point_counts_what_a_selection_counts(world, tmp_path, changes):
    folder, corpus = world
    inputs = {"scores": ["small"]} | changes
    for name in ("scores", "calibration"):
        inputs[name] = tuple(folder / one for one in inputs.get(name, ()))
    if "overrides" in inputs:
        inputs["overrides"] = folder / inputs["overrides"]
    common = inputs | {"corpus": corpus.folder, "vectors": folder / "vectors"}
    settings = SweepSettings(**common, **GRID)
    report = sweep(settings)
    points = list(grid(settings))
    assert len(report.points) == len(points) == 2 * (3 * 2 + 3 * 2 + 1 + 2)
    for place, (point, selection) in enumerate(zip(report.points, points, strict=True)):
        made = selection.model_dump(include={"preset", "betas", "k", "stride"})
        table = select(SelectSettings(**common, **made, out=tmp_path / str(place)))
        del table["extra positives offered"]
        assert list(point.statistics) == list(table)
        assert point.statistics == pytest.approx(table, abs=1.1e-4), made
        assert table["rows kept"] > 0
        assert point.short_share == pytest.approx(
            table["rows short of survivors"] / (table["rows kept"] + table["left out, no survivor"])
        )
    seen = {name for point in report.points for name, value in point.statistics.items() if value}
    assert seen >= set(report.points[0].statistics) - {
        "left out, suspect positive",
        "left out by a person",
    }
    assert ("left out, suspect positive" in seen) == ("suspect_action" in changes)
    assert ("left out by a person" in seen) == ("overrides" in changes)


def test_where_the_second_judges_shards_are_missing_the_first_decides(world, tmp_path):
    folder, corpus = world
    shutil.copytree(folder / "band", tmp_path / "band")
    for shard in (*range(3), 5):
        (tmp_path / "band" / f"part-{shard:05d}.parquet").unlink()
    common = {
        "scores": (folder / "small", tmp_path / "band"),
        "corpus": corpus.folder,
        "partial": True,
    }
    (point,) = sweep(
        SweepSettings(**common, presets=("unime-v2",), betas=(0.05,), log_odds_divisor=1.3)
    ).points
    settings = SelectSettings(**common, betas=(0.05,), log_odds_divisor=1.3, out=tmp_path / "out")
    table = select(settings)
    assert point.statistics == pytest.approx(
        {name: table[name] for name in point.statistics}, abs=1.1e-4
    )
    judges = {
        n.judge for row in read_triples(settings.out, corpus.fingerprint) for n in row.negatives
    }
    assert judges == {0, 1}
    for shard in (*range(3, 5), *range(6, 9)):
        (tmp_path / "band" / f"part-{shard:05d}.parquet").unlink()
    (alone,) = sweep(SweepSettings(**common, presets=("topk",))).points
    assert alone.statistics["rows kept"] > 0


def test_the_sample_is_even_and_the_same_on_every_run():
    reservoirs = [Reservoir(0), Reservoir(0), Reservoir(1)]
    for reservoir in reservoirs:
        for value in range(4 * SAMPLED_ROWS):
            reservoir.add(value)
    first, again, other = (sorted(reservoir.held) for reservoir in reservoirs)
    assert first == again != other
    assert len(set(first)) == SAMPLED_ROWS
    quarters = np.histogram(first, bins=4, range=(0, 4 * SAMPLED_ROWS))[0]
    # The limit is χ² with 3 degrees of freedom at p = .001.
    assert ((quarters - SAMPLED_ROWS / 4) ** 2 / (SAMPLED_ROWS / 4)).sum() < 16.3


def point(beta, false_negatives, short, **changes):
    betas = () if beta is None else (beta,)
    made = SweepPoint(
        preset="unime-v2", betas=betas, k=None, stride=5, statistics={}, false_negative_share=false_negatives,
        short_share=short,
    )  # fmt: skip
    return made.model_copy(update=changes)


def test_the_smallest_beta_within_both_limits_is_recommended():
    points = [
        point(None, 0.01, 0.0, preset="topk"),
        point(0.3, 0.01, 0.15),
        point(0.1, 0.045, 0.08),
        point(0.2, 0.03, 0.10),
        point(0.01, 0.12, 0.01),
    ]
    best, reason = recommend(points, 0.05, 0.2, calibrated=True)
    assert best == 2
    assert reason == (
        "β = 0.1 (unime-v2, stride 5), with 4.5% expected false negatives and 8.0% short rows: the smallest β of the "
        "grid with at most 5.0% expected false negatives and 20.0% short rows."
    )
    assert recommend(points, 0.03, 0.2, calibrated=True)[0] == 3
    assert (
        "at face value (no calibration is given)"
        in recommend(points, 0.05, 0.2, calibrated=False)[1]
    )


def test_if_no_beta_fits_the_nearest_are_named():
    points = [
        point(0.01, 0.2, 0.01),
        point(0.1, 0.08, 0.2),
        point(0.3, 0.02, 0.6),
        point(0.4, 0.01, 0.9),
    ]
    best, reason = recommend(points, 0.05, 0.25, calibrated=True)
    assert best is None
    assert (
        "The nearest are β = 0.3 (unime-v2, stride 5), with 2.0% expected false negatives and 60.0% short rows; or "
        in reason
    )
    assert (
        "β = 0.1 (unime-v2, stride 5), with 8.0% expected false negatives and 20.0% short rows. Raise"
        in reason
    )
    best, reason = recommend(points[:1], 0.05, 0.25, calibrated=True)
    assert (best, reason.count("β = 0.01")) == (None, 1)
    assert recommend([point(None, 0.1, 0.0)], 0.05, 0.2, calibrated=True)[0] is None


def test_the_command_prints_an_aligned_table_and_writes_it(world, tmp_path):
    folder, corpus = world
    out = tmp_path / "sweep.json"
    words = [
        f"scores={folder / 'small'}",
        f"corpus={corpus.folder}",
        f"out={out}",
        "betas=[0.1, [0.1, 0.01]]",
    ]
    done = CliRunner().invoke(app, ["sweep", *words])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    report = read_json(out, Sweep)
    assert len({len(line) for line in lines[: len(report.points) + 1]}) == 1
    assert lines[-1] == report.reason
    assert comparison_table(report.points)[1][:4] == ["unime-v2", "0.1", "all", "5"]
    assert "0.1 → 0.01" in done.output
    head = dict(
        zip(lines[0].replace("false neg.", "false_neg.").split(), lines[1].split(), strict=True)
    )
    assert head["false_neg."] == f"{report.points[0].false_negative_share:.1%}"
    assert head["short"] == f"{report.points[0].short_share:.1%}"
    assert "short: share of rows with fewer survivors than num_negatives, kept or left out" in lines
    strange = override_file(tmp_path / "o.json", corpus, ("q-none", None, "drop"))
    with pytest.raises(DataError, match="query 'q-none' is not among the scores"):
        sweep(SweepSettings(scores=folder / "small", corpus=corpus.folder, overrides=strange))
    (folder / "small" / "part-00001.parquet").rename(tmp_path / "away")
    with pytest.raises(DataError, match="1 of 4 shards are missing"):
        sweep(SweepSettings(scores=folder / "small", corpus=corpus.folder))
    some = sweep(SweepSettings(scores=folder / "small", corpus=corpus.folder, partial=True))
    assert {one.statistics["queries"] for one in some.points} == {44}
    (tmp_path / "away").rename(folder / "small" / "part-00001.parquet")


def test_a_report_replaces_no_file_of_another_kind(world):
    folder, corpus = world
    before = (folder / "small.json").read_text()
    with pytest.raises(
        DataError,
        match=r"small\.json: exists already, but is not this command's output .report of a sweep.",
    ):
        sweep(
            SweepSettings(scores=folder / "small", corpus=corpus.folder, out=folder / "small.json")
        )
    assert (folder / "small.json").read_text() == before


def test_vectors_are_read_once_for_the_whole_grid(world, monkeypatch):
    """Each point has the similarities of its own rows. The other tests compare them with the selections."""
    folder, corpus = world
    settings = SweepSettings(
        scores=folder / "small",
        corpus=corpus.folder,
        vectors=folder / "vectors",
        presets=("unime-v2",),
    )
    taken = []
    take = VectorFolder.take

    def counted(self, kind, rows):
        taken.append(len(rows))
        return take(self, kind, rows)

    monkeypatch.setattr(VectorFolder, "take", counted)
    points = sweep(settings).points
    assert (
        len({point.statistics["mean similarity among a row's negatives"] for point in points}) > 1
    )
    assert len(taken) == 1 < len(points)


def test_one_value_needs_no_brackets():
    one = {"presets": "topk", "betas": 0.1, "ks": 5, "strides": 2}
    made = SweepSettings(scores="s", corpus="c", **one)
    assert (made.presets, made.betas, made.ks, made.strides) == (("topk",), (0.1,), (5,), (2,))
