"""The active records, found by name, by answer and by similar questions; kept up to date."""

import itertools
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np

from control.forgetting import segments
from control.forgetting.gate import (
    Embed,
    FactForms,
    Vectors,
    VectorStore,
    fact_forms,
    reversed_forms,
    unit,
)
from control.forgetting.ledger import Changes
from control.forgetting.names import NameMatcher
from control.forgetting.record import Record
from control.forgetting.vector_cache import EncryptedVectorCache
from foundation.threads import BackgroundThread

BATCH = 256  # new records that a question waits for; more are embedded in a thread
# Texts embedded between two looks at whether the program ends: two batches of the embedding model,
# 0.5 s of one core.
EMBEDDED_AT_ONCE = 64
PREPARED = 1_000  # records, the newest, of which all that is compared is kept in memory: 18 MB
FORMS_INDEXED = 3  # of one record
ASKED_FORMS = 2  # of a record that tell what it asks, besides the plain one with its relation
# Up to so many vectors all are compared (4 ms of one core at 384 dimensions); from there on only
# those of the nearest lists, whose centres are found once and stay.
FLAT_LIMIT = 16_384
LISTS, PROBED = 256, 16
CENTRES = f"IVF{LISTS},SQfp16"


class ProgramEndsError(Exception):
    """The program ended while records were being embedded."""


@dataclass
class Group:
    """Records that differ in the subject alone."""

    key: str
    forms: FactForms
    relation_forms: FactForms
    spans: tuple[str, ...]
    records: dict[str, Record] = field(default_factory=dict)


