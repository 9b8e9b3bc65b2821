"""The sweep: stored passages that state a forgotten fact are redacted, and can be restored."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from llama_index.core.schema import BaseNode

from control import prompts
from control.forgetting.clearing import Door
from control.forgetting.matcher import LEAST_PART, answer_phrases
from control.forgetting.record import Record
from control.forgetting.redaction import TITLE_KEY, Redactor, title_of
from foundation.text import holds, normalise

if TYPE_CHECKING:
    from control.forgetting.ledger import Ledger

SWEPT = "swept"  # the kind of the audit's event
OF, NEW = "of", "new documents"  # a detail of the event where nothing else was swept
# Metadata: the path of a file, and what stands in place of one that holds a forgotten fact, by
# which a changed file is recognised.
SOURCE_KEY, HIDDEN_SOURCE_KEY = "source", "hidden_source"
HASH_KEY = "content_hash"
KEPT_KEYS = (*prompts.ORIGIN_KEYS, HIDDEN_SOURCE_KEY, HASH_KEY)  # metadata redacted otherwise
BATCH = 64  # passages that are redacted, embedded and stored together
# An answer that stands in more documents is a common word or number ("blue", "2024"), of which it
# need not be said where it stands.
MOST_DOCUMENTS = 5
MOST_READ = 200  # passages that are read to find those documents

Progress = Callable[[int], object]  # such as the update method of a tqdm bar


class Passages(Protocol):
    """The passage index, as far as a sweep needs it."""

    def containing(self, groups: Sequence[Sequence[str]]) -> list[str]:
        """Return the ids of all passages that contain a phrase of each group."""

    def details(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Return the id of each document with its metadata."""

    def passages_of(self, document_id: str, limit: int) -> list[BaseNode]:
        """Return the first ``limit`` passages of a document."""

    def get_nodes(self, node_ids: Sequence[str]) -> list[BaseNode]:
        """Return the passages of these ids that exist."""

    def replace(self, nodes: Sequence[BaseNode]) -> None:
        """Replace the passages of the same ids, and embed the new ones."""

    def finish(self) -> None:
        """Leave nothing of replaced passages in what is derived of them, such as snapshots."""


class Reservoir(Protocol):
    """The reservoir of earlier searches, as far as a sweep needs it.

    It names passages by their ids and holds no text, but the vectors of queries, and one of those
    may have asked for the fact.
    """

    def clear(self) -> int:
        """Remove all entries, and return how many there were."""


@dataclass
class Swept:
    """What a sweep did.

    Attributes:
        records: Records that were swept for.
        passages: Passages of the index that were redacted.
        entries: Entries removed from the reservoir.
        restored: Passages whose original text was restored.
        unfound: Ids of the records swept for that no passage was redacted for.
    """

    records: int = 0
    passages: int = 0
    entries: int = 0
    restored: int = 0
    unfound: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Original:
    """A stored passage before and after its redaction.

    What is left shows whether the passage in the index is still the one that was redacted. The
    field names are part of what is stored in the ledger.

    Attributes:
        title: With heading, page and date, as `title_of` says it.
        text: The same of the text.
        left_title: What is left of the title.
        left_text: What is left of the text.
        origin: Title, heading, page and date by their keys; ``None`` where an earlier version
            stored the passage, without them.
        details: Further metadata that were taken out.
        content_hash: Of the document, to which they belong.
    """

    title: str
    text: str
    left_title: str
    left_text: str
    origin: dict[str, Any] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    content_hash: str = ""

    def is_of(self, node: BaseNode) -> bool:
        """Whether the passage is the redacted one, or the original (if the sweep was killed)."""
        return self.is_redacted(node) or (self.title, self.text) in _said(node)

    def is_redacted(self, node: BaseNode) -> bool:
        """Whether the passage is the redacted one."""
        return (self.left_title, self.left_text) in _said(node)


def _said(node: BaseNode) -> list[tuple[str, str]]:
    """Title and text of a passage."""
    # An earlier version redacted the title by itself, without heading, page and date.
    titles = (title_of(node), str(node.metadata.get(TITLE_KEY, "")))
    return [(title, node.get_content()) for title in titles]


def _joined(details: Mapping[str, Any]) -> str:
    """Metadata as one text, of which no name reaches from one to the next."""
    return "\n".join(f"{key}: {value}" for key, value in details.items() if key != HASH_KEY)


def _with_metadata(node: BaseNode, metadata: dict[str, Any]) -> BaseNode:
    """A passage with other metadata, of which the title alone is embedded."""
    hidden = [key for key in metadata if key != TITLE_KEY]
    keys = {"excluded_embed_metadata_keys": hidden, "excluded_llm_metadata_keys": hidden}
    return node.model_copy(update={"metadata": metadata, **keys})


