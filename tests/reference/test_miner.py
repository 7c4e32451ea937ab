"""Our miner against the method written out, on odd worlds: candidates, selections by rows and by matrices, labels."""

import itertools
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from miner.candidates import find_candidates
from miner.choice_settings import SelectSettings, SweepSettings
from miner.selection import select
from miner.settings import RetrievalSettings
from miner.sweep import sweep
from tests.miner.rows import calibration, identity
from tests.reference import miner as reference
from tests.reference.worlds import (
    corpora,
    judged,
    vectors_of,
    words_about,
    write_judge,
    write_vectors,
    write_words,
    write_world,
)
from unijudge.candidates import CandidateManifest
from unijudge.files import publish_json, read_json
from unijudge.triples import TripleManifest, read_triples
from unijudge.vectors import VectorFolder

EXAMPLES = int(os.environ.get("REFERENCE_EXAMPLES", "25"))
often = settings(
    max_examples=EXAMPLES, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip

SEARCHES = st.fixed_dictionaries(
    {
        "k": st.integers(1, 6),
        "pool": st.sampled_from(["global", "subset", "modality"]),
        "margin": st.sampled_from([0.0, 0.1, -0.2, -2.0]),
        "relative_margin": st.sampled_from([0.0, 0.3]),
        "skip": st.integers(0, 2),
        "depth": st.none() | st.integers(3, 6),
        "fold_case": st.booleans(),
        "own_picture": st.booleans(),
        "index": st.sampled_from(["flat", "exact"]),
    }
)
CHOICES = st.fixed_dictionaries(
    {
        "preset": st.sampled_from(["unime-v2", "paper", "topk", "cyclic"]),
        "betas": st.sampled_from([None, (0.05,), (0.3, 0.1, 0.01)]),
        "k": st.none() | st.integers(1, 5),
        "stride": st.integers(1, 6),
        "stored": st.integers(1, 5),
        "suspect_below": st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        "suspects": st.sampled_from(["keep", "leave_out", "down_weight"]),
    }
)
SCALES = st.sampled_from([None, 1.05, ((0.5, -1.0), (2.0, 0.3))])
"""Plain, a divisor, or a calibration of each judge."""


@given(corpora(), SEARCHES, st.integers(0, 99))
@often
def test_candidates_are_those_of_the_method(tmp_path_factory, world, search, seed):
    folder = tmp_path_factory.mktemp("candidates")
    corpus = write_world(folder, world)
    cosines, queries, items = vectors_of(world, seed)
    vectors = VectorFolder(write_vectors(folder / "vectors", corpus, queries, items), corpus)
    made = RetrievalSettings(corpus=corpus.folder, vectors=folder / "vectors", **search)
    manifest = CandidateManifest(
        corpus=corpus.fingerprint, vectors="v", queries=len(queries), k=made.k, pool=made.pool, retrieval=made.retrieval
    )
    found = find_candidates(folder / "found", manifest, corpus, vectors, made).of(range(len(queries)))
    for name, near in zip(world["queries"], found, strict=True):
        expected = reference.candidates(world, cosines, name, search)
        mine = [corpus.items[row].item_id for row in near.items]
        assert near.similarities == pytest.approx([cosines[name, item] for item in mine], abs=1e-5)
        assert [round(cosines[name, item], 5) for item in mine] == [round(cosines[name, item], 5) for item in expected]
        if len({cosines[name, item] for item in items}) == len(items):
            assert mine == expected


@st.composite
def worlds(draw):
    world = draw(corpora())
    world |= {"fold_case": True, "own_picture": draw(st.booleans()), "scores": [draw(judged(world))], "words": []}
    if draw(st.booleans()):
        world["scores"].append(draw(judged(world, world["scores"][0])))
    if draw(st.booleans()):
        world["words"] = draw(words_about(world, reference.says))
    return world


class Folders:
    """A world as folders, and settings that name them."""

    numbers = itertools.count()

    def __init__(self, folder, world, scale, in_shard=2):
        self.folder, self.world, self.corpus = folder, world, write_world(folder, world)
        self.similarity = {item: 0.9 - 0.01 * place for place, item in enumerate(world["items"])}
        self.common = {"corpus": self.corpus.folder}
        self.common["scores"] = tuple(
            write_judge(folder / f"judge {number}", self.corpus, world, number, self.similarity, in_shard)
            for number in range(len(world["scores"]))
        )
        if world["words"]:
            self.common["overrides"] = write_words(folder / "words.json", self.corpus, world["words"])
        self.scales = [(1.0, 0.0)] * 2
        if isinstance(scale, float):
            self.common["log_odds_divisor"] = scale
            self.scales = [(1 / scale, 0.0)] * 2
        elif scale is not None:
            self.scales = list(scale)
            files = []
            for number in range(len(world["scores"])):
                files.append(folder / f"fit {number}.json")
                publish_json(files[-1], calibration(identity(f"judge {number}").digest, *scale[number]))
            self.common["calibration"] = tuple(files)

    def select(self, **changes):
        """The rows by their query, the statistics, and the scales."""
        out = self.folder / f"triples {next(self.numbers)}"
        table = select(SelectSettings(**self.common | changes, out=out))
        rows = {row.query_id: row for row in read_triples(out, self.corpus.fingerprint)}
        return rows, table, read_json(out / "triples.json", TripleManifest).scales


@given(worlds(), CHOICES, SCALES, st.booleans())
@often
def test_a_selection_is_that_of_the_method(tmp_path_factory, world, choice, scale, extra_positives):
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
        assert (row.suspect, row.weight) == (expected["suspect"], pytest.approx(expected["weight"], abs=1e-6))
        if expected["drawn_from"]:
            _check_drawn(row, expected, choice["stored"])
            continue
        distinct, beta = [item for item, *_ in expected["negatives"]], expected["beta"]
        filled = list(itertools.islice(itertools.cycle(distinct), choice["stored"]))
        assert [negative.item_id for negative in row.negatives] == filled
        marks = [(negative.duplicate, negative.fallback) for negative in row.negatives]
        assert marks == [(place >= len(distinct), False) for place in range(choice["stored"])]
        assert all(negative.beta == (beta and pytest.approx(beta)) for negative in row.negatives)
        wanted = list(itertools.islice(itertools.cycle(reference.labels(expected)[1:]), choice["stored"]))
        mine = row.labels(scales)
        assert mine == pytest.approx([expected["label"], *wanted], abs=1e-6)
        assert [one.item_id for one in row.extra_positives] == [item for item, _ in expected["extras"]]
        extras = [one.label(scales) for one in row.extra_positives]
        assert extras == pytest.approx([value for _, value in expected["extras"]], abs=1e-6)
        logits = np.array(mine) / 0.02
        spread = np.exp(logits - logits.max())
        expected_spread = reference.distribution([expected["label"], *wanted], 0.02)
        assert spread / spread.sum() == pytest.approx(expected_spread, abs=1e-4)

    # What is printed, and what the sweep counts in matrices.
    if not any(result.get("drawn_from") for result in results.values()):
        expected = reference.statistics(list(results.values()), choice, folders.similarity)
        mine = {name.removesuffix(" (at face value)"): value for name, value in table.items()}
        assert mine.pop("extra positives offered") == sum(len(row.extra_positives) for row in rows.values())
        assert mine == pytest.approx(expected, abs=1e-4)
    _check_sweep(folders, choice, table)


def _check_drawn(row, expected, stored):
    """The paper's fallback: distinct ones of all that might have been chosen, each marked, each with the label 1."""
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
    shared = {name: choice[name] for name in ("stored", "suspect_below", "suspects")}
    (point,) = sweep(SweepSettings(**folders.common, **grid, **shared)).points
    table = {name: value for name, value in table.items() if name != "extra positives offered"}
    assert point.statistics == pytest.approx(table, abs=1.1e-4)


@given(worlds(), st.integers(1, 4), st.integers(0, 9))
@often
def test_random_negatives_are_any_that_can_be_none_of_the_answers(tmp_path_factory, world, stored, seed):
    folders = Folders(tmp_path_factory.mktemp("random"), world, None)
    rows, _, _ = folders.select(preset="random", stored=stored, seed=seed)
    for name, row in rows.items():
        assert len({reference.says(world["items"][one.item_id]) for one in row.negatives}) == len(
            {one.item_id for one in row.negatives}
        )
        for negative in row.negatives:
            word = reference.word(world, name, negative.item_id)
            known = reference.known_answer(world, name, negative.item_id, own_picture=world["own_picture"])
            assert word != "match"
            assert not known
            assert negative.label([]) == (0.0 if word == "negative" else None)
        # As many as there are.
        allowed = {
            reference.says(item)
            for item_id, item in world["items"].items()
            if not reference.known_answer(world, name, item_id, own_picture=world["own_picture"])
        }
        matches = {
            reference.says(item)
            for item_id, item in world["items"].items()
            if reference.word(world, name, item_id) == "match"
        }
        assert len({one.item_id for one in row.negatives}) <= min(stored, len(allowed))
        if not matches:
            assert len({one.item_id for one in row.negatives}) == min(stored, len(allowed))


# ---------------------------------------------------------------------------------------------- what must not change


def chosen(rows, rename=lambda name: name):
    return {
        rename(name): (
            rename(row.positive.item_id),
            [rename(one.item_id) for one in row.negatives],
            [rename(one.item_id) for one in row.extra_positives],
            row.suspect,
            round(row.weight, 6),
        )
        for name, row in rows.items()
    }


def reordered(world, names):
    queries = {name: world["queries"][name] for name in names}
    return world | {"queries": queries, "scores": [{name: judge[name] for name in names} for judge in world["scores"]]}


def renamed(world, new):
    """The same under other ids."""

    def row(judged):
        return {kind: [(new(item), *rest) for item, *rest in judged[kind]] for kind in judged}

    return world | {
        "items": {new(name): item for name, item in world["items"].items()},
        "queries": {
            new(name): asked | {"positives": tuple(map(new, asked["positives"]))}
            for name, asked in world["queries"].items()
        },
        "scores": [{new(name): row(judged) for name, judged in judge.items()} for judge in world["scores"]],
        "words": [(new(query), item and new(item), verdict) for query, item, verdict in world["words"]],
    }


SETTINGS = {"stored": 3, "stride": 2, "suspects": "down_weight", "extra_positives": True}


@given(worlds(), st.randoms(use_true_random=False), st.integers(1, 5))
@often
def test_order_of_rows_shards_and_names_change_nothing(tmp_path_factory, world, dice, in_shard):
    before, *_ = Folders(tmp_path_factory.mktemp("before"), world, 1.05).select(**SETTINGS)
    names = list(world["queries"])
    dice.shuffle(names)
    mixed, *_ = Folders(tmp_path_factory.mktemp("mixed"), reordered(world, names), 1.05, in_shard).select(**SETTINGS)
    assert chosen(mixed) == chosen(before)

    def new(name):
        return f"{name[0]}-{(int(name[1:]) * 7 + 3) % 11}-Ω"

    other, *_ = Folders(tmp_path_factory.mktemp("other"), renamed(world, new), 1.05).select(**SETTINGS)
    assert chosen(other) == chosen(before, new)


@given(worlds())
@often
def test_a_row_that_has_nothing_to_do_with_others_changes_none_of_them(tmp_path_factory, world):
    before, *_ = Folders(tmp_path_factory.mktemp("before"), world, None).select(**SETTINGS)
    stranger = {"text": "something else", "picture": None}
    row = {"positives": [("i100", 1.0, None)], "candidates": [("i0", -1.0, 0), ("i101", -2.0, 1)]}
    items = {f"i{n}": stranger | {"text": f"nothing like it {n}", "pools": ("z",)} for n in (100, 101)}
    asked = {"q100": stranger | {"subset": "z", "positives": ("i100",)}}
    scores = [judge | {"q100": row if place == 0 else {"positives": [], "candidates": []}}
              for place, judge in enumerate(world["scores"])]  # fmt: skip
    more = world | {"items": world["items"] | items, "queries": world["queries"] | asked, "scores": scores}
    after, *_ = Folders(tmp_path_factory.mktemp("after"), more, None).select(**SETTINGS)
    assert {name: row for name, row in chosen(after).items() if name != "q100"} == chosen(before)


@given(corpora(), SEARCHES, st.integers(0, 99), st.data())
@often
def test_an_item_in_another_spelling_changes_no_candidates(tmp_path_factory, world, search, seed, data):
    """At the end of the corpus and in the same pools: the first spelling stands for both."""
    name = data.draw(st.sampled_from(sorted(world["items"])))
    item = world["items"][name]
    assume(item["text"])
    search = search | {"fold_case": True}
    again = world | {"items": world["items"] | {"i99": item | {"text": f"  {item['text'].upper()}\n"}}}
    assume(reference.says(again["items"]["i99"]) == reference.says(item))
    _, queries, items = vectors_of(world, seed)
    found = []
    for number, (some, vectors) in enumerate([(world, items), (again, items | {"i99": items[name]})]):
        folder = tmp_path_factory.mktemp(f"spelling{number}")
        corpus = write_world(folder, some)
        opened = VectorFolder(write_vectors(folder / "vectors", corpus, queries, vectors), corpus)
        made = RetrievalSettings(corpus=corpus.folder, vectors=folder / "vectors", **search)
        manifest = CandidateManifest(
            corpus=corpus.fingerprint, vectors="v", queries=len(queries), k=made.k, pool=made.pool,
            retrieval=made.retrieval,
        )  # fmt: skip
        near = find_candidates(folder / "found", manifest, corpus, opened, made).of(range(len(queries)))
        found.append([[corpus.items[row].item_id for row in one.items] for one in near])
    assert found[0] == found[1]
