"""The product's miner gives the results of the method written again, on odd worlds: candidates, selections by rows and
by matrices, and labels.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner.sweep.settings import SweepSettings
from miner.sweep.sweep import sweep
from tests.reference import miner as reference
from tests.reference.printed import statistics
from tests.reference.searches import SEARCHES, search, vectors_of
from tests.reference.worlds import Folders, corpora, often, worlds

CHOICES = st.fixed_dictionaries(
    {
        "preset": st.sampled_from(["unime-v2", "paper", "topk", "cyclic"]),
        "betas": st.sampled_from([None, (0.05,), (0.3, 0.1, 0.01)]),
        "k": st.none() | st.integers(1, 5),
        "stride": st.integers(1, 6),
        "num_negatives": st.integers(1, 5),
        "suspect_below": st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        "suspect_action": st.sampled_from(["keep", "leave_out", "down_weight"]),
    }
)
SCALES = st.sampled_from([None, 1.05, ((0.5, -1.0), (2.0, 0.3))])
"""Plain, a divisor, or a calibration of each judge."""


@given(corpora(), SEARCHES, st.integers(0, 99))
@often
def test_candidates_equal_the_reference(tmp_path_factory, world, sought, seed):
    cosines, queries, items = vectors_of(world, seed)
    found = search(tmp_path_factory.mktemp("candidates"), world, sought, queries, items)
    for name, (mine, similarities) in zip(world["queries"], found, strict=True):
        expected = reference.candidates(world, cosines, name, sought)
        assert similarities == pytest.approx([cosines[name, item] for item in mine], abs=1e-5)
        assert [round(cosines[name, item], 5) for item in mine] == [
            round(cosines[name, item], 5) for item in expected
        ]
        if len({cosines[name, item] for item in items}) == len(items):
            assert mine == expected


@given(worlds(), CHOICES, SCALES, st.booleans())
@often
def test_a_selection_equals_the_reference(tmp_path_factory, world, choice, scale, extra_positives):
    folders = Folders(tmp_path_factory.mktemp("selection"), world, scale)
    if choice["preset"] in ("topk", "cyclic"):
        choice = choice | {"betas": None}
    rows, table, scales = folders.select(**choice, extra_positives=extra_positives)
    told = choice | {"scales": folders.scales, "extra_positives": extra_positives}
    results = {name: reference.select_row(world, name, told) for name in world["queries"]}
    assert {name for name, result in results.items() if result["reason"] == "kept"} == set(rows)
    for name, row in rows.items():
        expected = results[name]
        assert row.positive.item_id == expected["positive"]
        assert (row.suspect, row.weight) == (
            expected["suspect"],
            pytest.approx(expected["weight"], abs=1e-6),
        )
        if expected["drawn_from"]:
            _check_drawn(row, expected, choice["num_negatives"])
            continue
        distinct, beta = [item for item, *_ in expected["negatives"]], expected["beta"]
        filled = list(itertools.islice(itertools.cycle(distinct), choice["num_negatives"]))
        assert [negative.item_id for negative in row.negatives] == filled
        marks = [(negative.duplicate, negative.fallback) for negative in row.negatives]
        assert marks == [
            (place >= len(distinct), False) for place in range(choice["num_negatives"])
        ]
        assert all(negative.beta == (beta and pytest.approx(beta)) for negative in row.negatives)
        wanted = list(
            itertools.islice(
                itertools.cycle(reference.labels(expected)[1:]), choice["num_negatives"]
            )
        )
        mine = row.labels(scales)
        assert mine == pytest.approx([expected["label"], *wanted], abs=1e-6)
        assert [one.item_id for one in row.extra_positives] == [
            item for item, _ in expected["extras"]
        ]
        extras = [one.label(scales) for one in row.extra_positives]
        assert extras == pytest.approx([value for _, value in expected["extras"]], abs=1e-6)
        logits = np.array(mine) / 0.02
        spread = np.exp(logits - logits.max())
        expected_spread = reference.distribution([expected["label"], *wanted], 0.02)
        assert spread / spread.sum() == pytest.approx(expected_spread, abs=1e-4)

    # Compare the printed statistics, and the counts that the sweep makes with matrices.
    if not any(result.get("drawn_from") for result in results.values()):
        expected = statistics(list(results.values()), choice, folders.similarity)
        mine = {name.removesuffix(" (at face value)"): value for name, value in table.items()}
        assert mine.pop("extra positives offered") == sum(
            len(row.extra_positives) for row in rows.values()
        )
        assert mine == pytest.approx(expected, abs=1e-4)
    _check_sweep(folders, choice, table)


def _check_drawn(row, expected, stored):
    """Checks the paper's fallback: distinct negatives from all that could be chosen, each marked, each with the label
    1.
    """
    pool = {item for item, *_ in expected["drawn_from"]}
    drawn = {negative.item_id for negative in row.negatives}
    assert drawn <= pool
    assert len(drawn) == min(stored, len(pool))
    assert all(negative.fallback and negative.beta is None for negative in row.negatives)
    assert all(negative.label([]) == 1 for negative in row.negatives)


def _check_sweep(folders, choice, table):
    asks = choice["preset"] in ("unime-v2", "paper")
    betas = choice["betas"] or reference.LADDERS[choice["preset"]]
    grid = {
        "presets": (choice["preset"],),
        "ks": ("all" if choice["k"] is None else choice["k"],),
        "strides": (choice["stride"],),
        **({"betas": (betas,)} if asks else {}),
    }
    shared = {name: choice[name] for name in ("num_negatives", "suspect_below", "suspect_action")}
    (point,) = sweep(SweepSettings(**folders.common, **grid, **shared)).points
    table = {name: value for name, value in table.items() if name != "extra positives offered"}
    assert point.statistics == pytest.approx(table, abs=1.1e-4)


@given(worlds(), st.integers(1, 4), st.integers(0, 9))
@often
def test_random_negatives_are_any_items_that_cannot_be_right(tmp_path_factory, world, stored, seed):
    folders = Folders(tmp_path_factory.mktemp("random"), world, None)
    rows, _, _ = folders.select(preset="random", num_negatives=stored, seed=seed)
    for name, row in rows.items():
        assert len({reference.says(world["items"][one.item_id]) for one in row.negatives}) == len(
            {one.item_id for one in row.negatives}
        )
        for negative in row.negatives:
            word = reference.word(world, name, negative.item_id)
            known = reference.known_answer(
                world, name, negative.item_id, allow_query_image=world["allow_query_image"]
            )
            assert word != "match"
            assert not known
            assert negative.label([]) == (0.0 if word == "negative" else None)
        # The row has as many negatives as the pool allows.
        allowed = {
            reference.says(item)
            for item_id, item in world["items"].items()
            if not reference.known_answer(
                world, name, item_id, allow_query_image=world["allow_query_image"]
            )
        }
        matches = {
            reference.says(item)
            for item_id, item in world["items"].items()
            if reference.word(world, name, item_id) == "match"
        }
        assert len({one.item_id for one in row.negatives}) <= min(stored, len(allowed))
        if not matches:
            assert len({one.item_id for one in row.negatives}) == min(stored, len(allowed))
