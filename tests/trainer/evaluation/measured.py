"""A corpus of a few vectors, and its evaluation."""

import numpy as np

from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.settings import EvaluateSettings
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus
from unijudge.formats.rankings import read_rankings
from unijudge.formats.vectors import VectorManifest, start_vectors, write_vectors_part


def measured(folder, items, queries, vectors, asked, *, weights="w", **settings):
    """Returns the report and the rankings of a corpus with the given vectors."""
    folder.mkdir(exist_ok=True)
    write_corpus(folder, items, queries, images=folder, rejects=0, source="t")
    corpus = Corpus(folder)
    arrays = {"items": np.array(vectors, np.float32), "queries": np.array(asked, np.float32)}
    manifest = VectorManifest(
        corpus=corpus.fingerprint, width=arrays["items"].shape[1], dtype="float32", items=len(items), model="m",
        queries=len(queries), weights=weights, encoding="e", min_pixels=1, max_pixels=2, model_dtype="float32",
    )  # fmt: skip
    start_vectors(folder / "v", manifest)
    ids = {
        "items": [item.item_id for item in items],
        "queries": [query.query_id for query in queries],
    }
    for kind, array in arrays.items():
        unit = array / np.linalg.norm(array, axis=1, keepdims=True)
        write_vectors_part(folder / "v" / f"{kind}-00000.parquet", manifest, ids[kind], unit)
    job = EvaluateSettings(corpus=folder, vectors=folder / "v", out=folder / "e", **settings)
    return evaluate(job), list(read_rankings(folder / "e" / "rankings.parquet"))


def texts(*names):
    return [Item(name, ("x",), text=name) for name in names]


SWAPPED = texts("A", "B", "C", "D")


BOTH_WAYS = [
    Query(f"q{n}", "x", (gold,), text=asked)
    for n, (asked, gold) in enumerate(["AB", "BA", "CD", "DC"])
]


PAIRS = [[1, 0.1, 0], [1, -0.1, 0], [0, 0.1, 1], [0, -0.1, 1]]
