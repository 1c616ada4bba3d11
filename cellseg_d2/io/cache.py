"""A cache that never holds more than a given number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class BoundedCache(Generic[Value]):
    """Keeps what was used last, up to ``max_bytes``; 0 keeps nothing. Each worker process has its own.

    Args:
        max_bytes: largest number of bytes of all values together.
        size: gives the bytes of a value.
    """

    def __init__(self, max_bytes: int, size: Callable[[Value], int]):
        self._max_bytes = max_bytes
        self._size = size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self.nbytes = 0

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of ``key``, made by ``make()`` when it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        size = self._size(value)
        if size <= self._max_bytes:
            self._values[key] = value
            self.nbytes += size
            while self.nbytes > self._max_bytes:
                _, oldest = self._values.popitem(last=False)
                self.nbytes -= self._size(oldest)
        return value
