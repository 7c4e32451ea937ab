"""Scores of an earlier job are not requested again. A cascade requests only the pairs that the first judge doubted."""

import json
from dataclasses import replace

import pytest

from judge_service.backends.scripted import ScriptedJudge
from miner.estimate.estimate import estimate_cost
from miner.importers.building.build import build
from miner.importers.pairs import read_pairs
from miner.scoring.job import score
from miner.scoring.pairs import in_band
from miner.selection.negatives import score_of
from miner.settings import CascadeSettings
from tests.miner.conftest import embed, quiet, serving
from tests.miner.counting import Counting
from tests.miner.rows import calibration
from unijudge.errors import DataError, JudgeChanged, SettingsError
from unijudge.formats.corpus import Corpus
from unijudge.formats.parts import part_path
from unijudge.formats.scores import Judged, JudgedQuery, ScoreManifest, read_scores
from unijudge.formats.triples import Scale
from unijudge.judging.prompt import Prompt
from unijudge.storage.files import publish_json, read_json


def pairs_in(folder):
    return {
        (row.query_key, one.item_key)
        for row in read_scores(folder)
        for one in [*row.positives, *row.candidates]
    }


def verdicts(folder):
    return {
        (row.query_key, one.item_key): one.log_odds
        for row in read_scores(folder)
        for one in [*row.positives, *row.candidates]
    }


def test_a_larger_k_asks_for_new_pairs_only(job, tmp_path):
    judge = Counting()
    with serving(judge) as url:
        first = score(job(url, k=5), quiet)
        assert first.counts.asked == len(pairs_in(job(url).out)) == judge.pairs.total()
        larger = job(url, k=12, out=tmp_path / "larger", reuse=(job(url).out,))
        second = score(larger, quiet)
        assert set(judge.pairs.values()) == {1}
        assert second.counts.asked == len(pairs_in(larger.out) - pairs_in(job(url).out))
        fresh = job(url, k=12, out=tmp_path / "fresh")
        score(fresh, quiet)
    # Ranks and similarities come from the new search.
    assert list(read_scores(larger.out)) == list(read_scores(fresh.out))


def test_another_pool_and_an_added_query_ask_for_new_pairs_only(job, tmp_path, corpus):
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    rows.append({"query_text": "find the new one", "positive_text": "something new"})
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = tmp_path / "more"
    build(
        read_pairs(tmp_path / "more.jsonl"),
        images=corpus.images,
        out=more,
        source="t",
        max_rejects=0,
    )
    embed(Corpus(more), tmp_path / "more_vectors")
    judge = Counting()
    with serving(judge) as url:
        score(job(url, k=40), quiet)
        added = job(
            url,
            corpus=more,
            vectors=tmp_path / "more_vectors",
            pool="subset",
            out=tmp_path / "s",
            reuse=(job(url).out,),
        )
        done = score(added, quiet)
    assert set(judge.pairs.values()) == {1}
    new = pairs_in(added.out) - pairs_in(job(url).out)
    assert done.counts.asked == len(new) > 0
    assert Corpus(more).queries[len(rows) - 1].key in {query for query, _ in new}


def test_a_question_of_two_rows_is_requested_once(job, corpus):
    judge = Counting()
    with serving(judge) as url:
        done = score(job(url, shard_size=100, k=200), quiet)
    assert set(judge.pairs.values()) == {1}
    assert done.counts.asked < done.counts.pairs


