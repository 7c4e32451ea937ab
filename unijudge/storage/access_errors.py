"""What to raise where a disk or a store says no: the path, its reason, and what helps."""

import errno
from collections.abc import Mapping
from pathlib import Path

from unijudge.errors import DataError, UnijudgeError, Unreachable
from unijudge.provenance import without_passwords
from unijudge.storage.locations import is_local

CURE_OF_ERRNO: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Fix the permissions"),
    **dict.fromkeys((errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY), "Something else is there: give another place"),
    **dict.fromkeys(
        (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP),
        "This file system has no locks: mount it with them (Lustre: -o flock), or give a place on another disk",
    ),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "Too many files are open: raise the limit (ulimit -n)"),
    errno.ENOTDIR: "A part of the path is a file: give another place",
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.ELOOP: "A symbolic link is there: remove it",
    **dict.fromkeys((errno.EXDEV, errno.EBUSY), "A disk is mounted right there: give a folder inside of it"),
}
"""What helps against an error of a disk."""
RENEW = "renew the credentials, and see that the clock of this machine is right"

SPENT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})
"""What a machine has no more of: any write, or any file that is opened, may meet it."""
FINAL = (
    FileNotFoundError,
    ImportError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    UnijudgeError,
)
FINAL_NUMBERS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EROFS, errno.ENOSPC, errno.EDQUOT})
"""Errors of a disk that another look does not change; of the others, such as a network's, one cannot know."""
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestTimeTooSkewed"})
"""What a store says of credentials that were right, or would be with a right clock."""
CUT_OFF = frozenset({"BadDigest", "IncompleteBody"})
"""What a store says of a file whose last bytes it did not get."""
LONGEST_REASON = 200
"""Characters of a foreign error's own text in a message."""


def in_one_line(error: BaseException) -> str:
    """A foreign error for a message: its type and the beginning of its text.

    Example:
        >>> in_one_line(KeyError("added_tokens"))
        "KeyError: 'added_tokens'"
    """
    text = "".join(filter(str.isprintable, " ".join(str(error).split())))  # some colour what they say
    short = text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"
    return f"{type(error).__name__}: {short}".removesuffix(": ").rstrip(".")


def spent(error: BaseException | None) -> str | None:
    """What helps where a machine had no more of something, by an error's causes: libraries wrap it. None elsewhere.

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
    """Whether an error of a disk or a store says nothing of what is there: a timeout, a lost connection, a busy store.

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
    # That a store has no credentials is an error of each library's own.
    return isinstance(error, Exception) and "Credential" not in type(error).__name__


def _is_silence(cause: BaseException) -> bool:
    """Whether a store that says that something is not there says so since it got no answer, or a busy one's."""
    status = getattr(cause, "status", 0)
    busy = isinstance(status, int) and (status in (408, 429) or status >= 500)
    return busy or (isinstance(cause, OSError) and may_pass(cause))


def unreadable(path: Path, error: Exception) -> DataError:
    """What to raise where a disk or a store refused a read."""
    kind = Unreachable if may_pass(error) else DataError
    reason = _reason(getattr(error, "strerror", None) or error)
    return kind(f"{path}: cannot be read ({reason}){f'; {RENEW}' if _code(error) in EXPIRED else ''}")


def missing(path: Path, error: FileNotFoundError) -> DataError:
    """What to raise where a file is not there; a store says so too where it cannot be reached at all."""
    reason = error.__cause__
    if reason is None:
        return DataError(f"{path}: no such file; check the path, and that what writes it has finished")
    return DataError(f"{path}: not found ({_reason(reason)}); check the URL, and that it can be reached from here")


def unwritable(path: Path, error: Exception, cures: Mapping[int | None, str] = CURE_OF_ERRNO) -> DataError:
    """What to raise where a disk or a store refused a write."""
    reason = _reason(getattr(error, "strerror", None) or error)
    number = getattr(error, "errno", None) if is_local(path) else None  # a library of a store means others by them
    cure = RENEW.capitalize() if _code(error) in EXPIRED else cures.get(number, "Mend the disk or the store")
    return DataError(
        f"{path}: cannot be written ({reason}); nothing half-written was left there. {cure}, then run the same command "
        "again"
    )


def _code(error: BaseException) -> str | None:
    """What an S3 store calls an error."""
    found = getattr(error.__cause__, "response", None)
    said = found.get("Error", {}) if isinstance(found, Mapping) else {}
    return said.get("Code") if isinstance(said, Mapping) else None


def _reason(reason: object) -> str:
    """A foreign reason, in one line: it may repeat the whole URL, password and all."""
    said = without_passwords(" ".join(str(reason).split()))[:LONGEST_REASON]
    return f"{said}: pip install 'unijudge[s3]'" if isinstance(reason, ImportError) and "s3fs" in said else said
