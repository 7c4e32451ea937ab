"""The inputs of a model: parts → token streams → the arrays for a forward pass.

This module loads a model's tokenizer and processor with transformers, but never its weights.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unijudge.errors import ModelError
from unijudge.images.image_processing import Picture, PictureReader, PixelBudget, Resize
from unijudge.modeling.chat_encoder import ChatEncoder, Stream
from unijudge.modeling.families import Arrays, Family, TokenOrImage, family_of
from unijudge.modeling.model_source import NO_CODE, commit_of, load_config, reading, versions_of
from unijudge.storage.files import folder_sha256, publish_text, read_text
from unijudge.storage.texts import BYTE_ORDER_MARK


class ModelInputs:
    """A model's chat template, tokenizer and processor, and the conversion of pictures by its family."""

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
            name: A hub name or a folder.
            revision: A commit, branch or tag of a hub model. All files are taken from the commit that this revision
                names at the moment of loading.
            min_pixels: Smaller pictures are scaled up to this many pixels.
            max_pixels: Larger pictures are scaled down to this many pixels.
            max_source_pixels: Pictures with more pixels are not decoded at all.
            resize: Whether pictures keep their aspect ratio (`PixelBudget`).

        Raises:
            ModelError: The files cannot be loaded, the model's family is not supported, the model has no chat template,
                or user text could steer the model (`ChatEncoder`).
        """
        import transformers

        folder = Path(name)
        self.name = _name_of(folder.absolute()) if folder.is_dir() else name
        self.revision = commit_of(name, revision)
        """The commit of a hub model, from which the weights must be loaded too; None for a folder."""
        pinned = self.revision
        self.config = load_config(name, pinned)
        kind = family_of(self.config.model_type)
        with reading("tokenizer.json or tokenizer_config.json"):
            # We pad rows ourselves. Programs that load the saved tokenizer get every row's last token at the end.
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                name, revision=pinned, padding_side="left", **NO_CODE
            )
        loader, options = kind.loader
        with reading("preprocessor_config.json or processor_config.json"):
            processor = getattr(transformers, loader).from_pretrained(
                name, revision=pinned, **options, **NO_CODE
            )
            # The processor's template supports pictures. The tokenizer's template may not.
            layout, _ = transformers.ProcessorMixin.get_processor_dict(name, revision=pinned)
            template = layout.get("chat_template") or tokenizer.chat_template
        with reading("config.json or preprocessor_config.json"):
            family = kind(self.config, processor, PixelBudget(min_pixels, max_pixels, resize))
            _check_pixels(family)
        tokenizer.chat_template = (
            template.removeprefix(BYTE_ORDER_MARK) if isinstance(template, str) else template
        )
        self.weights = self.revision or folder_sha256(folder)
        """The commit of a hub model, or a digest of the folder."""
        libraries = ["transformers", "tokenizers", "pillow"]
        if options["backend"] == "torchvision":
            libraries.append("torchvision")
        self.version = versions_of(*libraries)
        """The versions of the libraries that make tokens and pixels."""
        self.chat_template: str = tokenizer.chat_template
        self.encoder = ChatEncoder(tokenizer, _image_token(tokenizer, family.image_id))
        _check_ids(self.encoder, tokenizer, self.config.get_text_config().vocab_size)
        self.family = family
        self.in_line = False
        """Whether the tokens of a picture are numbered consecutively, as text is, whatever the family does."""
        self.pictures = PictureReader(family, max_source_pixels=max_source_pixels)
        self._pad_id = tokenizer.pad_token_id or 0  # never attended to
        self._files = (tokenizer, processor)

    def save(self, folder: Path) -> None:
        """Writes processor, tokenizer and chat template beside a model's weights."""
        import transformers

        # The tokenizer last, since a processor may write a tokenizer too.
        for part in reversed(self._files):
            part.save_pretrained(folder)
        tokenizer = folder / "tokenizer_config.json"
        options = json.loads(read_text(tokenizer))
        # transformers 4 does not have this class.
        if options.get("tokenizer_class") == "TokenizersBackend":
            options["tokenizer_class"] = "PreTrainedTokenizerFast"
        for mark in ("is_local", "local_files_only"):  # options of this process only
            options.pop(mark, None)
        publish_text(tokenizer, json.dumps(options, indent=2, ensure_ascii=False) + "\n")
        whole = folder / "processor_config.json"
        # An image processor alone does not name the class of the complete processor.
        if not whole.exists():
            kind = transformers.models.auto.processing_auto.PROCESSOR_MAPPING[type(self.config)]
            whole.write_text(
                json.dumps({"processor_class": kind.__name__}) + "\n", encoding="utf-8"
            )

    def length(self, stream: Stream) -> int:
        """Returns the length of a prompt in tokens, including the tokens of its pictures.

        Raises:
            BadImage: A picture cannot be decoded, or is too large.
        """
        return sum(
            len(self.pictures(entry).token_ids) if isinstance(entry, bytes) else 1
            for entry in stream
        )

    def placeholders(self, stream: Stream) -> list[int]:
        """Returns token ids with a single image token for each picture, the form that engines accept."""
        return [self.family.image_id if isinstance(entry, bytes) else entry for entry in stream]

    def token_arrays(self, streams: Sequence[Stream]) -> Arrays:
        """Builds a batch of token ids, padded on the right.

        Returns:
            Arrays of int64: input_ids, attention_mask and position_ids, (rows, longest). If the family has positions in
            a plane, position_ids is (3, rows, longest), and mm_token_type_ids (1 on image tokens) is added.
        """
        entries = [self._entries(stream) for stream in streams]
        rows = [_expanded(row) for row in entries]
        positions = [self._positions(row) for row in entries]
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
            is_image = (ids == self.family.image_id) & (mask == 1)
            arrays["mm_token_type_ids"] = is_image.astype(np.int64)
        return arrays

    def picture_arrays(self, streams: Sequence[Stream]) -> Arrays:
        """Returns the vision tower's inputs for a batch, in reading order; empty without a picture."""
        pictures = [
            self.pictures(entry)
            for stream in streams
            for entry in stream
            if isinstance(entry, bytes)
        ]
        return self.family.arrays(pictures) if pictures else {}

    def _positions(self, entries: Sequence[TokenOrImage]) -> npt.NDArray[np.int64]:
        positions = self.family.positions(entries)
        if not self.in_line:
            return positions
        return np.broadcast_to(np.arange(positions.shape[-1]), positions.shape)

    def _entries(self, stream: Stream) -> list[TokenOrImage]:
        return [self.pictures(entry) if isinstance(entry, bytes) else entry for entry in stream]


