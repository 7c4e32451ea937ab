"""The most recently used values, within a number of bytes."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")


class LruCache(Generic[V]):
    """Keeps values by key until there is no room; what was not used for longest goes first. For any thread.

    Example:
        >>> recent = LruCache[str](keep_bytes=2)
        >>> for name in ("a", "b", "c"):
        ...     recent.put(name.encode(), name, nbytes=1)
        >>> recent.get(b"a"), recent.get(b"c"), len(recent)
        (None, 'c', 2)
        >>> recent.put(b"d", "d", nbytes=3)
        >>> recent.get(b"d"), len(recent)
        (None, 2)
    """

    def __init__(self, keep_bytes: int):
        """Empty.

        Args:
            keep_bytes: How many bytes all values may have together; 0 keeps none.
        """
        self._keep_bytes = keep_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[V, int]] = OrderedDict()
        self.free_bytes = keep_bytes

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> V | None:
        """The value, which is now the last used one."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: bytes, value: V, nbytes: int) -> None:
        """Keeps a value of `nbytes`, unless its key has one, or it alone is too large."""
        with self._lock:
            if key in self._kept or nbytes > self._keep_bytes:
                return
            self._kept[key] = value, nbytes
            self.free_bytes -= nbytes
            while self.free_bytes < 0:
                _, (_, freed) = self._kept.popitem(last=False)
                self.free_bytes += freed
