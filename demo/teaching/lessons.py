"""Creates the training rows of the tiny models: a token stream, and the answer that should follow it.

Rows use only scenes and digits of the training half. A short row has one question and its answer in a dozen tokens. A
full row is the judge's own prompt, made by the same code that the judge uses.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from demo.captions import Caption, Scene
from demo.tiny_model import QWEN_PICTURE, PictureTokens
from demo.world import KINDS, World
from unijudge.content import Content
from unijudge.judging.prompt import Prompt
from unijudge.modeling.chat_encoder import ChatEncoder, Stream

FIND_IMAGE = "Find an image that matches the given caption: "
FIND_CAPTION = "Find a caption that describes the given image.\n"
WHICH_DIGIT = "Which digit is shown in the image?\n"
SAME_DIGIT = "Find an image that shows the same digit.\n"
TARGET = "Represent the given image.\n"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DRILLED = {"replace_rel": 7, "swap_obj": 6, "swap_att": 3, "replace_att": 2, "replace_obj": 2}
"""Weights of the kinds of hard negatives in the training of relations."""


Part = Literal["taught", "train", "eval"]
PARTS: tuple[Part, ...] = ("taught", "train", "taught", "eval")
"""The parts of four scenes: two train the judge and the base, one may train students, and one is for evaluation."""


@dataclass(frozen=True)
class Pair:
    """A query and a candidate. The bytes of an image are its number in the album."""

    query: Content
    candidate: Content
    kind: str
    """`positive`, `random`, a kind of hard negative, or a task with digits."""
    is_match: bool


@dataclass(frozen=True)
class Row:
    """One question and its answer. Images are given by their numbers, as in `Pair`."""

    stream: Stream
    answer: list[int]


@dataclass(frozen=True)
class Album:
    """Scenes and digits with their images. The images of scenes come first."""

    world: World
    scenes: list[Scene]
    labels: list[int]
    """The labels of the digits."""
    pictures: list[Image.Image]

    @classmethod
    def of(cls, world: World, *, scenes: int, seed: int, part: Part) -> "Album":
        """Draws scenes of one part, often followed by a similar scene, and takes half of the digits."""
        held_out = part != "taught"
        dice = random.Random(f"album {seed} {held_out}")
        drawn: list[Scene] = []
        while len(drawn) < scenes:
            scene = world.scene(dice)
            both = (scene, world.altered(scene, dice))
            drawn += [one for one in both if part_of(one) == part]
        drawn = drawn[:scenes]
        images, labels = digits(world.pixels, held_out=held_out)
        return cls(world, drawn, labels, [world.render(scene, dice) for scene in drawn] + images)

    def digit(self, place: int) -> int:
        """Returns the number of a digit's image."""
        return len(self.scenes) + place


def part_of(scene: Scene) -> Part:
    """Returns the part of a scene, which depends only on its content.

    Half of all scenes train the judge and the base embedder, a quarter may train students, and a quarter is for
    evaluation.

    Example:
        >>> part_of((Thing("circle", "red", "large", 0, 0),)), part_of((Thing("square", "red", "large", 0, 0),))
        ('eval', 'taught')
    """
    things = sorted(
        (thing.row, thing.column, thing.shape, thing.color, thing.size) for thing in scene
    )
    return PARTS[zlib.crc32(repr(things).encode()) % len(PARTS)]


