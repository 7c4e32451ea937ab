"""The demo's world: a statement about a scene is true exactly when an independent reader of its words finds it true."""

import random
import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from demo.captions import RELATIONS, Long, Phrase, Short, Thing, relation_of
from demo.grades import Table
from demo.world import KINDS, WORLD

PHRASE = r"a (?:(small|large) )?(?:(red|green|blue|yellow|purple|black) )?(circle|square|triangle|star|cross)"
STEP = {"left of": (0, 1), "right of": (0, -1), "above": (1, 0), "below": (-1, 0)}


def reads(text, scene):
    """Whether a caption is true of a scene, decided from the words of the caption only."""

    def fits(words, thing):
        size, color, shape = words
        return shape == thing.shape and color in (None, thing.color) and size in (None, thing.size)

    def sign(number):
        return (number > 0) - (number < 0)

    if text.startswith("The picture shows"):
        number = ["one", "two", "three", "four"].index(text.split()[3]) + 1
        found = re.findall(rf"There is {PHRASE} at the (\w+) (\w+)\.", text)
        rows, columns = ["top", "bottom"], ["left", "right"]
        at = {(t.row, t.column): t for t in scene}
        places = [
            ((size or None, color or None, shape), (rows.index(r), columns.index(c)))
            for size, color, shape, r, c in found
        ]
        return number == len(scene) == len(places) and all(
            p in at and fits(words, at[p]) for words, p in places
        )
    found = re.fullmatch(
        rf"{PHRASE}(?: ({'|'.join(RELATIONS)}) {PHRASE})?(?: and {PHRASE})?", text
    ).groups()
    first, relation, second, also = found[:3], found[3], found[4:7], found[7:]
    for a in scene:
        if not fits(first, a):
            continue
        for b in scene if relation else [None]:
            step = b and (sign(b.row - a.row), sign(b.column - a.column))
            if relation and (step != STEP[relation] or not fits(second, b)):
                continue
            if also[2] is None or any(fits(also, c) and c not in (a, b) for c in scene):
                return True
    return False


def test_a_caption_is_true_if_an_independent_reader_agrees():
    dice = random.Random(0)
    agreed = {True: 0, False: 0}
    for _ in range(600):
        scene, other = WORLD.scene(dice), WORLD.scene(dice)
        for caption in (
            WORLD.caption(scene, dice),
            WORLD.exists(scene, dice),
            WORLD.long_caption(scene, dice),
        ):
            assert caption.holds(scene)
            _, wrong = WORLD.hard_negative(caption, dice)
            for said, where in [
                (caption, scene),
                (wrong, scene),
                (caption, other),
                (caption, WORLD.altered(scene, dice)),
            ]:
                assert said.holds(where) == reads(said.text, where), (said.text, where)
                agreed[said.holds(where)] += 1
    assert min(agreed.values()) > 500


def test_hard_negatives_differ_little_and_are_mostly_wrong():
    dice = random.Random(1)
    made, wrong = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for _ in range(800):
        scene = WORLD.scene(dice)
        for caption in (WORLD.caption(scene, dice), WORLD.long_caption(scene, dice)):
            kind, negative = WORLD.hard_negative(caption, dice)
            assert negative.text != caption.text
            made[kind] += 1
            wrong[kind] += not negative.holds(scene)
            if kind.startswith("replace") and kind != "replace_rel":
                pairs = zip(caption.text.split(), negative.text.split(), strict=True)
                assert sum(a != b for a, b in pairs) == 1
            if kind.startswith("swap"):
                assert sorted(re.findall(r"\w+", caption.text)) == sorted(
                    re.findall(r"\w+", negative.text)
                )
    assert min(made.values()) > 20
    assert all(wrong[kind] > 0.6 * made[kind] for kind in KINDS)


