"""A system makes vectors of contents, in two steps so that the first can run ahead. No caller can tell which it has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trainer.benchmark_settings import BenchmarkSettings
from unijudge.corpus import Content, Corpus
from unijudge.vectors import Vectors


@dataclass(frozen=True)
class Identity:
    """What made the vectors, as vectors.json holds it."""

    model: str
    weights: str
    """The hub revision, a digest of the folder, or `as served`."""
    encoding: str
    """How contents become inputs."""
    adapter: str = "none"
    min_pixels: int = 0
    """0 where the system scales images as it sees fit."""
    max_pixels: int = 0
    resize: str = "keep"
    model_dtype: str = "unknown"
    inputs_version: str = "unknown"
    """Of what makes tokens and pixels, where that is known."""


class System(Protocol):
    """Embeds contents."""

    @property
    def identity(self) -> Identity:
        """Who it is."""
        ...

    def check_texts(self, corpus: Corpus) -> None:
        """Refuses a corpus with texts that are too long, before anything is embedded; others than ours cut them.

        Raises:
            DataError: There are some.
        """
        ...

    def prepare(self, content: Content) -> Any:
        """What `embed` takes; None where the content is skipped. Called in threads, ahead of it.

        Raises:
            DataError: The content is too long, or its picture cannot be decoded.
        """
        ...

    def embed(self, prepared: Sequence[Any]) -> Vectors:
        """Vectors in the order of what was prepared, (contents, width).

        They are of any length above zero, and 0 for a content that was skipped.

        Raises:
            DataError: The system does not take such contents.
            EndpointError: It is away, or refuses.
        """
        ...


def open_system(settings: BenchmarkSettings) -> System:
    """Loads the system that the settings name.

    Raises:
        SettingsError: No model is named.
        ModelError: It cannot be loaded.
    """
    match settings.system:
        case "unijudge":
            from trainer.systems.ours import OurModel

            return OurModel(settings.model)
        case "sentence-transformers":
            from trainer.systems.sentence_transformers import SentenceTransformersModel

            return SentenceTransformersModel(settings.sentence_transformers, settings.instruction)
        case "endpoint":
            from trainer.systems.endpoint import Endpoint

            return Endpoint(settings.endpoint)
