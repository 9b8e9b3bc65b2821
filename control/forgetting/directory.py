"""The records as a question finds them: by name, by answer, by nearness; kept up to date."""

import itertools
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from control.forgetting import windows
from control.forgetting.gate import Embed, Embedded, Shape, Vectors, shape, unit
from control.forgetting.ledger import Changes
from control.forgetting.names import Names
from control.forgetting.nearest import Nearest
from control.forgetting.record import Record

AT_ONCE = 256  # new records that a question waits for; more are embedded beside it
WARMED = 2_000  # waiting records up to which all is embedded that a question could need of them
FORMS_INDEXED = 3  # of one record


@dataclass
class Group:
    """Records that differ in the subject alone."""

    key: str
    shape: Shape
    spans: tuple[str, ...]
    records: dict[str, Record] = field(default_factory=dict)


class Directory:
    """The active records. Of its methods only ``wait`` may be called without holding ``lock``.

    Attributes:
        lock: Held by whoever reads or writes.
        records: By id.
        subjects: Names of the subjects, by a record's id.
        answers: Answers, by a group's key.
        nearest: Question forms, by a record's id.
    """

    def __init__(self, embed: Embed, vectors: Embedded, usual: Collection[str]) -> None:
        """Start without records.

        Args:
            embed: Embeds texts in one call.
            vectors: Where the vectors of shapes are kept.
            usual: Normalised words that are never a name with a typo.
        """
        self.lock = threading.RLock()
        self.records: dict[str, Record] = {}
        self.subjects = Names(frozenset(usual))
        self.answers = Names()
        self.nearest = Nearest()
        self._embed = embed
        self._vectors = vectors
        self._groups: dict[tuple[Shape, tuple[str, ...]], Group] = {}
        self._by_key: dict[str, Group] = {}
        self._of: dict[str, Group] = {}
        self._numbers = itertools.count()
        self._waiting: dict[str, Record] = {}
        self._unnamed: set[str] = set()
        self._learner: threading.Thread | None = None

    def shape(self, record_id: str) -> Shape:
        """The shape of a record."""
        return self._of[record_id].shape

    def of_group(self, key: str) -> Record:
        """One record of a group: the oldest."""
        return next(iter(self._by_key[key].records.values()))

    def group(self, record_id: str) -> list[Record]:
        """The records that ask and answer the same as this one, of whatever subject."""
        return list(self._of[record_id].records.values())

    def take(self, changes: Changes) -> None:
        """Take in changes of the ledger, without embedding anything."""
        for record_id in changes.removed:
            self._remove(record_id)
        for record in changes.added:
            self._add(record)

    @property
    def describes(self) -> bool:
        """Whether a record is asked for without its subject's name."""
        return bool(self._unnamed)

    def embed(self) -> None:
        """Embed the question forms of new records: now if they are few, else in a thread."""
        if not self._waiting:
            return
        if len(self._waiting) <= AT_ONCE:
            waiting = list(self._waiting.values())
            texts = _texts(waiting, whole=False)
            self._keep(waiting, texts, unit(self._embed(texts)))
        elif self._learner is None or not self._learner.is_alive():
            self._learner = threading.Thread(target=self._catch_up, name="router", daemon=True)
            self._learner.start()

    def wait(self) -> None:
        """Embed all records."""
        with self.lock:
            self.embed()
        if self._learner is not None:
            self._learner.join()

    def _add(self, record: Record) -> None:
        self._remove(record.id)
        made = (shape(record), record.spans)
        group = self._groups.get(made)
        if group is None:
            group = Group(f"g{next(self._numbers)}", *made)
            self._groups[made] = self._by_key[group.key] = group
            if record.spans:
                self.answers.add(group.key, record.spans)
        group.records[record.id] = record
        self.records[record.id] = record
        self._of[record.id] = group
        self.subjects.add(record.id, record.names)
        if record.scope == "subject":
            return
        self._waiting[record.id] = record
        if any(windows.SUBJECT not in form for form in made[0].forms[:FORMS_INDEXED]):
            self._unnamed.add(record.id)

    def _remove(self, record_id: str) -> None:
        if self.records.pop(record_id, None) is None:
            return
        self.subjects.remove(record_id)
        self.nearest.remove(record_id)
        self._waiting.pop(record_id, None)
        self._unnamed.discard(record_id)
        group = self._of.pop(record_id)
        del group.records[record_id]
        if not group.records:
            self.answers.remove(group.key)
            del self._by_key[group.key], self._groups[group.shape, group.spans]

    def _catch_up(self) -> None:
        """Embed the waiting records; meanwhile they are found by their names and answers."""
        while True:
            with self.lock:
                batch = list(itertools.islice(self._waiting.values(), AT_ONCE))
                whole = len(self._waiting) <= WARMED
            if not batch:
                return
            texts = _texts(batch, whole)
            vectors = unit(self._embed(texts))
            with self.lock:
                self._keep(batch, texts, vectors)

    def _keep(self, records: Sequence[Record], texts: Sequence[str], vectors: Vectors) -> None:
        """Take in the vectors of records: their forms, and what their shapes are made of."""
        place = {text: number for number, text in enumerate(texts)}
        left = [record for record in records if self._waiting.pop(record.id, None) is not None]
        if not left:
            return
        shapes = {self._of[record.id].shape for record in left}
        common = [text for made in shapes for text in made.texts() if text in place]
        self._vectors.put(common, [vectors[place[text]] for text in common])
        forms = [_forms(record) for record in left]
        rows = vectors[[place[text] for several in forms for text in several]]
        self.nearest.add([record.id for record in left], list(map(len, forms)), rows)


def _forms(record: Record) -> list[str]:
    """A record's first question forms, as they are asked."""
    forms = shape(record).forms[:FORMS_INDEXED]
    return [form.replace(windows.SUBJECT, record.subject) for form in forms]


def _texts(records: Sequence[Record], whole: bool) -> list[str]:
    """What is embedded of records, each text once: their forms, or all of their shapes as well."""
    texts = [text for record in records for text in _forms(record)]
    texts += [text for record in records if whole for text in shape(record).texts()]
    return list(dict.fromkeys(texts))