def test_a_requested_kind_is_made_if_possible():
    dice = random.Random(2)
    caption = WORLD.caption(
        (Thing("circle", "red", "large", 0, 0), Thing("cross", "blue", "large", 0, 1)), dice, drop=0
    )
    for kind in set(KINDS) - {"add_att"}:
        assert WORLD.hard_negative(caption, dice, kind)[0] == kind
    assert WORLD.hard_negative(caption, dice, "add_att")[0] != "add_att", (
        "the caption names every colour, so no colour can be added"
    )


def test_the_same_seed_gives_the_same_world():
    def draw(seed):
        dice = random.Random(seed)
        scene = WORLD.scene(dice)
        return (
            scene,
            WORLD.caption(scene, dice).text,
            np.asarray(WORLD.render(scene, dice)).tobytes(),
        )

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_a_picture_shows_its_things_where_they_are():
    """A full cell has strong colours, and an empty cell is light."""
    dice = random.Random(3)
    for _ in range(40):
        scene = WORLD.scene(dice)
        pixels = np.asarray(WORLD.render(scene, dice)).astype(int)
        assert pixels.shape == (WORLD.pixels, WORLD.pixels, 3)
        for row in range(len(WORLD.rows)):
            for column in range(len(WORLD.columns)):
                cell = pixels[28 * row : 28 * (row + 1), 28 * column : 28 * (column + 1)]
                full = any((thing.row, thing.column) == (row, column) for thing in scene)
                assert (cell.min() < 120) == full


def test_a_near_neighbour_differs():
    dice = random.Random(4)
    scenes = [WORLD.scene(dice) for _ in range(200)]
    assert sum(WORLD.altered(scene, dice) != scene for scene in scenes) > 150


def shares_by_hand(caption, scene):
    """The share of true statements under the best assignment of phrases to things, tried one assignment after the
    other.
    """
    phrases = [phrase for phrase in (caption.first, caption.second, caption.also) if phrase]
    statements = sum(len(phrase.text.split()) - 1 for phrase in phrases) + bool(caption.relation)
    best = 0
    for things in permutations([*scene, *[None] * 3], len(phrases)):
        found = 0
        for phrase, thing in zip(phrases, things, strict=True):
            if thing is None or thing.shape != phrase.shape:
                continue
            found += 1 + (phrase.color == thing.color) + (phrase.size == thing.size)
        if caption.relation and None not in things[:2]:
            found += relation_of(*things[:2]) == caption.relation
        best = max(best, found)
    return best / statements


def test_the_share_of_true_statements_is_one_exactly_for_true_captions():
    dice = random.Random(5)
    scenes = [WORLD.scene(dice) for _ in range(150)]
    scenes += [WORLD.altered(scene, dice) for scene in scenes]
    table = Table(WORLD, scenes)
    for scene in scenes[:100]:
        for caption in (
            WORLD.caption(scene, dice, drop=0.5),
            WORLD.exists(scene, dice),
            WORLD.long_caption(scene, dice),
        ):
            shares = table.shares(caption)
            assert [share == 1 for share in shares] == [caption.holds(other) for other in scenes]
            if isinstance(caption, Short):
                assert shares[:60] == pytest.approx(
                    [shares_by_hand(caption, other) for other in scenes[:60]]
                )


def test_a_long_caption_counts_its_statements():
    red, blue = Thing("circle", "red", "large", 0, 0), Thing("cross", "blue", "small", 1, 1)
    caption = Long(
        ((Phrase("circle", "red"), 0, 0), (Phrase("cross", "blue", "small"), 1, 1)),
        WORLD.rows,
        WORLD.columns,
    )
    moved, green = replace(blue, row=0), replace(blue, color="green")
    third = Thing("star", "red", "large", 1, 0)
    found = Table(
        WORLD, [(red, blue), (red, moved), (red, green), (red, blue, third), (third, moved)]
    ).shares(caption)
    assert found * 6 == pytest.approx([6, 3, 5, 5, 1])
