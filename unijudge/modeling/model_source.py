"""Where a model's files come from: a folder, or one commit of a hub model. Errors of loading become one line."""

import contextlib
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unijudge.errors import ModelError, UnijudgeError
from unijudge.modeling.families import FAMILIES
from unijudge.shown import listed
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.files import folder_sha256
from unijudge.storage.reaching import FROM_OUTSIDE

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
        where = "no such folder, and the hub: "
        raise _unusable(error, cure=f"Check the name{_asked_by()}", files=where) from error
    if commit is None:
        raise ModelError(
            f"{name}: its commit is not known here. Download the model again, or give a folder"
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
    with reading("config.json"):
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


def _asked_by() -> str:
    """Returns the cure that names the environment's hub and proxy variables; empty if no such variable is set."""
    names = list(HUB_VARIABLES)
    for name in FROM_OUTSIDE:
        names += [name, name.lower()]
    given = [name for name in names if name in os.environ]
    if not given:
        return ""
    return f", and the environment variables of the hub: {listed(given)}"


@contextlib.contextmanager
def reading(files: str) -> Iterator[None]:
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
