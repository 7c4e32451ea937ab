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

from trainer.benchmark_settings import SentenceTransformersSettings
from trainer.systems.system import Identity
from unijudge.corpus import Content, Corpus
from unijudge.errors import DataError, ModelError, SettingsError
from unijudge.files import LOADED, file_sha256
from unijudge.images import open_image
from unijudge.inputs import commit_of, versions_of
from unijudge.refused import in_one_line
from unijudge.vectors import Vectors


class SentenceTransformersModel:
    """Embeds by `SentenceTransformer.encode`."""

    def __init__(self, settings: SentenceTransformersSettings):
        """Loads the model.

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
        commit = commit_of(settings.name, settings.revision)  # once: a branch may move while files are fetched
        try:
            self._model: Any = library.SentenceTransformer(settings.name, revision=commit, device=settings.device)
        except Exception as error:  # each kind of module has its own
            raise ModelError(f"{settings.name}: sentence-transformers cannot load it ({in_one_line(error)})") from error
        folder = Path(settings.name)
        self.identity = Identity(
            model=settings.name,
            weights=commit or _files_sha256(folder),
            encoding=f"sentence-transformers {library.__version__}",
            inputs_version=versions_of("transformers", "tokenizers", "pillow"),
        )

    def check_texts(self, corpus: Corpus) -> None:
        """See `System`. `encode` cuts texts at its own limit."""

    def prepare(self, content: Content) -> Any:
        """See `System`: a text, a picture, or both."""
        if content.image is None:
            return content.text or ""
        picture = open_image(content.image)
        return {"image": picture, "text": content.text} if content.text else picture

    def embed(self, prepared: Sequence[Any]) -> Vectors:
        """See `System`."""
        try:
            found = self._model.encode(list(prepared), batch_size=len(prepared), show_progress_bar=False)
        except (ValueError, TypeError, NotImplementedError) as error:
            kinds = ", ".join(map(str, self._model.modalities))
            raise DataError(f"{self.identity.model}: cannot embed this ({error}); it takes {kinds}") from error
        return np.asarray(found, np.float32)


def _files_sha256(folder: Path) -> str:
    """Sixteen hex digits over the names and bytes of all that makes the model, its modules' folders included."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix in LOADED and path.is_file() and not any(part.startswith(".") for part in name.parts):
            digest.update(f"{name.as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]
