"""When a judge last got on with its work: a busy judge is not a dead one, whoever still waits for its answers."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """A judge that says when it last finished a part of its work."""

    @property
    def progressed_at(self) -> float:
        """The `time.monotonic()` of the last chunk or pair that was computed; −∞ before the first.

        Of any request, also of one whose caller left meanwhile.
        """
        ...
