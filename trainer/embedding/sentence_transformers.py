"""A sentence-transformers model: a hub name, or a folder that it saved (or that `train export` wrote).

A text goes in as a string, an image as a picture, both as {"image": …, "text": …}; pictures are decoded by
`open_image`, and scaled as the model's own processor does. `encode` is called without a task, so a prompt is put before
every input only where the model has a default one.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.embedding.base import Identity
from trainer.embedding.settings import SentenceTransformersSettings
from unijudge.content import Content
from unijudge.errors import DataError, ModelError, SettingsError
from unijudge.formats.corpus import Corpus
from unijudge.formats.vectors import Vectors
from unijudge.images.decoding import open_image
from unijudge.modeling.inputs import commit_of, versions_of
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.files import LOADED, file_sha256


class SentenceTransformersModel:
    """Embeds by `SentenceTransformer.encode`."""

    def __init__(self, settings: SentenceTransformersSettings, instruction: str = ""):
        """Loads the model.

        Args:
            settings: Which.
            instruction: What the benchmark puts beside images; a model that takes no text with an image goes without.

        Raises:
            SettingsError: None is named.
            ModelError: The library is not installed, or cannot load it.
        """
        if not settings.name:
            raise SettingsError("sentence_transformers.name: required; a hub name, or a folder")
        try:
            import sentence_transformers as library
        except ImportError as error:
            raise ModelError(f"sentence-transformers cannot be imported ({error}); pip install it") from error
        try:
            commit = commit_of(settings.name, settings.revision)  # once: a branch may move while files are fetched
            self._model: Any = library.SentenceTransformer(settings.name, revision=commit, device=settings.device)
        except Exception as error:  # each kind of module has its own
            reason = str(error) if isinstance(error, ModelError) else in_one_line(error)
            raise ModelError(f"{settings.name}: sentence-transformers cannot load it ({reason})") from error
        folder = Path(settings.name)
        self._joins = self._model.supports(("image", "text"))
        self._instruction = instruction.strip()
        without = "" if self._joins or not instruction else ", images without the instruction"
        self.identity = Identity(
            model=settings.name,
            weights=commit or _files_sha256(folder),
            encoding=f"sentence-transformers {library.__version__}{without}",
            inputs_version=versions_of("transformers", "tokenizers", "pillow"),
        )

    def check_texts(self, corpus: Corpus) -> None:
        """See `System`. `encode` cuts texts at its own limit."""

    def prepare(self, content: Content) -> Any:
        """See `System`: a text, a picture, or both."""
        if content.image is None:
            return content.text or ""
        picture = open_image(content.image)
        if not content.text or (not self._joins and content.text.strip() == self._instruction):
            return picture
        return {"image": picture, "text": content.text}

    def embed(self, prepared: Sequence[Any]) -> Vectors:
        """See `System`."""
        vectors: dict[int, Any] = {}
        for places in _by_kind(prepared):  # not every model takes texts and pictures in one batch
            try:
                some = [prepared[place] for place in places]
                found = self._model.encode(some, batch_size=len(some), show_progress_bar=False)
            except (ValueError, TypeError, NotImplementedError) as error:
                kinds = ", ".join(map(str, self._model.modalities))
                raise DataError(
                    f"{self.identity.model}: cannot embed this ({in_one_line(error)}); it takes {kinds}"
                ) from error
            vectors |= dict(zip(places, found, strict=True))
        return np.asarray([vectors[place] for place in range(len(prepared))], np.float32)


def _by_kind(prepared: Sequence[Any]) -> list[list[int]]:
    """The places of texts, of pictures, and of both in one."""
    groups: dict[type, list[int]] = {}
    for place, one in enumerate(prepared):
        groups.setdefault(type(one), []).append(place)
    return list(groups.values())


def _files_sha256(folder: Path) -> str:
    """Sixteen hex digits over the names and bytes of all that makes the model, its modules' folders included."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix in LOADED and path.is_file() and not any(part.startswith(".") for part in name.parts):
            digest.update(f"{name.as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]