def _check_pixels(family: Family) -> None:
    """Checks that a processor turns a picture into finite numbers; otherwise every picture or score would be invalid.

    Raises:
        ModelError: Some numbers are not finite.
        Exception: An error of the processor.
    """
    height, width = family.fit(56, 56)
    with np.errstate(all="ignore"):  # the error below replaces numpy's warning
        arrays = family.arrays([family.picture(Image.new("RGB", (width, height), "grey"))])
    if not np.isfinite(arrays["pixel_values"]).all():
        raise ModelError(
            "preprocessor_config.json turns a picture into numbers that are not finite, by its image_mean, image_std "
            "or rescale_factor. Take the file of the model's publisher"
        )


def _image_token(tokenizer: Any, image_id: int) -> str:
    """Returns the text of the image token.

    Raises:
        ModelError: The tokenizer has no such token.
    """
    token = tokenizer.convert_ids_to_tokens(image_id)
    if token is None:
        raise ModelError(
            f"config.json names token {image_id} for pictures, but its tokenizer has no such token. Take the "
            "tokenizer's files and the config.json of one model"
        )
    return str(token)


def _name_of(folder: Path) -> str:
    """Returns the name of a model's folder. The folder `merged` of a run also has the name of its run.

    Example:
        >>> _name_of(Path("/models/judge")), _name_of(Path("/runs/reranker/merged"))
        ('judge', 'reranker/merged')
    """
    return f"{folder.parent.name}/{folder.name}" if folder.name == "merged" else folder.name


def _check_ids(encoder: ChatEncoder, tokenizer: Any, rows: int) -> None:
    """Checks that the model has an embedding for every token of a prompt: on a GPU, another token is a fatal error.

    Args:
        encoder: The encoder of the prompts.
        tokenizer: The tokenizer with all its tokens.
        rows: The number of rows in the model's embedding table.

    Raises:
        ModelError: A token has no embedding.
    """
    written = [entry for entry in encoder.stream(["a"]) if isinstance(entry, int)]
    numbers, added = tokenizer.get_vocab(), tokenizer.get_added_vocab()
    plain = [number for token, number in numbers.items() if token not in added]
    largest = max([*written, *plain, numbers[encoder.image_token]])
    if largest >= rows:
        raise ModelError(
            f"its tokenizer has a token {largest}, but config.json has a vocab_size of {rows}. Take the "
            "tokenizer's files and the weights of one model, or resize the model's embeddings"
        )


def _expanded(entries: Sequence[TokenOrImage]) -> list[int]:
    ids: list[int] = []
    for entry in entries:
        ids += entry.token_ids if isinstance(entry, Picture) else [entry]
    return ids
