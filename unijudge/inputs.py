"""Everything of a model but its weights: parts → token streams → the arrays that a forward pass takes.

The one place of this package that imports transformers, when a model's tokenizer and processor are loaded.
"""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from unijudge.encoding import ChatEncoder, Stream
from unijudge.errors import ModelError
from unijudge.families import Arrays, Entry, family_of
from unijudge.files import folder_sha256
from unijudge.pictures import Picture, PictureReader, PixelBudget, Resize

UNKNOWN = "unknown"
"""The weights of a hub model whose revision is not known."""


class ModelInputs:
    """For one model: its chat template and tokenizer, and its family's way with pictures."""

    def __init__(
        self,
        name: str,
        revision: str | None,
        *,
        min_pixels: int,
        max_pixels: int,
        max_source_pixels: int,
        resize: Resize = "keep",
    ):
        """Loads a model's configuration, tokenizer and processor.

        Args:
            name: A hub name, or a folder.
            revision: The commit of a hub model.
            min_pixels: Smaller pictures are scaled up to this many pixels.
            max_pixels: Larger pictures are scaled down to this many pixels.
            max_source_pixels: Pictures with more pixels are not decoded at all.
            resize: Whether pictures keep their aspect ratio (`PixelBudget`).

        Raises:
            ModelError: They cannot be loaded, are of another family, have no chat template, or user text could steer
                this model (`ChatEncoder`).
        """
        import transformers

        try:
            self.config = transformers.AutoConfig.from_pretrained(name, revision=revision)
            kind = family_of(self.config.model_type)
            # Here rows are padded by hand; who loads what is saved finds every row's last token at the last position.
            tokenizer = transformers.AutoTokenizer.from_pretrained(name, revision=revision, padding_side="left")
            loader, options = kind.loader
            processor = getattr(transformers, loader).from_pretrained(name, revision=revision, **options)
            # Of two templates the processor's is the one that knows pictures; the tokenizer does not always have it.
            layout, _ = transformers.ProcessorMixin.get_processor_dict(name, revision=revision)
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(str(error)) from error
        tokenizer.chat_template = layout.get("chat_template") or tokenizer.chat_template
        folder = Path(name)
        self.name = folder.name if folder.is_dir() else name
        self.weights = weights_of(name, self.config)
        """The hub revision, or a digest of the folder."""
        family = kind(self.config, processor, PixelBudget(min_pixels, max_pixels, resize))
        libraries = ["transformers", "tokenizers", "pillow"]
        if options["backend"] == "torchvision":
            libraries.append("torchvision")
        self.version = versions_of(*libraries)
        """Of what makes tokens and pixels."""
        self.chat_template: str = tokenizer.chat_template
        self.encoder = ChatEncoder(tokenizer, tokenizer.convert_ids_to_tokens(family.image_id))
        self.family = family
        self.pictures = PictureReader(family, max_source_pixels=max_source_pixels)
        self._pad_id = tokenizer.pad_token_id or 0  # never attended to
        self._files = (tokenizer, processor)

    def save(self, folder: Path) -> None:
        """Writes processor, tokenizer and chat template beside a model's weights."""
        import transformers

        for one in reversed(self._files):  # a whole processor writes a tokenizer too
            one.save_pretrained(folder)
        whole = folder / "processor_config.json"
        if not whole.exists():  # an image processor alone does not say what it is a part of
            kind = transformers.models.auto.processing_auto.PROCESSOR_MAPPING[type(self.config)]
            whole.write_text(json.dumps({"processor_class": kind.__name__}) + "\n", encoding="utf-8")

    def length(self, stream: Stream) -> int:
        """Of a prompt, in tokens, those of its pictures included.

        Raises:
            BadImage: A picture cannot be decoded, or is too large.
        """
        return sum(len(self.pictures(entry).token_ids) if isinstance(entry, bytes) else 1 for entry in stream)

    def placeholders(self, stream: Stream) -> list[int]:
        """Token ids with one image token for each picture, as engines take them."""
        return [self.family.image_id if isinstance(entry, bytes) else entry for entry in stream]

    def token_arrays(self, streams: Sequence[Stream]) -> Arrays:
        """A batch of token ids, padded on the right.

        Returns:
            All int64: input_ids and attention_mask, (rows, longest); position_ids, (rows, longest), or
            (3, rows, longest) and mm_token_type_ids (1 on image tokens) where the family has positions in a plane.
        """
        entries = [self._entries(stream) for stream in streams]
        rows = [_expanded(row) for row in entries]
        positions = [self.family.positions(row) for row in entries]
        longest = max(len(row) for row in rows)
        ids = np.full((len(rows), longest), self._pad_id, np.int64)
        mask = np.zeros_like(ids)
        places = np.zeros((*positions[0].shape[:-1], *ids.shape), np.int64)
        for index, (row, position) in enumerate(zip(rows, positions, strict=True)):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
            places[..., index, : len(row)] = position
        arrays = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
        if places.ndim == 3:
            arrays["mm_token_type_ids"] = ((ids == self.family.image_id) & (mask == 1)).astype(np.int64)
        return arrays

    def picture_arrays(self, streams: Sequence[Stream]) -> Arrays:
        """What the vision tower takes of a batch, in reading order; nothing without any picture."""
        pictures = [self.pictures(entry) for stream in streams for entry in stream if isinstance(entry, bytes)]
        return self.family.arrays(pictures) if pictures else {}

    def _entries(self, stream: Stream) -> list[Entry]:
        return [self.pictures(entry) if isinstance(entry, bytes) else entry for entry in stream]


def weights_of(name: str, config: Any) -> str:
    """By what a model's weights are known: the hub revision that its configuration came from, or a folder's digest."""
    folder = Path(name)
    return folder_sha256(folder) if folder.is_dir() else (config._commit_hash or UNKNOWN)  # noqa: SLF001


def versions_of(*libraries: str) -> str:
    """The names and versions of libraries, as an identity holds them; a build's own suffix is left out."""
    return ", ".join(f"{library} {version(library).partition('+')[0]}" for library in libraries)


def _expanded(entries: Sequence[Entry]) -> list[int]:
    ids: list[int] = []
    for entry in entries:
        ids += entry.token_ids if isinstance(entry, Picture) else [entry]
    return ids
