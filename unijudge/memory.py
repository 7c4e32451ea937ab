"""Memory that is full, in whatever library: each has an error of its own for it, or none. Imports none of them."""

import contextlib
from collections.abc import Iterator

from unijudge.errors import OutOfMemory

SIGNS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")
"""In an error's text. torch has a class for its own allocator on a GPU alone: others raise a RuntimeError."""
LONGEST_FIGURES = 200
"""Characters of a foreign message in ours."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: torch's own, that of a library under it, or numpy's.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA error: out of memory"))
        (True, True)
        >>> is_out_of_memory(RuntimeError("size mismatch"))
        False
    """
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(sign in str(error) for sign in SIGNS)


@contextlib.contextmanager
def one_memory_error() -> Iterator[None]:
    """Makes one class of every error within the block that says that memory is full. Other errors pass.

    Raises:
        OutOfMemory: Memory ran out; the message has how much was wanted and how much was free.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(_figures(error)) from error


def _figures(error: BaseException) -> str:
    """How much was wanted and how much was free, in torch's words; the rest of its advice is left out."""
    return ". ".join(str(error).split(". ")[:3])[:LONGEST_FIGURES]
