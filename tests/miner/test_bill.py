"""The bill against what the job then does."""

import re

import numpy as np
import pytest

from judge_service.backends import open_judge
from judge_service.settings import ServiceSettings
from miner.bill import make_bill
from miner.score import score
from tests.miner.conftest import quiet, serving
from tests.miner.test_crash import Counting
from unijudge.errors import SettingsError
from unijudge.scores import read_scores


def test_the_bill_is_what_the_job_takes(job):
    judge = Counting()
    with serving(judge) as url:
        made = make_bill(job(url, k=12), 200)
        judge.pairs.clear()
        done = score(job(url, k=12), quiet)
    assert made.tally.to_ask(12) == done.counts.asked == judge.pairs.total()
    assert made.tally.pairs(12) == done.counts.pairs
    rows = list(read_scores(job(url).out))
    assert made.tally.underfilled(12) == sum(len(row.candidates) < 12 for row in rows)
    assert made.tally.pairs(3) == sum(len(row.positives) + min(3, len(row.candidates)) for row in rows)


def test_pictures_are_counted_once(job, corpus):
    with serving(Counting()) as url:
        made = make_bill(job(url, k=12), 50)
        score(job(url, k=12), quiet)
    pictures = {query.image_sha256 for query in corpus.queries if query.image}
    for row in read_scores(job(url).out):
        items = [corpus.items[corpus.row_of[one.item_id]] for one in [*row.positives, *row.candidates]]
        pictures |= {item.image_sha256 for item in items if item.image}
    assert made.tally.pictures(12) == len(pictures)


def test_what_is_known_costs_nothing(job, tmp_path):
    with serving(Counting()) as url:
        score(job(url, k=5), quiet)
        larger = job(url, k=12, out=tmp_path / "larger", reuse=(job(url).out,))
        made = make_bill(larger, 50)
        assert made.tally.to_ask(5) < made.tally.pairs(5) / 20  # another search may find others of equal similarity
        assert score(larger, quiet).counts.asked == made.tally.to_ask(12)
        assert make_bill(larger, 50).tally.to_ask(12) == 0


def test_the_largest_k_within_a_budget(job):
    with serving(Counting()) as url:
        made = make_bill(job(url, k=12), 50)
    hours = np.array([made.hours(k) for k in range(1, 13)])
    assert (np.diff(hours) > 0).all()
    assert made.hours(7) == pytest.approx(made.tally.to_ask(7) / made.probe.pairs_per_second / 3600)
    assert made.largest_k(float(hours[6] + hours[7]) / 2) == 7
    assert made.largest_k(0.0) is None
    assert made.largest_k(1e9) == 12
    text = "\n".join(made.lines(replicas=[8], budget_hours=1e9))
    assert "tokens            not counted: scripted" in text
    assert re.search(r"time +\d+ s on 8 replicas", text)
    assert text.endswith("within 1e+09 replica-hours: k = 12")


def test_the_candidates_of_the_bill_serve_a_smaller_k(job):
    with serving(Counting()) as url:
        made = make_bill(job(url, k=12), 50)
        found = {path.name: path.stat().st_mtime_ns for path in (job(url).out / "candidates").iterdir()}
        done = score(job(url, k=7), quiet)
    assert done.counts.asked == made.tally.to_ask(7)
    assert {path.name: path.stat().st_mtime_ns for path in (job(url).out / "candidates").iterdir()} == found
    assert max(len(row.candidates) for row in read_scores(job(url).out)) == 7


def test_tokens_and_operations_of_a_real_model(job, tiny_model):
    settings = ServiceSettings.model_validate(
        {"model": {"name": str(tiny_model), "backend": "transformers", "max_pixels": 3136, "min_pixels": 784}}
    )
    with serving(open_judge(settings)) as url:
        made = make_bill(job(url, k=4, min_mass=0), 20)
    assert made.probe.tokens > made.probe.computed_tokens > 10
    assert made.probe.flops.naive > made.probe.flops.prefix_cached > 0
    assert made.probe.pairs > 10
    assert made.probe.failed == 0
    text = "\n".join(made.lines())
    assert re.search(r"tokens +\S+ \(\d+ a pair\) with what a query's candidates share computed once", text)
    assert re.search(r"compute +\S+ FLOPs with that", text)


def test_nothing_to_probe(job):
    with serving(Counting()) as url, pytest.raises(SettingsError, match="no query of this job has anything to ask"):
        make_bill(job(url, margin=2), 50)