def test_a_text_with_another_line_break_is_another_question_to_the_judge(job, tmp_path, corpus):
    """Corpus B is corpus A with a line break after each query.

    The judge sees another text, so the stored scores do not apply.
    """
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    changed = [row | {"query_text": row["query_text"] + "\n"} for row in rows]
    (tmp_path / "broken.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    other = tmp_path / "other"
    build(
        read_pairs(tmp_path / "broken.jsonl"),
        images=corpus.images,
        out=other,
        source="t",
        max_rejects=0,
    )
    embed(Corpus(other), tmp_path / "other_vectors")
    common = {"corpus": other, "vectors": tmp_path / "other_vectors"}
    with serving(ScriptedJudge(Prompt())) as url:
        score(job(url), quiet)
        reused = job(url, **common, out=tmp_path / "reused", reuse=(job(url).out,))
        done = score(reused, quiet)
        fresh = job(url, **common, out=tmp_path / "fresh")
        score(fresh, quiet)
    assert done.counts.asked == len(pairs_in(fresh.out)) > 0
    assert verdicts(reused.out) == verdicts(fresh.out) != verdicts(job(url).out)


def test_pairs_with_errors_are_requested_again(job, corpus, tmp_path):
    picture = corpus.images / "10.png"
    data = picture.read_bytes()
    picture.unlink()
    with serving(ScriptedJudge(Prompt())) as url:
        failed = score(job(url, max_error_share=0.5), quiet).counts.errors
        picture.write_bytes(data)
        again = score(job(url, out=tmp_path / "again", reuse=(job(url).out,)), quiet)
    assert again.counts.asked >= failed > again.counts.errors == 0


def test_scores_of_another_judge_are_not_reused(job, tmp_path):
    with serving(ScriptedJudge(Prompt())) as url:
        score(job(url), quiet)
    other = serving(ScriptedJudge(Prompt(instruction="Something else?")))
    with other as url:
        refused = job(url, out=tmp_path / "other", reuse=(job(url).out,))
        for action in (lambda: score(refused, quiet), lambda: estimate_cost(refused, 50)):
            with pytest.raises(
                JudgeChanged, match=r"scores: cannot be reused, because it was scored by scripted"
            ):
                action()
            assert not refused.out.exists()


def test_a_damaged_shard_in_reuse_is_named(job, tmp_path):
    with serving(ScriptedJudge(Prompt())) as url:
        score(job(url), quiet)
        torn = part_path(job(url).out, 2)
        torn.write_bytes(torn.read_bytes()[:-200])
        with pytest.raises(DataError, match=r"part-00002\.parquet: not a whole Parquet file"):
            score(job(url, out=tmp_path / "other", reuse=(job(url).out,)), quiet)


def judged(item, odds):
    return Judged(item, item.encode(), 0, 0.5, odds, 0.0 if odds is not None else None)


def test_the_band_by_hand():
    """σ⁺ = 0.8808, so the cut is at 0.7808.

    0.73 and 0.62 are within 0.2 of the cut, 0.95 and 0.5 are not. A pair without a score is not in the band.
    """
    positive = judged("p", 2.0)
    near = [
        judged("a", 1.0),
        judged("b", 0.5),
        judged("c", 3.0),
        judged("d", 0.0),
        judged("e", None),
    ]
    query = JudgedQuery("q", "s", b"k", [replace(positive, rank=None)], near)
    assert score_of(positive) == pytest.approx(0.8808, abs=1e-4)
    assert [one.item_id for one in in_band(query, 0.1, 0.2, Scale())] == ["a", "b", "c", "e"]
    assert [one.item_id for one in in_band(query, 0.1, 0.1, Scale())] == ["a", "e"]
    unknown = replace(query, positives=[replace(judged("p", None), rank=None)])
    assert in_band(unknown, 0.1, 0.1, Scale()) == near


def test_the_band_is_drawn_around_the_cut_of_calibrated_scores():
    """Slope ½, intercept −1: σ⁺ = σ(0) = .5, so the cut is at .4. a gets σ(−.5) = .378, c σ(.5) = .622 and d σ(−1) =
    .269. Without the calibration, c (.953) is far above the cut (.781), and d (.5) is far below the cut.
    """
    near = [judged("a", 1.0), judged("c", 3.0), judged("d", 0.0)]
    query = JudgedQuery("q", "s", b"k", [replace(judged("p", 2.0), rank=None)], near)
    fitted = Scale(slope=0.5, intercept=-1.0)
    assert [one.item_id for one in in_band(query, 0.1, 0.15, fitted)] == ["a", "d"]
    assert [one.item_id for one in in_band(query, 0.1, 0.15, Scale())] == ["a"]
    assert [one.item_id for one in in_band(query, 0.1, 0.25, fitted)] == ["a", "c", "d"]


def test_a_band_remembers_its_scale_and_refuses_another_judges(job, tmp_path):
    with serving(ScriptedJudge(Prompt())) as url:
        small = job(url, k=20)
        score(small, quiet)
    judge = read_json(small.out / "manifest.json", ScoreManifest).judge
    files = [tmp_path / "fit.json", tmp_path / "stranger.json"]
    for file, digest in zip(files, [judge.digest, "0" * 16], strict=True):
        publish_json(file, calibration(digest, slope=0.5, intercept=-1.0))
    second = Counting()
    second._identity = second._identity.model_copy(update={"weights": "large"})
    with serving(second) as url:
        band = CascadeSettings(scores=small.out, width=0.1, calibration=files[0])
        large = job(url, out=tmp_path / "large", vectors=None, cascade=band)
        score(large, quiet)
        with pytest.raises(DataError, match=r"stranger\.json: was fitted to judge 0000"):
            score(
                job(
                    url,
                    out=tmp_path / "no",
                    cascade=band.model_copy(update={"calibration": files[1]}),
                ),
                quiet,
            )
    assert not (tmp_path / "no").exists()
    kept = read_json(large.out / "manifest.json", ScoreManifest).band
    assert (kept["slope"], kept["intercept"]) == (0.5, -1.0)
    for first, row in zip(read_scores(small.out), read_scores(large.out), strict=True):
        doubtful = in_band(first, 0.1, 0.1, Scale(slope=0.5, intercept=-1.0))
        assert [one.item_id for one in row.candidates] == [one.item_id for one in doubtful]


def test_a_cascade_asks_the_second_judge_about_doubtful_pairs_only(job, tmp_path):
    with serving(ScriptedJudge(Prompt())) as url:
        small = job(url, k=20)
        score(small, quiet)
        with pytest.raises(SettingsError, match="needs a different judge"):
            score(
                job(url, out=tmp_path / "large", cascade=CascadeSettings(scores=small.out)), quiet
            )
    second = Counting()
    second._identity = second._identity.model_copy(update={"weights": "large"})
    with serving(second) as url:
        large = job(
            url,
            out=tmp_path / "large",
            vectors=None,
            cascade=CascadeSettings(scores=small.out, width=0.1),
        )
        score(large, quiet)
    manifest = read_json(large.out / "manifest.json", ScoreManifest)
    assert manifest.band is not None
    assert manifest.k == 20
    for first, row in zip(read_scores(small.out), read_scores(large.out), strict=True):
        doubtful = in_band(first, 0.1, 0.1, Scale())
        assert [one.item_id for one in row.candidates] == [one.item_id for one in doubtful]
        assert [(one.rank, one.similarity) for one in row.candidates] == [
            (o.rank, o.similarity) for o in doubtful
        ]
        assert [one.item_id for one in row.positives] == [
            one.item_id for one in first.positives if doubtful
        ]
    assert 0 < len(pairs_in(large.out)) < len(pairs_in(small.out)) / 2


def test_a_cascade_needs_a_complete_first_step(job, tmp_path):
    with serving(ScriptedJudge(Prompt())) as url:
        score(job(url), quiet)
        part_path(job(url).out, 1).unlink()
        with pytest.raises(DataError, match=r"1 shards are missing\. Complete this first step"):
            score(
                job(url, out=tmp_path / "large", cascade=CascadeSettings(scores=job(url).out)),
                quiet,
            )


def test_vectors_are_required_to_search_candidates(job):
    with (
        serving(ScriptedJudge(Prompt())) as url,
        pytest.raises(SettingsError, match="vectors: is not set"),
    ):
        score(job(url, vectors=None), quiet)
