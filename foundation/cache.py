"""The latest values of a costly function that takes many keys at once."""

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from cachetools import LRUCache

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BatchCache(Generic[Key, Value]):
    """Remembers so many values, the least recently asked for go first. Safe for several threads."""

    def __init__(self, most: int) -> None:
        """Start with none, and keep ``most``."""
        self._kept: LRUCache[Key, Value] = LRUCache(most)
        self._lock = threading.Lock()

    def of(self, keys: Sequence[Key], find: Callable[[list[Key]], Iterable[Value]]) -> list[Value]:
        """The values of keys; ``find`` is asked for those that are not remembered, each once."""
        with self._lock:
            known = {key: self._kept[key] for key in keys if key in self._kept}
        if new := [key for key in dict.fromkeys(keys) if key not in known]:
            known |= zip(new, find(new), strict=True)
            with self._lock:
                self._kept.update((key, known[key]) for key in new)
        return [known[key] for key in keys]

    def learn(self, values: Mapping[Key, Value]) -> None:
        """Remember values that came from elsewhere."""
        with self._lock:
            self._kept.update(values)
