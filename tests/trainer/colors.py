"""A system that knows colours, and the settings of a benchmark of it."""

import numpy as np

from tests.trainer.published_data import COLORS
from trainer.benchmarks.settings import BenchmarkSettings
from trainer.embedding.base import Identity


class Colors:
    """A system that recognises colours by the mean pixel or the name, but takes green pictures for white pictures."""

    identity = Identity(model="colors", weights="w", encoding="e")

    def __init__(self, broken=None):
        self.embedded = []
        self.broken = broken

    def check_texts(self, corpus):
        pass

    def prepare(self, content):
        return content

    def embed(self, contents):
        self.embedded += contents
        return np.array([self.one(content) for content in contents], np.float32)

    def one(self, content):
        from unijudge.images.decoding import open_image

        if self.broken and self.broken in (content.text or ""):
            return [np.nan] * 5
        name = next((color for color in COLORS if color in (content.text or "")), None)
        if content.image is not None:
            red, green, blue = open_image(content.image).resize((1, 1)).getpixel((0, 0))
            name = (
                "white"
                if min(red, blue) > 200 or green > max(red, blue)
                else ("red" if red > blue else "blue")
            )
        return [2.0 * (color == name) for color in COLORS] + [0.25 * (content.image is None)]


def settings(root, out, **more):
    return BenchmarkSettings(root=root, out=out, name="colors", model={"device": "cpu"}, **more)


def quiet(name, done, total):
    assert 0 < done <= total
