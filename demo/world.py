"""A procedural world of captioned images. Whether a caption is true of a scene can be computed.

    world = WORLD
    scene = world.scene(random.Random(1))
    caption = world.caption(scene, random.Random(2))      # true of the scene
    kind, wrong = world.hard_negative(caption, random.Random(3))
    assert caption.holds(scene)

Things are in the cells of a grid. A short caption names two things and their relation. A long caption names all things
with their positions. A hard negative differs in one or two words. Its kinds are those of SugarCrepe (arXiv
2306.14610): replace an attribute, an object or a relation, swap attributes or objects, add an attribute or an object. A
hard negative can be true of a scene by chance, so `holds` must check it. All results depend only on the given random
generator.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from PIL import Image, ImageDraw

from demo.captions import (
    NUMBERS,
    RELATIONS,
    Caption,
    Long,
    Phrase,
    Scene,
    Short,
    Thing,
    relation_of,
)

KINDS = ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj", "add_att", "add_obj")
RGB = {
    "red": (220, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 220), "yellow": (235, 200, 40),
    "purple": (150, 60, 190), "black": (25, 25, 25),
}  # fmt: skip
CELL = 28
"""Width and height of a cell in pixels, which is one image token of Qwen2.5-VL."""


@dataclass(frozen=True)
class World:
    """The possible attributes of things, and the cells of the grid."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    shapes: tuple[str, ...]
    colors: tuple[str, ...]
    sizes: tuple[str, ...]

    @property
    def pixels(self) -> int:
        """Width and height of an image, in pixels."""
        return CELL * len(self.rows)

    def scene(self, dice: random.Random) -> Scene:
        """Returns a scene: mostly two different things in one row or column, sometimes three or four anywhere."""
        cells = [
            (row, column) for row in range(len(self.rows)) for column in range(len(self.columns))
        ]
        if dice.random() < 0.7:
            first, second = dice.sample(cells, 2)
            while (first[0] == second[0]) == (first[1] == second[1]):
                first, second = dice.sample(cells, 2)
            chosen = [first, second]
        else:
            chosen = sorted(dice.sample(cells, dice.randint(3, 4)))
        things = [self._thing(dice, *cell) for cell in chosen]
        while (
            len(things) == 2
            and things[0].shape == things[1].shape
            and things[0].color == things[1].color
        ):
            things[1] = self._thing(dice, *chosen[1])
        return tuple(things)

    def altered(self, scene: Scene, dice: random.Random) -> Scene:
        """Returns a similar scene: one attribute is changed, or two things swap their positions or colours."""
        things = list(scene)
        place, other = dice.sample(range(len(things)), 2)
        a, b = things[place], things[other]
        change = dice.choice(
            ["color", "shape", "places", "colors"] + ["size"] * (len(self.sizes) > 1)
        )
        if change == "places":
            things[place], things[other] = (
                replace(a, row=b.row, column=b.column),
                replace(b, row=a.row, column=a.column),
            )
        elif change == "colors":
            things[place], things[other] = replace(a, color=b.color), replace(b, color=a.color)
        else:
            things[place] = _with(a, change, _other(self._words(change), getattr(a, change), dice))
        return tuple(things)

    def caption(
        self, scene: Scene, dice: random.Random, *, drop: float = 0.15, also: float = 0.3
    ) -> Short:
        """Returns a true short caption: two things and their relation.

        Args:
            scene: The scene to describe.
            dice: The random generator.
            drop: How often a colour is not mentioned.
            also: How often a third thing is named. Without a third thing, the word `and` would reveal an added object.
        """
        pairs = [(a, b) for a in scene for b in scene if relation_of(a, b)]
        if not pairs:
            return self.exists(scene, dice, drop=drop, also=also)
        first, second = dice.choice(pairs)
        third = self._third(scene, {first, second}, dice, drop, also)
        phrases = self._phrase(first, dice, drop), self._phrase(second, dice, drop)
        return Short(phrases[0], relation_of(first, second), phrases[1], third)

    def exists(
        self, scene: Scene, dice: random.Random, *, drop: float = 0.15, also: float = 0.3
    ) -> Short:
        """Returns a short caption that names one or two things."""
        thing = dice.choice(scene)
        return Short(
            self._phrase(thing, dice, drop), also=self._third(scene, {thing}, dice, drop, also)
        )

    def _third(
        self, scene: Scene, named: set[Thing], dice: random.Random, drop: float, also: float
    ) -> Phrase | None:
        others = [thing for thing in scene if thing not in named]
        return (
            self._phrase(dice.choice(others), dice, drop)
            if others and dice.random() < also
            else None
        )

    def long_caption(self, scene: Scene, dice: random.Random, *, drop: float = 0.0) -> Long:
        """Returns a true long caption: every thing with its position."""
        things = sorted(scene, key=lambda thing: (thing.row, thing.column))
        places = tuple(
            (self._phrase(thing, dice, drop), thing.row, thing.column) for thing in things
        )
        return Long(places, self.rows, self.columns)

    def hard_negative(
        self, caption: Caption, dice: random.Random, kind: str | None = None
    ) -> tuple[str, Caption]:
        """Returns the kind and the caption of a hard negative, with the requested kind if the caption allows it."""
        wished = [kind] if kind in KINDS else []
        for choice in wished + dice.sample(KINDS, len(KINDS)):
            made = (
                self._long(caption, choice, dice)
                if isinstance(caption, Long)
                else self._short(caption, choice, dice)
            )
            if made is not None and made != caption:
                return choice, made
        raise AssertionError("every caption has a shape to replace")

    def render(self, scene: Scene, dice: random.Random) -> Image.Image:
        """Returns an RGB image with a light background. Position, size and colour of the things vary a little."""
        scale = 2
        picture = Image.new(
            "RGB", (self.pixels * scale,) * 2, tuple(dice.randint(215, 255) for _ in range(3))
        )
        draw = ImageDraw.Draw(picture)
        for thing in scene:
            radius = (0.43 if thing.size == "large" else 0.24) * CELL * dice.uniform(0.93, 1.07)
            jitter = max(0.0, CELL / 2 - radius) * 0.8
            x, y = (
                ((cell + 0.5) * CELL + dice.uniform(-jitter, jitter)) * scale
                for cell in (thing.column, thing.row)
            )
            color = tuple(
                min(255, max(0, part + dice.randint(-18, 18))) for part in RGB[thing.color]
            )
            _draw(draw, thing.shape, x, y, radius * scale, color)
        return picture.resize((self.pixels,) * 2, Image.Resampling.BOX)

    def _words(self, attribute: str) -> tuple[str, ...]:
        return {"color": self.colors, "shape": self.shapes, "size": self.sizes}[attribute]

    def _thing(self, dice: random.Random, row: int, column: int) -> Thing:
        return Thing(
            dice.choice(self.shapes), dice.choice(self.colors), dice.choice(self.sizes), row, column
        )

    def _phrase(self, thing: Thing, dice: random.Random, drop: float) -> Phrase:
        color = None if dice.random() < drop else thing.color
        size = thing.size if len(self.sizes) > 1 and dice.random() < 0.4 else None
        return Phrase(thing.shape, color, size)

    def _replaced(self, phrase: Phrase, kind: str, dice: random.Random) -> Phrase | None:
        if kind == "replace_obj":
            return replace(phrase, shape=_other(self.shapes, phrase.shape, dice))
        named = [name for name in ("color", "size") if getattr(phrase, name)]
        if kind == "replace_att" and named:
            name = dice.choice(named)
            return _with(phrase, name, _other(self._words(name), getattr(phrase, name), dice))
        if kind == "add_att" and phrase.color is None:
            return replace(phrase, color=dice.choice(self.colors))
        return None

    def _short(self, caption: Short, kind: str, dice: random.Random) -> Short | None:
        first, second = caption.first, caption.second
        if kind in ("replace_att", "replace_obj", "add_att"):
            if second is None or dice.random() < 0.5:
                changed = self._replaced(first, kind, dice)
                return replace(caption, first=changed) if changed else None
            changed = self._replaced(second, kind, dice)
            return replace(caption, second=changed) if changed else None
        if kind == "add_obj":
            return replace(caption, also=self._phrase(self._thing(dice, 0, 0), dice, 0.0))
        if second is None or caption.relation is None:
            return None
        if kind == "replace_rel":
            return replace(caption, relation=_other(RELATIONS, caption.relation, dice))
        if kind == "swap_obj":
            return replace(caption, first=second, second=first)
        if first.color and second.color:
            return replace(
                caption,
                first=replace(first, color=second.color),
                second=replace(second, color=first.color),
            )
        return None

    def _long(self, caption: Long, kind: str, dice: random.Random) -> Long | None:
        places = list(caption.places)
        free = [
            (row, column)
            for row in range(len(self.rows))
            for column in range(len(self.columns))
            if (row, column) not in {place[1:] for place in places}
        ]
        place, other = dice.sample(range(len(places)), 2)
        (phrase, row, column), (second, there_row, there_column) = places[place], places[other]
        if kind in ("replace_att", "replace_obj", "add_att"):
            changed = self._replaced(phrase, kind, dice)
            if changed is None:
                return None
            places[place] = (changed, row, column)
        elif kind in ("replace_rel", "add_obj"):
            if not free or (kind == "add_obj" and len(places) == len(NUMBERS)):
                return None
            if kind == "add_obj":
                places.append(
                    (self._phrase(self._thing(dice, 0, 0), dice, 0.0), *dice.choice(free))
                )
            else:
                places[place] = (phrase, *dice.choice(free))
        elif kind == "swap_obj":
            places[place], places[other] = (second, row, column), (phrase, there_row, there_column)
        elif phrase.color and second.color:
            places[place] = (replace(phrase, color=second.color), row, column)
            places[other] = (replace(second, color=phrase.color), there_row, there_column)
        return replace(caption, places=tuple(sorted(places, key=lambda p: p[1:])))