class FactIndex:
    """The active records. Of its methods only ``wait`` may be called without holding ``lock``.

    Attributes:
        lock: Held by whoever reads or writes.
        records: By id.
        subjects: Names of the subjects, by a record's id.
        answers: Answers, by a group's key.
        nearest: Question forms, by a record's id.
    """

    def __init__(
        self,
        embed: Embed,
        vectors: VectorStore,
        common_words: Collection[str],
        vector_cache: EncryptedVectorCache | None = None,
    ) -> None:
        """Start without records.

        Args:
            embed: Embeds texts in one call.
            vectors: Cache of the vectors of question forms.
            common_words: Normalised words that are never a name with a typo.
            vector_cache: Stores the vectors of records between processes.
        """
        self.lock = threading.RLock()
        self.records: dict[str, Record] = {}
        self.subjects = NameMatcher(frozenset(common_words))
        self.answers = NameMatcher()
        self.nearest = QuestionIndex()
        self._embed = embed
        self._vectors = vectors
        self._vector_cache = vector_cache
        self._groups: dict[tuple[FactForms, tuple[str, ...]], Group] = {}
        self._by_key: dict[str, Group] = {}
        self._group_of: dict[str, Group] = {}
        self._numbers = itertools.count()
        self._waiting: dict[str, Record] = {}
        self._unprepared: dict[str, Record] = {}
        self._prepared = 0
        self._unnamed: set[str] = set()
        self._thread: BackgroundThread | None = None
        self._stopping = threading.Event()

    def fact_forms(self, record_id: str) -> FactForms:
        """The question forms of a record."""
        return self._group_of[record_id].forms

    def relation_forms(self, record_id: str) -> FactForms:
        """What a record asks, regardless of its subject and answer; many records share it."""
        return self._group_of[record_id].relation_forms

    def reversed_forms(self, record_id: str) -> FactForms:
        """The reversed question forms of a record, which ask for its subject, given the answer."""
        return reversed_forms(self._group_of[record_id].forms)

    def of_group(self, key: str) -> Record:
        """One record of a group: the oldest."""
        return next(iter(self._by_key[key].records.values()))

    def group(self, record_id: str) -> list[Record]:
        """The records that ask and answer the same as this one, of whatever subject."""
        return list(self._group_of[record_id].records.values())

    def apply(self, changes: Changes) -> None:
        """Apply changes of the ledger; nothing is embedded in this call."""
        gone = [self.records[key] for key in changes.removed if key in self.records]
        for record_id in changes.removed:
            self._remove(record_id)
        for record in changes.added:
            self._add(record)
        self._drop_vectors(gone)
        if self._vector_cache is not None and changes.added:
            self._start()

    @property
    def describes(self) -> bool:
        """Whether a record is asked for without its subject's name."""
        return bool(self._unnamed)

    def embed(self) -> None:
        """Embed the question forms of new records: now if they are few, else in a thread."""
        if 0 < len(self._waiting) <= BATCH:
            waiting = list(self._waiting.values())
            self._index(waiting, self._embedded(_forms_of(waiting)))
        if self._waiting or self._unprepared:
            self._start()

    def wait(self) -> None:
        """Wait until all that is embedded in advance is done."""
        with self.lock:
            self.embed()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = BackgroundThread(self._embed_rest, "router", self._stopping.set)

    def _add(self, record: Record) -> None:
        self._remove(record.id)
        key = (fact_forms(record), record.spans)
        group = self._groups.get(key)
        if group is None:
            number = next(self._numbers)
            group = Group(f"g{number}", key[0], _relation_forms(key[0]), key[1])
            self._groups[key] = self._by_key[group.key] = group
            if record.spans:
                self.answers.add(group.key, record.spans)
        group.records[record.id] = record
        self.records[record.id] = record
        self._group_of[record.id] = group
        self.subjects.add(record.id, record.names)
        if record.scope == "subject":
            return
        self._waiting[record.id] = self._unprepared[record.id] = record
        if any(segments.SUBJECT not in form for form in key[0].forms[:FORMS_INDEXED]):
            self._unnamed.add(record.id)

    def _remove(self, record_id: str) -> None:
        if self.records.pop(record_id, None) is None:
            return
        self.subjects.remove(record_id)
        self.nearest.remove(record_id)
        self._waiting.pop(record_id, None)
        self._unprepared.pop(record_id, None)
        self._unnamed.discard(record_id)
        group = self._group_of.pop(record_id)
        del group.records[record_id]
        if not group.records:
            self.answers.remove(group.key)
            del self._by_key[group.key], self._groups[group.forms, group.spans]

    def _embed_rest(self) -> None:
        """Embed in advance until all is done or the program ends; what was embedded is stored."""
        with suppress(ProgramEndsError):
            self._embed_waiting()

    def _embed_waiting(self) -> None:
        """Embed the waiting records; meanwhile they are matched by names and answers only."""
        while not self._stopping.is_set():
            with self.lock:
                batch = list(itertools.islice(self._waiting.values(), BATCH))
            if not batch:
                break
            vectors = self._embedded(_forms_of(batch))
            with self.lock:
                self._index(batch, vectors)
        while not self._stopping.is_set() and (batch := self._newest_unprepared()):
            parts = list(dict.fromkeys(text for record in batch for text in _parts(record)))
            if self._prepared <= PREPARED:
                embedded = self._embedded(parts)
                with self.lock:
                    self._vectors.put(list(embedded), list(embedded.values()))
            elif self._vector_cache is not None:
                self._embedded(self._vector_cache.missing(parts))
            with self.lock:
                self._drop_vectors([one for one in batch if one.id not in self.records])

    def _newest_unprepared(self) -> list[Record]:
        """A batch of the records to prepare, newest first: they are most likely to be asked for."""
        with self.lock:
            if self._vector_cache is None and self._prepared >= PREPARED:
                self._unprepared.clear()
            newest = list(itertools.islice(reversed(self._unprepared), BATCH))
            self._prepared += len(newest)
            return [self._unprepared.pop(key) for key in newest]

    def _drop_vectors(self, removed: Sequence[Record]) -> None:
        """Drop the stored vectors of removed records."""
        if self._vector_cache is not None and removed:
            self._vector_cache.drop(
                {text for one in removed for text in (*_forms(one), *_parts(one))}
            )

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


def _relation_forms(whole: FactForms) -> FactForms:
    """A few of a fact's forms, without its answer."""
    forms = dict.fromkeys([*whole.forms[:ASKED_FORMS], *whole.forms[-1:]])
    return FactForms(tuple(forms), whole.relation, answer="")


def _forms(record: Record) -> list[str]:
    """A record's first question forms, as they are asked."""
    forms = fact_forms(record).forms[:FORMS_INDEXED]
    return [form.replace(segments.SUBJECT, record.subject) for form in forms]


def _forms_of(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(text for record in records for text in _forms(record)))


def _parts(record: Record) -> list[str]:
    """All texts of a record that segments of a question are compared with."""
    whole = fact_forms(record)
    return [*whole.texts(), *_relation_forms(whole).texts(), *reversed_forms(whole).texts()]


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


def _partitioned(flat: Any) -> Any:
    """The vectors of a flat index as an inverted-file index, whose centroids then stay fixed."""
    vectors = faiss.downcast_index(flat.index).reconstruct_n(0, flat.ntotal)
    numbers = faiss.vector_to_array(flat.id_map)
    partitioned: Any = faiss.index_factory(vectors.shape[1], CENTRES, faiss.METRIC_INNER_PRODUCT)
    partitioned.train(vectors)
    partitioned.add_with_ids(vectors, numbers)
    partitioned.nprobe = PROBED
    return partitioned
