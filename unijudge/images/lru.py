"""A cache of the most recently used values, limited by bytes."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")


class LruCache(Generic[V]):
    """A thread-safe cache. When the cache is full, the least recently used values are removed first.

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
        """Creates an empty cache.

        Args:
            keep_bytes: The most bytes of all values together. With 0, no value is kept.
        """
        self._keep_bytes = keep_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[V, int]] = OrderedDict()
        self.free_bytes = keep_bytes

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> V | None:
        """Returns the value of a key, or None, and marks the value as the most recently used."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: bytes, value: V, nbytes: int) -> None:
        """Keeps a value of `nbytes`, unless the key already has a value, or this value alone exceeds the cache."""
        with self._lock:
            if key in self._kept or nbytes > self._keep_bytes:
                return
            self._kept[key] = value, nbytes
            self.free_bytes -= nbytes
            while self.free_bytes < 0:
                _, (_, freed) = self._kept.popitem(last=False)
                self.free_bytes += freed
