"""The estimate of a job, compared with the finished job."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from judge_service.backends import open_judge
from judge_service.backends.scripted import ScriptedJudge
from judge_service.settings import ServiceSettings
from miner.estimate import probe
from miner.estimate.estimate import estimate_cost
from miner.scoring.job import score
from miner.settings import CascadeSettings
from tests.miner.conftest import embed, quiet, serving
from tests.miner.counting import Counting
from unijudge.errors import DataError, JudgeRefused, SettingsError
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus
from unijudge.formats.scores import read_scores
from unijudge.judging.prompt import Prompt
from unijudge.judging.verdicts import PairError


def test_the_estimate_equals_the_pairs_of_the_job(job):
    judge = Counting()
    with serving(judge) as url:
        made = estimate_cost(job(url, k=12), 200)
        judge.pairs.clear()
        done = score(job(url, k=12), quiet)
    assert made.tally.to_ask(12) == done.counts.asked == judge.pairs.total()
    assert made.tally.pairs(12) == done.counts.pairs
    rows = list(read_scores(job(url).out))
    assert made.tally.underfilled(12) == sum(len(row.candidates) < 12 for row in rows)
    assert made.tally.pairs(3) == sum(
        len(row.positives) + min(3, len(row.candidates)) for row in rows
    )


def test_pictures_are_counted_once(job, corpus):
    with serving(Counting()) as url:
        made = estimate_cost(job(url, k=12), 50)
        score(job(url, k=12), quiet)
    pictures = {query.image_sha256 for query in corpus.queries if query.image}
    for row in read_scores(job(url).out):
        items = [
            corpus.items[corpus.row_of[one.item_id]] for one in [*row.positives, *row.candidates]
        ]
        pictures |= {item.image_sha256 for item in items if item.image}
    assert made.tally.pictures(12) == len(pictures)


def test_known_pairs_cost_nothing(job, tmp_path):
    with serving(Counting()) as url:
        score(job(url, k=5), quiet)
        larger = job(url, k=12, out=tmp_path / "larger", reuse=(job(url).out,))
        made = estimate_cost(larger, 50)
        # Another search may find other items with equal similarity.
        assert made.tally.to_ask(5) < made.tally.pairs(5) / 20
        assert score(larger, quiet).counts.asked == made.tally.to_ask(12)
        assert estimate_cost(larger, 50).tally.to_ask(12) == 0


def test_the_upload_of_pictures_is_timed_separately(job):
    judge = Counting()
    with serving(judge) as url:
        made = estimate_cost(job(url, k=12), 50)
    assert made.probe.pictures > 0
    costs = {
        "query_seconds": 0.5,
        "pair_seconds": 0.05,
        "pictures": 4,
        "picture_seconds": 2.0,
        "replicas": 1,
    }
    probed = replace(made.probe, **costs)
    assert probed.seconds_for(100, 1000, 8, replicas=1) == pytest.approx(50 + 50 + 4)
    assert probed.seconds_for(100, 1000, 8, replicas=4) == pytest.approx(25 + 4)
    assert replace(probed, pictures=0).seconds_for(100, 1000, 0, replicas=2) == pytest.approx(50)


def test_the_largest_k_within_a_budget(job):
    with serving(Counting()) as url:
        made = estimate_cost(job(url, k=12), 50)
    made = replace(made, probe=replace(made.probe, query_seconds=0.3, pair_seconds=0.01))
    hours = np.array([made.hours(k) for k in range(1, 13)])
    assert (np.diff(hours) > 0).all()
    probed, tally = made.probe, made.tally
    sending = tally.pictures(7) * probed.picture_seconds / probed.pictures
    scoring = tally.asking(7) * probed.query_seconds + tally.to_ask(7) * probed.pair_seconds
    assert made.hours(7) == pytest.approx((scoring + sending) / 3600)
    assert made.largest_k(float(hours[6] + hours[7]) / 2) == 7
    assert made.largest_k(0.0) is None
    assert made.largest_k(1e9) == 12
    text = "\n".join(made.lines(replicas=[8], budget_hours=1e9))
    assert re.search(r"tokens +not counted, because scripted", text)
    assert re.search(r"time +\d+ s on 8 replicas", text)
    assert text.endswith("within 1e+09 replica-hours: k = 12")
    assert f"{tally.pairs(12):,}, {tally.positives:,} of them with a positive" in text
    record = json.loads(json.dumps(made.record(replicas=[8], budget_hours=1e9)))
    assert (record["pairs"], record["largest_k_in_budget"]) == (tally.pairs(12), 12)
    assert record["by_k"]["5"]["replica_hours"] == made.hours(5)
    assert set(record["seconds_by_replicas"]) == {str(probed.replicas), "8"}


def test_the_candidates_of_an_estimate_serve_a_smaller_k(job):
    with serving(Counting()) as url:
        made = estimate_cost(job(url, k=12), 50)
        found = {
            path.name: path.stat().st_mtime_ns for path in (job(url).out / "candidates").iterdir()
        }
        done = score(job(url, k=7), quiet)
    assert done.counts.asked == made.tally.to_ask(7)
    assert {
        path.name: path.stat().st_mtime_ns for path in (job(url).out / "candidates").iterdir()
    } == found
    assert max(len(row.candidates) for row in read_scores(job(url).out)) == 7


def tiny_judge(tiny_model):
    """The transformers judge on a tiny model."""
    settings = ServiceSettings.model_validate(
        {
            "model": {
                "name": str(tiny_model),
                "backend": "transformers",
                "max_pixels": 3136,
                "min_pixels": 784,
            }
        }
    )
    return open_judge(settings)


def test_tokens_and_operations_of_a_real_model(job, tiny_model):
    with serving(tiny_judge(tiny_model)) as url:
        made = estimate_cost(job(url, k=4, min_label_mass=0), 20)
    assert made.probe.tokens > made.probe.computed_tokens > 10
    assert made.probe.flops.naive > made.probe.flops.prefix_cached > 0
    assert made.probe.pairs > 10
    assert made.probe.failed == 0
    text = "\n".join(made.lines())
    assert re.search(r"computed tokens +\S+ \(\S+ a pair\)", text)
    assert made.record()["cost"] == made.cost.model_dump()
    assert re.search(r"compute +\S+ FLOPs if the prefix and image", text)


def test_the_predicted_cost_is_the_cost_of_the_job(job, tiny_model):
    with serving(tiny_judge(tiny_model)) as url:
        small = job(url, k=6, min_label_mass=0)
        predicted = estimate_cost(small, 200).cost
        actual = score(small, quiet).totals.counts.cost
    assert predicted.images == actual.images > 0
    assert predicted.prompt_tokens == pytest.approx(actual.prompt_tokens, rel=0.05)
    assert predicted.computed_tokens == pytest.approx(actual.computed_tokens, rel=0.05)


def test_an_estimate_without_pairs_to_probe_is_refused(job):
    with (
        serving(Counting()) as url,
        pytest.raises(SettingsError, match="no query of this job has pairs to ask"),
    ):
        estimate_cost(job(url, margin=2), 50)


def test_the_rate_is_measured_with_the_queries_in_flight_of_the_job(job):
    with serving(Counting()) as url:
        few = estimate_cost(job(url, k=12, max_in_flight=2), 20).probe.pairs
        many = estimate_cost(job(url, k=12, max_in_flight=30), 20).probe.pairs
    assert many >= 30 * 12 > few


def test_every_replica_gets_two_queries(job):
    with serving(Counting(), replicas=16) as url:
        made = estimate_cost(job(url, k=12, max_in_flight=2), 20)
    assert made.probe.replicas == 16
    assert made.probe.pairs >= 32 * 12


def test_a_cascade_is_sampled_from_queries_with_pairs(job, tmp_path):
    with serving(ScriptedJudge(Prompt(instruction="Another judge?"))) as url:
        score(job(url), quiet)
    with serving(Counting()) as url:
        band = CascadeSettings(scores=job(url).out, width=0.04)
        made = estimate_cost(
            job(url, out=tmp_path / "large", vectors=None, cascade=band, max_in_flight=1), 25
        )
    asking = np.count_nonzero(made.tally.candidates_Q)
    assert 15 < asking < 0.7 * made.tally.queries, "the example says something"
    whole = made.tally.pairs(made.tally.k) / asking
    assert made.probe.pairs <= 25 + whole * 3 + 2 * 25 / whole, (
        "whole queries, and as many short ones"
    )
    text = "\n".join(made.lines(budget_hours=1e9))
    assert f"{made.tally.queries - asking} have no candidate in the band" in text
    assert "k = " not in text, "the band decides, no k"
    assert text.endswith("within 1e+09 replica-hours: the whole job")
    takes = made.hours(made.tally.k)
    (*_, last) = made.lines(budget_hours=takes / 2)
    assert last.endswith(
        f"not this band, which takes {takes:.2g}. A smaller cascade.width scores fewer pairs"
    )


def test_a_missing_or_damaged_picture_is_a_failed_pair(job, corpus, monkeypatch):
    """As in the job, a query with a refused picture fails with all its pairs, and other queries continue."""
    for number in (10, 12):
        (corpus.images / f"{number}.png").unlink()
    for number in (11, 13):
        (corpus.images / f"{number}.png").write_bytes(b"changed")
    timed = []

    async def noted(judge, corpus, some, *rest, timing=probe._timed):
        timed.append(some)
        return await timing(judge, corpus, some, *rest)

    monkeypatch.setattr(probe, "_timed", noted)
    with serving(Refusing()) as url:
        made = estimate_cost(job(url, k=12, max_in_flight=100, max_error_share=1), 5000)
        done = score(job(url, k=12, max_error_share=1), quiet)
    assert 0 < made.probe.failed < made.probe.pairs
    rows = list(read_scores(job(url).out))
    lost = [[one.error is not None for one in [*row.positives, *row.candidates]] for row in rows]
    _, *measured = timed
    asked = [question for some in measured for question in some]
    assert sorted(len(some) for some in timed) == [1, 30, 30], "one query warms up"
    assert made.probe.failed == sum(
        sum(lost[question.row][: len(question.asked)]) for question in asked
    )
    assert sum(map(sum, lost)) == done.counts.errors


def test_a_sample_with_too_many_missing_verdicts_has_no_estimate(job):
    """The measured seconds would be the seconds of errors, and the job would stop too."""
    with serving(LosesPictures()) as url:
        with pytest.raises(
            DataError, match=r"the sample: \d+ of \d+ pairs have no verdict, more than"
        ) as stopped:
            estimate_cost(job(url, k=12), 200)
        made = estimate_cost(job(url, k=12, max_error_share=1), 200)
    assert "The first reason is token_count: the engine made 261 tokens of a prompt of 257" in str(
        stopped.value
    )
    assert made.probe.failed > 0
    assert made.probe.reason == "token_count: the engine made 261 tokens of a prompt of 257"


class LosesPictures(Counting):
    """A judge that gives no verdict for a pair with a picture."""

    async def judge(self, query, candidates):
        lost = PairError(
            code="token_count", message="the engine made 261 tokens of a prompt of 257"
        )
        found = await super().judge(query, candidates)
        return [
            lost if query.image or one.image else answer
            for one, answer in zip(candidates, found, strict=True)
        ]


class Refusing(Counting):
    """A judge that refuses one query."""

    async def judge(self, query, candidates):
        if query.text == "find 6":
            raise JudgeRefused("not this one")
        return await super().judge(query, candidates)


def test_tokens_are_counted_of_the_pairs_that_can_be_read(job, corpus, tiny_model):
    settings = ServiceSettings.model_validate(
        {
            "model": {
                "name": str(tiny_model),
                "backend": "transformers",
                "max_pixels": 3136,
                "min_pixels": 784,
            }
        }
    )
    (corpus.images / "10.png").unlink()
    (corpus.images / "1.png").write_bytes(b"changed")
    with serving(open_judge(settings)) as url:
        made = estimate_cost(job(url, k=2, min_label_mass=0, max_in_flight=1), 4)
    assert made.probe.tokens > 10


def test_a_single_query_is_timed(job, tmp_path):
    items = [Item(f"i{number}", ("s",), f"item {number}") for number in range(4)]
    write_corpus(
        tmp_path / "alone",
        items,
        [Query("q", "s", ("i0",), "a")],
        images=tmp_path,
        rejects=0,
        source="by hand",
    )
    embed(Corpus(tmp_path / "alone"), tmp_path / "alone-vectors")
    with serving(Counting()) as url:
        made = estimate_cost(
            job(url, corpus=tmp_path / "alone", vectors=tmp_path / "alone-vectors", margin=-2), 50
        )
    assert made.probe.pairs == 4
    assert made.hours(1) > 0
