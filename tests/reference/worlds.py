"""Odd worlds, drawn by hypothesis, and how they are written as our folders."""

import json
import math

import numpy as np
from hypothesis import strategies as st

from tests.miner.rows import identity
from unijudge.corpus import Corpus, Item, Query, content_key, write_corpus
from unijudge.files import publish_json
from unijudge.scores import Judged, JudgedQuery, ScoreManifest, write_shard
from unijudge.vectors import VectorManifest, missing_parts, start_vectors, write_part

TEXTS = ["a cat", "A  Cat", "a cat\n", "a dog", "a DOG ", "a cow", "", None, "cafe\u0301", "café", "10²", "102"]
PICTURES = [None, None, None, "a" * 64, "b" * 64]
SUBSETS = ["x", "y"]
CHANCES = st.none() | st.integers(1, 99).map(lambda hundredths: hundredths / 100)

CONTENTS = st.fixed_dictionaries({"text": st.sampled_from(TEXTS), "picture": st.sampled_from(PICTURES)})


def log_odds(p):
    """As a folder of scores holds it: two logarithms in float32."""
    if p is None:
        return None
    yes, no = np.float32(math.log(p)), np.float32(math.log1p(-p))
    return float(yes) - float(no)


@st.composite
def corpora(draw):
    """Items that may say the same, questions that may be the same, or be what an item says."""
    items, queries = {}, {}
    for number in range(draw(st.integers(2, 9))):
        pools = draw(st.sets(st.sampled_from(SUBSETS)))
        items[f"i{number}"] = draw(CONTENTS) | {"pools": tuple(sorted(pools))}
    for number in range(draw(st.integers(1, 5))):
        positives = draw(st.lists(st.sampled_from(sorted(items)), min_size=1, max_size=2, unique=True))
        asked = draw(CONTENTS) | {"subset": draw(st.sampled_from(SUBSETS))}
        queries[f"q{number}"] = asked | {"positives": tuple(positives)}
    return {"items": items, "queries": queries}


@st.composite
def judged(draw, world, beside=None):
    """A judge's row for every query; of a second judge, some of what the first one saw of some queries."""
    rows = {}
    for name, asked in world["queries"].items():
        others = [item for item in world["items"] if item not in asked["positives"]]
        if beside is None:
            seen = draw(st.lists(st.sampled_from(others), unique=True) if others else st.just([]))
            start = draw(st.none() | st.integers(0, 3))
            ranks = [None if start is None else start + place for place in range(len(seen))]
        else:
            before = [(item, rank) for item, _, rank in beside[name]["candidates"] if draw(st.booleans())]
            seen, ranks = [item for item, _ in before], [rank for _, rank in before]
        asked_again = beside is None or (bool(seen) and draw(st.booleans()))
        if beside is not None and not asked_again:
            seen, ranks = [], []
        positives = asked["positives"] if asked_again else ()
        rows[name] = {
            "positives": [(item, log_odds(draw(CHANCES)), None) for item in positives],
            "candidates": [(item, log_odds(draw(CHANCES)), rank) for item, rank in zip(seen, ranks, strict=True)],
        }
    return rows


@st.composite
def words_about(draw, world, says):
    """What people said, never two things of one content under one question."""
    said, heard = [], {}
    for query in world["queries"]:
        row = world["scores"][0][query]
        for item, *_ in [*row["positives"], *row["candidates"]]:
            verdict = draw(st.sampled_from([None, None, None, "match", "negative"]))
            name = says(world["queries"][query]), says(world["items"][item])
            if verdict is not None and heard.setdefault(name, verdict) == verdict:
                said.append((query, item, verdict))
        if draw(st.integers(0, 9)) == 0:
            said.append((query, None, "drop"))
    return said


def picture_columns(entry):
    return {"image": entry["picture"] and f"{entry['picture'][0]}.png", "image_sha256": entry["picture"]}


def write_world(folder, world):
    """The corpus."""
    items = [Item(name, item["pools"], item["text"], **picture_columns(item)) for name, item in world["items"].items()]
    queries = [
        Query(name, asked["subset"], asked["positives"], asked["text"], **picture_columns(asked))
        for name, asked in world["queries"].items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_corpus(folder / "corpus", items, queries, images=folder, rejects=0, source="drawn")
    return Corpus(folder / "corpus")


def write_judge(folder, corpus, world, number, similarity, in_shard=2):
    """One judge's scores."""
    rows = []
    for name, row in world["scores"][number].items():
        asked = world["queries"][name]

        def pair(item, odds, rank):
            key = content_key(world["items"][item]["text"], world["items"][item]["picture"])
            if odds is None:
                return Judged(item, key, rank, similarity[item], error="bad_image: x")
            yes = -math.log1p(math.exp(-odds))
            return Judged(item, key, rank, similarity[item], yes, yes - odds)

        rows.append(
            JudgedQuery(
                name,
                asked["subset"],
                content_key(asked["text"], asked["picture"]),
                [pair(*one) for one in row["positives"]],
                [pair(*one) for one in row["candidates"]],
            )
        )
    plan = ScoreManifest(
        corpus=corpus.fingerprint, vectors="v", queries=len(rows), queries_in_shard=in_shard, k=50, pool="global",
        retrieval={"fold_case": world["fold_case"], "own_picture": world["own_picture"]},
        judge=identity(f"judge {number}"),
    )  # fmt: skip
    publish_json(folder / "manifest.json", plan)
    for shard in range(plan.shards):
        write_shard(folder, plan, shard, [rows[row] for row in plan.rows(shard)])
    return folder


def write_words(path, corpus, words):
    overrides = [{"query_id": query, "item_id": item, "verdict": verdict} for query, item, verdict in words]
    path.write_text(json.dumps({"version": 1, "corpus": corpus.fingerprint, "overrides": overrides}))
    return path


def vectors_of(world, seed, width=6):
    """(query, item) → cosine, and the unit vectors; items that say the same letter for letter have the same one."""
    dice = np.random.default_rng(seed)
    known = {}

    def vector(entry):
        name = entry["text"] or "", entry["picture"]
        if name not in known:
            made = dice.normal(size=width)
            known[name] = (made / np.linalg.norm(made)).astype(np.float32)
        return known[name]

    items = {name: vector(item) for name, item in world["items"].items()}
    queries = {name: vector(asked) for name, asked in world["queries"].items()}
    cosines = {
        (query, item): float(queries[query].astype(np.float64) @ items[item].astype(np.float64))
        for query in queries
        for item in items
    }
    return cosines, queries, items


def write_vectors(folder, corpus, queries, items):
    width = len(next(iter(items.values())))
    manifest = VectorManifest(
        corpus=corpus.fingerprint, model="drawn", weights="0", encoding="none", width=width, dtype="float32",
        items=len(items), queries=len(queries), min_pixels=1, max_pixels=1, model_dtype="none",
    )  # fmt: skip
    start_vectors(folder, manifest)
    for kind, named in [("items", items), ("queries", queries)]:
        for path, rows in missing_parts(folder, manifest, kind):
            names = list(named)[rows.start : rows.stop]
            write_part(path, manifest, names, np.array([named[name] for name in names]))
    return folder
