"""A sentence-transformers model: a hub name, or a folder written by sentence-transformers or by `train export`.

A text is passed as a string, an image as a PIL image, and both together as {"image": …, "text": …}. `open_image`
decodes images, and the model's own processor scales images. `encode` is called without a task, so inputs get a prompt
only if the model has a default prompt.
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
from unijudge.modeling.model_source import commit_of, versions_of
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.files import LOADED, file_sha256


class SentenceTransformersModel:
    """A system that embeds with `SentenceTransformer.encode`."""

    def __init__(self, settings: SentenceTransformersSettings, instruction: str = ""):
        """Loads the model.

        Args:
            settings: The settings of the model.
            instruction: The text that a benchmark adds to images. The instruction is dropped if the model accepts no
                text with an image.

        Raises:
            SettingsError: The settings name no model.
            ModelError: The library is not installed, or cannot load the model.
        """
        if not settings.name:
            raise SettingsError("sentence_transformers.name: required. Give a hub name or a folder")
        try:
            import sentence_transformers as library
        except ImportError as error:
            raise ModelError(
                f"sentence-transformers cannot be imported ({error}). Run pip install sentence-transformers"
            ) from error
        try:
            # Resolved once, since a branch may move meanwhile.
            commit = commit_of(settings.name, settings.revision)
            self._model: Any = library.SentenceTransformer(
                settings.name, revision=commit, device=settings.device
            )
        except Exception as error:  # modules of sentence-transformers raise errors of many types
            reason = str(error) if isinstance(error, ModelError) else in_one_line(error)
            raise ModelError(
                f"{settings.name}: sentence-transformers cannot load this model ({reason})"
            ) from error
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
        """Checks nothing, since `encode` cuts texts at the limit of the model."""

    def prepare(self, content: Content) -> Any:
        """Returns a text, a decoded image, or both, as `System.prepare` does."""
        if content.image is None:
            return content.text or ""
        image = open_image(content.image)
        if not content.text or (not self._joins and content.text.strip() == self._instruction):
            return image
        return {"image": image, "text": content.text}

    def embed(self, prepared: Sequence[Any]) -> Vectors:
        """Embeds the prepared contents, as `System.embed` does."""
        vectors: dict[int, Any] = {}
        for indices in _by_kind(prepared):  # some models reject a batch with texts and images
            try:
                batch = [prepared[index] for index in indices]
                encoded = self._model.encode(batch, batch_size=len(batch), show_progress_bar=False)
            except (ValueError, TypeError, NotImplementedError) as error:
                kinds = ", ".join(map(str, self._model.modalities))
                raise DataError(
                    f"{self.identity.model}: cannot embed this input ({in_one_line(error)}). The model accepts {kinds}"
                ) from error
            vectors |= dict(zip(indices, encoded, strict=True))
        return np.asarray([vectors[index] for index in range(len(prepared))], np.float32)


def _by_kind(prepared: Sequence[Any]) -> list[list[int]]:
    """Returns the indices of texts, of images, and of inputs with both, as separate lists."""
    groups: dict[type, list[int]] = {}
    for index, content in enumerate(prepared):
        groups.setdefault(type(content), []).append(index)
    return list(groups.values())


def _files_sha256(folder: Path) -> str:
    """Returns sixteen hex digits of a digest over the names and bytes of all files that the model loads."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if (
            path.suffix in LOADED
            and path.is_file()
            and not any(part.startswith(".") for part in name.parts)
        ):
            digest.update(f"{name.as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]
