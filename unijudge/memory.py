"""The detection of full memory in any library. Each library has another error class for it; none is imported here."""

import contextlib
from collections.abc import Iterator

from unijudge.errors import OutOfMemory

SIGNS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")
"""Texts in errors. torch has an error class only for its GPU allocator; other parts raise a RuntimeError."""
LONGEST_FIGURES = 200
"""The most characters of a foreign message in our message."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory is full, in torch, in a library under torch, or in numpy.

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
    """Converts every error of full memory in the block to `OutOfMemory`. Other errors pass unchanged.

    Raises:
        OutOfMemory: Memory is full. The message has the requested and the free memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(_figures(error)) from error


def _figures(error: BaseException) -> str:
    """Returns the requested and the free memory in torch's words, without the rest of torch's advice."""
    return ". ".join(str(error).split(". ")[:3])[:LONGEST_FIGURES]
