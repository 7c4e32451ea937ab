"""The errors to raise when a disk or a store refuses an access: they name the path, the reason and the cure."""

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

from unijudge.errors import DataError, UnijudgeError, Unreachable
from unijudge.provenance import without_passwords
from unijudge.storage.locations import is_local

CURE_OF_ERRNO: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Fix the permissions"),
    **dict.fromkeys(
        (errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY), "This path is taken: give another"
    ),
    **dict.fromkeys(
        (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP),
        "This file system has no locks: mount it with locks (Lustre: -o flock), or give a path on another disk",
    ),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE), "Too many files are open: raise the limit (ulimit -n)"
    ),
    errno.ENOTDIR: "A part of the path is a file: give another path",
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.ELOOP: "This is a symbolic link: remove it",
    **dict.fromkeys(
        (errno.EXDEV, errno.EBUSY), "A disk is mounted at this path: give a folder inside that disk"
    ),
}
"""Error number of a disk → its cure."""
RENEW = "Renew the credentials, and check the clock of this machine"

SPENT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})
"""Errors of an exhausted resource, which any write or any opening of a file may raise."""
FINAL = (
    FileNotFoundError,
    ImportError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    UnijudgeError,
)
FINAL_NUMBERS = frozenset(
    {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
)
"""Errors of a disk that a retry does not change. Other errors, such as a network's, may be temporary."""
EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestTimeTooSkewed"}
)
"""A store's error codes for expired credentials and for a wrong clock."""
CUT_OFF = frozenset({"BadDigest", "IncompleteBody"})
"""A store's error codes for an upload whose last bytes did not arrive."""
RUST_NUMBER = re.compile(r"\(os error (\d+)\)")
"""An error number in the text of an error of a library in Rust."""
LONGEST_REASON = 200
"""Characters of a foreign error's own text in a message."""


def in_one_line(error: BaseException) -> str:
    """Returns a foreign error in one line for a message: its type and the beginning of its text.

    Example:
        >>> in_one_line(KeyError("added_tokens"))
        "KeyError: 'added_tokens'"
    """
    one_line = " ".join(str(error).split())
    text = "".join(filter(str.isprintable, one_line))  # without terminal colour codes
    if len(text) > LONGEST_REASON:
        text = f"{text[:LONGEST_REASON]}…"
    named = f"{type(error).__name__}: {text}"
    return named.removesuffix(": ").rstrip(".")


def spent(error: BaseException | None) -> str | None:
    """Returns the cure if an exhausted resource caused an error, even if a library wrapped the error; else None.

    Example:
        >>> spent(OSError(errno.EMFILE, "Too many open files"))
        'Too many files are open: raise the limit (ulimit -n)'
    """
    while error is not None:
        number = getattr(error, "errno", None)
        if number in SPENT:
            return CURE_OF_ERRNO[number]
        error = error.__cause__ or error.__context__
    return None


def may_pass(error: BaseException) -> bool:
    """Whether an error of a disk or a store may be temporary: a timeout, a lost connection, a busy store.

    Example:
        >>> may_pass(TimeoutError("no answer")), may_pass(FileNotFoundError("gone"))
        (True, False)
    """
    if _code(error) in EXPIRED | CUT_OFF:
        return True
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return _is_silence(error.__cause__)
    if isinstance(error, FINAL) or getattr(error, "errno", None) in FINAL_NUMBERS:
        return False
    # Each library has its own class for missing credentials.
    return isinstance(error, Exception) and "Credential" not in type(error).__name__


def _is_silence(cause: BaseException) -> bool:
    """Whether a store reports a file as missing only because a server was busy or did not answer."""
    status = getattr(cause, "status", 0)
    busy = isinstance(status, int) and (status in (408, 429) or status >= 500)
    return busy or (isinstance(cause, OSError) and may_pass(cause))


def unreadable(path: Path, error: Exception) -> DataError:
    """Returns the error to raise when a disk or a store refused a read."""
    kind = Unreachable if may_pass(error) else DataError
    reason = _reason(getattr(error, "strerror", None) or error)
    return kind(
        f"{path}: cannot be read ({reason}){f'. {RENEW}' if _code(error) in EXPIRED else ''}"
    )


def missing(path: Path, error: FileNotFoundError) -> DataError:
    """Returns the error to raise when a file does not exist. An unreachable store reports its files as missing too."""
    reason = error.__cause__
    if reason is None:
        return DataError(
            f"{path}: no such file. Check the path, and that the command that writes it has finished"
        )
    return DataError(
        f"{path}: not found ({_reason(reason)}). Check the URL, and that this machine can reach it"
    )


def unwritable(
    path: Path, error: Exception, cures: Mapping[int | None, str] = CURE_OF_ERRNO
) -> DataError:
    """Returns the error to raise when a disk or a store refused a write."""
    # A store's library uses these numbers otherwise.
    number = _disk_number(error) if is_local(path) else None
    reason = _reason(error) if number is None else os.strerror(number)
    cure = cures.get(number, "Check the disk or the store")
    if _code(error) in EXPIRED:
        cure = RENEW
    return DataError(
        f"{path}: cannot be written ({reason}). No partial file was left there. {cure}, then run the same command again"
    )


def _disk_number(error: Exception) -> int | None:
    """Returns the error number of a disk. Libraries in Rust, such as safetensors, only write the number in the text.

    Example:
        >>> _disk_number(RuntimeError("I/O error: No space left on device (os error 28)"))
        28
    """
    number: int | None = getattr(error, "errno", None)
    if number is None and (written := RUST_NUMBER.search(str(error))):
        number = int(written[1])
    return number


def _code(error: BaseException) -> str | None:
    """Returns the error code of an S3 store."""
    response = getattr(error.__cause__, "response", None)
    if not isinstance(response, Mapping):
        return None
    details = response.get("Error")
    if not isinstance(details, Mapping):
        return None
    return details.get("Code")


def _reason(reason: object) -> str:
    """Returns a foreign reason in one line, without passwords: the reason may repeat the whole URL."""
    text = without_passwords(" ".join(str(reason).split()))[:LONGEST_REASON]
    if isinstance(reason, ImportError) and "s3fs" in text:
        return f"{text}: pip install 'unijudge[s3]'"
    return text
