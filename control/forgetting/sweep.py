"""The sweep: stored passages that state a forgotten fact are redacted, and can be restored."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from llama_index.core.schema import BaseNode

from control.forgetting.matcher import answer_phrases
from control.forgetting.record import Record
from control.forgetting.redaction import TITLE_KEY, Redactor, title_of, with_redacted_text
from control.forgetting.text_redaction import Redacted
from foundation.text import normalise

if TYPE_CHECKING:
    from control.forgetting.ledger import Ledger

SWEPT = "swept"  # the kind of the audit's event
OF, NEW = "of", "new documents"  # a detail of the event where nothing else was swept
BATCH = 64  # passages that are redacted, embedded and stored together

Progress = Callable[[int], object]  # such as the update method of a tqdm bar


class Passages(Protocol):
    """The passage index, as far as a sweep needs it."""

    def containing(self, groups: Sequence[Sequence[str]]) -> list[str]:
        """Return the ids of all passages that contain a phrase of each group."""
        ...

    def get_nodes(self, node_ids: Sequence[str]) -> list[BaseNode]:
        """Return the passages of these ids that exist."""
        ...

    def replace(self, nodes: Sequence[BaseNode]) -> None:
        """Replace the passages of the same ids, and embed the new ones."""
        ...


class Reservoir(Protocol):
    """The reservoir of earlier searches, as far as a sweep needs it.

    It names passages by their ids and holds no text, but the vectors of queries, and one of those
    may have asked for the fact.
    """

    def clear(self) -> int:
        """Remove all entries, and return how many there were."""
        ...


@dataclass
class Swept:
    """What a sweep did.

    Attributes:
        records: Records that were swept for.
        passages: Passages of the index that were redacted.
        entries: Entries removed from the reservoir.
        restored: Passages whose original text was restored.
    """

    records: int = 0
    passages: int = 0
    entries: int = 0
    restored: int = 0


@dataclass(frozen=True)
class _Original:
    """A stored passage before and after its redaction.

    What is left shows whether the passage in the index is still the one that was redacted. The
    field names are part of what is stored in the ledger.
    """

    title: str
    text: str
    left_title: str
    left_text: str

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


@dataclass
class _Sweep:
    """One sweep in progress."""

    ledger: "Ledger"
    index: Passages
    redactor: Redactor
    progress: Progress
    done: Swept = field(default_factory=Swept)
    originals: dict[str, _Original] = field(default_factory=dict)
    owners: dict[str, set[str]] = field(default_factory=dict)


def sweep(
    ledger: "Ledger",
    index: Passages,
    reservoir: Reservoir | None,
    redactor: Redactor,
    progress: Progress = lambda _: None,
    again: bool = False,
) -> Swept:
    """Redact stored passages by the records not swept for yet; restore those of removed records.

    Texts of which only the wording is kept back stay stored: their content may be told.

    If it is killed at any moment, every passage is either unchanged or redacted, and the next sweep
    does the rest.

    Args:
        ledger: Records, audit, and originals.
        index: The passages.
        reservoir: The reservoir, if any; records not swept for yet clear it.
        redactor: Of the same ledger.
        progress: Called with the number of passages just processed.
        again: Sweep for all records, since documents may have been added without `sweep_added`.
    """
    state = _begin(ledger, index, redactor, progress)
    active = {each.id: each for each in ledger.records() if each.scope != "verbatim"}
    for removed_id in sorted(set().union(*state.owners.values()) - active.keys()):
        _restore(state, removed_id)
    swept = {
        event.record_id
        for event in ledger.events()
        if event.kind == SWEPT and OF not in event.details
    }
    todo = [record for key, record in active.items() if again or key not in swept]
    counts = dict.fromkeys([record.id for record in todo], 0)
    found = [node_id for record in todo for node_id in index.containing(search_groups(record))]
    for record_id in _redact(state, list(dict.fromkeys(found))):
        counts[record_id] = counts.get(record_id, 0) + 1
    if reservoir is not None and todo:
        state.done.entries = reservoir.clear()
    cleared = {} if reservoir is None else {"reservoir_entries": state.done.entries}
    wanted = {record.id for record in todo}
    for record_id, passages in counts.items():
        if passages or record_id not in swept:
            own = cleared if record_id in wanted else {}
            ledger.note(SWEPT, record_id, passages=passages, **own)
    state.done.records = len(todo)
    return state.done


def sweep_added(
    ledger: "Ledger", index: Passages, redactor: Redactor, node_ids: Sequence[str]
) -> Swept:
    """Redact passages that were just stored, by all records.

    A record not swept for yet remains to be swept for: only these passages are read.
    """
    state = _begin(ledger, index, redactor, lambda _: None)
    counts = Counter(_redact(state, node_ids))
    for record_id, passages in counts.items():
        ledger.note(SWEPT, record_id, passages=passages, **{OF: NEW})
    state.done.records = len(counts)
    return state.done


def restore(
    ledger: "Ledger",
    record: Record,
    index: Passages,
    redactor: Redactor,
    progress: Progress = lambda _: None,
) -> Swept:
    """Restore the passages that were redacted because of a record that was removed.

    Sentences that state another active record are not restored.
    """
    state = _begin(ledger, index, redactor, progress)
    _restore(state, record.id)
    return state.done


def search_groups(record: Record) -> list[list[str]]:
    """The groups of phrases by which passages that may state a record are searched.

    Such a passage contains a name of its subject, and a phrase of its answers if there are any.
    """
    names = [normalise(name) for name in record.names]
    phrases = answer_phrases(record)
    return [names, phrases] if phrases else [names]


def _begin(
    ledger: "Ledger",
    index: Passages,
    redactor: Redactor,
    progress: Progress,
) -> _Sweep:
    state = _Sweep(ledger, index, redactor, progress)
    for original in ledger.sealed():
        state.originals[original.name] = _Original(**json.loads(original.text))
        state.owners.setdefault(original.name, set()).add(original.record_id)
    return state


def _redact(state: _Sweep, node_ids: Sequence[str]) -> Iterator[str]:
    """Redact passages, and yield the ids of the records that each of them stated."""
    for start in range(0, len(node_ids), BATCH):
        part = node_ids[start : start + BATCH]
        nodes = state.index.get_nodes(part)
        bases = [_base(state, node) for node in nodes]
        results = state.redactor.redact_all([(base.text, base.title) for base in bases])
        changed = []
        for node, base, result in zip(nodes, bases, results, strict=True):
            if not result.record_ids:
                continue
            _seal(state, node.node_id, base, result)
            if (result.title, result.text) != (title_of(node), node.get_content()):
                changed.append(with_redacted_text(node, result))
                yield from result.record_ids
        if changed:
            state.index.replace(changed)
        state.done.passages += len(changed)
        state.progress(len(part))


def _base(state: _Sweep, node: BaseNode) -> _Original:
    """The passage before any redaction, with what was changed since in its details."""
    original = state.originals.get(node.node_id)
    title, text = title_of(node), node.get_content()
    if original is not None and original.is_redacted(node):
        text = original.text
        if original.left_title != original.title:  # the details went with the title
            title = original.title
    return _Original(title, text, title, text)


def _seal(state: _Sweep, node_id: str, base: _Original, result: Redacted) -> None:
    """Store the original for each record that it states, before it is replaced."""
    original = _Original(base.title, base.text, result.title, result.text)
    owners = state.owners.setdefault(node_id, set())
    if state.originals.get(node_id) == original and owners.issuperset(result.record_ids):
        return
    text = json.dumps(vars(original), ensure_ascii=False)
    for record_id in result.record_ids:
        state.ledger.seal(record_id, node_id, text)
    state.originals[node_id] = original
    owners.update(result.record_ids)


def _restore(state: _Sweep, record_id: str) -> None:
    names = [name for name, owners in state.owners.items() if record_id in owners]
    for start in range(0, len(names), BATCH):
        part = names[start : start + BATCH]
        nodes = [
            node
            for node in state.index.get_nodes(part)
            if state.originals[node.node_id].is_of(node)  # otherwise it was replaced meanwhile
        ]
        bases = [_base(state, node) for node in nodes]
        results = state.redactor.redact_all([(base.text, base.title) for base in bases])
        for node, base, result in zip(nodes, bases, results, strict=True):
            if result.record_ids:
                _seal(state, node.node_id, base, result)
        if nodes:
            state.index.replace(
                [
                    with_redacted_text(node, result)
                    for node, result in zip(nodes, results, strict=True)
                ]
            )
        for name in part:
            state.ledger.unseal(record_id, name)
            state.owners[name].discard(record_id)
        state.done.restored += len(nodes)
        state.progress(len(part))
