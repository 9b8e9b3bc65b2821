"""Redaction: what states a forgotten fact is removed before a text enters a prompt.

Of a sentence that gives an answer in so many words the answer alone is removed, if what is left
does not give the fact away; otherwise the sentence is.
"""

import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from cachetools import LRUCache
from llama_index.core.schema import BaseNode, NodeWithScore

from control import prompts
from control.forgetting.classifier import in_passage, stated
from control.forgetting.encodings import readable
from control.forgetting.matcher import find_answers, name_parts
from control.forgetting.names import NameMatcher
from control.forgetting.normalize import plain, spaced
from control.forgetting.record import Record, forbidden, telling
from control.forgetting.statements import prepare_statement
from control.forgetting.text_redaction import PossibleStatement, Redacted, TextRedaction
from control.forgetting.verbatim import VerbatimIndex
from foundation import trace

if TYPE_CHECKING:
    from control.forgetting.classifier import FactJudge
    from control.forgetting.ledger import Changes

TITLE_KEY = "title"  # of a passage's metadata
HEADING_KEY = "heading"  # the same; its words begin the text, too, and are redacted there
YEAR = re.compile(r"\d{4}")
LAYER = "retrieval"
MOST_TEXTS = 1_024  # cached results
# Likelihood from which a sentence states a fact: where it gives the answer, which alone is removed;
# where it does not; and where the answer was taken out of it. In passages on several subjects 93
# and 75 % of the sentences that state a fact held out of the training reach the first two, and 8
# and 2 % of others.
GIVING, STATING, LEFT = 0.2, 0.8, 0.5


class Records(Protocol):
    """What gives the records, such as a `Ledger`."""

    def changes(self, version: int) -> "Changes":
        """What has changed since; as `Ledger.changes`."""


