"""The section of a model card that shows how each library loads the model. The template is `usage.md.jinja`."""

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
    """An exported model, with everything on which the code of its card depends."""

    name: str
    """The name of the folder."""
    kind: UsageKind
    form: Form
    base: str
    """The base model of the training: a hub name or a folder."""
    revision: str | None
    dtype: str
    min_pixels: int
    max_pixels: int
    max_tokens: int
    processor: Mapping[str, Any]
    """The options with which the processor is loaded."""
    prompt: Prompt
    """The prompt of a reranker."""
    labels: tuple[int, int]
    """The tokens of a reranker for a match and for a mismatch."""
    pairs: bool
    """Whether a processor receives the images of a pair in the order of the reranker's question."""
    bare: str | None
    """The image token of an embedder that reads strings without a template, with consecutive positions for image
    tokens. None for other models."""
    edge: int | None
    """The number of pixels on each side to which images are distorted. None if images keep their aspect ratio."""

    @property
    def quoted(self) -> str:
        """The name as a Python string literal."""
        return json.dumps(self.name, ensure_ascii=False)

    @property
    def base_name(self) -> str:
        """The name of the base model, without a path of this machine."""
        return base_name(self.base)

    @property
    def quoted_weights(self) -> str:
        """The source of the weights as a Python string literal. For an adapter, this is the base model."""
        if self.form == "adapter":
            return json.dumps(self.base_name, ensure_ascii=False)
        return self.quoted

    @property
    def is_in_mteb(self) -> bool:
        """Whether mteb's wrapper of sentence-transformers computes the same numbers as the training."""
        if self.edge:
            return False
        return self.pairs or (self.kind == "embedder" and not self.bare)

    @property
    def service_settings(self) -> list[str]:
        """The settings of `judge serve` that serve a reranker with the prompt and the images of its training."""
        model = {
            "name": self.quoted, "dtype": self.dtype, "min_pixels": self.min_pixels, "max_pixels": self.max_pixels,
        }  # fmt: skip
        given = [f"model.{name}={value}" for name, value in model.items()]
        return [*given, *(f"prompt.{override}" for override in overrides_of(self.prompt))]

    @property
    def photo(self) -> str:
        """The code that opens and resizes an image as the training did."""
        opened = 'Image.open("photo.jpg")'
        if not self.edge:
            return opened
        size = f"({self.edge}, {self.edge})"
        return f'{opened}.convert("RGB").resize({size}, Image.Resampling.BICUBIC)'


def base_name(name: str) -> str:
    """Returns a hub name unchanged. For a folder, returns only its name, since a card names no path of this machine.

    Example:
        >>> base_name("Qwen/Qwen2-VL-2B-Instruct")
        'Qwen/Qwen2-VL-2B-Instruct'
    """
    folder = Path(name)
    return folder.resolve().name if folder.is_dir() else name


def loading(of: ExportedModel) -> str:
    """Returns the section of the card as text."""
    return rendered(TEMPLATE, of=of)
