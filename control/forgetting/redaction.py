"""Redaction: sentences that state a forgotten fact are removed before a text enters a prompt."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import BaseNode, NodeWithScore

from control import prompts
from control.forgetting.encodings import readable
from control.forgetting.gate import Vectors, unit
from control.forgetting.matcher import find_answers, name_parts
from control.forgetting.names import NameMatcher
from control.forgetting.normalize import find, plain
from control.forgetting.questions import asked_forms
from control.forgetting.record import Record, forbidden, telling
from control.forgetting.statements import (
    KeywordPrefilter,
    Statement,
    compared,
    keyword_prefilter,
    prepare_statement,
)
from control.forgetting.text_redaction import Redacted, TextRedaction
from control.forgetting.vector_cache import EncryptedVectorCache
from foundation import trace

if TYPE_CHECKING:
    from control.conflict.reader import AnswerReader
    from control.forgetting.ledger import Ledger

Key = TypeVar("Key")
Value = TypeVar("Value")

TITLE_KEY = "title"  # of a passage's metadata
HEADING_KEY = "heading"  # the same; its words begin the text, too, and are redacted there
LAYER = "retrieval"
MOST_VECTORS = 4_096  # cached, of sentences and forms, 6 MB
MOST_TEXTS = 1_024  # cached results
# Sentences that give an answer and not the whole name of the subject are put to the reader: from
# this probability it says that they answer the record's question. Neither is measured. Pairs beyond
# the most are not read, which matters where many records share an answer.
READ_AS_STATED = 0.7
READ_FORMS, MOST_READ = 2, 64


class Redactor:
    """Removes the sentences that state a forgotten fact from texts.

    Every call applies what any process has recorded in the ledger before. A text that names
    no forgotten subject is returned unchanged, without any embedding. Thread-safe.
    """

    def __init__(
        self,
        ledger: "Ledger",
        embed_model: BaseEmbedding,
        vector_cache: EncryptedVectorCache | None = None,
        reader: "AnswerReader | None" = None,
    ) -> None:
        """Redact by the records of a ledger.

        Args:
            ledger: The records.
            embed_model: Compares sentences that state a fact in other words.
            vector_cache: Stores the records' vectors between processes.
            reader: Decides on sentences that give an answer beside a part of the subject's name.
        """
        self.reader = reader
        self._ledger = ledger
        self._embed_model = embed_model
        self._vector_cache = vector_cache
        self._version = 0
        self._records: dict[str, Record] = {}
        self._names = NameMatcher()
        self._forbidden = NameMatcher()  # by record, what must not be shown
        self._statements: dict[str, Statement] = {}
        self._prefilters: dict[str, KeywordPrefilter] = {}
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()
        self._results: OrderedDict[tuple[str, str], Redacted] = OrderedDict()
        self._lock = threading.RLock()

    def refresh(self) -> int:
        """Apply the ledger's changes, and return the number of records."""
        with self._lock:
            changes = self._ledger.changes(self._version)
            if changes.version == self._version:
                return len(self._records)
            if changes.added or changes.removed:
                self._results.clear()
            for record_id in changes.removed:
                self._records.pop(record_id, None)
                self._statements.pop(record_id, None)
                self._prefilters.pop(record_id, None)
                self._names.remove(record_id)
                self._forbidden.remove(record_id)
            for record in changes.added:
                self._records[record.id] = record
                self._statements.pop(record.id, None)
                self._prefilters.pop(record.id, None)
                self._names.add(record.id, record.names)
                self._forbidden.add(record.id, list(filter(telling, forbidden(record))))
            self._version = changes.version
            return len(self._records)

    def redact(self, text: str, title: str = "") -> Redacted:
        """Remove the sentences that state a forgotten fact from a text.

        Args:
            text: Any text.
            title: What it is about.
        """
        return self.redact_all([(text, title)])[0]

    def redact_all(
        self, texts: Sequence[tuple[str, str]], refreshed: bool = False
    ) -> list[Redacted]:
        """Redact several texts, each with its title, with one call of the embedding model.

        Args:
            texts: Texts, each with its title.
            refreshed: Whether the ledger's changes were applied for this response already.
        """
        if not (len(self._records) if refreshed else self.refresh()):
            return [Redacted(text, (), title) for text, title in texts]
        with self._lock:
            found: list[Redacted | TextRedaction] = []
            for key in texts:
                done = self._results.get(key)
                found.append(done if done is not None else self._match_words(*key))
            undecided = [part for part in found if isinstance(part, TextRedaction)]
            self._compare_embeddings(undecided)
            self._read_sentences(undecided)
            results: list[Redacted] = []
            for key, part in zip(texts, found, strict=True):
                result = part.result() if isinstance(part, TextRedaction) else part
                _cache(self._results, key, result, MOST_TEXTS)
                results.append(result)
            return results

    def forbidden_in(self, text: str) -> list[tuple[int, int]]:
        """Where a text holds the answer of any record, whatever it is about; encoded ones too.

        The subject's names count for a record that suppresses all about it. An answer without a
        letter, such as a year, tells nothing by itself and does not count. Applies no changes of
        the ledger; for that see `refresh`.

        Args:
            text: A short text, such as a title.

        Returns:
            (start, end) in characters of ``text``; all of it for what is encoded in it.
        """
        with self._lock:
            found = self._forbidden.find(text, typos=False).values()
            spans = [span for spans in found for span in spans]
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
            fresh = with_redacted_text(node.node, result) if result.record_ids else node.node
            if result.text.strip():
                kept.append(NodeWithScore(node=fresh, score=node.score))
        return kept

    def states(self, text: str, record: Record) -> bool:
        """Whether a text states a record's fact: literally, encoded, or paraphrased.

        Args:
            text: Any text; its subject need not be named in it.
            record: An active record.
        """
        with self._lock:
            redaction = TextRedaction(text, about=frozenset([record.id]))
            names = [(start, end) for start, end, _ in find(text, record.names)]
            redaction.search(self._statement(record), names)
            self._compare_embeddings([redaction])
        return any(redaction.stated)

    def _match_words(self, text: str, title: str) -> TextRedaction | Redacted:
        """The matches of records' words in a text; the text unchanged if it names no subject."""
        about = self._names.find(title) if title else {}
        names = self._names.find(text)
        hidden = [self._names.find(other) for other in readable(text)[1:]]
        ids = {*about, *names}.union(*hidden)
        answered = self._answered(text, title)
        if not ids and not answered:
            return Redacted(text, (), title)
        redaction = TextRedaction(text, title, frozenset(about), bool(hidden))
        redaction.answered += answered
        for record_id in sorted(ids):
            record = self._records[record_id]
            if record_id not in self._prefilters:
                self._prefilters[record_id] = keyword_prefilter(record)
            at = names.get(record_id, [])
            redaction.search(self._statement(record), at, self._prefilters[record_id])
        return redaction

    def _answered(self, text: str, title: str) -> list[Record]:
        """The records of which the text gives an answer and a part of the subject's name.

        A letter about Jane Roe may say "Jane", a chronicle of the Quillmores "Thaddeus".
        """
        if self.reader is None:
            return []
        given = [self._records[key] for key in self._forbidden.find(text, typos=False)]
        words = set(plain(f"{title} {text}").split())
        return [record for record in given if record.spans and words & name_parts(record)]

    def _read_sentences(self, redactions: Sequence[TextRedaction]) -> None:
        """Decide by the reader on sentences that give an answer beside a part of the name."""
        asked = [
            (redaction, place, record, form)
            for redaction in redactions
            for record in redaction.answered
            for place in redaction.giving(record)
            for form in asked_forms(record)[:READ_FORMS]
        ][:MOST_READ]
        if self.reader is None or not asked:
            return
        readings = self.reader.read(
            [
                (form, prompts.with_title(redaction.title, redaction.sentences[place]))
                for redaction, place, _, form in asked
            ]
        )
        for (redaction, place, record, _), reading in zip(asked, readings, strict=True):
            if reading.answers >= READ_AS_STATED and find_answers(reading.answer, record):
                redaction.stated[place].add(record.id)

    def _compare_embeddings(self, redactions: Sequence[TextRedaction]) -> None:
        """Decide on possible paraphrases of a fact, with one call of the embedding model."""
        wanted, forms = dict[str, None](), dict[str, None]()
        for redaction in redactions:
            for place, statement in redaction.undecided:
                if not redaction.stated[place]:
                    wanted[compared(redaction.sentences[place], statement.record)] = None
                    forms |= dict.fromkeys(statement.forms())
        if not wanted:
            return
        vectors = self._embedded(list(wanted), list(forms))
        for redaction in redactions:
            for place, statement in redaction.undecided:
                if redaction.stated[place]:
                    continue
                vector = vectors[compared(redaction.sentences[place], statement.record)]
                if statement.paraphrased_by(redaction.sentences[place], vector, vectors):
                    redaction.stated[place].add(statement.record.id)

    def _embedded(self, sentences: Sequence[str], forms: Sequence[str]) -> dict[str, Vectors]:
        """The vectors of sentences and records' forms; only those of forms are cached on disk."""
        texts = dict.fromkeys([*sentences, *forms])
        found = {text: self._vectors[text] for text in texts if text in self._vectors}
        new = [form for form in forms if form not in found]
        if self._vector_cache is not None and new:
            found |= self._vector_cache.get(new)
        missing = sorted((text for text in texts if text not in found), key=len)
        if missing:
            found |= zip(
                missing, unit(self._embed_model.get_text_embedding_batch(missing)), strict=True
            )
            if self._vector_cache is not None and (
                computed := [form for form in new if form in missing]
            ):
                self._vector_cache.put(computed, [found[form] for form in computed])
        for text, vector in found.items():
            _cache(self._vectors, text, vector, MOST_VECTORS)
        return found

    def _statement(self, record: Record) -> Statement:
        known = self._statements.get(record.id)
        if known is None or known.record is not record:
            known = self._statements[record.id] = prepare_statement(record)
        return known


def with_redacted_text(node: BaseNode, redacted: Redacted) -> BaseNode:
    """The passage with its redacted text and title.

    Where the title changes, the heading, page and date that it was redacted with go.
    """
    metadata = dict(node.metadata)
    if redacted.title != title_of(node):
        kept = {key: value for key, value in metadata.items() if key not in prompts.ORIGIN_KEYS}
        metadata = {**kept, TITLE_KEY: redacted.title}
    fresh = node.model_copy(update={"metadata": metadata})
    fresh.set_content(redacted.text)
    fresh.embedding = None
    return fresh


def title_of(node: BaseNode) -> str:
    """What a passage is from, as the prompt says it: the title, and what else is known."""
    return prompts.origin(node.metadata)


def _cache(cache: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > most:
        cache.popitem(last=False)
