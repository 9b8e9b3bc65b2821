"""Pinned corrections: statements that stand above passages and memory for what they answer.

After the notes of EREN (Chen et al. 2023, arXiv:2305.12740): corrections are kept outside the model
as a list of statements, and a reader decides of each question whether one of them answers it. What
none answers is left as it was, so an edit holds for paraphrases and leaves neighbours alone.
Forgotten facts stand above: a correction that states one is neither taken nor used.
"""

import re
import secrets
import threading
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import numpy as np

from control.conflict import values
from control.conflict.reader import AnswerReader
from control.forgetting.gate import Vectors, unit
from control.forgetting.ledger import CORRECTED, ENTERED, ID_BYTES, WITHDRAWN, Event, Ledger
from control.forgetting.record import LONGEST_TEXT, SURROGATES, shown
from foundation import trace
from foundation.errors import InputError
from foundation.text import normalise

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import NodeWithScore

    from control.forgetting.redaction import Redactor

LONGEST = 1_000  # characters of a statement; longer ones are documents
NODE_ID = "correction:{id}"
TITLE = "Correction"
TRUST = 1.0
LAYER = "correction"  # of the audit: what was kept back here
# Least cosine of question and statement for the reader to be asked. Of 120 paraphrases in
# tests/control/corrections.toml all reach 0.30 with their statement, and 2 % of the pairs of a
# question and another statement reach this.
NEAR = 0.25
# Least probability of the reader that a statement answers: of the 120 paraphrases 92 % reach it,
# and 40 % of the 120 questions beside them.
ANSWERS = 0.95
# English questions without a mark begin so; both classes of words are closed. "When the shop is
# closed, ..." and "What we sell is ..." are statements.
ASKS = re.compile(
    r"(?:what|who|whom|whose|which|when|where|why|how)(?:['’]s)?"
    r"(?: (?:many|much|long|far|often|old|big|large|tall|high|deep|soon|late|early)\b.*?)?"
    r" (?:is|are|was|were|do|does|did|has|have|had|can|could|may|might|must|shall|should|will"
    r"|would)\b",
    re.IGNORECASE,
)
WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Correction:
    """A pinned correction.

    Attributes:
        statement: What holds, in one sentence or a few.
        source: Where that is from, such as "board meeting, 3 May 2025".
        who: Who pinned it.
        scope: The subject that it is about; shown only.
        time: When, ISO 8601 in UTC; set by the ledger.
        id: Set by the ledger.
    """

    statement: str
    source: str = ""
    who: str = ""
    scope: str = ""
    time: str = ""
    id: str = ""

    @property
    def texts(self) -> tuple[tuple[str, str], ...]:
        """All that it says, each text with what it is about."""
        return ((self.statement, self.scope), (self.source, ""), (self.scope, ""), (self.who, ""))


@dataclass(frozen=True)
class Pinned:
    """What came of pinning a correction.

    Attributes:
        correction: As the ledger holds it.
        new: Whether it was recorded now; the same one may have been there already.
        replaced: The corrections that were withdrawn for it.
    """

    correction: Correction
    new: bool = True
    replaced: tuple[Correction, ...] = ()


@dataclass(frozen=True)
class Concerned:
    """A correction that answers a question, and how likely it does, in [0, 1]."""

    correction: Correction
    answers: float


