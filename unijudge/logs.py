"""The folder of what is logged for people: engines' output, and reports of unexpected errors. This user's alone."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from unijudge.errors import SettingsError


def log_folder(folder: Path | None) -> Path:
    """The folder of the logs, made if it does not exist.

    Args:
        folder: The setting `log_folder`.

    Raises:
        SettingsError: The folder cannot be made or written; or the default one is not this user's alone to write.
    """
    chosen = folder or Path(tempfile.gettempdir()) / f"unijudge-logs-{os.getuid()}"
    try:
        if folder is None:
            with contextlib.suppress(FileExistsError):
                chosen.mkdir(mode=0o700)
        else:
            chosen.mkdir(parents=True, exist_ok=True)
        fault = _not_ours(chosen) if folder is None else None
        if fault is None:
            with tempfile.TemporaryFile(dir=chosen):
                pass
    except OSError as error:
        raise unusable(chosen, f"cannot be written ({error.strerror})") from error
    if fault is not None:
        raise unusable(chosen, fault)
    return chosen


def _not_ours(folder: Path) -> str | None:
    """Why the default folder may be a trap: anybody may make a folder of that name first, or a link."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return "is a link or a file, not a folder"
    if found.st_uid != os.getuid():
        return "belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by other users"
    return None


def unusable(folder: Path, reason: str) -> SettingsError:
    """What to raise where logs cannot be written."""
    return SettingsError(f"log_folder: {folder}: {reason}. Set it to a folder that this user may write")


def new_file(folder: Path, name: str) -> Path:
    """Makes an empty file of a new name that this user alone may read; no link is followed.

    Raises:
        SettingsError: It cannot be made.
    """
    path = folder / name
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o600))
    except OSError as error:
        raise unusable(folder, f"no log can be made there ({error.strerror})") from error
    return path
