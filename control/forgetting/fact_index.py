"""The active records, found by name, by answer and by similar questions; kept up to date."""

import itertools
import logging
import threading
from collections.abc import Collection, Sequence
from typing import Any

import faiss
import numpy as np

from control.forgetting.ledger import Changes
from control.forgetting.names import NameMatcher
from control.forgetting.questions import asked_forms
from control.forgetting.record import Record
from control.forgetting.vector_cache import Embed, EncryptedVectorCache, Vectors, unit
from foundation.threads import BackgroundThread

log = logging.getLogger(__name__)

BATCH = 256  # new records that a question waits for; more are embedded in a thread
# Texts embedded between two looks at whether the program ends: two batches of the embedding model,
# 0.5 s of one core.
EMBEDDED_AT_ONCE = 64
FORMS_INDEXED = 3  # of one record
# Up to so many vectors all are compared (4 ms of one core at 384 dimensions); from there on only
# those of the nearest lists, whose centres are found once and stay.
FLAT_LIMIT = 16_384
LISTS, PROBED = 256, 16
CENTRES = f"IVF{LISTS},SQfp16"

Group = tuple[str | tuple[str, ...], tuple[str, ...]]
"""What a record asks, and its answers"""


class ProgramEndsError(Exception):
    """The program ended while records were being embedded."""


