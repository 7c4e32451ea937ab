"""A small corpus with made-up vectors, and a scripted judge that a real HTTP server serves."""

import contextlib
import json
import threading
import time

import numpy as np
import pytest
import uvicorn

from judge_service.backends.scripted import ScriptedJudge
from judge_service.replica.app import create_app
from judge_service.replica.counting import counter_of
from judge_service.replica.health import WatchedJudge
from judge_service.settings import HealthSettings, LimitSettings
from miner.importers.building.build import build
from miner.importers.pairs import read_pairs
from miner.settings import ScoreSettings
from tests.folders import make_corpus, make_scores, make_triples
from tests.pictures import png
from unijudge.formats.corpus import Corpus
from unijudge.formats.vectors import (
    VectorManifest,
    missing_vector_parts,
    start_vectors,
    write_vectors_part,
)
from unijudge.judging.prompt import Prompt


@contextlib.contextmanager
def serving(judge, replicas=1):
    """Yields the URL of a service around `judge`, on loopback."""
    watched = WatchedJudge(judge, HealthSettings(canary_every_s=0, min_label_mass=0))
    app = create_app(
        watched, LimitSettings(max_candidates=16), counter=counter_of(judge), replicas=replicas
    )
    config = uvicorn.Config(app, port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def service():
    with serving(ScriptedJudge(Prompt())) as url:
        yield url


def embed(corpus, folder, width=16, seed=0, skipped=None):
    """Random unit vectors.

    The vector of a query is near the vector of its positive. `skipped` lists the ids without a vector.
    """
    dice = np.random.default_rng(seed)
    items = dice.normal(size=(len(corpus.items), width))
    near = [items[corpus.row_of[query.positive_ids[0]]] for query in corpus.queries]
    queries = np.array(near) + 1.5 * dice.normal(size=(len(corpus.queries), width))
    manifest = VectorManifest(
        corpus=corpus.fingerprint, model="random", weights="0", encoding="none", width=width, dtype="float32",
        items=len(items), queries=len(queries), min_pixels=1, max_pixels=1, model_dtype="none",
        **({} if skipped is None else {"on_long": "skip", "max_tokens": 9}),
    )  # fmt: skip
    start_vectors(folder, manifest)
    for kind, entries, matrix in [
        ("items", corpus.items, items),
        ("queries", corpus.queries, queries),
    ]:
        unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        for path, rows in missing_vector_parts(folder, manifest, kind):
            ids = [getattr(entries[row], "item_id", None) or entries[row].query_id for row in rows]
            none = np.array([one in (skipped or ()) for one in ids])
            write_vectors_part(
                path, manifest, ids, np.where(none[:, None], 0, unit[rows.start : rows.stop]), none
            )


@pytest.fixture
def corpus(tmp_path):
    """60 queries in two subsets, with pictures on both sides. Two queries have the same question."""
    images = tmp_path / "images"
    images.mkdir()
    rows = []
    for number in range(60):
        name = f"{number}.png"
        (images / name).write_bytes(png((number * 4, 255 - number * 4, number % 7 * 30), (20, 20)))
        if number % 2:
            rows.append(
                {
                    "query_image": name,
                    "query_text": "what is it?",
                    "positive_text": f"number {number}",
                }
            )
        else:
            rows.append({"query_text": f"find {number}", "positive_image": name, "subset": "find"})
    rows.append({"query_text": "find 0", "positive_text": "another right answer", "subset": "find"})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(
        read_pairs(tmp_path / "pairs.jsonl"),
        images=images,
        out=tmp_path / "corpus",
        source="t",
        max_rejects=0,
    )
    opened = Corpus(tmp_path / "corpus")
    embed(opened, tmp_path / "vectors")
    return opened


@pytest.fixture
def job(tmp_path, corpus):
    def make(service, **changes):
        return ScoreSettings(
            **{
                "corpus": corpus.folder, "vectors": tmp_path / "vectors", "out": tmp_path / "scores",
                "service": service, "k": 10, "shard_size": 8, "retry_for_s": 5,
            } | changes
        )  # fmt: skip

    return make


def quiet(progress):
    pass


@pytest.fixture
def parts(tmp_path, identity):
    """Returns the folders of a corpus, of its scores and of its training rows."""
    root = tmp_path / "parts"
    corpus = make_corpus(root / "corpus", root / "pictures")
    scores = make_scores(root / "scores", corpus, identity)
    return root / "corpus", scores, make_triples(root / "triples", corpus, scores)
