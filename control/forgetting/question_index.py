"""The question forms nearest to a question, of hundreds of thousands; no rebuild on add."""

from typing import Any

import faiss
import numpy as np

from control.forgetting.gate import Vectors

# Up to so many vectors all are compared (4 ms of one core at 384 dimensions); from there on only
# those of the nearest lists, whose centres are found once and stay.
FLAT_LIMIT = 16_384
LISTS, PROBED = 256, 16
CENTRES = f"IVF{LISTS},SQfp16"


class QuestionIndex:
    """Vectors of length 1 under the keys of their records."""

    def __init__(self) -> None:
        """Start without vectors."""
        self._index: Any = None  # of FAISS, whose annotations lack what its classes share
        self._is_parted = False
        self._numbers: dict[str, range] = {}
        self._keys: dict[int, str] = {}
        self._next = 0

    def __len__(self) -> int:
        return 0 if self._index is None else int(self._index.ntotal)

    def add(self, keys: list[str], sizes: list[int], vectors: Vectors) -> None:
        """Add the vectors of several records.

        Args:
            keys: Of the records.
            sizes: How many of the vectors belong to each.
            vectors: Shape (sum of sizes, dimension).
        """
        if self._index is None:
            self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
        numbers = np.arange(self._next, self._next + len(vectors), dtype=np.int64)
        for key, size in zip(keys, sizes, strict=True):
            self._numbers[key] = range(self._next, self._next + size)
            self._keys.update(dict.fromkeys(self._numbers[key], key))
            self._next += size
        self._index.add_with_ids(vectors, numbers)
        if not self._is_parted and len(self) > FLAT_LIMIT:
            self._index, self._is_parted = _parted(self._index), True

    def remove(self, key: str) -> None:
        """Remove a record's vectors; one that is not there is no error."""
        numbers = self._numbers.pop(key, range(0))
        for number in numbers:
            del self._keys[number]
        if self._index is not None and numbers:
            self._index.remove_ids(np.array(numbers, np.int64))

    def search(self, vectors: Vectors, top_k: int) -> list[list[tuple[str, int]]]:
        """For each vector the nearest: (key, which of the key's vectors), the best first."""
        if self._index is None or not len(self):
            return [[] for _ in vectors]
        _, numbers = self._index.search(vectors, min(top_k, len(self)))
        return [
            [
                (key, int(number) - self._numbers[key].start)
                for number in row
                if (key := self._keys.get(int(number))) is not None
            ]
            for row in numbers
        ]


def _parted(flat: Any) -> Any:
    """The vectors of a flat index divided into lists, whose centres then stay."""
    vectors = faiss.downcast_index(flat.index).reconstruct_n(0, flat.ntotal)
    numbers = faiss.vector_to_array(flat.id_map)
    parted: Any = faiss.index_factory(vectors.shape[1], CENTRES, faiss.METRIC_INNER_PRODUCT)
    parted.train(vectors)
    parted.add_with_ids(vectors, numbers)
    parted.nprobe = PROBED
    return parted
