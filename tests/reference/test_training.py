"""Losses and evaluation against the reference, on odd corpora; and what must not change does not."""

import hashlib
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures import png
from tests.reference import training as reference
from trainer.data.collate import collate
from trainer.data.dataset import Examples
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.settings import EvaluateSettings
from trainer.losses.settings import LossSettings
from trainer.losses.terms import Observed
from trainer.training.embedder import terms_of
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus
from unijudge.formats.rankings import read_rankings
from unijudge.formats.scores import Judged
from unijudge.formats.triples import Extra, Negative, Triple, TripleManifest, finish_triples, write_triples
from unijudge.formats.vectors import VectorManifest, start_vectors, write_vectors_part

TEXTS = [None, "a cat", "A  Cat", "a cat ", "a dog", "Café", "cafe\u0301", "10²", "102"]
PICTURES = [None, "red", "blue"]
CONTENTS = [(text, picture) for text in TEXTS for picture in PICTURES if text or picture]
DIGESTS = {color: hashlib.sha256(png(color)).hexdigest() for color in PICTURES if color}
NAMES = ("symmetric_kl", "js", "kl", "margin_mse", "infonce")
content = st.sampled_from(CONTENTS)


def distinct(contents):
    """Each content once, as an import keeps them."""
    return list({reference.exact(one): one for one in reversed(contents)}.values())[::-1]


def stored(one):
    text, color = one
    return {"text": text, "image": color and f"{color}.png", "image_sha256": color and DIGESTS[color]}


def vector_of(one):
    """Of a content, few different ones, so that many are equal."""
    seed = hashlib.sha256(repr(reference.exact(one)).encode()).digest()[0] % 7
    vector = np.random.default_rng(seed).integers(-1, 2, 5) + np.array([0.5, 0, 0, 0, 0])
    return vector / np.linalg.norm(vector)


@st.composite
def training(draw):
    """Rows of one width over a few contents: equal questions, questions that are items, negatives that are right."""
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
                positives=[items[place] for place in {places[0], *draw(st.lists(st.sampled_from(places), max_size=1))}],
                further=[items[place] for place in draw(st.lists(st.sampled_from(places), max_size=2, unique=True))],
                weight=draw(st.integers(1, 4)) / 4,
            )
        )
    return items, rows


