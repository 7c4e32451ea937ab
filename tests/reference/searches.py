"""Searches on a drawn world: its vectors, and the results of the product's miner."""

import numpy as np
from hypothesis import strategies as st

from miner.retrieval.candidates import find_candidates
from miner.settings import RetrievalSettings
from tests.reference.worlds import write_world
from unijudge.formats.candidates import CandidateManifest
from unijudge.formats.vectors import (
    VectorFolder,
    VectorManifest,
    missing_vector_parts,
    start_vectors,
    write_vectors_part,
)

SEARCHES = st.fixed_dictionaries(
    {
        "k": st.integers(1, 6),
        "pool": st.sampled_from(["global", "subset", "modality"]),
        "margin": st.sampled_from([0.0, 0.1, -0.2, -2.0]),
        "relative_margin": st.sampled_from([0.0, 0.3]),
        "range_min": st.integers(0, 2),
        "range_max": st.none() | st.integers(3, 6),
        "fold_case": st.booleans(),
        "allow_query_image": st.booleans(),
        "index": st.sampled_from(["flat", "exact"]),
    }
)


def vectors_of(world, seed, width=6):
    """Returns (query, item) → cosine, and the unit vectors.

    Items with exactly the same content have the same vector.
    """
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
        for path, rows in missing_vector_parts(folder, manifest, kind):
            names = list(named)[rows.start : rows.stop]
            write_vectors_part(path, manifest, names, np.array([named[name] for name in names]))
    return folder


def search(folder, world, given, queries, items):
    """Returns the ids of each query's candidates, and their similarities, as the product's miner finds them."""
    corpus = write_world(folder, world)
    vectors = VectorFolder(write_vectors(folder / "vectors", corpus, queries, items), corpus)
    made = RetrievalSettings(corpus=corpus.folder, vectors=folder / "vectors", **given)
    manifest = CandidateManifest(
        corpus=corpus.fingerprint,
        vectors="v",
        queries=len(queries),
        k=made.k,
        pool=made.pool,
        retrieval=made.retrieval,
    )
    found = find_candidates(folder / "found", manifest, corpus, vectors, made).of(
        range(len(queries))
    )
    return [
        ([corpus.items[row].item_id for row in near.items], near.similarities) for near in found
    ]
