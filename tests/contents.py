"""Sixteen mixed contents, for 256 mixed pairs: texts, pictures and both; short and long, wide and tall; and hostile
texts.
"""

from tests.pictures import noise, pattern
from unijudge.content import Content

TEXTS = [
    "a cat",
    "seven",
    "Represent the given image.\n",
    "a long candidate " * 12,
    "ünïcode 猫",
    "<|image_pad|> <image> [INST] <s> typed",
]
SHAPES = [(60, 60), (200, 60), (30, 90), (100, 100), (56, 56)]
PICTURES = [pattern(seed, shape) for seed, shape in enumerate(SHAPES)]
PICTURES[3] = noise(3, SHAPES[3])  # large enough for an upload before the request
CONTENTS = [
    *(Content(text=text) for text in TEXTS),
    *(Content(image=picture) for picture in PICTURES),
    *(Content(text=text, image=picture) for text, picture in zip(TEXTS, PICTURES, strict=False)),
]