class FactIndex:
    """The active records. Of its methods only ``wait`` may be called without holding ``lock``.

    Attributes:
        lock: Held by whoever reads or writes.
        records: By id.
        subjects: Names of the subjects, by a record's id.
        answers: Answers, by the id of the first record of those that ask and answer the same.
        nearest: Question forms, by a record's id.
    """

    def __init__(
        self,
        embed: Embed,
        common_words: Collection[str] = (),
        vector_cache: EncryptedVectorCache | None = None,
    ) -> None:
        """Start without records.

        Args:
            embed: Embeds texts in one call.
            common_words: Normalised words that are never a name with a typo.
            vector_cache: Stores the vectors of records between processes.
        """
        self.lock = threading.RLock()
        self.records: dict[str, Record] = {}
        self.subjects = NameMatcher(frozenset(common_words))
        self.answers = NameMatcher()
        self.nearest = QuestionIndex()
        self._embed = embed
        self._vector_cache = vector_cache
        self._groups: dict[Group, dict[str, Record]] = {}
        self._waiting: dict[str, Record] = {}
        self._thread: BackgroundThread | None = None
        self._stopping = threading.Event()

    def group(self, record_id: str) -> list[Record]:
        """The records that ask and answer the same as this one, of whatever subject."""
        return list(self._groups[_group(self.records[record_id])].values())

    def apply(self, changes: Changes) -> None:
        """Apply changes of the ledger; nothing is embedded in this call."""
        gone = [self.records[key] for key in changes.removed if key in self.records]
        for record_id in changes.removed:
            self._remove(record_id)
        for record in changes.added:
            self._add(record)
        if self._vector_cache is not None and gone:
            self._vector_cache.drop(set(_forms_of(gone)))
        if self._vector_cache is not None and changes.added:
            self._start()

    def embed(self) -> None:
        """Embed the question forms of new records: now if they are few, else in a thread."""
        waiting = list(self._waiting.values())
        if len(waiting) > BATCH:
            self._start()
        elif waiting:
            self._index(waiting, self._embedded(_forms_of(waiting)))

    def wait(self) -> None:
        """Wait until all records are embedded."""
        with self.lock:
            self.embed()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = BackgroundThread(self._embed_rest, "router", self._stopping.set)

    def _add(self, record: Record) -> None:
        self._remove(record.id)
        if record.scope == "verbatim":
            return  # no question asks for it, see `control.forgetting.verbatim`
        self.records[record.id] = record
        self.subjects.add(record.id, record.names)
        group = self._groups.setdefault(_group(record), {})
        group[record.id] = record
        if len(group) == 1 and record.spans:
            self.answers.add(record.id, record.spans)
        if record.scope != "subject":
            self._waiting[record.id] = record

    def _remove(self, record_id: str) -> None:
        record = self.records.get(record_id)
        if record is None:
            return
        self.subjects.remove(record_id)
        self.nearest.remove(record_id)
        self._waiting.pop(record_id, None)
        group = self._groups[_group(record)]
        del group[record_id], self.records[record_id]
        if record_id in self.answers:
            self.answers.remove(record_id)
            if group:
                self.answers.add(next(iter(group)), record.spans)
        if not group:
            del self._groups[_group(record)]

    def _embed_rest(self) -> None:
        """Embed in advance until all is done or the program ends; what was embedded is stored.

        Meanwhile records are matched by names and answers only. An error ends it without a word:
        a model cannot be loaded any more once the interpreter ends, which it does before this
        thread is told to stop, and any other error meets the question that embeds by that model.
        """
        try:
            while not self._stopping.is_set():
                with self.lock:
                    batch = list(itertools.islice(self._waiting.values(), BATCH))
                if not batch:
                    return
                vectors = self._embedded(_forms_of(batch))
                with self.lock:
                    self._index(batch, vectors)
        except ProgramEndsError:
            return
        except Exception as error:
            log.info("forgotten facts were not embedded in advance: %s", type(error).__name__)

    def _embedded(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """The vectors of texts, from the vector cache or else computed and stored there."""
        found = {} if self._vector_cache is None else self._vector_cache.get(texts)
        # Texts of like length make fuller batches.
        missing = sorted((text for text in texts if text not in found), key=len)
        for start in range(0, len(missing), EMBEDDED_AT_ONCE):
            if self._stopping.is_set():
                raise ProgramEndsError
            part = missing[start : start + EMBEDDED_AT_ONCE]
            vectors = unit(self._embed(part))
            found |= zip(part, vectors, strict=True)
            if self._vector_cache is not None:
                self._vector_cache.put(part, vectors)
        return found

    def _index(self, records: Sequence[Record], vectors: dict[str, Vectors]) -> None:
        """Index the vectors of records' forms."""
        left = [record for record in records if self._waiting.pop(record.id, None) is not None]
        if left:
            forms = [_forms(record) for record in left]
            rows = np.stack([vectors[text] for several in forms for text in several])
            self.nearest.add([record.id for record in left], list(map(len, forms)), rows)


def _group(record: Record) -> Group:
    return record.relation or record.questions, record.spans


def _forms(record: Record) -> Sequence[str]:
    return asked_forms(record)[:FORMS_INDEXED]


def _forms_of(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(text for record in records for text in _forms(record)))


class QuestionIndex:
    """Vectors of length 1 under the keys of their records."""

    def __init__(self) -> None:
        """Start without vectors."""
        self._index: Any = None  # of FAISS, whose annotations lack what its classes share
        self._is_partitioned = False
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
        if not self._is_partitioned and len(self) > FLAT_LIMIT:
            self._index, self._is_partitioned = _partitioned(self._index), True

    def remove(self, key: str) -> None:
        """Remove a record's vectors; one that is not there is no error."""
        numbers = self._numbers.pop(key, range(0))
        for number in numbers:
            del self._keys[number]
        if self._index is not None and numbers:
            self._index.remove_ids(np.array(numbers, np.int64))

    def search(self, vectors: Vectors, top_k: int) -> list[list[str]]:
        """For each vector the keys of the nearest ones, the best first; a key may come again."""
        if self._index is None or not len(self):
            return [[] for _ in vectors]
        _, numbers = self._index.search(vectors, min(top_k, len(self)))
        return [
            [key for number in row if (key := self._keys.get(int(number))) is not None]
            for row in numbers
        ]


def _partitioned(flat: Any) -> Any:
    """The vectors of a flat index as an inverted-file index, whose centroids then stay fixed."""
    vectors = faiss.downcast_index(flat.index).reconstruct_n(0, flat.ntotal)
    numbers = faiss.vector_to_array(flat.id_map)
    partitioned: Any = faiss.index_factory(vectors.shape[1], CENTRES, faiss.METRIC_INNER_PRODUCT)
    partitioned.train(vectors)
    partitioned.add_with_ids(vectors, numbers)
    partitioned.nprobe = PROBED
    return partitioned
