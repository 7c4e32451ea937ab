"""Small selections that were made by hand: their corpora, their rows, and their opening for an export."""

import json
import math

from miner.exporters.training_rows import TrainingRows
from tests.pictures import png
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus
from unijudge.formats.scores import Judged
from unijudge.formats.triples import (
    Extra,
    Negative,
    Scale,
    Triple,
    TripleManifest,
    finish_triples,
    write_triples,
)

ITEMS = [
    Item("i0", ("s",), "a cat"),
    Item("i1", ("s",), None, "a.png", "1" * 64),
    Item("i2", ("s",), "the cat of the picture", "sub/b.png", "2" * 64),
    Item("i3", ("s",), "a dog"),
]
QUERIES = [
    Query("q0", "find", ("i1",), "find a cat"),
    Query("q1", "ask", ("i0",), "what is it?\n", "a.png", "1" * 64),
]
TEXT_ITEMS = [
    Item(f"i{number}", ("s",), text)
    for number, text in enumerate(["a cat", "a tiger", "a cow", "a dog"])
]
TEXT_QUERIES = [
    Query("q0", "find", ("i1",), "find a cat"),
    Query("q1", "ask", ("i0",), "who meows?"),
]


def judged(item_id, odds, kind=Judged, **marks):
    """An item to which the judge gives Yes with odds of `odds` to 1."""
    p = odds / (1 + odds)
    return kind(item_id, bytes(16), None, 0.5, math.log(p), math.log1p(-p), **marks)


def negative(item_id, odds, **marks):
    return judged(item_id, odds, Negative, **marks)


TRIPLES = [
    Triple(
        "q0", "find", judged("i1", 3),
        [negative("i3", 1 / 3), negative("i0", 1), negative("i3", 1 / 3, duplicate=True)],
        extra_positives=[judged("i2", 3, Extra)],
    ),
    Triple(
        "q1", "ask", judged("i0", 1), [negative("i3", 1 / 3), negative("i2", 1), negative("i1", 1 / 3)],
        suspect=True, weight=0.5,
    ),
]  # fmt: skip


def manifest(corpus, rows, **changes):
    values = {
        "corpus": corpus,
        "scores": "0",
        "selection": {},
        "rows": rows,
        "negatives_in_row": 3,
        "statistics": {},
    }
    return TripleManifest(**values | changes)


def opened(folder, items=ITEMS, queries=QUERIES, triples=TRIPLES, divisor=1.0, **options):
    """Writes a corpus and a selection under `folder`."""
    images = folder / "images"
    (images / "sub").mkdir(parents=True)
    (images / "a.png").write_bytes(png("red"))
    (images / "sub" / "b.png").write_bytes(png("blue"))
    write_corpus(folder / "corpus", items, queries, images=images, rejects=0, source="by hand")
    count = write_triples(folder / "triples", triples)
    fingerprint = Corpus(folder / "corpus").fingerprint
    finish_triples(
        folder / "triples", manifest(fingerprint, count, scales=(Scale(slope=1 / divisor),))
    )
    return TrainingRows(folder / "triples", folder / "corpus", **options)


def lines(path):
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def left_out(rows):
    """Reason → the number of rows, and the query of the first row."""
    return {reason: (count.rows, count.first) for reason, count in rows.left_out.items()}
