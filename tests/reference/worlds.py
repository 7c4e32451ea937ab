"""Odd worlds, drawn by hypothesis, and functions that write them as folders of the product."""

import itertools
import json
import math
import os

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from miner.selection.select import select
from miner.selection.settings import SelectSettings
from tests.miner.rows import calibration, identity
from tests.reference import miner as reference
from unijudge.content import content_key
from unijudge.errors import NothingSelected
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus
from unijudge.formats.scores import Judged, JudgedQuery, ScoreManifest, write_shard
from unijudge.formats.triples import TripleManifest, read_triples
from unijudge.storage.files import publish_json, read_json

often = settings(
    max_examples=int(os.environ.get("REFERENCE_EXAMPLES", "25")), deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip

TEXTS = [
    "a cat",
    "A  Cat",
    "a cat\n",
    "a dog",
    "a DOG ",
    "",
    None,
    "cafe\u0301",
    "café",
    "10²",
    "102",
]
PICTURES = [None, None, None, "a" * 64, "b" * 64]
SUBSETS = ["x", "y"]


def content(dice):
    """Draws a content, often with the text and picture of another entry."""
    text = f"thing {dice.randrange(12)}" if dice.random() < 0.5 else dice.choice(TEXTS)
    return {"text": text, "picture": dice.choice(PICTURES)}


def chance(dice):
    """Draws a probability with two decimals, so that some are exactly at a cut. One of ten is None: no verdict."""
    return None if dice.random() < 0.1 else dice.randint(1, 99) / 100


def log_odds(p):
    """Returns the log-odds as a score folder stores them: two logarithms in float32."""
    if p is None:
        return None
    yes, no = np.float32(math.log(p)), np.float32(math.log1p(-p))
    return float(yes) - float(no)


@st.composite
def corpora(draw):
    """Draws items that may have equal contents, and questions that may equal each other or an item."""
    dice = draw(st.randoms(use_true_random=True))
    items, queries = {}, {}
    for number in range(dice.randint(3, 14)):
        pools = [name for name in SUBSETS if dice.random() < 0.6]
        items[f"i{number}"] = content(dice) | {"pools": tuple(pools)}
    for number in range(dice.randint(1, 5)):
        positives = dice.sample(sorted(items), dice.randint(1, 2))
        asked = content(dice)
        if queries and dice.random() < 0.3:  # an earlier question, in the same or another spelling
            before = dice.choice(list(queries.values()))
            asked = {
                "text": before["text"]
                and dice.choice([before["text"], f" {before['text'].upper()}"])
            }
            asked["picture"] = before["picture"]
        queries[f"q{number}"] = asked | {
            "subset": dice.choice(SUBSETS),
            "positives": tuple(positives),
        }
    return {"items": items, "queries": queries}


def judged(dice, world, beside=None):
    """Draws the row of a judge for every query.

    A second judge gets some candidates of some queries of the first judge.
    """
    rows = {}
    for name, asked in world["queries"].items():
        others = [item for item in world["items"] if item not in asked["positives"]]
        positives = list(asked["positives"])
        if beside is None:
            start = dice.choice([None, 0, 3])
            seen = dice.sample(others, dice.randint(len(others) // 2, len(others)))
            pairs = [
                (item, None if start is None else start + place) for place, item in enumerate(seen)
            ]
        else:
            pairs = [
                (item, rank) for item, _, rank in beside[name]["candidates"] if dice.random() < 0.5
            ]
            if not pairs or dice.random() < 0.3:
                positives, pairs = [], []
        rows[name] = {
            "positives": [(item, log_odds(chance(dice)), None) for item in positives],
            "candidates": [(item, log_odds(chance(dice)), rank) for item, rank in pairs],
        }
    return rows


def words_about(dice, world, says):
    """Draws overrides of people. One content never has two verdicts for one question."""
    said, heard = [], {}
    for query in world["queries"]:
        row = world["scores"][0][query]
        for item, *_ in [*row["positives"], *row["candidates"]]:
            verdict = dice.choice([None, None, "match", "negative"])
            name = says(world["queries"][query]), says(world["items"][item])
            if verdict is not None and heard.setdefault(name, verdict) == verdict:
                said.append((query, item, verdict))
        if dice.random() < 0.1:
            said.append((query, None, "drop"))
    return said


def picture_columns(entry):
    return {
        "image": entry["picture"] and f"{entry['picture'][0]}.png",
        "image_sha256": entry["picture"],
    }


def write_world(folder, world):
    """Writes the corpus."""
    items = [
        Item(name, item["pools"], item["text"], **picture_columns(item))
        for name, item in world["items"].items()
    ]
    queries = [
        Query(name, asked["subset"], asked["positives"], asked["text"], **picture_columns(asked))
        for name, asked in world["queries"].items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_corpus(folder / "corpus", items, queries, images=folder, rejects=0, source="drawn")
    return Corpus(folder / "corpus")


def write_judge(folder, corpus, world, number, similarity, in_shard=2):
    """Writes the scores of one judge."""
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
        corpus=corpus.fingerprint, vectors="v", queries=len(rows), shard_size=in_shard, k=50, pool="global",
        retrieval={"fold_case": world["fold_case"], "allow_query_image": world["allow_query_image"]},
        judge=identity(f"judge {number}"),
    )  # fmt: skip
    publish_json(folder / "manifest.json", plan)
    for shard in range(len(plan.parts)):
        write_shard(folder, plan, shard, [rows[row] for row in plan.parts.rows_of(shard)])
    return folder


def write_words(path, corpus, words):
    overrides = [
        {"query_id": query, "item_id": item, "verdict": verdict} for query, item, verdict in words
    ]
    path.write_text(
        json.dumps({"version": 1, "corpus": corpus.fingerprint, "overrides": overrides})
    )
    return path


@st.composite
def worlds(draw):
    """A corpus with the scores of one or two judges, and overrides of some scores."""
    world, dice = draw(corpora()), draw(st.randoms(use_true_random=True))
    world |= {
        "fold_case": True,
        "allow_query_image": draw(st.booleans()),
        "scores": [judged(dice, world)],
        "words": [],
    }
    if draw(st.booleans()):
        world["scores"].append(judged(dice, world, world["scores"][0]))
    if draw(st.booleans()):
        world["words"] = words_about(dice, world, reference.says)
    return world


class Folders:
    """A world as folders, and the settings with their paths."""

    numbers = itertools.count()

    def __init__(self, folder, world, scale, in_shard=2):
        self.folder, self.world, self.corpus = folder, world, write_world(folder, world)
        self.similarity = {item: 0.9 - 0.01 * place for place, item in enumerate(world["items"])}
        self.common = {"corpus": self.corpus.folder}
        self.common["scores"] = tuple(
            write_judge(
                folder / f"judge {number}", self.corpus, world, number, self.similarity, in_shard
            )
            for number in range(len(world["scores"]))
        )
        if world["words"]:
            self.common["overrides"] = write_words(
                folder / "words.json", self.corpus, world["words"]
            )
        self.scales = [(1.0, 0.0)] * 2
        if isinstance(scale, float):
            self.common["log_odds_divisor"] = scale
            self.scales = [(1 / scale, 0.0)] * 2
        elif scale is not None:
            self.scales = list(scale)
            files = []
            for number in range(len(world["scores"])):
                files.append(folder / f"fit {number}.json")
                publish_json(
                    files[-1], calibration(identity(f"judge {number}").digest, *scale[number])
                )
            self.common["calibration"] = tuple(files)

    def select(self, **changes):
        """Returns the rows by their query, the statistics and the scales."""
        out = self.folder / f"triples {next(self.numbers)}"
        try:
            table = select(SelectSettings(**self.common | changes, out=out))
        except NothingSelected as nothing:
            return {}, nothing.statistics, ()
        rows = {row.query_id: row for row in read_triples(out, self.corpus.fingerprint)}
        return rows, table, read_json(out / "triples.json", TripleManifest).scales
