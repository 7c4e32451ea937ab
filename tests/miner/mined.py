"""A corpus and a score folder for the page, written by hand, with every kind of row and with hostile names."""

import math
import random

from miner.inspection.settings import InspectSettings
from tests.pictures import pattern
from unijudge.formats.corpus import Item, Query, file_sha256, write_corpus
from unijudge.formats.scores import Judged, JudgedQuery, ScoreManifest, write_shard

HOSTILE = '</script><img src=x onerror="window.hacked=1">'
WORDS = (
    "a",
    "red",
    "dog",
    "cat",
    "sleeps",
    "under",
    "over",
    "the",
    "old",
    "green",
    "table",
    "near",
    "two",
    "birds",
)
# fmt: off
ODD_ROWS = [
    [0.71, 0.62, 0.10, 0.20, 0.30],  # c0 is dropped at 0.61; c1 … c3 survive, of which stride 2 takes c1, c3
    [0.95, 0.10, None, 0.20, 0.30],  # None is an error
    [0.40, 0.10, 0.20, 0.10, 0.20],  # the positive is suspect, and the negatives have equal scores
    [0.30, 0.60, 0.70, 0.80, 0.90],  # the row is left out
    [0.90, 0.89, 0.88, 0.87, 0.10],  # the row has too few negatives
]
# fmt: on
ODD_ROWS += [[0.95, 0.1, 0.2, 0.3, 0.4]] * 30


def judged(item, score, rank=None, similarity=0.5, error=None):
    """An item with this score of the judge, or with this error instead of a score."""
    if error:
        return Judged(item.item_id, item.key, rank, similarity, error=error)
    return Judged(
        item.item_id, item.key, rank, similarity, math.log(score), math.log1p(-score), True
    )


def sentence(dice, words=9):
    return " ".join(dice.choices(WORDS, k=words))


def make(folder, identity, row_scores, *, pictures, items, text=sentence, seed=0):
    """Writes `corpus` and `scores`.

    Each list of scores becomes a row whose first item is the positive. None stands for an error.
    """
    dice = random.Random(seed)
    images = folder / "images"
    images.mkdir(parents=True)
    hashes = {}
    for number in range(pictures):
        name = f"{number}.png" if number else f"0 {HOSTILE.replace('/', ':')}.png"
        (images / name).write_bytes(pattern(number, (96, 72)))
        hashes[name] = file_sha256(images / name)
    names = list(hashes)
    entries, bare = [], set()
    for n in range(items):  # no two texts are equal
        image = names[n % pictures]
        words = None if n % 3 == 0 and n % 4 and image not in bare else f"{text(dice)} {n}"
        shown = (image, hashes[image]) if n % 4 else ()
        bare |= {image} if words is None else set()
        entries.append(Item(f"item-{n}", ("s",), words, *shown))
    queries, rows = [], []
    for number, (positive, *scores) in enumerate(row_scores):
        first, *others = dice.sample(entries, len(scores) + 1)
        image = names[number % pictures] if number % 2 == 0 else None
        query = Query(
            f"query-{number}", f"subset {number % 3}", (first.item_id,), f"find: {text(dice)} {number}", image,
            hashes[image] if image else None,
        )  # fmt: skip
        queries.append(query)
        candidates = [
            judged(item, score, rank, round(0.9 - 0.01 * rank, 3)) if score is not None
            else judged(item, 0.5, rank, 0.5, "bad_image: not a JPEG, PNG or WebP image")
            for rank, (item, score) in enumerate(zip(others, scores, strict=True))
        ]  # fmt: skip
        rows.append(
            JudgedQuery(
                query.query_id, query.subset, query.key, [judged(first, positive)], candidates
            )
        )
    manifest = write_corpus(
        folder / "corpus", entries, queries, images=images, rejects=0, source="made by hand"
    )
    write_scores(folder / "scores", manifest.fingerprint, identity, rows)
    return rows


def write_scores(folder, fingerprint, identity, rows):
    plan = ScoreManifest(
        corpus=fingerprint, vectors="0", queries=len(rows), shard_size=max(1, len(rows)), k=50, pool="global",
        retrieval={"allow_query_image": True}, judge=identity,
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(plan.model_dump_json())
    write_shard(folder, plan, 0, rows)


def plausible(rows, candidates, seed=0):
    """Realistic scores: most candidates are low, some are as good as the positive, and a few rows are unusual."""
    dice = random.Random(seed)
    for number in range(rows):
        positive = dice.betavariate(2, 4) if number % 9 == 0 else dice.betavariate(9, 1.5)
        scores = [
            dice.betavariate(1.2, 8) if dice.random() < 0.8 else dice.betavariate(6, 1.5)
            for _ in range(candidates)
        ]
        if number % 25 == 3:
            scores[5] = None
        yield [
            min(0.999, positive),
            *(None if score is None else max(1e-4, min(0.999, score)) for score in scores),
        ]


def settings(folder, **changes):
    values = {"num_negatives": 2, "stride": 2, "label": 0} | changes
    return InspectSettings(
        scores=folder / "scores", corpus=folder / "corpus", out=folder / "page.html", **values
    )


def hostile(dice):
    return f"{HOSTILE} {dice.choice(['Zebra', 'ünïcode 猫'])} {'and so on ' * 60}"


def make_odd(folder, identity):
    """A small folder with every kind of row."""
    make(folder, identity, ODD_ROWS, pictures=8, items=40, text=hostile)
    return folder
