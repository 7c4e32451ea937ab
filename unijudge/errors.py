"""Every error that a user can meet, and whether trying again can help.

    UnijudgeError
    ├─ SettingsError         the settings are wrong: edit them
    ├─ DataError             a file is missing, torn, foreign or of another version: the path is in the message
    │  ├─ BadImage           bytes that are not a picture we open
    │  ├─ TooLong            an input has more tokens than a model is given
    │  ├─ Unreachable        it could not be read just now, which says nothing of what is there
    │  ├─ FolderBusy         another process writes this folder
    │  └─ NothingSelected    a selection keeps no row
    ├─ JudgeError            the judge gave no answer
    │  ├─ JudgeRefused       the request is at fault (400, 413, 422): never retried
    │  │  └─ JudgeKilled     its judge has died of it, again and again
    │  ├─ BlobsMissing       it names images that the service does not have (409): send them first
    │  ├─ InvalidBlob        an image that is sent ahead is none: send it inside its request
    │  ├─ JudgeUncounted     it has no tokens to count: it is no model
    │  ├─ JudgeUnavailable   unreachable (5xx, transport): retried                           retryable
    │  │  ├─ JudgeBusy       it has too much to do, starts or stops (429, 503): retried, with fewer at once
    │  │  │  ├─ JudgeLate    no whole answer in time: retried in the same way
    │  │  │  └─ JudgeDied    its replica or engine died while it was in work (503, `judge_died`): retried a few times
    │  │  ├─ JudgeNowhere    the name of its host is not known: retried for half a minute at the first contact
    │  │  └─ JudgeFailed     it failed on this very request (500, `internal`): retried a few times
    │  ├─ JudgeChanged       another judge answers than the one asked for (412)
    │  └─ JudgeBroken        it answered what the protocol does not allow: stop and look
    ├─ EndpointError         an embedding endpoint gave no embeddings
    │  └─ EndpointBusy       busy or unreachable (429, 5xx, transport): retried                   retryable
    │     └─ EndpointNowhere the name of its host is not known: retried for half a minute at the first contact
    ├─ ModelError            a model cannot be loaded, or does not fit its use
    ├─ OutOfMemory           a GPU's memory is full: the message names the settings that help
    ├─ TaskFailed            a task on a cluster died, and died again when it was tried again
    └─ TrainingError         a training cannot go on
       └─ NonFiniteLoss      stopped before the update

A new error is a class here with one sentence. No class has an `__init__` of its own, so that all of them pickle. A
message names the thing, the reason and the cure.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

E = TypeVar("E", bound=Exception)


class UnijudgeError(Exception):
    """The root: `except UnijudgeError` is what the command line catches, prints in one line and exits 1 on."""

    retryable = False
    """Whether the same call may succeed later, without anybody changing anything."""


class SettingsError(UnijudgeError):
    """A settings file, an override or an argument is wrong; the message names the key."""


class DataError(UnijudgeError):
    """A file is missing, torn, foreign or of another version; the message names the path."""


class BadImage(DataError):
    """Bytes that are not a JPEG, PNG or WebP of an acceptable size."""


class TooLong(DataError):
    """An input has more tokens than `model.max_tokens`."""


class Unreachable(DataError):
    """A disk or a store did not answer, and may answer later: what it holds is not known to be wrong."""


class FolderBusy(DataError):
    """Another process holds the lease of an output folder."""


class NothingSelected(DataError):
    """A selection keeps no row of its scores, so nothing is written; the message counts why."""

    statistics: Mapping[str, float] = MappingProxyType({})
    """Name → value, as of a selection that is written."""


class JudgeError(UnijudgeError):
    """The judge gave no answer; raised as it is where no request would get one: a wrong key, path or cluster."""


class JudgeRefused(JudgeError):
    """The service refuses the request itself (400, 413, 422): sending it again cannot help."""


class JudgeKilled(JudgeRefused):
    """A replica or an engine died each time that it worked on this request, at last on nothing else."""


class BlobsMissing(JudgeError):
    """The request names images by hashes that the service does not have."""

    names: Sequence[str] = ()
    """Their hashes; none where the service keeps no images at all."""


class InvalidBlob(JudgeError):
    """Bytes that the service does not keep: no image, or not the one that they are called."""


class JudgeUncounted(JudgeError):
    """The judge has no tokens to count, as the scripted one; what its pairs would cost cannot be said."""


class JudgeUnavailable(JudgeError):
    """The service is busy, starting or unreachable."""

    retryable = True
    retry_after_s: float | None = None
    """How long the service asks to wait, where it said so."""


class JudgeBusy(JudgeUnavailable):
    """The service has too much to do, starts or stops; the client sends fewer requests at once."""


class JudgeLate(JudgeBusy):
    """No whole answer came before the request's deadline; or the service said at once that none would."""


class JudgeDied(JudgeBusy):
    """The replica or its engine died while it worked on this request, which may be why, or one beside it."""


class JudgeNowhere(JudgeUnavailable):
    """The name of its host is not known here: most often the URL is wrong."""


class JudgeFailed(JudgeUnavailable):
    """The service failed on this request, while it may well answer others: after a few tries it is a refusal."""


class JudgeChanged(JudgeError):
    """Another judge answers than the one that the caller pinned; nothing that it said is used."""


class JudgeBroken(JudgeError):
    """The service answered what the protocol does not allow."""


class EndpointError(UnijudgeError):
    """An embedding endpoint refuses the request, or answers something else than embeddings."""


class EndpointBusy(EndpointError):
    """An embedding endpoint is busy, starting or unreachable."""

    retryable = True


class EndpointNowhere(EndpointBusy):
    """The name of its host is not known here: most often the URL is wrong."""


class ModelError(UnijudgeError):
    """A model cannot be loaded, or does not fit what it is asked to do."""


class OutOfMemory(UnijudgeError):
    """A GPU's memory is full; the message has the figures, and names the settings that help."""


class TaskFailed(UnijudgeError):
    """A task on a cluster died with its process or its machine, as often as it was tried; the message names it."""


class TrainingError(UnijudgeError):
    """A training cannot start or go on."""


class NonFiniteLoss(TrainingError):
    """The loss or its gradient is not a finite number; the weights were not updated."""


def first_error(group: ExceptionGroup[E]) -> E:
    """The first error of a group, as an `asyncio.TaskGroup` raises it; groups inside are opened too.

    Example:
        >>> first_error(ExceptionGroup("tasks", [ExceptionGroup("more", [DataError("torn")]), TooLong("long")]))
        DataError('torn')
    """
    first = group.exceptions[0]
    return first_error(first) if isinstance(first, ExceptionGroup) else first