def examples_of(folder, items, rows, *, names=lambda kind, place: f"{kind}{place}"):
    """The same as a corpus and a folder of training rows."""
    for color in DIGESTS:
        (folder / f"{color}.png").write_bytes(png(color))
    ids = {reference.exact(item): names("i", place) for place, item in enumerate(items)}

    def id_of(one):
        return ids[reference.exact(one)]

    write_corpus(
        folder,
        [Item(id_of(item), ("x",), **stored(item)) for item in items],
        [
            Query(names("q", place), "x", tuple(dict.fromkeys(map(id_of, row.positives))), **stored(row.query))
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
        return {"item_id": item.item_id, "item_key": item.key, "rank": 0, "similarity": 0.5, **logprobs}

    write_triples(
        folder / "triples",
        [
            Triple(
                names("q", place),
                "x",
                Judged(**judged(row.candidates[0], row.scores[0])),
                [Negative(**judged(*one)) for one in zip(row.candidates[1:], row.scores[1:], strict=True)],
                [Extra(**judged(one)) for one in row.further],
                weight=row.weight,
            )
            for place, row in enumerate(rows)
        ],
    )
    width = len(rows[0].candidates) - 1
    manifest = TripleManifest(
        corpus=corpus.fingerprint, scores="s", selection={}, rows=len(rows), negatives_in_row=width, statistics={}
    )
    finish_triples(folder / "triples", manifest)
    return Examples(corpus, folder / "triples", width)


def known(one):
    """A content as the corpus gives it → as the reference has it."""
    colors = {png(color): color for color in DIGESTS}
    return one.text, colors.get(one.image)


def terms(examples, chosen, loss):
    """What our code makes of these rows, by name; and the gradients of a weight on each dimension."""
    batch = collate([examples[row] for row in chosen])
    scale = torch.ones(5, dtype=torch.float64, requires_grad=True)
    queries, candidates = (
        torch.tensor(np.array([vector_of(known(one)) for one in contents])) * scale
        for contents in (batch.queries, batch.candidates)
    )
    found = {name: term for name, term in terms_of(loss, batch, queries, candidates).items()
             if not isinstance(term, Observed)}  # fmt: skip
    sum(found.values()).backward()
    return {name: term.item() for name, term in found.items()}, scale.grad


@settings(max_examples=80, deadline=None)
@given(drawn=training(), name=st.sampled_from(NAMES), weight=st.sampled_from([0.0, 0.7]), data=st.data())
def test_losses_are_those_of_the_reference(drawn, name, weight, data):
    items, rows = drawn
    chosen = data.draw(st.lists(st.sampled_from(range(len(rows))), min_size=1, max_size=len(rows), unique=True))
    loss = LossSettings(name=name, student_temperature=0.3, teacher_temperature=0.4, in_batch_weight=weight)
    with tempfile.TemporaryDirectory() as folder:
        examples = examples_of(Path(folder), items, rows)
        found, gradient = terms(examples, chosen, loss)
        again, same = terms(examples, chosen[::-1], loss)

    def similarity(query, other):
        return float(vector_of(query) @ vector_of(other))

    own, others = reference.loss(rows, [rows[row] for row in chosen], similarity, name, 0.3, 0.4, weight)
    assert found[name] == pytest.approx(own, rel=1e-5, abs=1e-6)
    assert found.get("in_batch", 0.0) == pytest.approx(others, rel=1e-6, abs=1e-9)
    assert again == pytest.approx(found, rel=1e-9, abs=1e-12), "the order of rows"
    assert torch.allclose(gradient, same, rtol=1e-9, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(drawn=training(), weight=st.sampled_from([0.0, 0.7]))
def test_renamed_ids_and_an_unrelated_row_change_no_loss(drawn, weight):
    items, rows = drawn
    loss = LossSettings(name="infonce", student_temperature=0.3, in_batch_weight=weight)
    width = len(rows[0].candidates)
    aside = reference.Row(("something else", None), items[:width], [0.5] * width, [items[0]])
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for place, (wanted, names) in enumerate(
            [(rows, "{}{}"), (rows, "{1} of {0}"), ([*rows, aside], "{}{}"), ([aside, *rows], "{}{}")]
        ):
            part = Path(folder) / str(place)
            part.mkdir()
            examples = examples_of(part, items, wanted, names=names.format)
            first = 1 if wanted[0] is aside else 0
            found.append(terms(examples, range(first, first + len(rows)), loss)[0])
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-12)


@st.composite
def evaluation(draw):
    """Items and queries, with equal vectors, spellings, questions that are items, open pools and closed lists."""
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
    ids = {kind: [names.format(kind, place) for place in range(len(of))] for kind, of in (("i", items), ("q", queries))}
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
    for kind, key, contents in (("items", "i", items), ("queries", "q", [query["content"] for query in queries])):
        vectors = np.array([vector_of(one) for one in contents], np.float32)
        write_vectors_part(folder / "v" / f"{kind}-00000.parquet", manifest, ids[key], vectors)
    report = evaluate(EvaluateSettings(corpus=folder, vectors=folder / "v", out=folder / "e", **options))
    return report.subsets, list(read_rankings(folder / "e" / "rankings.parquet"))


@settings(max_examples=80, deadline=None)
@given(drawn=evaluation(), letter=st.booleans())
def test_evaluation_is_that_of_the_reference(drawn, letter):
    items, queries = drawn
    with tempfile.TemporaryDirectory() as folder:
        subsets, rankings = measured(Path(folder) / "c", items, queries, to_the_letter=letter)
    found = []
    for query, ranking in zip(queries, rankings, strict=True):

        def similarity(place, query=query):
            return float(vector_of(items[place]) @ vector_of(query["content"]))

        ranks, candidates, left_out = reference.ranked(query, items, queries, similarity, to_the_letter=letter)
        assert (ranking.gold_rank, ranking.candidates) == (ranks[0], candidates)
        assert len(ranking.positive_ids) == len(ranks)
        found.append((ranks, candidates, left_out))
    measures = subsets["x"]
    firsts = np.array([ranks[0] for ranks, *_ in found])
    assert measures["precision@1"] == pytest.approx(np.mean(firsts == 1))
    assert measures["recall@5"] == pytest.approx(np.mean(firsts <= 5))
    assert measures["mrr"] == pytest.approx(np.mean(1 / firsts))
    assert measures["ndcg@10"] == pytest.approx(np.mean([reference.ndcg(ranks, 10) for ranks, *_ in found]))
    assert measures["candidates"] == pytest.approx(np.mean([candidates for _, candidates, _ in found]))
    assert measures["left out"] == pytest.approx(np.mean([left_out for *_, left_out in found]))


@settings(max_examples=40, deadline=None)
@given(drawn=evaluation(), seed=st.integers(0, 99))
def test_what_must_not_change_an_evaluation_does_not(drawn, seed):
    """Other names, another order of items and queries, an unrelated query, a further spelling of what is right."""
    items, queries = drawn
    dice = random.Random(seed)
    order = dice.sample(range(len(items)), len(items))
    moved = {place: row for row, place in enumerate(order)}

    def at(query):
        closed = query["closed"] and sorted(moved[place] for place in query["closed"])
        return query | {"positives": sorted(moved[place] for place in query["positives"]), "closed": closed}

    aside = {"content": ("something else", None), "positives": [0], "closed": None}
    text, picture = items[queries[0]["positives"][0]]
    twin = (f" {text.upper()}  " if text else None, picture)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected, before = measured(folder / "plain", items, queries)
        renamed, _ = measured(folder / "renamed", items, queries, names="the {1}th {0}")
        shuffled, after = measured(
            folder / "shuffled", [items[place] for place in order], [at(query) for query in reversed(queries)]
        )
        beside, _ = measured(folder / "beside", items, [aside, *queries], subsets=["other", *["x"] * len(queries)])
        spelled, twins = measured(folder / "spelled", [*items, twin], queries)
    assert renamed == expected
    assert shuffled["x"] == pytest.approx(expected["x"])
    assert [one.gold_rank for one in after[::-1]] == [one.gold_rank for one in before]
    assert beside["x"] == pytest.approx(expected["x"])
    if queries[0]["closed"] is None:
        assert twins[0].gold_rank == before[0].gold_rank, "a further spelling of what is right is no wrong answer"
    assert spelled["x"]["queries"] == expected["x"]["queries"]
