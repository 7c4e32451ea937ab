"""How an exported model is loaded, library by library: the section of its card that `usage.md.jinja` holds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unijudge.judging.prompt import Prompt
from unijudge.pages.markdown import rendered
from unijudge.settings import overrides_of

TEMPLATE = Path(__file__).parent / "usage.md.jinja"

UsageKind = Literal["embedder", "reranker"]
Form = Literal["merged", "adapter"]


@dataclass(frozen=True)
class ExportedModel:
    """What the code depends on."""

    name: str
    """Of the folder."""
    kind: UsageKind
    form: Form
    base: str
    """The model that was trained: a hub name, or a folder."""
    revision: str | None
    dtype: str
    min_pixels: int
    max_pixels: int
    max_tokens: int
    processor: Mapping[str, Any]
    """How its processor is asked for."""
    prompt: Prompt
    """What a reranker is asked."""
    labels: tuple[int, int]
    """A reranker's tokens of a match and of a mismatch."""
    pairs: bool
    """Whether a processor takes a reranker's pictures in the order in which its question names them."""
    bare: str | None
    """The word of a picture, where an embedder reads strings without a template, and pictures count on like text."""
    edge: int | None
    """To how many pixels on each side pictures are squashed, where they are."""

    @property
    def quoted(self) -> str:
        """The name as Python reads it."""
        return json.dumps(self.name, ensure_ascii=False)

    @property
    def base_name(self) -> str:
        """The model that was trained, as a reader knows it."""
        return base_name(self.base)

    @property
    def quoted_weights(self) -> str:
        """What the weights are loaded from, as Python reads it: an adapter has those of its base."""
        return json.dumps(self.base_name, ensure_ascii=False) if self.form == "adapter" else self.quoted

    @property
    def is_in_mteb(self) -> bool:
        """Whether mteb's wrapper of sentence-transformers gives the numbers that the model was taught to give."""
        if self.edge:
            return False
        return self.pairs or (self.kind == "embedder" and not self.bare)

    @property
    def service_settings(self) -> list[str]:
        """The settings of `judge serve` with which a reranker is served as it was taught."""
        model = {
            "name": self.quoted, "dtype": self.dtype, "min_pixels": self.min_pixels, "max_pixels": self.max_pixels,
        }  # fmt: skip
        given = [f"model.{name}={value}" for name, value in model.items()]
        return [*given, *(f"prompt.{override}" for override in overrides_of(self.prompt))]

    @property
    def photo(self) -> str:
        """Code that opens a picture as the model was taught to see it."""
        size = f'.convert("RGB").resize(({self.edge}, {self.edge}), Image.Resampling.BICUBIC)' if self.edge else ""
        return f'Image.open("photo.jpg"){size}'


def base_name(name: str) -> str:
    """A hub name as it is; of a folder its own name, where the reader must put it: no path of this machine.

    Example:
        >>> base_name("Qwen/Qwen2-VL-2B-Instruct")
        'Qwen/Qwen2-VL-2B-Instruct'
    """
    folder = Path(name)
    return folder.resolve().name if folder.is_dir() else name


def loading(of: ExportedModel) -> str:
    """The section of the card."""
    return rendered(TEMPLATE, of=of)
