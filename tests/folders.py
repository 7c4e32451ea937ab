"""Small folders of every kind, which refer to each other, on a disk or in a store."""

import hashlib

import numpy as np

from tests.pictures import png
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus
from unijudge.formats.scores import Judged, JudgedQuery, ScoreManifest, write_shard
from unijudge.formats.triples import Negative, Triple, TripleManifest, finish_triples, write_triples
from unijudge.formats.vectors import (
    VectorManifest,
    missing_vector_parts,
    start_vectors,
    write_vectors_part,
)
from unijudge.storage.files import file_sha256, publish_json, publishing

COLORS = ["red", "green", "blue"]


def make_corpus(folder, images, extra=()):
    """Three pictures under `images`, three items and three queries. One picture belongs to an item and to a query."""
    hashes = {}
    for color in COLORS:
        name = f"a b/{color}#1.png"
        with publishing(images / name) as draft:
            draft.write_bytes(png(color))
        hashes[color] = {"image": name, "image_sha256": hashlib.sha256(png(color)).hexdigest()}
    items = [Item(f"i-{color}", ("colors",), text=color, **hashes[color]) for color in COLORS]
    queries = [
        Query(f"q-{color}", "colors", (f"i-{color}",), text=f"find {color}") for color in COLORS[:2]
    ]
    queries.append(Query("q-blue", "colors", ("i-blue",), **hashes["blue"]))
    write_corpus(folder, [*items, *extra], queries, images=images, rejects=0, source="test | here")
    return Corpus(folder)


def judged(item, rank):
    return Judged(
        item.item_id,
        item.key,
        rank,
        0.5,
        -0.1 if rank is None else -2.0,
        -1.5,
        argmax_is_label=True,
    )


def make_scores(folder, corpus, identity):
    """Two shards with two queries each."""
    plan = ScoreManifest(
        corpus=corpus.fingerprint, vectors="v", queries=len(corpus.queries), shard_size=2, k=2, pool="global",
        judge=identity,
    )  # fmt: skip
    publish_json(folder / "manifest.json", plan)
    rows = [
        JudgedQuery(
            query.query_id,
            query.subset,
            query.key,
            [judged(item, None) for item in corpus.items if item.item_id in query.positive_ids],
            [
                judged(item, rank)
                for rank, item in enumerate(corpus.items)
                if item.item_id not in query.positive_ids
            ],
        )
        for query in corpus.queries
    ]
    for shard in range(len(plan.parts)):
        write_shard(folder, plan, shard, [rows[row] for row in plan.parts.rows_of(shard)])
    return folder


def make_triples(folder, corpus, scores):
    rows = [
        Triple(
            query.query_id,
            query.subset,
            judged(corpus.items[corpus.row_of[query.positive_ids[0]]], None),
            [
                Negative(**vars(judged(item, 1)), beta=0.5)
                for item in corpus.items
                if item.item_id[2] != query.query_id[2]
            ],
        )
        for query in corpus.queries
    ]
    write_triples(folder, rows)
    made = TripleManifest(
        corpus=corpus.fingerprint, scores=file_sha256(scores / "manifest.json"), selection={"preset": "paper"},
        rows=len(rows), negatives_in_row=2, statistics={"rows kept": len(rows), "suspect positives": 0},
    )  # fmt: skip
    finish_triples(folder, made)
    return folder


def make_vectors(folder, corpus):
    manifest = VectorManifest(
        corpus=corpus.fingerprint, model="m", weights="w", encoding="chat", width=4, dtype="float32",
        items=len(corpus.items), queries=len(corpus.queries), min_pixels=1, max_pixels=2, model_dtype="float32",
    )  # fmt: skip
    start_vectors(folder, manifest)
    for kind, ids in [("items", corpus.item_ids), ("queries", corpus.query_ids)]:
        for path, rows in missing_vector_parts(folder, manifest, kind):
            write_vectors_part(path, manifest, ids.to_pylist(), np.eye(4)[rows.start : rows.stop])
    return folder


def files_of(folder):
    """Relative path → bytes of every file of a local folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
