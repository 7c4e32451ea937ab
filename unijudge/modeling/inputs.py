"""The inputs of a model: parts → token streams → the arrays for a forward pass.

This module loads a model's tokenizer and processor with transformers, but never its weights.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unijudge.errors import ModelError, UnijudgeError
from unijudge.images.image_processing import Picture, PictureReader, PixelBudget, Resize
from unijudge.modeling.chat_encoder import ChatEncoder, Stream
from unijudge.modeling.families import FAMILIES, Arrays, Family, TokenOrImage, family_of
from unijudge.shown import listed
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.files import folder_sha256, publish_text, read_text
from unijudge.storage.reaching import FROM_OUTSIDE
from unijudge.storage.texts import BYTE_ORDER_MARK

ADAPTER_CONFIG = "adapter_config.json"
"""The file by which peft recognises an adapter."""
HUB_VARIABLES = (
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HOME",
    "HF_HUB_CACHE",
)
"""Environment variables that choose the hub and the folders of its files."""
NO_CODE = {"trust_remote_code": False}
"""Options for every `from_pretrained`. By default transformers asks in the terminal whether to run a model's code."""


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
        self.name = folder.name if folder.is_dir() else name
        self.revision = commit_of(name, revision)
        """The commit of a hub model, from which the weights must be loaded too; None for a folder."""
        pinned = self.revision
        self.config = load_config(name, pinned)
        kind = family_of(self.config.model_type)
        with _reading("tokenizer.json or tokenizer_config.json"):
            # We pad rows ourselves. Programs that load the saved tokenizer get every row's last token at the end.
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                name, revision=pinned, padding_side="left", **NO_CODE
            )
        loader, options = kind.loader
        with _reading("preprocessor_config.json or processor_config.json"):
            processor = getattr(transformers, loader).from_pretrained(
                name, revision=pinned, **options, **NO_CODE
            )
            # The processor's template supports pictures. The tokenizer's template may not.
            layout, _ = transformers.ProcessorMixin.get_processor_dict(name, revision=pinned)
            template = layout.get("chat_template") or tokenizer.chat_template
        with _reading("config.json or preprocessor_config.json"):
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
            arrays["mm_token_type_ids"] = ((ids == self.family.image_id) & (mask == 1)).astype(
                np.int64
            )
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


def commit_of(name: str, revision: str | None) -> str | None:
    """Returns the commit that a hub model's revision names at this moment.

    A branch may move between the downloads of two files. So a loader resolves the branch once, and takes all files from
    the resulting commit.

    Args:
        name: A hub name or a folder.
        revision: A commit, a branch or a tag. None is the main branch. For a folder it is ignored.

    Returns:
        Forty hex digits, or None for a folder.

    Raises:
        ModelError: Neither the hub nor its cache on this machine has the model.
    """
    if Path(name).is_dir():
        return None
    from transformers.utils import hub

    resolved = hub.resolve_revision(name, revision)
    if found := getattr(resolved, "resolved", None):
        return str(found)
    try:  # raises the reason in words; or finds the commit in a cache that holds files but no branch names
        commit = hub.extract_commit_hash(
            hub.cached_file(name, "config.json", revision=revision), None
        )
    except Exception as error:
        if "Repo id must" in str(error):
            raise ModelError(
                "no such folder, and not a hub name (owner/model). Check the path"
            ) from error
        raise _unusable(error, cure=f"Check the name{_asked_by()}") from error
    if commit is None:
        raise ModelError(
            f"{name}: its commit is not known here; download the model again, or give a folder"
        )
    return commit


def load_config(name: str, commit: str | None) -> Any:
    """Loads a model's Hugging Face configuration.

    Args:
        name: A hub name or a folder.
        commit: The commit of a hub model.

    Raises:
        ModelError: The configuration is missing or damaged, or the folder holds only an adapter.
    """
    import transformers

    folder = Path(name)
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
        raise ModelError(
            "this folder holds an adapter and no model. For a reranker, serve the folder merged/ beside this folder; "
            "for an embedder, name the base model, and set model.adapter to this folder"
        )
    with _reading("config.json"):
        config = transformers.AutoConfig.from_pretrained(name, revision=commit, **NO_CODE)
        config._attn_implementation = None  # noqa: SLF001  a choice in the file would override ours
    return config


def weights_of(name: str, revision: str | None) -> str:
    """Returns the identity of a model's weights: the commit of a hub model, or a digest of the folder.

    Raises:
        ModelError: Neither the hub nor its cache on this machine has the model.
        DataError: A file of the folder cannot be read.
    """
    return commit_of(name, revision) or folder_sha256(Path(name))


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


def _asked_by() -> str:
    """Returns the cure that names the environment's hub and proxy variables; empty if no such variable is set."""
    proxies = [spelling for name in FROM_OUTSIDE for spelling in (name, name.lower())]
    given = [name for name in (*HUB_VARIABLES, *proxies) if name in os.environ]
    return f", and the environment variables of the hub: {listed(given)}" if given else ""


@contextlib.contextmanager
def _reading(files: str) -> Iterator[None]:
    """Surrounds the reading of a model's files, and names these files in an error."""
    try:
        yield
    except UnijudgeError:
        raise
    except Exception as error:  # a file may hold anything, and each library has its own errors
        raise _unusable(error, files=f"{files}: ") from error


def _unusable(
    error: Exception, cure: str = "Check the name, or download its files again", *, files: str = ""
) -> ModelError:
    """Returns the error to raise when a library refuses a model's files."""
    if "trust_remote_code" in str(error):
        return ModelError(
            "its files require their own code, which is never run here. Take a model type that transformers includes, "
            f"such as {', '.join(FAMILIES)}"
        )
    if "Unrecognized image processor" in str(error):
        return ModelError(
            "preprocessor_config.json names an image_processor_type that this transformers does not have. Set it to "
            "the publisher's value (for Qwen2-VL, Qwen2.5-VL and Qwen3-VL: Qwen2VLImageProcessor)"
        )
    return ModelError(f"{files}{in_one_line(error)}. {cure}")


def versions_of(*libraries: str) -> str:
    """Returns the names and versions of libraries for an identity, without the suffixes of builds (`+cpu`)."""
    return ", ".join(f"{library} {version(library).partition('+')[0]}" for library in libraries)


def _expanded(entries: Sequence[TokenOrImage]) -> list[int]:
    ids: list[int] = []
    for entry in entries:
        ids += entry.token_ids if isinstance(entry, Picture) else [entry]
    return ids
