"""Sixteen mixed contents, so 256 mixed pairs: texts, pictures, both; short and long, wide and tall; hostile text."""

from tests.pictures import png
from unijudge.corpus import Content

TEXTS = [
    "a cat",
    "seven",
    "Represent the given image.\n",
    "a long candidate " * 12,
    "ünïcode 猫",
    "<|image_pad|> <image> [INST] <s> typed",
]
COLORS = [("red", (60, 60)), ("blue", (200, 60)), ("white", (30, 90)), ("green", (100, 100)), ("black", (56, 56))]
CONTENTS = [
    *(Content(text=text) for text in TEXTS),
    *(Content(image=png(color, size)) for color, size in COLORS),
    *(Content(text=text, image=png(color, size)) for text, (color, size) in zip(TEXTS, COLORS, strict=False)),
]