class Redactor:
    """Removes the sentences that state a forgotten fact from texts.

    Every call applies what any process has recorded in the ledger before. A text that names
    no forgotten subject and gives no answer is returned unchanged and not read. Thread-safe.

    A text of which only the wording is kept back stays in the prompt, as its content may be told:
    the guard keeps the wording out of the answer, and the door out of what else is shown.

    Attributes:
        wording: The texts of which only the wording is kept back.
    """

    def __init__(self, ledger: Records, judge: "FactJudge") -> None:
        """Redact by the records of a ledger; ``judge`` decides whether a sentence states one."""
        self.wording = VerbatimIndex()
        self._ledger = ledger
        self._judge = judge
        self._version = 0
        self._records: dict[str, Record] = {}
        self._names = NameMatcher()
        self._forbidden = NameMatcher()  # by record, what must not be shown
        self._results: LRUCache[tuple[str, str], Redacted] = LRUCache(MOST_TEXTS)
        self._withheld: LRUCache[str, bool] = LRUCache(MOST_TEXTS)
        self._lock = threading.RLock()

    def refresh(self) -> int:
        """Apply the ledger's changes, and return the number of records."""
        with self._lock:
            changes = self._ledger.changes(self._version)
            if changes.version == self._version:
                return len(self._records)
            if changes.added or changes.removed:
                self._results.clear()
                self._withheld.clear()
            for record_id in changes.removed:
                self._records.pop(record_id, None)
                self._names.remove(record_id)
                self._forbidden.remove(record_id)
                self.wording.remove(record_id)
            for record in changes.added:
                self._records[record.id] = record
                if record.scope == "verbatim":
                    self.wording.add(record)
                    continue
                self._names.add(record.id, record.names)
                self._forbidden.add(record.id, list(filter(telling, forbidden(record))))
            self._version = changes.version
            return len(self._records)

    def redact(self, text: str, title: str = "", refreshed: bool = False) -> Redacted:
        """Remove the sentences that state a forgotten fact from a text; see `redact_all`."""
        return self.redact_all([(text, title)], refreshed)[0]

    def redact_all(
        self, texts: Sequence[tuple[str, str]], refreshed: bool = False
    ) -> list[Redacted]:
        """Redact several texts, each with its title; all that has to be read is read at once.

        ``refreshed`` says that the ledger's changes were applied for this response already.
        """
        if not (len(self._records) if refreshed else self.refresh()):
            return [Redacted(text, (), title) for text, title in texts]
        with self._lock:
            found = [self._results.get(key) or self._match_words(*key) for key in texts]
            self._decide([one for one in found if isinstance(one, TextRedaction)])
            results = [one.result() if isinstance(one, TextRedaction) else one for one in found]
            self._results.update(zip(texts, results, strict=True))
            return results

    def forbidden_in(self, text: str) -> list[tuple[int, int]]:
        """Where a text holds the answer of any record, whatever it is about; encoded ones too.

        The subject's names count for a record that suppresses all about it. An answer without a
        letter, such as a year, tells nothing by itself and does not count; nor does a text but for
        its wording. Applies no changes of the ledger; for that see `refresh`.

        Returns:
            (start, end) in characters of ``text``; all of it for what is encoded in it.
        """
        with self._lock:
            found = self._forbidden.find(text, typos=False).values()
            spans = [span for spans in found for span in spans]
            spans += [(start, end) for start, end, _ in self.wording.find(text)]
            if any(self._forbidden.find(other, typos=False) for other in readable(text)[1:]):
                spans.append((0, len(text)))
        return spans

    def nodes(self, nodes: Sequence[NodeWithScore]) -> list[NodeWithScore]:
        """Redact passages; a passage that becomes empty is dropped.

        What is withheld is recorded in the trace of the current question.
        """
        texts = [(node.node.get_content(), title_of(node.node)) for node in nodes]
        kept: list[NodeWithScore] = []
        for node, result in zip(nodes, self.redact_all(texts), strict=True):
            for record_id in result.record_ids:
                trace.withheld(record_id, LAYER)
            fresh = self.redacted_node(node.node, result) if result.record_ids else node.node
            if result.text.strip():
                kept.append(NodeWithScore(node=self._named_as_shown(fresh), score=node.score))
        return kept

    def _named_as_shown(self, node: BaseNode) -> BaseNode:
        """A passage without what may not be shown of its origin; the model might repeat that."""
        metadata = node.metadata
        hidden = [
            key for key in prompts.ORIGIN_KEYS if self.withholds(str(metadata.get(key) or ""))
        ]
        if not hidden:
            return node
        left = {key: value for key, value in metadata.items() if key not in hidden}
        return node.model_copy(update={"metadata": left})

    def withholds(self, name: str) -> bool:
        """Whether a name, such as a title, holds an answer of any record, or states a fact.

        Applies no changes of the ledger. By this a name is shown, and is put into a prompt.
        """
        if not (name and self._records):
            return False
        with self._lock:
            if name not in self._withheld:
                self._withheld[name] = any(
                    self.forbidden_in(form) or self.redact(form, refreshed=True).record_ids
                    for form in dict.fromkeys([name, spaced(name)[0]])
                )
            return self._withheld[name]

    def redacted_node(self, node: BaseNode, redacted: Redacted) -> BaseNode:
        """A passage with its redacted text and title.

        Where the title states a fact, the heading, with which it was read, goes too; page and date
        stay unless they give the answer.
        """
        metadata = dict(node.metadata)
        if redacted.title != title_of(node):
            for key in prompts.ORIGIN_KEYS:
                named = key in (TITLE_KEY, HEADING_KEY)
                if named or self._gives(str(metadata.get(key) or ""), redacted.record_ids):
                    metadata.pop(key, None)
            metadata[TITLE_KEY] = redacted.title
        fresh = node.model_copy(update={"metadata": metadata})
        fresh.set_content(redacted.text)
        fresh.embedding = None
        return fresh

    def named(self, name: str, record_ids: Sequence[str] = ()) -> set[str]:
        """Ids of the records whose answer, or subject where all about it goes, a name holds.

        Applies no changes of the ledger. Of the records in ``record_ids``, which the text beside
        the name states, a part of the answer counts too.
        """
        with self._lock:
            found = {
                record_id
                for form in dict.fromkeys([name, spaced(name)[0]])
                for record_id in self._forbidden.find(form, typos=False)
            }
        return found | {each for each in record_ids if self._gives(name, [each])}

    def _gives(self, value: str, record_ids: Sequence[str]) -> bool:
        """Whether a page or a date gives an answer of a record, be it the year alone."""
        years = YEAR.findall(value)
        with self._lock:
            forbidden = self._forbidden.find(value, typos=False)
            records = [self._records[key] for key in record_ids if key in self._records]
        return any(
            record.id in forbidden
            or find_answers(value, record)
            or any(year in span for year in years for span in record.spans)
            for record in records
        )

    def _match_words(self, text: str, title: str) -> TextRedaction | Redacted:
        """The matches of records' words in a text; the text unchanged if it concerns none."""
        about = {**self._names.find(title), **self._names.find(spaced(title)[0])} if title else {}
        names = self._names.find(text)
        hidden = [self._names.find(other) for other in readable(text)[1:]]
        ids = {*about, *names}.union(*hidden, self._answered(text, title))
        if not ids:
            return Redacted(text, (), title)
        redaction = TextRedaction(text, title, about, bool(hidden))
        for record_id in sorted(ids):
            statement = prepare_statement(self._records[record_id])
            redaction.search(statement, names.get(record_id, []))
        return redaction

    def _answered(self, text: str, title: str) -> list[str]:
        """Ids of the records of which the text gives an answer and a part of the subject's name.

        A letter about Jane Roe may say "Jane", a chronicle of the Quillmores "Thaddeus".
        """
        words = set(plain(f"{title} {text}").split())
        given = (self._records[key] for key in self._forbidden.find(text, typos=False))
        return [record.id for record in given if record.spans and words & name_parts(record)]

    def _decide(self, redactions: Sequence[TextRedaction]) -> None:
        """Decide which sentences state a fact, and where it is enough to remove the answer."""
        possible = [(each, one) for each in redactions for one in each.possible]
        likely = self._states([(text, one, text.in_plain_words(one)) for text, one in possible])
        left = []
        for (text, one), likelihood in zip(possible, likely, strict=True):
            if likelihood >= (GIVING if one.answer else STATING):
                if rest := text.without_answer(one):
                    left.append((text, one, rest))
                else:
                    text.stated[one.place].add(one.record.id)
        for (text, one, _), likelihood in zip(left, self._states(left), strict=True):
            if likelihood < LEFT:
                text.mask(one)
            else:
                text.stated[one.place].add(one.record.id)

    def _states(
        self, sentences: Sequence[tuple[TextRedaction, PossibleStatement, str]]
    ) -> list[float]:
        """How likely each sentence states the fact that it possibly does."""
        pairs = []
        for text, one, sentence in sentences:
            # A title that states the fact itself would have every sentence state it.
            title = "" if one.record.id in text.stated_by_title else text.title
            pairs.append((in_passage(sentence, one.before, title), stated(one.record)))
        return self._judge.states(pairs) if pairs else []


def title_of(node: BaseNode) -> str:
    """What a passage is from, as the prompt says it: the title, and what else is known."""
    return prompts.origin(node.metadata)