def sweep(
    ledger: "Ledger",
    index: Passages,
    reservoir: Reservoir | None,
    redactor: Redactor,
    progress: Progress = lambda _: None,
    again: bool = False,
) -> Swept:
    """Redact stored passages by the records not swept for yet; restore those of removed records.

    Texts of which only the wording is kept back stay stored: their content may be told. Sentences
    that state another active record are not restored.

    If it is killed at any moment, every passage is either unchanged or redacted, and the next sweep
    does the rest.

    Args:
        ledger: Records, audit, and originals.
        index: The passages.
        reservoir: If any; records not swept for yet clear it.
        redactor: Of the same ledger.
        progress: Called with the number of passages just processed.
        again: Sweep for all records, since documents may have been added without `sweep_added`.
    """
    running = _Sweep(ledger, index, redactor, progress)
    active = {each.id: each for each in ledger.records() if each.scope != "verbatim"}
    for removed_id in sorted(set().union(*running.owners.values()) - active.keys()):
        running.restore(removed_id)
    swept = {
        event.record_id
        for event in ledger.events()
        if event.kind == SWEPT and OF not in event.details
    }
    todo = {key: record for key, record in active.items() if again or key not in swept}
    found = [node for record in todo.values() for node in index.containing(_search_groups(record))]
    found += running.named(todo) if todo else []
    counts = Counter(dict.fromkeys(todo, 0))
    counts.update(running.redact(list(dict.fromkeys(found))))
    if reservoir is not None and todo:
        running.done.entries = reservoir.clear()
    cleared = {} if reservoir is None else {"reservoir_entries": running.done.entries}
    for record_id, passages in counts.items():
        if passages or record_id not in swept:
            own = cleared if record_id in todo else {}
            ledger.note(SWEPT, record_id, passages=passages, **own)
    running.done.records = len(todo)
    running.done.unfound = tuple(record_id for record_id in todo if not counts[record_id])
    if running.done.passages or running.done.restored:
        index.finish()
    return running.done


def sweep_added(
    ledger: "Ledger", index: Passages, redactor: Redactor, node_ids: Sequence[str]
) -> Swept:
    """Redact passages that were just stored, by all records.

    A record not swept for yet remains to be swept for: only these passages are read.
    """
    running = _Sweep(ledger, index, redactor, lambda _: None)
    counts = running.redact(node_ids)
    for record_id, passages in counts.items():
        ledger.note(SWEPT, record_id, passages=passages, **{OF: NEW})
    running.done.records = len(counts)
    return running.done


def elsewhere(index: Passages, record: Record) -> list[BaseNode]:
    """Passages that hold an answer of a record literally and do not name its subject.

    They may state the fact under another name. None where the answer says little by itself: it has
    fewer than ``LEAST_PART`` signs, or stands so in more than ``MOST_DOCUMENTS`` documents.
    """
    spans = [span for span in map(normalise, record.spans) if len(span) >= LEAST_PART]
    candidates = index.containing([spans])
    if len(candidates) > MOST_READ:
        return []

    def held(node: BaseNode, phrases: Sequence[str]) -> bool:
        return holds(title_of(node), phrases) or holds(node.get_content(), phrases)

    found = [
        node
        for node in index.get_nodes(candidates)
        if held(node, spans) and not held(node, record.names)
    ]
    return found if len({node.ref_doc_id for node in found}) <= MOST_DOCUMENTS else []


def only_elsewhere(index: Passages, record: Record) -> list[BaseNode]:
    """Passages as of `elsewhere` for a record that is not swept for yet.

    None where a passage names the subject and holds an answer: the sweep decides about it.
    """
    if record.scope == "verbatim" or index.containing(_search_groups(record)):
        return []
    return elsewhere(index, record)


def _search_groups(record: Record) -> list[list[str]]:
    """The groups of phrases by which passages that may state a record are searched.

    Such a passage contains a name of its subject, and a phrase of its answers if there are any.
    """
    names = [normalise(name) for name in record.names]
    phrases = answer_phrases(record)
    return [names, phrases] if phrases else [names]


