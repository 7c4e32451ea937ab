"""All errors that a user can meet, and whether a retry can help.

    UnijudgeError
    ├─ SettingsError         a setting is wrong: edit the settings
    ├─ DataError             a file is missing, damaged, foreign or of another version: the message names the path
    │  ├─ BadImage           the bytes are not a supported picture
    │  ├─ TooLong            an input has more tokens than the model's limit
    │  ├─ Unreachable        a disk or a store did not answer: its data may be valid
    │  ├─ FolderBusy         another process writes this folder
    │  └─ NothingSelected    a selection keeps no row
    ├─ JudgeError            the judge gave no answer
    │  ├─ JudgeRefused       the request is invalid (400, 413, 422): never retried
    │  │  └─ JudgeKilled     the request killed its replica several times
    │  ├─ BlobsMissing       the request names images that the service does not have (409): send them first
    │  ├─ InvalidBlob        the uploaded blob is not a valid image: send the image inside its request
    │  ├─ JudgeUncounted     the judge has no tokens to count, because it is not a model
    │  ├─ JudgeUnavailable   the service is unreachable (5xx, transport): retried            retryable
    │  │  ├─ JudgeBusy       the service is overloaded, starts or stops (429, 503): retried, with fewer requests at once
    │  │  │  ├─ JudgeLate    no complete answer came in time: retried in the same way
    │  │  │  └─ JudgeDied    the replica or engine died during the request (503, `judge_died`): retried a few times
    │  │  ├─ JudgeNowhere    the host name is not known: retried for half a minute at the first contact
    │  │  └─ JudgeFailed     the service failed on this request (500, `internal`): retried a few times
    │  ├─ JudgeChanged       another judge than the pinned judge answers (412)
    │  └─ JudgeBroken        the answer violates the protocol: stop and investigate
    ├─ EndpointError         an embedding endpoint gave no embeddings
    │  └─ EndpointBusy       the endpoint is busy or unreachable (429, 5xx, transport): retried   retryable
    │     └─ EndpointNowhere the host name is not known: retried for half a minute at the first contact
    ├─ ModelError            a model cannot be loaded, or is not suitable
    ├─ OutOfMemory           a GPU's memory is full: the message names the settings that help
    ├─ TaskFailed            a task on a cluster died, and every retry died too
    └─ TrainingError         a training cannot start or continue
       └─ NonFiniteLoss      the training stopped before the update

A new error is a class here, with a docstring of one sentence. No class defines `__init__`, so that all errors can be
pickled. A message names the thing, the reason and the cure.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

E = TypeVar("E", bound=Exception)


class UnijudgeError(Exception):
    """The base class. The command line prints such an error in one line, and exits with status 1."""

    retryable = False
    """Whether the same call may succeed later without any change."""


class SettingsError(UnijudgeError):
    """A settings file, an override or an argument is wrong; the message names the key."""


class DataError(UnijudgeError):
    """A file is missing, damaged, foreign or of another version; the message names the path."""


class BadImage(DataError):
    """Bytes that are not a JPEG, PNG or WebP of an acceptable size."""


class TooLong(DataError):
    """An input has more tokens than `model.max_tokens`."""


class Unreachable(DataError):
    """A disk or a store did not answer, and may answer later. Its data may be valid."""


class FolderBusy(DataError):
    """Another process holds the lease of an output folder."""


class NothingSelected(DataError):
    """A selection keeps too few rows, or none, so nothing is written; the message counts the reasons."""

    statistics: Mapping[str, float] = MappingProxyType({})
    """Name → value, the same statistics as those of a written selection."""


class JudgeError(UnijudgeError):
    """The judge gave no answer. This class itself means that no request can succeed: a wrong key, path or cluster."""


class JudgeRefused(JudgeError):
    """The service refuses the request itself (400, 413, 422), so a retry cannot help."""


class JudgeKilled(JudgeRefused):
    """A replica or an engine died on every try of this request, and at last while it worked on nothing else."""


class BlobsMissing(JudgeError):
    """The request names images by hashes that the service does not have."""

    names: Sequence[str] = ()
    """The missing hashes; empty if the service stores no images at all."""


class InvalidBlob(JudgeError):
    """The service refuses an uploaded blob: the bytes are not an image, or have another hash."""


class JudgeUncounted(JudgeError):
    """The judge has no tokens to count, as the scripted judge, so the cost of its pairs is unknown."""


class JudgeUnavailable(JudgeError):
    """The service is busy, starting or unreachable."""

    retryable = True
    retry_after_s: float | None = None
    """Seconds that the service asks to wait; None if the service did not say."""


class JudgeBusy(JudgeUnavailable):
    """The service is overloaded, starts or stops; the client sends fewer requests at once."""


class JudgeLate(JudgeBusy):
    """No complete answer came before the request's deadline, or the service announced that it cannot meet it."""


class JudgeDied(JudgeBusy):
    """The replica or its engine died during this request. This request or a concurrent request may be the cause."""


class JudgeNowhere(JudgeUnavailable):
    """The host name of the service is not known here; most often the URL is wrong."""


class JudgeFailed(JudgeUnavailable):
    """The service failed on this request, but may answer others. After a few tries, it counts as a refusal."""


class JudgeChanged(JudgeError):
    """Another judge answers than the judge that the caller pinned, so its answer is not used."""


class JudgeBroken(JudgeError):
    """The answer of the service violates the protocol."""


class EndpointError(UnijudgeError):
    """An embedding endpoint refuses the request, or its answer has no embeddings."""


class EndpointBusy(EndpointError):
    """An embedding endpoint is busy, starting or unreachable."""

    retryable = True


class EndpointNowhere(EndpointBusy):
    """The host name of the endpoint is not known here; most often the URL is wrong."""


class ModelError(UnijudgeError):
    """A model cannot be loaded, or is not suitable for the task."""


class OutOfMemory(UnijudgeError):
    """A GPU's memory is full; the message has the figures, and names the settings that help."""


class TaskFailed(UnijudgeError):
    """A task on a cluster died with its process or its machine on every try; the message names the task."""


class TrainingError(UnijudgeError):
    """A training cannot start or continue."""


class NonFiniteLoss(TrainingError):
    """The loss or its gradient is not a finite number; the weights were not updated."""


def first_error(group: ExceptionGroup[E]) -> E:
    """Returns the first error of a group that an `asyncio.TaskGroup` raised, also from groups inside the group.

    Example:
        >>> first_error(ExceptionGroup("tasks", [ExceptionGroup("more", [DataError("torn")]), TooLong("long")]))
        DataError('torn')
    """
    first = group.exceptions[0]
    return first_error(first) if isinstance(first, ExceptionGroup) else first
