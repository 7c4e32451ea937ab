"""The private log folder of a user: the output of engines, and reports of unexpected errors."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from unijudge.errors import SettingsError


def log_folder(folder: Path | None) -> Path:
    """Returns the log folder, and creates it if needed.

    Args:
        folder: The setting `log_folder`.

    Raises:
        SettingsError: The folder cannot be created or written, or other users can write the default folder.
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
    """Returns why the default folder is unsafe, or None: another user may have created a folder or link there first."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return "is a link or a file, not a folder"
    if found.st_uid != os.getuid():
        return "belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by other users"
    return None


def unusable(folder: Path, reason: str) -> SettingsError:
    """Returns the error to raise when logs cannot be written."""
    return SettingsError(
        f"log_folder: {folder}: {reason}. Set it to a folder that this user may write"
    )


def new_file(folder: Path, name: str) -> Path:
    """Creates an empty file with a new name, which only this user can read. No link is followed.

    Raises:
        SettingsError: The file cannot be created.
    """
    path = folder / name
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o600))
    except OSError as error:
        raise unusable(folder, f"a log cannot be created there ({error.strerror})") from error
    return path
