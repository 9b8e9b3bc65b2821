"""A least-recently-used cache for functions that compute many values at once."""

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from cachetools import LRUCache

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BatchCache(Generic[Key, Value]):
    """A least-recently-used cache whose missing values are computed in one batch; thread-safe."""

    def __init__(self, max_size: int) -> None:
        """Create an empty cache of ``max_size`` values."""
        self._values: LRUCache[Key, Value] = LRUCache(max_size)
        self._lock = threading.Lock()

    def get(
        self, keys: Sequence[Key], compute: Callable[[list[Key]], Iterable[Value]]
    ) -> list[Value]:
        """Return the values of keys; ``compute`` gives those that are not cached, each once."""
        with self._lock:
            known = {key: self._values[key] for key in keys if key in self._values}
        if new := [key for key in dict.fromkeys(keys) if key not in known]:
            known |= zip(new, compute(new), strict=True)
            with self._lock:
                self._values.update((key, known[key]) for key in new)
        return [known[key] for key in keys]

    def update(self, values: Mapping[Key, Value]) -> None:
        """Add values that were computed elsewhere."""
        with self._lock:
            self._values.update(values)
