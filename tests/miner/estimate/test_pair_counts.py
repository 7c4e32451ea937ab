"""The estimated number of pairs equals the number of requested pairs, for each engine, after reuse or a resume."""

from collections import Counter

import pytest

from miner.estimate.pair_counts import Division, count_pairs
from miner.scoring.plan import open_candidate_input, pair_source_of
from miner.scoring.score_cache import ScoreCache
from miner.settings import ScoreSettings
from tests.miner.conftest import embed
from tests.miner.counting import Counting
from tests.miner.estimate.scored import scored
from tests.miner.label_corpus import label_corpus
from tests.miner.rows import score_folder
from unijudge.formats.parts import part_path
from unijudge.formats.scores import (
    Judged,
    JudgedQuery,
    ScoreManifest,
    present_shards,
    read_scores,
    write_shard,
)
from unijudge.storage.files import read_json

K = 8


@pytest.fixture
def world(tmp_path):
    """Forty rows have the same question, and twenty rows have separate questions."""
    corpus = label_corpus(tmp_path, 40)
    embed(corpus, tmp_path / "vectors")
    return corpus


def settings_of(corpus, out, **changes):
    vectors = corpus.folder.parent / "vectors"
    return ScoreSettings(
        corpus=corpus.folder, vectors=vectors, out=out, k=K, shard_size=7, **changes
    )


@pytest.mark.parametrize("apart", [False, True])
def test_the_count_equals_the_requests_of_each_engine(world, tmp_path, apart):
    """Ray's tasks do not share their scores. If several tasks need a pair, each task requests the pair."""
    judge, nothing = Counting(), ScoreCache([], None)
    settings = settings_of(world, tmp_path / "scores")
    asked = scored(settings, world, judge, nothing, apart=apart)
    tally = count_pairs(
        world,
        pair_source_of(settings, world, open_candidate_input(settings, world)),
        nothing,
        K,
        division=Division(7, apart=apart),
    )
    assert tally.to_ask(K) == asked == judge.pairs.total()
    assert (max(judge.pairs.values()) > 1) == apart, "the example says something"


def test_a_resumed_job_requests_nothing_for_existing_shards(world, tmp_path):
    """Pairs with errors are not requested again either: the stored answer stays."""
    judge = Counting()
    settings = settings_of(world, tmp_path / "scores")
    scored(settings, world, judge, ScoreCache([], None), apart=False)
    plan = read_json(settings.out / "manifest.json", ScoreManifest)
    first, *rows = read_scores(settings.out)
    failed = [
        Judged(one.item_id, one.item_key, one.rank, one.similarity, error="x: y")
        for one in first.candidates
    ]
    write_shard(
        settings.out, plan, 0, [JudgedQuery(**vars(first) | {"candidates": failed}), *rows[:6]]
    )
    for shard in (3, 8):
        part_path(settings.out, shard).unlink()
    known = ScoreCache([settings.out], judge.identity)
    division = Division(7, written=frozenset(present_shards(settings.out, plan, partial=True)))
    tally = count_pairs(
        world,
        pair_source_of(settings, world, open_candidate_input(settings, world)),
        known,
        K,
        division=division,
    )
    assert tally.pairs(K) == sum(len(one.positives) + len(one.candidates) for one in [first, *rows])
    assert 0 < tally.to_ask(K) == scored(settings, world, judge, known, apart=False) < 14 * (K + 1)


def test_only_pictures_of_requested_pairs_are_counted(corpus, job):
    """All scores are known except those of one query, from rank 2 on.

    Only the pictures of these pairs and of this query are counted.
    """
    judge, settings = Counting(), job("x", shard_size=len(corpus.queries))
    nothing = ScoreCache([], None)
    scored(settings, corpus, judge, nothing, apart=False)
    rows = list(read_scores(settings.out))
    assert (
        count_pairs(
            corpus,
            pair_source_of(settings, corpus, open_candidate_input(settings, corpus)),
            nothing,
            10,
        ).pictures(10)
        == 60
    )
    place = next(place for place, query in enumerate(corpus.queries) if query.image)
    plan = read_json(settings.out / "manifest.json", ScoreManifest)
    rows[place] = JudgedQuery(**vars(rows[place]) | {"candidates": rows[place].candidates[:2]})
    write_shard(settings.out, plan, 0, rows)
    tally = count_pairs(
        corpus,
        pair_source_of(settings, corpus, open_candidate_input(settings, corpus)),
        ScoreCache([settings.out], judge.identity),
        10,
    )
    (question,) = pair_source_of(settings, corpus, open_candidate_input(settings, corpus)).of(
        range(place, place + 1)
    )
    shown = {corpus.queries[place].image_sha256}
    shown |= {
        corpus.items[one.row].image_sha256
        for one in question.asked
        if one.rank is not None and one.rank >= 2
    }
    assert tally.to_ask(10) == 8
    assert (tally.pictures(2), tally.pictures(10)) == (0, len(shown - {None}))


def test_exactly_the_pairs_with_a_verdict_are_known(world, tmp_path, identity):
    """A key may end in zero bytes, which numpy removes. An error or a missing number is not a verdict."""
    keys = [bytes([number]) * 15 + b"\0" for number in range(1, 6)]
    verdicts = [(-0.5, -1.0, True), (-0.25, -3.0, False), (-0.125, -2.0, None)]
    judged = [
        Judged(f"i{n}", key, n, 0.5, *one)
        for n, (key, one) in enumerate(zip(keys, verdicts, strict=False))
    ]
    judged += [Judged("e", keys[3], 3, 0.5, error="x: y"), Judged("n", keys[4], 4, 0.5, -0.5)]
    rows = [
        JudgedQuery("a", "s", b"a" * 15 + b"\0", judged[:1], judged[1:]),
        JudgedQuery("b", "s", b"b" * 16, [], []),
        JudgedQuery(
            "c", "s", b"a" * 15 + b"\0", [], [Judged("new", keys[3], 0, 0.5, -1.5, -2.5, True)]
        ),
    ]
    folder = score_folder(tmp_path / "s", world, rows, in_shard=2)
    known = ScoreCache([folder], read_json(folder / "manifest.json", ScoreManifest).judge)
    found = {
        key: (one.yes_logprob, one.no_logprob, one.argmax_is_label)
        for key, one in known.of(b"a" * 15 + b"\0").items()
    }
    assert found == dict(zip(keys, [*verdicts, (-1.5, -2.5, True)], strict=False))
    assert known.of(b"b" * 16) == known.of(b"c" * 16) == {}


def test_a_question_of_many_rows_is_looked_up_once(world, tmp_path, monkeypatch):
    """This holds for the count and for the job. In a shuffled folder, each look-up reads many groups."""
    judge = Counting()
    settings = settings_of(world, tmp_path / "scores")
    scored(settings, world, judge, ScoreCache([], None), apart=False)
    known = ScoreCache([settings.out], judge.identity)
    looked = Counter()
    monkeypatch.setattr(
        known, "_of", lambda key, read=known._read: looked.update([key]) or read(key)
    )
    tally = count_pairs(
        world, pair_source_of(settings, world, open_candidate_input(settings, world)), known, K
    )
    assert tally.to_ask(K) == 0
    assert set(looked.values()) == {1}
    assert len(looked) == 21
    looked.clear()
    again = settings_of(world, tmp_path / "again", reuse=(settings.out,))
    assert scored(again, world, judge, known, apart=False) == 0
    assert set(looked.values()) == {1}
