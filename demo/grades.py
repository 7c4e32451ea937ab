"""How much of a caption is true of each scene: the share of its statements that hold, for many scenes at once.

    table = Table(scenes)
    shares = table.shares(caption)      # (scenes,), 1 where the caption holds

A caption makes statements: a thing of such a shape is there, it has this colour, this size; one stands left of the
other; a thing stands in this place; there are so many things. Words of a short caption may be read of any of a scene's
things, of different ones for each phrase: the best reading counts.
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt

from demo.captions import RELATIONS, Caption, Long, Phrase, Scene, Short, relation_of
from demo.world import World

Shares = npt.NDArray[np.float64]
MOST = 4
"""Things in a scene."""
NOTHING = -1


class Table:
    """Scenes as arrays: what each thing is, where it stands, and how things stand to each other."""

    def __init__(self, world: World, scenes: Sequence[Scene]):
        """Reads the scenes."""
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
        """(scenes,): the share of a caption's statements that hold for each scene; 1 exactly where it holds."""
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
        # A thing that is not there fits nothing, so a reading of a missing thing never counts.
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
        """(scenes, things): how many of a phrase's statements hold for each thing; none does of another shape."""
        is_shape = self._things["shape"] == self._codes["shape"].index(phrase.shape)
        found = is_shape.astype(np.float64)
        for name in ("color", "size"):
            word = getattr(phrase, name)
            if word is not None:
                found += self._things[name] == self._codes[name].index(word)
        return np.where(is_shape, found, 0.0)


def _statements(phrase: Phrase) -> int:
    """How many statements a phrase makes: one of its shape, and one of each word more."""
    return 1 + (phrase.color is not None) + (phrase.size is not None)
