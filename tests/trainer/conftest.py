"""A corpus of coloured squares and their names, scored and selected by arithmetic, for a tiny model to learn."""

import json
import math

import pytest

from miner.importers.building.build import build
from miner.importers.pairs import read_pairs
from tests.pictures import png
from trainer.embedding.embed import embed_corpus
from trainer.embedding.settings import EmbedSettings
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.settings import EvaluateSettings, RerankSettings
from trainer.models.settings import BackboneSettings
from unijudge.formats.corpus import Corpus
from unijudge.formats.scores import Judged
from unijudge.formats.triples import Negative, Triple, TripleManifest, finish_triples, write_triples

COLORS = ["red", "green", "blue", "white", "black", "yellow", "purple", "orange"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("squares")


@pytest.fixture(scope="module")
def model(tiny_model):
    return BackboneSettings(
        name=str(tiny_model), device="cpu", min_pixels=56 * 56, max_pixels=56 * 56
    )


@pytest.fixture(scope="module")
def corpus(folder):
    images = folder / "images"
    images.mkdir()
    rows = []
    for color in COLORS:
        (images / f"{color}.png").write_bytes(png(color))
        rows.append(
            {"query_image": f"{color}.png", "query_text": "Which colour?", "positive_text": color}
        )
    (folder / "squares.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(
        read_pairs(folder / "squares.jsonl"),
        images=images,
        out=folder / "corpus",
        source="t",
        max_rejects=0,
    )
    return Corpus(folder / "corpus")


def write_rows(corpus, folder, *, judged=True, fallback=False, scores="s"):
    """Every other colour is a negative, and the judge is certain."""

    def one(item, p):
        logprobs = (math.log(p), math.log1p(-p)) if judged else (None, None)
        return Judged(item.item_id, item.key, 0, 0.5, *logprobs)

    rows = [
        Triple(
            query.query_id,
            query.subset,
            one(item, 0.9),
            [
                Negative(**vars(one(other, 0.1)), fallback=fallback)
                for other in corpus.items
                if other != item
            ],
        )
        for query, item in zip(corpus.queries, corpus.items, strict=True)
    ]
    write_triples(folder, rows)
    finish_triples(
        folder,
        TripleManifest(
            corpus=corpus.fingerprint,
            scores=scores,
            selection={},
            rows=len(rows),
            negatives_in_row=7,
            statistics={},
        ),
    )
    return folder


@pytest.fixture(scope="module")
def triples(folder, corpus):
    return write_rows(corpus, folder / "triples")


@pytest.fixture(scope="module")
def evaluation(corpus, model, folder):
    vectors = folder / "vectors"
    embed_corpus(
        EmbedSettings(corpus=corpus.folder, out=vectors, model=model, dtype="float32"),
        lambda *_: None,
    )
    evaluate(EvaluateSettings(corpus=corpus.folder, vectors=vectors, out=folder / "evaluation"))
    return folder / "evaluation"


@pytest.fixture
def job(corpus, evaluation, tmp_path):
    def made(**changes):
        settings = {
            "corpus": corpus.folder,
            "evaluation": evaluation,
            "out": tmp_path / "r",
            "top": 5,
        }
        return RerankSettings(**settings | changes)

    return made
