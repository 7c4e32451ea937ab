"""Changes that must not change a selection: the order of rows, shards, names, unrelated entries, and another
spelling.
"""

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.reference import miner as reference
from tests.reference.searches import SEARCHES, search, vectors_of
from tests.reference.worlds import Folders, corpora, often, worlds


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
    return world | {
        "queries": queries,
        "scores": [{name: judge[name] for name in names} for judge in world["scores"]],
    }


def renamed(world, new):
    """Returns the same world with other ids."""

    def row(judged):
        return {kind: [(new(item), *rest) for item, *rest in judged[kind]] for kind in judged}

    return world | {
        "items": {new(name): item for name, item in world["items"].items()},
        "queries": {
            new(name): asked | {"positives": tuple(map(new, asked["positives"]))}
            for name, asked in world["queries"].items()
        },
        "scores": [
            {new(name): row(judged) for name, judged in judge.items()} for judge in world["scores"]
        ],
        "words": [
            (new(query), item and new(item), verdict) for query, item, verdict in world["words"]
        ],
    }


SETTINGS = {
    "num_negatives": 3,
    "stride": 2,
    "suspect_action": "down_weight",
    "extra_positives": True,
}


@given(worlds(), st.randoms(use_true_random=False), st.integers(1, 5))
@often
def test_order_of_rows_shards_and_names_change_nothing(tmp_path_factory, world, dice, in_shard):
    before, *_ = Folders(tmp_path_factory.mktemp("before"), world, 1.05).select(**SETTINGS)
    names = list(world["queries"])
    dice.shuffle(names)
    mixed, *_ = Folders(
        tmp_path_factory.mktemp("mixed"), reordered(world, names), 1.05, in_shard
    ).select(**SETTINGS)
    assert chosen(mixed) == chosen(before)

    def new(name):
        """Returns a different id for each id. A world has at most 14 items, so a shift by 17 is enough."""
        return f"{name[0]}-{(int(name[1:]) * 7 + 3) % 17}-Ω"

    other, *_ = Folders(tmp_path_factory.mktemp("other"), renamed(world, new), 1.05).select(
        **SETTINGS
    )
    assert chosen(other) == chosen(before, new)


@given(worlds())
@often
def test_an_unrelated_row_changes_no_other_row(tmp_path_factory, world):
    before, *_ = Folders(tmp_path_factory.mktemp("before"), world, None).select(**SETTINGS)
    stranger = {"text": "something else", "picture": None}
    row = {"positives": [("i100", 1.0, None)], "candidates": [("i0", -1.0, 0), ("i101", -2.0, 1)]}
    items = {
        f"i{n}": stranger | {"text": f"nothing like it {n}", "pools": ("z",)} for n in (100, 101)
    }
    asked = {"q100": stranger | {"subset": "z", "positives": ("i100",)}}
    scores = [judge | {"q100": row if place == 0 else {"positives": [], "candidates": []}}
              for place, judge in enumerate(world["scores"])]  # fmt: skip
    more = world | {
        "items": world["items"] | items,
        "queries": world["queries"] | asked,
        "scores": scores,
    }
    after, *_ = Folders(tmp_path_factory.mktemp("after"), more, None).select(**SETTINGS)
    assert {name: row for name, row in chosen(after).items() if name != "q100"} == chosen(before)


@given(corpora(), SEARCHES, st.integers(0, 99), st.data())
@often
def test_an_item_in_another_spelling_changes_no_candidates(
    tmp_path_factory, world, sought, seed, data
):
    """The other spelling is at the end of the corpus and in the same pools, so both use the first spelling."""
    name = data.draw(st.sampled_from(sorted(world["items"])))
    item = world["items"][name]
    assume(item["text"])
    sought = sought | {"fold_case": True}
    again = world | {
        "items": world["items"] | {"i99": item | {"text": f"  {item['text'].upper()}\n"}}
    }
    assume(reference.says(again["items"]["i99"]) == reference.says(item))
    _, queries, items = vectors_of(world, seed)
    before = search(tmp_path_factory.mktemp("before"), world, sought, queries, items)
    after = search(
        tmp_path_factory.mktemp("after"), again, sought, queries, items | {"i99": items[name]}
    )
    assert [names for names, _ in after] == [names for names, _ in before]