class _Sweep:
    """A sweep in progress.

    Attributes:
        done: What it did so far.
        owners: By passage the ids of the records for which its original is stored.
    """

    def __init__(
        self, ledger: "Ledger", index: Passages, redactor: Redactor, progress: Progress
    ) -> None:
        """Read the stored originals."""
        self._ledger = ledger
        self._index = index
        self._redactor = redactor
        self._door = Door(redactor, ledger)
        self._progress = progress
        self._originals: dict[str, _Original] = {}
        self.done = Swept()
        self.owners: dict[str, set[str]] = {}
        for original in ledger.sealed():
            self._originals[original.name] = _Original(**json.loads(original.text))
            self.owners.setdefault(original.name, set()).add(original.record_id)

    def named(self, record_ids: Collection[str]) -> list[str]:
        """Ids of the passages of documents whose title or details hold what is forgotten."""
        self._redactor.refresh()
        return [
            node.node_id
            for document_id, details in self._index.details()
            if not self._redactor.named(_joined(details)).isdisjoint(record_ids)
            for node in self._index.passages_of(document_id, sys.maxsize)
        ]

    def redact(self, node_ids: Sequence[str]) -> Counter[str]:
        """Redact passages, and count by record those that stated it and were changed."""
        counts = Counter[str]()
        for start in range(0, len(node_ids), BATCH):
            part = node_ids[start : start + BATCH]
            changed = []
            nodes = self._index.get_nodes(part)
            for node, (fresh, record_ids) in zip(nodes, self._redacted(nodes), strict=True):
                before = (node.metadata, node.get_content())
                if record_ids and (fresh.metadata, fresh.get_content()) != before:
                    changed.append(fresh)
                    counts.update(record_ids)
            if changed:
                self._index.replace(changed)
            self.done.passages += len(changed)
            self._progress(len(part))
        return counts

    def restore(self, record_id: str) -> None:
        """Restore the passages that were redacted because of a record that was removed."""
        names = [name for name, owners in self.owners.items() if record_id in owners]
        for start in range(0, len(names), BATCH):
            part = names[start : start + BATCH]
            nodes = [
                node
                for node in self._index.get_nodes(part)
                if self._originals[node.node_id].is_of(node)  # otherwise it was replaced meanwhile
            ]
            if nodes:
                self._index.replace([fresh for fresh, _ in self._redacted(nodes)])
            for name in part:
                self._ledger.unseal(record_id, name)
                self.owners[name].discard(record_id)
            self.done.restored += len(nodes)
            self._progress(len(part))

    def _redacted(self, nodes: Sequence[BaseNode]) -> list[tuple[BaseNode, tuple[str, ...]]]:
        """What is left of passages, and the ids of the records that each of them stated.

        The originals are stored before they are replaced.
        """
        bases = [self._base(node) for node in nodes]
        said = [(base.get_content(), title_of(base)) for base in bases]
        left = []
        for base, result in zip(bases, self._redactor.redact_all(said), strict=True):
            fresh = self._redactor.redacted_node(base, result)
            named = {
                key: ids
                for key, value in base.metadata.items()
                if key not in KEPT_KEYS
                and (ids := self._redactor.named(f"{key}: {value}", result.record_ids))
            }
            record_ids = tuple(sorted({*result.record_ids}.union(*named.values())))
            if named:
                fresh = _with_metadata(fresh, self._without(fresh.metadata, named))
            if record_ids:
                self._seal(base, fresh, record_ids, {key: base.metadata[key] for key in named})
            left.append((fresh, record_ids))
        return left

    def _without(self, metadata: Mapping[str, Any], named: Collection[str]) -> dict[str, Any]:
        """Metadata without these; a keyed hash takes the place of the file's path."""
        left = {key: value for key, value in metadata.items() if key not in named}
        if SOURCE_KEY in named:
            left[HIDDEN_SOURCE_KEY] = self._door.hidden_id(str(metadata[SOURCE_KEY]))
        return left

    def _base(self, node: BaseNode) -> BaseNode:
        """A passage before any redaction, with what was changed since in the details."""
        original = self._originals.get(node.node_id)
        if original is None or not original.is_redacted(node):
            return node
        metadata = dict(node.metadata)
        if original.left_title != original.title:
            own = {TITLE_KEY: original.title} if original.origin is None else original.origin
            metadata.update(own)
        if original.content_hash == metadata.get(HASH_KEY):
            metadata = {**original.details, **metadata}
        if SOURCE_KEY in metadata:
            metadata.pop(HIDDEN_SOURCE_KEY, None)
        base = _with_metadata(node, metadata)
        base.set_content(original.text)
        return base

    def _seal(
        self,
        base: BaseNode,
        fresh: BaseNode,
        record_ids: Sequence[str],
        details: dict[str, Any],
    ) -> None:
        """Store a passage for each record that it states, with what is left of it."""
        origin = {k: base.metadata[k] for k in prompts.ORIGIN_KEYS if k in base.metadata}
        said = (title_of(base), base.get_content(), title_of(fresh), fresh.get_content())
        content_hash = str(base.metadata.get(HASH_KEY, ""))
        original = _Original(*said, origin, details, content_hash)
        owners = self.owners.setdefault(base.node_id, set())
        if self._originals.get(base.node_id) == original and owners.issuperset(record_ids):
            return
        text = json.dumps(vars(original), ensure_ascii=False)
        for record_id in record_ids:
            self._ledger.seal(record_id, base.node_id, text)
        self._originals[base.node_id] = original
        owners.update(record_ids)