WORLD = World(
    ("top", "bottom"), ("left", "right"),
    ("circle", "square", "triangle", "star", "cross"), tuple(RGB), ("small", "large"),
)  # fmt: skip


T = TypeVar("T", Thing, Phrase)


def _with(what: T, attribute: str, word: str) -> T:
    return replace(what, **{attribute: word})  # type: ignore[arg-type]  # all these attributes are words


def _other(words: Sequence[str], word: str, dice: random.Random) -> str:
    return dice.choice([other for other in words if other != word])


def _draw(
    draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, color: tuple[int, ...]
) -> None:
    if shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
    elif shape == "square":
        draw.rectangle((x - 0.88 * r, y - 0.88 * r, x + 0.88 * r, y + 0.88 * r), fill=color)
    elif shape == "triangle":
        draw.polygon([(x, y - r), (x + r, y + 0.85 * r), (x - r, y + 0.85 * r)], fill=color)
    elif shape == "cross":
        draw.rectangle((x - 0.35 * r, y - r, x + 0.35 * r, y + r), fill=color)
        draw.rectangle((x - r, y - 0.35 * r, x + r, y + 0.35 * r), fill=color)
    else:
        spikes = [
            (math.sin(k * math.pi / 5), math.cos(k * math.pi / 5), 1.1 if k % 2 == 0 else 0.5)
            for k in range(10)
        ]
        draw.polygon(
            [(x + r * long * sin, y - r * long * cos) for sin, cos, long in spikes], fill=color
        )