class Corrections:
    """The corrections in force. Every call sees all earlier changes of any process. Thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        embed_model: "BaseEmbedding",
        reader: AnswerReader,
        redactor: "Redactor | None" = None,
    ) -> None:
        """Use the corrections of a ledger.

        Args:
            ledger: Holds them, and the forgotten facts that stand above them.
            embed_model: The packaged one, on which the least cosine was measured.
            reader: Decides which statements answer a question.
            redactor: Tells what states a forgotten fact; by default a new one of the ledger.
        """
        if redactor is None:
            from control.forgetting.redaction import Redactor

            redactor = Redactor(ledger, embed_model)
        self._ledger = ledger
        self._embed_model = embed_model
        self._reader = reader
        self._redactor = redactor
        self._version = 0
        self._corrections: dict[str, Correction] = {}
        self._vectors: dict[str, Vectors] = {}
        self._lock = threading.RLock()

    def all(self) -> list[Correction]:
        """Return the corrections in force, in the order in which they were pinned."""
        with self._lock:
            changes = self._ledger.entries(CORRECTED, WITHDRAWN, self._version)
            for correction_id in changes.ended:
                self._corrections.pop(correction_id, None)
                self._vectors.pop(correction_id, None)
            self._corrections |= {event.record_id: _correction(event) for event in changes.entered}
            self._version = changes.version
            return list(self._corrections.values())

    def add(self, correction: Correction, replaces: bool = False) -> Pinned:
        """Pin a correction.

        Args:
            correction: Without id and time.
            replaces: Whether corrections that it contradicts are withdrawn, in the same
                transaction.

        Raises:
            InputError: It is no statement, is too long, states a forgotten fact, or contradicts a
                correction in force.
        """
        wanted = checked(correction)
        while True:
            # Slow work comes before the transaction, and again if something was entered meanwhile.
            version = self._ledger.version()
            self._refuse_forgotten(wanted)
            in_force = self.all()
            same = [each for each in in_force if _identity(each) == _identity(wanted)]
            if same:
                return Pinned(same[0], new=False)
            contradicted = self.contradicted(wanted.statement)
            if contradicted and not replaces:
                first = contradicted[0]
                raise InputError(
                    f"{shown(wanted.statement)} contradicts correction {first.id}, "
                    f"{shown(first.statement)}; withdraw that one first: fulcrum correct "
                    f"--withdraw {first.id}, or replace it: --replace"
                )
            with self._ledger.appending() as chain:
                if chain.happened(ENTERED, since=version):
                    continue
                new = replace(wanted, id=secrets.token_hex(ID_BYTES), time=chain.time)
                for old in contradicted:
                    chain.append(WITHDRAWN, old.id, {"who": new.who, "replaced_by": new.id})
                fact = chain.cipher().keyed_hash(["correction", *_identity(new)])
                chain.append(CORRECTED, new.id, _fields(new), fact)
            return Pinned(new, replaced=tuple(contradicted))

    def withdraw(self, correction_id: str, who: str = "", reason: str = "") -> Correction:
        """Withdraw a correction, so that it is used no more; the audit keeps both events.

        Raises:
            InputError: There is no such correction, or it was withdrawn before.
        """
        while True:
            version = self._ledger.version()
            found = {each.id: each for each in self.all()}.get(correction_id)
            if found is None:
                raise InputError(self._unknown(correction_id))
            with self._ledger.appending() as chain:
                if chain.happened(ENTERED, since=version):
                    continue
                chain.append(WITHDRAWN, correction_id, {"who": who, "reason": reason})
            return found

    def for_question(self, question: str) -> list[Correction]:
        """Return the corrections that answer a question, the likeliest first."""
        return [each.correction for each in self._concerned(question)]

    def nodes_for(self, question: str) -> "list[NodeWithScore]":
        """Return the corrections that answer a question as passages, the likeliest first.

        Their id is "correction:ID", their title the correction's source, their date the day on
        which it was pinned, their trust 1.
        """
        from llama_index.core.schema import NodeWithScore, TextNode

        return [
            NodeWithScore(
                node=TextNode(
                    id_=NODE_ID.format(id=each.correction.id),
                    text=each.correction.statement,
                    metadata={
                        "title": each.correction.source or TITLE,
                        "date": each.correction.time.partition("T")[0],
                        "trust": TRUST,
                    },
                ),
                score=each.answers,
            )
            for each in self._concerned(question)
        ]

    def contradicted(self, statement: str) -> list[Correction]:
        """Return the corrections in force that say another value for what a statement says."""
        near = self._near(statement)
        return [each for each in near if self._contradict(each.statement, statement)]

    def forgotten(self, correction: Correction) -> tuple[str, ...]:
        """Return the ids of the forgotten facts that a correction states: it is not used."""
        found = self._redactor.redact_all(correction.texts)
        return tuple(dict.fromkeys(key for redacted in found for key in redacted.record_ids))

    def _concerned(self, question: str) -> list[Concerned]:
        near = self._near(question)
        readings = self._reader.read([(question, each.statement) for each in near]) if near else []
        found = [
            Concerned(each, reading.answers)
            for each, reading in zip(near, readings, strict=True)
            if reading.answer and reading.answers >= ANSWERS
        ]
        usable = []
        for each in sorted(found, key=lambda each: -each.answers):
            forgotten = self.forgotten(each.correction)  # perhaps only after it was pinned
            for record_id in forgotten:
                trace.withheld(record_id, LAYER)
            if not forgotten:
                usable.append(each)
        return usable

    def _near(self, text: str) -> list[Correction]:
        """The corrections whose statement is similar to a text."""
        with self._lock:
            in_force = self.all()
            if not in_force:
                return []
            new = [each for each in in_force if each.id not in self._vectors]
            if new:
                statements = [each.statement for each in new]
                embedded = unit(self._embed_model.get_text_embedding_batch(statements))
                self._vectors |= zip((each.id for each in new), embedded, strict=True)
            table = np.stack([self._vectors[each.id] for each in in_force])
        [vector] = unit([self._embed_model.get_query_embedding(text)])
        cosines = table @ vector
        return [each for each, cosine in zip(in_force, cosines, strict=True) if cosine >= NEAR]

    def _contradict(self, old: str, new: str) -> bool:
        """Whether two statements say different values of the same.

        Each value of one is asked for by that statement with "what" in its place. The other one
        contradicts it if it answers with another value and, asked in the same way for that value,
        is answered with the first one: a statement about something else fails one of the two.
        """
        return self._other_values(old, new) or self._other_values(new, old)

    def _other_values(self, one: str, other: str) -> bool:
        asked = list(_clozes(one, other))
        if not asked:
            return False
        read = self._reader.read([(question, other) for question, _ in asked])
        back = [
            (value, _cloze(other, found.answer))
            for (question, value), found in zip(asked, read, strict=True)
            if found.answer
            and found.answers >= ANSWERS
            and values.compare(question, found.answer, value) == "contradictory"
        ]
        if not back:
            return False
        checks = self._reader.read([(question, one) for _, question in back])
        return any(
            check.answer
            and check.answers >= ANSWERS
            and values.compare(question, check.answer, value) != "contradictory"
            for (value, question), check in zip(back, checks, strict=True)
        )

    def _refuse_forgotten(self, correction: Correction) -> None:
        forgotten = self.forgotten(correction)
        for record_id in forgotten:
            self._ledger.note("withheld", record_id, layer=LAYER)
        if forgotten:
            raise InputError(
                "the correction says something that is forgotten, which stands above corrections; "
                "leave it out, or have an administrator let it be said again: fulcrum forget remove"
            )

    def _unknown(self, correction_id: str) -> str:
        gone = [
            event
            for event in self._ledger.events()
            if (event.kind, event.record_id) == (WITHDRAWN, correction_id)
        ]
        if gone:
            return f"correction {correction_id} was withdrawn already, at {gone[0].time}"
        return (
            f"there is no correction {shown(correction_id)}; fulcrum correct --list shows their ids"
        )


def checked(correction: Correction) -> Correction:
    """The correction with spaces made single, if it can be pinned.

    Raises:
        InputError: The statement is empty, too long or a question, or another text is too long.
    """
    texts = {name: " ".join(text.split()) for name, text in _fields(correction).items()}
    statement = texts["statement"]
    if any(SURROGATES.search(text) for text in texts.values()):
        raise InputError("the correction holds bytes that are no text; give it in UTF-8")
    if not normalise(statement):
        raise InputError(
            "the statement is empty; say what holds, as in: fulcrum correct "
            '"The refund window is 30 days"'
        )
    if len(statement) > LONGEST:
        raise InputError(
            f"the statement has {len(statement):,} characters, the limit is {LONGEST:,}; give one "
            "statement at a time, and long text as a document: fulcrum ingest FILE"
        )
    for name, text in texts.items():
        if len(text) > LONGEST_TEXT:
            raise InputError(f"{name} has {len(text):,} characters, the limit is {LONGEST_TEXT:,}")
    if is_question(statement):
        raise InputError(
            f"{shown(statement)} is a question; say what holds, as in: fulcrum correct "
            '"The refund window is 30 days"'
        )
    return replace(correction, **texts)


def is_question(text: str) -> bool:
    """Whether a text ends with a question mark of any script, or begins as English questions do."""
    last = text.rstrip("\"'”’»)] ")[-1:]
    marked = last != "" and "QUESTION MARK" in unicodedata.name(last, "")
    return marked or ASKS.match(text) is not None


def _clozes(one: str, other: str) -> Iterator[tuple[str, str]]:
    """Questions for the values of a statement, each with its value.

    A value is a number, or a run of words that the other statement lacks.
    """
    words = list(WORD.finditer(one))
    here = [normalise(word.group()) for word in words]
    there = [normalise(word) for word in WORD.findall(other)]
    spans = [
        (first, last)
        for kind, first, last, _, _ in SequenceMatcher(None, here, there, False).get_opcodes()
        if kind in ("replace", "delete")
    ]
    spans += [
        (place, place + 1)
        for place, word in enumerate(here)
        if any(map(str.isdigit, word)) and word not in there
    ]
    for first, last in dict.fromkeys(spans):
        if last - first < len(words):  # else nothing is left to ask about
            value = one[words[first].start() : words[last - 1].end()].strip(".,;:!\"“”'’")
            yield _cloze(one, value), value


def _cloze(statement: str, value: str) -> str:
    """A statement that asks for one of its values."""
    return f"{statement.replace(value, 'what', 1).rstrip('.! ')}?"


def _identity(correction: Correction) -> list[str]:
    """The values that are equal for two corrections that say the same."""
    return [text.casefold().strip(" .!") for text in (correction.statement, correction.scope)]


def _fields(correction: Correction) -> dict[str, str]:
    """The fields that are encrypted; id and time have columns of their own."""
    return {name: value for name, value in vars(correction).items() if name not in ("id", "time")}


def _correction(event: Event) -> Correction:
    fields: dict[str, Any] = event.details
    return Correction(**fields, time=event.time, id=event.record_id)
