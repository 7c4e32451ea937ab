"""Computes the share of a caption's statements that are true of each scene, for many scenes at once.

    table = Table(scenes)
    shares = table.shares(caption)      # (scenes,), 1 if the caption is true

A caption makes statements: a thing with this shape exists, the thing has this colour and this size, one thing is left
of another, a thing is at this position, the scene has this number of things. A phrase of a short caption may describe
any thing of a scene, but two phrases describe different things. The best assignment counts.
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt

from demo.captions import RELATIONS, Caption, Long, Phrase, Scene, Short, relation_of
from demo.world import World

Shares = npt.NDArray[np.float64]
MOST = 4
"""Largest number of things in a scene."""
NOTHING = -1


class Table:
    """Scenes as arrays: the attributes, positions and relations of all things."""

    def __init__(self, world: World, scenes: Sequence[Scene]):
        """Converts the scenes to arrays."""
        self._codes = {"shape": world.shapes, "color": world.colors, "size": world.sizes}
        self._side = len(world.columns)
        shape = (len(scenes), MOST)
        self._things = {name: np.full(shape, NOTHING, np.int8) for name in self._codes}
        self._cells = np.full(shape, NOTHING, np.int8)
        self._relations = np.full((*shape, MOST), NOTHING, np.int8)
        for number, scene in enumerate(scenes):
            for place, thing in enumerate(scene):
                for name, words in self._codes.items():
                    self._things[name][number, place] = words.index(getattr(thing, name))
                self._cells[number, place] = thing.row * self._side + thing.column
                for other_place, other in enumerate(scene):
                    relation = relation_of(thing, other)
                    if relation:
                        self._relations[number, place, other_place] = RELATIONS.index(relation)
        self._counts = np.array([len(scene) for scene in scenes])

    def shares(self, caption: Caption) -> Shares:
        """Returns (scenes,): the share of true statements for each scene; 1 exactly if the caption is true."""
        if isinstance(caption, Long):
            return self._of_long(caption)
        return self._of_short(caption)

    def _of_short(self, caption: Short) -> Shares:
        phrases = [phrase for phrase in (caption.first, caption.second, caption.also) if phrase]
        fitting = [self._fitting(phrase) for phrase in phrases]
        statements = sum(_statements(phrase) for phrase in phrases)
        relation = (
            RELATIONS.index(caption.relation) if caption.relation and caption.second else None
        )
        best = np.zeros(len(self._counts))
        # A missing thing fits no phrase, so an assignment with a missing thing never counts.
        for places in permutations(range(MOST), len(phrases)):
            found = sum(fits[:, place] for fits, place in zip(fitting, places, strict=True))
            if relation is not None:
                found = found + (self._relations[:, places[0], places[1]] == relation)
            best = np.maximum(best, found)
        shares: Shares = best / (statements + (relation is not None))
        return shares

    def _of_long(self, caption: Long) -> Shares:
        found = (self._counts == len(caption.places)).astype(np.float64)
        for phrase, row, column in caption.places:
            there = self._cells == row * self._side + column
            found += np.where(there, self._fitting(phrase), 0).max(axis=1)
        shares: Shares = found / (1 + sum(_statements(phrase) for phrase, _, _ in caption.places))
        return shares

    def _fitting(self, phrase: Phrase) -> npt.NDArray[np.float64]:
        """Returns (scenes, things): the number of true statements of a phrase; 0 for a thing with another shape."""
        is_shape = self._things["shape"] == self._codes["shape"].index(phrase.shape)
        found = is_shape.astype(np.float64)
        for name in ("color", "size"):
            word = getattr(phrase, name)
            if word is not None:
                found += self._things[name] == self._codes[name].index(word)
        return np.where(is_shape, found, 0.0)


def _statements(phrase: Phrase) -> int:
    """Returns the number of statements of a phrase: one for the shape, and one for each attribute."""
    return 1 + (phrase.color is not None) + (phrase.size is not None)
