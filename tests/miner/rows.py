"""Judged rows that were made by hand, and a folder of them, without a service."""

import json
import math

import numpy as np

from miner.selection.platt import Calibration, Measures
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus
from unijudge.formats.scores import Judged, JudgedQuery, ScoreManifest, write_shard
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.storage.files import publish_json


def judged(name, p, rank=None, similarity=0.5):
    """An item with the judge's score p, or without a verdict if p is None."""
    if p is None:
        return Judged(name, bytes(16), rank, similarity, error="bad_image: x")
    return Judged(name, bytes(16), rank, similarity, math.log(p), math.log1p(-p))


def query(positive, scores, query_id="q"):
    """One query with the positive p and the candidates c0, c1, … with the given scores."""
    candidates = [judged(f"c{rank}", p, rank) for rank, p in enumerate(scores)]
    return JudgedQuery(query_id, "s", bytes(16), [judged("p", positive)], candidates)


def names(choice):
    return [negative.item_id for negative in choice.triple.negatives]


def identity(name):
    return JudgeIdentity(
        model=name, weights="w", prompt_fingerprint="p", yes="Yes", no="No", yes_id=1, no_id=2, order="o", min_pixels=1,
        max_pixels=1, dtype="float32", head_dtype="float32", backend="scripted", backend_version="1",
    )  # fmt: skip


def text_corpus(folder, queries):
    """Items i0, i1, … and queries q0, q1, ….

    The positive of q3 is i3. Every seventh query also has the next item as a positive.
    """
    (folder / "images").mkdir(parents=True)
    items = [Item(f"i{n}", ("s",), text=f"item {n}") for n in range(queries + 1)]
    asked = [
        Query(f"q{n}", "s", (f"i{n}", f"i{n + 1}") if n % 7 == 0 else (f"i{n}",), text=f"query {n}")
        for n in range(queries)
    ]
    write_corpus(folder / "corpus", items, asked, images=folder / "images", rejects=0, source="t")
    return Corpus(folder / "corpus")


def random_rows(corpus, seed=0, longest=12):
    """Rows of any length, with scores and errors. All seeds have the same items, as for two judges."""
    items, scores = np.random.default_rng(0), np.random.default_rng(seed + 1)

    def score(low, high):
        failed, p = scores.random() < 0.05, float(np.clip(scores.beta(low, high), 0.01, 0.99))
        return None if failed else round(p, 2)  # rounding makes ties

    rows = []
    for asked in corpus.queries:
        others = [item.item_id for item in corpus.items if item.item_id not in asked.positive_ids]
        near = items.choice(others, items.integers(0, longest + 1), replace=False)
        near = zip(near.tolist(), (-np.sort(-items.uniform(0, 1, len(near)))).tolist(), strict=True)
        rows.append(
            JudgedQuery(
                asked.query_id,
                asked.subset,
                asked.key,
                [judged(item, score(4, 2)) for item in asked.positive_ids],
                [judged(item, score(2, 3), rank, value) for rank, (item, value) in enumerate(near)],
            )
        )
    return rows


def score_folder(folder, corpus, rows, judge="small", in_shard=16, **changes):
    plan = ScoreManifest(
        corpus=corpus.fingerprint, vectors="v", queries=len(rows), shard_size=in_shard, k=50, pool="global",
        judge=identity(judge), **changes,
    )  # fmt: skip
    publish_json(folder / "manifest.json", plan)
    for shard in range(len(plan.parts)):
        write_shard(folder, plan, shard, [rows[row] for row in plan.parts.rows_of(shard)])
    return folder


def calibration(judge, slope, intercept=0.0):
    """A calibration for the judge with this digest."""
    measures = Measures(log_loss=0.5, calibration_error=0.1)
    return Calibration(
        judge=judge, kind="platt", slope=slope, intercept=intercept, matches=10, negatives=10, without_verdict=0,
        before=measures, after=measures, folds=5,
    )  # fmt: skip


def override_file(path, corpus, *entries):
    """A file of overrides with the entries (query_id, item_id, verdict)."""
    overrides = [{"query_id": q, "item_id": i, "verdict": verdict} for q, i, verdict in entries]
    path.write_text(
        json.dumps({"version": 1, "corpus": corpus.fingerprint, "overrides": overrides})
    )
    return path
