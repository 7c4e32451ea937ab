"""Losses and evaluation equal the reference, on odd corpora. Changes that must not matter do not change the results."""

import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import training as reference
from tests.reference.trainings import evaluation, examples_of, known, measured, training, vector_of
from trainer.data.collate import collate
from trainer.losses.settings import LossSettings
from trainer.losses.terms import Observed
from trainer.training.embedder import terms_of

NAMES = ("symmetric_kl", "js", "kl", "margin_mse", "infonce")


def terms(examples, chosen, loss):
    """Returns the loss terms that the product computes for these rows, by name, and the gradients of a weight on each
    dimension.
    """
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
@given(
    drawn=training(),
    name=st.sampled_from(NAMES),
    weight=st.sampled_from([0.0, 0.7]),
    data=st.data(),
)
def test_losses_equal_the_reference(drawn, name, weight, data):
    items, rows = drawn
    chosen = data.draw(
        st.lists(st.sampled_from(range(len(rows))), min_size=1, max_size=len(rows), unique=True)
    )
    loss = LossSettings(
        name=name, student_temperature=0.3, teacher_temperature=0.4, in_batch_weight=weight
    )
    with tempfile.TemporaryDirectory() as folder:
        examples = examples_of(Path(folder), items, rows)
        found, gradient = terms(examples, chosen, loss)
        again, same = terms(examples, chosen[::-1], loss)

    def similarity(query, other):
        return float(vector_of(query) @ vector_of(other))

    own, others = reference.loss(
        rows, [rows[row] for row in chosen], similarity, name, 0.3, 0.4, weight
    )
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
            [
                (rows, "{}{}"),
                (rows, "{1} of {0}"),
                ([*rows, aside], "{}{}"),
                ([aside, *rows], "{}{}"),
            ]
        ):
            part = Path(folder) / str(place)
            part.mkdir()
            examples = examples_of(part, items, wanted, names=names.format)
            first = 1 if wanted[0] is aside else 0
            found.append(terms(examples, range(first, first + len(rows)), loss)[0])
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-12)


@settings(max_examples=80, deadline=None)
@given(drawn=evaluation(), letter=st.booleans())
def test_an_evaluation_equals_the_reference(drawn, letter):
    items, queries = drawn
    with tempfile.TemporaryDirectory() as folder:
        subsets, rankings = measured(Path(folder) / "c", items, queries, to_the_letter=letter)
    found = []
    for query, ranking in zip(queries, rankings, strict=True):

        def similarity(place, query=query):
            return float(vector_of(items[place]) @ vector_of(query["content"]))

        ranks, candidates, left_out = reference.ranked(
            query, items, queries, similarity, to_the_letter=letter
        )
        assert (ranking.gold_rank, ranking.candidates) == (ranks[0], candidates)
        assert len(ranking.positive_ids) == len(ranks)
        found.append((ranks, candidates, left_out))
    measures = subsets["x"]
    firsts = np.array([ranks[0] for ranks, *_ in found])
    assert measures["precision@1"] == pytest.approx(np.mean(firsts == 1))
    assert measures["recall@5"] == pytest.approx(np.mean(firsts <= 5))
    assert measures["mrr"] == pytest.approx(np.mean(1 / firsts))
    assert measures["ndcg@10"] == pytest.approx(
        np.mean([reference.ndcg(ranks, 10) for ranks, *_ in found])
    )
    assert measures["candidates"] == pytest.approx(
        np.mean([candidates for _, candidates, _ in found])
    )
    assert measures["left out"] == pytest.approx(np.mean([left_out for *_, left_out in found]))


@settings(max_examples=40, deadline=None)
@given(drawn=evaluation(), seed=st.integers(0, 99))
def test_renamed_ids_and_new_orders_change_no_evaluation(drawn, seed):
    """The changes are other names, another order of items and queries, an unrelated query, and another spelling of a
    right answer.
    """
    items, queries = drawn
    dice = random.Random(seed)
    order = dice.sample(range(len(items)), len(items))
    moved = {place: row for row, place in enumerate(order)}

    def at(query):
        closed = query["closed"] and sorted(moved[place] for place in query["closed"])
        return query | {
            "positives": sorted(moved[place] for place in query["positives"]),
            "closed": closed,
        }

    aside = {"content": ("something else", None), "positives": [0], "closed": None}
    text, picture = items[queries[0]["positives"][0]]
    twin = (f" {text.upper()}  " if text else None, picture)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected, before = measured(folder / "plain", items, queries)
        renamed, _ = measured(folder / "renamed", items, queries, names="the {1}th {0}")
        shuffled, after = measured(
            folder / "shuffled",
            [items[place] for place in order],
            [at(query) for query in reversed(queries)],
        )
        beside, _ = measured(
            folder / "beside", items, [aside, *queries], subsets=["other", *["x"] * len(queries)]
        )
        spelled, twins = measured(folder / "spelled", [*items, twin], queries)
    assert renamed == expected
    assert shuffled["x"] == pytest.approx(expected["x"])
    assert [one.gold_rank for one in after[::-1]] == [one.gold_rank for one in before]
    assert beside["x"] == pytest.approx(expected["x"])
    if queries[0]["closed"] is None:
        assert twins[0].gold_rank == before[0].gold_rank, (
            "a further spelling of what is right is no wrong answer"
        )
    assert spelled["x"]["queries"] == expected["x"]["queries"]