def digits(side: int, *, held_out: bool) -> tuple[list[Image.Image], list[int]]:
    """Returns images and labels of one half of scikit-learn's handwritten digits."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    rows = order[len(order) // 2 :] if held_out else order[: len(order) // 2]
    pixels = [(data.images[row] * (255 / 16)).astype(np.uint8) for row in rows]
    pictures = [
        Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC).convert("RGB")
        for p in pixels
    ]
    return pictures, [int(data.target[row]) for row in rows]


class Lessons:
    """Draws training rows at random."""

    def __init__(
        self, album: Album, tokenizer: Any, seed: int, picture: PictureTokens = QWEN_PICTURE
    ):
        """Starts with the first row.

        Args:
            album: The scenes and digits.
            tokenizer: The tokenizer of the model that learns.
            seed: Seed of all draws.
            picture: The tokens of a picture.
        """
        self._album = album
        self._encoder = ChatEncoder(tokenizer, picture.placeholder)
        self._prompt = Prompt()
        self._seed = seed
        self.begin("")
        ids = tokenizer.convert_tokens_to_ids
        self._before_picture: list[int] = ids(list(picture.around[:1]))
        self._after_picture: list[int] = ids(list(picture.around[1:]))
        self._end: int = ids("<|im_end|>")
        self._yes, self._no = ids("Yes"), ids("No")
        self._twos = [place for place, scene in enumerate(album.scenes) if len(scene) == 2]
        self._by_digit = [
            [p for p, label in enumerate(album.labels) if label == d] for d in range(10)
        ]

    def begin(self, stage: str) -> None:
        """Starts a stage. Its rows do not depend on earlier draws."""
        self._dice = random.Random(f"lessons {self._seed} {stage}")

    def captioning(self, rows: int) -> list[Row]:
        """Returns rows that ask for the caption of an image, mostly a long caption, or for the name of a digit."""
        return [self._captioned() for _ in range(rows)]

    def phrases(self, rows: int) -> list[Row]:
        """Returns short rows: is this thing in the image? Half of the wrong phrases differ in one word."""
        make = partial(self._album.world.exists, also=0.0)
        kinds = ("replace_att", "replace_obj")
        return [
            self._short(self._scene_pair(make, hard=0.5, kind=self._dice.choice(kinds)))
            for _ in range(rows)
        ]

    def couples(self, rows: int) -> list[Row]:
        """Returns short rows: are both things in the image? Wrong captions differ in one word, or completely."""
        make, kinds = partial(self._album.world.caption, also=0.0), ("replace_att", "replace_obj")
        return [
            self._short(
                self._scene_pair(make, hard=0.7, kind=kind, place=self._dice.choice(self._twos))
            )
            for kind in self._dice.choices(kinds, k=rows)
        ]

    def relations(self, rows: int) -> list[Row]:
        """Returns short rows: two things and their relation, with hard negatives. A fifth of the rows show digits."""
        made = []
        for _ in range(rows):
            if self._dice.random() < 0.2:
                made.append(self._short(self._digit_pair()))
            else:
                (kind,) = self._dice.choices(list(DRILLED), list(DRILLED.values()))
                place, make = (
                    self._dice.choice(self._twos),
                    partial(self._album.world.caption, also=0.0),
                )
                made.append(self._short(self._scene_pair(make, hard=1.0, kind=kind, place=place)))
        return made

    def mixed(self, rows: int, *, long: bool) -> list[Row]:
        """Returns short rows of every kind of question, with either long or short captions."""
        make = self._album.world.long_caption if long else self._album.world.caption
        return [self._short(self._scene_pair(make, hard=0.65)) for _ in range(rows)]

    def judged(self, rows: int, *, long: bool) -> list[Row]:
        """Returns rows with the judge's whole prompt."""
        return [self._full(pair) for pair in self.pairs(rows, long=long)]

    def pairs(self, count: int, *, long: bool | None = None) -> list[Pair]:
        """Returns pairs to judge: scenes with short or long captions (None: a quarter long), and some digits."""
        made = []
        for _ in range(count):
            is_long = self._dice.random() < 0.25 if long is None else long
            make = self._album.world.long_caption if is_long else self._album.world.caption
            made.append(
                self._digit_pair()
                if self._dice.random() < 0.15
                else self._scene_pair(make, hard=0.65)
            )
        return made

    def matches(self, rows: int) -> list[tuple[Stream, Stream]]:
        """Returns queries and matching candidates, each in its own user turn, as the embedder encodes them."""
        pairs = []
        for _ in range(rows):
            pair = (
                self._digit_pair(is_match=True)
                if self._dice.random() < 0.15
                else self._scene_pair(self._album.world.caption, hard=0.0, is_match=True)
            )
            pairs.append((self._turn(pair.query), self._turn(pair.candidate)))
        return pairs

    def _turn(self, content: Content) -> Stream:
        return self._encoder.stream([part for part in (content.image, content.text) if part])

    def _captioned(self) -> Row:
        if self._dice.random() < 0.1:
            place = self._dice.randrange(len(self._album.labels))
            picture, question, text = (
                self._album.digit(place),
                WHICH_DIGIT,
                DIGITS[self._album.labels[place]],
            )
        else:
            picture, question = self._dice.randrange(len(self._album.scenes)), "Describe the image."
            scene, world = self._album.scenes[picture], self._album.world
            make = world.long_caption if self._dice.random() < 0.6 else world.caption
            text = make(scene, self._dice, drop=0.0).text
        stream = self._encoder.stream([_key(picture), question])
        return Row(stream, [*self._encoder.text_ids(text), self._end])

    def _scene_pair(
        self,
        make: Callable[..., Caption],
        *,
        hard: float,
        kind: str | None = None,
        is_match: bool | None = None,
        place: int | None = None,
    ) -> Pair:
        """Draws an image and a true or false caption. Either of the two may be the query."""
        dice, album = self._dice, self._album
        place = dice.randrange(len(album.scenes)) if place is None else place
        caption, found = make(album.scenes[place], dice), "positive"
        match = dice.random() < 0.5 if is_match is None else is_match
        tries = 0
        while not match:
            tries += (
                1  # some kinds always stay true of a scene, for example if all things are equal
            )
            if dice.random() < hard:
                wished = kind if kind and tries < 4 else dice.choice(KINDS)
                found, wrong = album.world.hard_negative(caption, dice, wished)
            else:
                found, wrong = "random", make(dice.choice(album.scenes), dice)
            if not wrong.holds(album.scenes[place]):
                caption = wrong
                break
        if dice.random() < 0.5:
            query, candidate = Content(FIND_IMAGE + caption.text), Content(TARGET, _key(place))
        else:
            query, candidate = Content(FIND_CAPTION, _key(place)), Content(caption.text)
        return Pair(query, candidate, found, match)

    def _digit_pair(self, *, is_match: bool | None = None) -> Pair:
        dice, album = self._dice, self._album
        place = dice.randrange(len(album.labels))
        label, match = album.labels[place], dice.random() < 0.5 if is_match is None else is_match
        other = label if match else dice.choice([digit for digit in range(10) if digit != label])
        picture = _key(album.digit(place))
        if dice.random() < 0.5:
            return Pair(Content(WHICH_DIGIT, picture), Content(DIGITS[other]), "digit_name", match)
        twin = dice.choice([p for p in self._by_digit[other] if p != place])
        return Pair(
            Content(SAME_DIGIT, picture),
            Content(TARGET, _key(album.digit(twin))),
            "digit_image",
            match,
        )

    def _full(self, pair: Pair) -> Row:
        stream = self._encoder.stream(self._prompt.parts(pair.query, pair.candidate))
        return Row(stream, [self._yes if pair.is_match else self._no])

    def _short(self, pair: Pair) -> Row:
        """Returns a row without chat template, instruction and task, with only query, candidate and a separator."""
        stream: Stream = []
        for content in (pair.query, pair.candidate):
            if content.image:
                stream += [*self._before_picture, content.image, *self._after_picture]
                text = content.text if content.text in (WHICH_DIGIT, SAME_DIGIT) else None
            else:
                text = (content.text or "").removeprefix(FIND_IMAGE)
            stream += self._encoder.text_ids(text) if text else []
            stream += self._encoder.text_ids("Candidate:")
        return Row(stream, [self._yes if pair.is_match else self._no])


def _key(picture: int) -> bytes:
    return str(picture).encode()
