"""Trainings and evaluations of drawn worlds."""

import hashlib

import numpy as np
from hypothesis import strategies as st

from tests.pictures import png
from tests.reference import training as reference
from trainer.data.dataset import Examples
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.settings import EvaluateSettings
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus
from unijudge.formats.rankings import read_rankings
from unijudge.formats.scores import Judged
from unijudge.formats.triples import (
    Extra,
    Negative,
    Triple,
    TripleManifest,
    finish_triples,
    write_triples,
)
from unijudge.formats.vectors import VectorManifest, start_vectors, write_vectors_part

TEXTS = [None, "a cat", "A  Cat", "a cat ", "a dog", "Café", "cafe\u0301", "10²", "102"]


PICTURES = [None, "red", "blue"]


CONTENTS = [(text, picture) for text in TEXTS for picture in PICTURES if text or picture]


DIGESTS = {color: hashlib.sha256(png(color)).hexdigest() for color in PICTURES if color}


content = st.sampled_from(CONTENTS)


def distinct(contents):
    """Returns each content once, as an import does."""
    return list({reference.exact(one): one for one in reversed(contents)}.values())[::-1]


def stored(one):
    text, color = one
    return {
        "text": text,
        "image": color and f"{color}.png",
        "image_sha256": color and DIGESTS[color],
    }


def vector_of(one):
    """Returns the vector of a content. Few vectors differ, so many contents have equal vectors."""
    seed = hashlib.sha256(repr(reference.exact(one)).encode()).digest()[0] % 7
    vector = np.random.default_rng(seed).integers(-1, 2, 5) + np.array([0.5, 0, 0, 0, 0])
    return vector / np.linalg.norm(vector)


@st.composite
def training(draw):
    """Rows of one width over a few contents: equal questions, questions that are items, and negatives that are right
    answers.
    """
    items = distinct(draw(st.lists(content, min_size=5, max_size=9)))
    if len(items) < 4:
        items = distinct([*items, *CONTENTS[:6]])
    width = draw(st.integers(1, 3))
    rows = []
    for _ in range(draw(st.integers(2, 5))):
        places = draw(st.permutations(range(len(items))))
        rows.append(
            reference.Row(
                query=draw(content),
                candidates=[items[place] for place in places[: 1 + width]],
                scores=[draw(st.integers(1, 9)) / 10 for _ in range(1 + width)],
                positives=[
                    items[place]
                    for place in {places[0], *draw(st.lists(st.sampled_from(places), max_size=1))}
                ],
                further=[
                    items[place]
                    for place in draw(st.lists(st.sampled_from(places), max_size=2, unique=True))
                ],
                weight=draw(st.integers(1, 4)) / 4,
            )
        )
    return items, rows


def examples_of(folder, items, rows, *, names=lambda kind, place: f"{kind}{place}"):
    """Returns the same rows as a corpus and a folder of training rows."""
    for color in DIGESTS:
        (folder / f"{color}.png").write_bytes(png(color))
    ids = {reference.exact(item): names("i", place) for place, item in enumerate(items)}

    def id_of(one):
        return ids[reference.exact(one)]

    write_corpus(
        folder,
        [Item(id_of(item), ("x",), **stored(item)) for item in items],
        [
            Query(
                names("q", place),
                "x",
                tuple(dict.fromkeys(map(id_of, row.positives))),
                **stored(row.query),
            )
            for place, row in enumerate(rows)
        ],
        images=folder,
        rejects=0,
        source="t",
    )
    corpus = Corpus(folder)

    def judged(one, score=0.5):
        item = corpus.items[corpus.row_of[id_of(one)]]
        logprobs = {"yes_logprob": float(np.log(score)), "no_logprob": float(np.log1p(-score))}
        return {
            "item_id": item.item_id,
            "item_key": item.key,
            "rank": 0,
            "similarity": 0.5,
            **logprobs,
        }

    write_triples(
        folder / "triples",
        [
            Triple(
                names("q", place),
                "x",
                Judged(**judged(row.candidates[0], row.scores[0])),
                [
                    Negative(**judged(*one))
                    for one in zip(row.candidates[1:], row.scores[1:], strict=True)
                ],
                [Extra(**judged(one)) for one in row.further],
                weight=row.weight,
            )
            for place, row in enumerate(rows)
        ],
    )
    width = len(rows[0].candidates) - 1
    manifest = TripleManifest(
        corpus=corpus.fingerprint,
        scores="s",
        selection={},
        rows=len(rows),
        negatives_in_row=width,
        statistics={},
    )
    finish_triples(folder / "triples", manifest)
    return Examples(corpus, folder / "triples", width)


def known(one):
    """A content of the corpus → the content of the reference."""
    colors = {png(color): color for color in DIGESTS}
    return one.text, colors.get(one.image)


@st.composite
def evaluation(draw):
    """Items and queries with equal vectors, spellings, questions that are items, open pools and closed lists."""
    items = draw(st.lists(content, min_size=2, max_size=9))
    places = range(len(items))
    queries = []
    for _ in range(draw(st.integers(1, 6))):
        right = draw(st.sets(st.sampled_from(places), min_size=1, max_size=2))
        closed = draw(st.one_of(st.none(), st.none(), st.sets(st.sampled_from(places), max_size=4)))
        closed = None if closed is None else sorted({*closed, min(right)})
        queries.append({"content": draw(content), "positives": sorted(right), "closed": closed})
    return items, queries


def measured(folder, items, queries, *, subsets=None, names="{}{}", **options):
    subsets = subsets or ["x"] * len(queries)
    folder.mkdir(parents=True, exist_ok=True)
    ids = {
        kind: [names.format(kind, place) for place in range(len(of))]
        for kind, of in (("i", items), ("q", queries))
    }
    write_corpus(
        folder,
        [Item(name, tuple(sorted(set(subsets))), **stored(item)) for name, item in zip(ids["i"], items, strict=True)],
        [
            Query(
                name, subset, tuple(ids["i"][place] for place in query["positives"]), **stored(query["content"]),
                candidates=query["closed"] and tuple(query["closed"]),
            )
            for name, subset, query in zip(ids["q"], subsets, queries, strict=True)
        ],
        images=folder,
        rejects=0,
        source="t",
    )  # fmt: skip
    manifest = VectorManifest(
        corpus=Corpus(folder).fingerprint, width=5, dtype="float32", items=len(items), queries=len(queries), model="m",
        weights="w", encoding="e", min_pixels=1, max_pixels=2, model_dtype="float32",
    )  # fmt: skip
    start_vectors(folder / "v", manifest)
    for kind, key, contents in (
        ("items", "i", items),
        ("queries", "q", [query["content"] for query in queries]),
    ):
        vectors = np.array([vector_of(one) for one in contents], np.float32)
        write_vectors_part(folder / "v" / f"{kind}-00000.parquet", manifest, ids[key], vectors)
    report = evaluate(
        EvaluateSettings(corpus=folder, vectors=folder / "v", out=folder / "e", **options)
    )
    return report.subsets, list(read_rankings(folder / "e" / "rankings.parquet"))
