"""Pinned corrections: statements that stand above passages and memory for what they answer.

After the notes of EREN (Chen et al. 2023, arXiv:2305.12740): corrections are kept outside the model
as a list of statements, and of each question is decided whether one of them answers it: by the
reader, which finds the words that do, and by the classifier of forgotten facts, which tells whether
a question asks for a fact. What none answers is left as it was, so an edit holds for paraphrases
and leaves neighbours alone. Where two answer differently, the one that was pinned later counts.
Forgotten facts stand above: a correction that states one is neither taken nor used.
"""

import math
import re
import secrets
import threading
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from control.conflict import answerability
from control.conflict.reader import AnswerReader
from control.forgetting.chain import CORRECTED, ENTERED, WITHDRAWN
from control.forgetting.ledger import ID_BYTES, Event, Ledger
from control.forgetting.record import LONGEST_TEXT, shown
from control.forgetting.vector_cache import Vectors, unit
from control.prompts import with_title
from foundation import trace
from foundation.errors import InputError
from foundation.text import SURROGATES, normalise

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import NodeWithScore

    from control.forgetting.classifier import FactJudge
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
# Least probability that a statement answers, by the mean of both log-odds, less what it lacks of
# the question's names: 88 % of the 120 paraphrases reach it, and 8 % of the 120 questions beside
# them. By the reader alone 92 and 18 % reach 0.95.
ANSWERS = 0.5
SUREST = 1e-4  # of a probability from 0 and 1 that counts
# English questions without a mark begin so; both classes of words are closed. "When the shop is
# closed, ..." and "What we sell is ..." are statements.
ASKS = re.compile(
    r"(?:what|who|whom|whose|which|when|where|why|how)(?:['’]s)?"
    r"(?: (?:many|much|long|far|often|old|big|large|tall|high|deep|soon|late|early)\b.*?)?"
    r" (?:is|are|was|were|do|does|did|has|have|had|can|could|may|might|must|shall|should|will"
    r"|would)\b",
    re.IGNORECASE,
)


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


class Corrections:
    """The corrections in force. Every call sees all earlier changes of any process. Thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        embed_model: "BaseEmbedding",
        reader: AnswerReader,
        judge: "FactJudge",
        redactor: "Redactor",
    ) -> None:
        """Use the corrections of a ledger.

        Args:
            ledger: Holds them, and the forgotten facts that stand above them.
            embed_model: The packaged one, on which the least cosine was measured.
            reader: Finds what of a statement answers a question.
            judge: Tells whether a question asks for what a statement says.
            redactor: Tells what states a forgotten fact.
        """
        self._ledger = ledger
        self._embed_model = embed_model
        self._reader = reader
        self._judge = judge
        self._redactor = redactor
        self._version = 0
        self._corrections: dict[str, Correction] = {}
        self._vectors: dict[str, Vectors] = {}
        self._lock = threading.RLock()

    def all(self) -> list[Correction]:
        """Return the corrections in force, in the order in which they were pinned."""
        with self._lock:
            changes = self._ledger.entries(CORRECTED, WITHDRAWN, self._version)
            for correction_id in changes.removed:
                self._corrections.pop(correction_id, None)
                self._vectors.pop(correction_id, None)
            self._corrections |= {event.record_id: _correction(event) for event in changes.added}
            self._version = changes.version
            return list(self._corrections.values())

    def add(self, correction: Correction, replaces: Collection[str] = ()) -> Pinned:
        """Pin a correction.

        Args:
            correction: Without id and time.
            replaces: Ids of corrections that are withdrawn for it, in the same transaction.

        Raises:
            InputError: It is no statement, is too long or states a forgotten fact, or there is no
                such correction to replace.
        """
        wanted = checked(correction)
        while True:
            # Slow work comes before the transaction, and again if something was entered meanwhile.
            version = self._ledger.version()
            self._refuse_forgotten(wanted)
            in_force = {each.id: each for each in self.all()}
            if unknown := [each for each in replaces if each not in in_force]:
                raise InputError(self._unknown(unknown[0]))
            replaced = tuple(in_force[each] for each in dict.fromkeys(replaces))
            same = [
                each
                for each in in_force.values()
                if _identity(each) == _identity(wanted) and each not in replaced
            ]
            with self._ledger.appending() as chain:
                if chain.happened(ENTERED, since=version):
                    continue
                new = replace(wanted, id=secrets.token_hex(ID_BYTES), time=chain.time)
                kept = same[0] if same else new
                for old in replaced:
                    chain.append(WITHDRAWN, old.id, {"who": new.who, "replaced_by": kept.id})
                if not same:
                    fact = chain.cipher().keyed_hash(["correction", *_identity(new)])
                    chain.append(CORRECTED, new.id, _fields(new), fact)
            return Pinned(kept, not same, replaced)

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

    def nodes_for(self, question: str) -> "list[NodeWithScore]":
        """Return the corrections that answer a question as passages, the latest first.

        Their id is "correction:ID", their title the correction's source, their date the day on
        which it was pinned, their trust 1.
        """
        from llama_index.core.schema import NodeWithScore, TextNode

        return [
            NodeWithScore(
                node=TextNode(
                    id_=NODE_ID.format(id=correction.id),
                    text=correction.statement,
                    metadata={
                        "title": correction.source or TITLE,
                        "date": correction.time.partition("T")[0],
                        "trust": TRUST,
                    },
                ),
                score=answers,
            )
            for correction, answers in self._concerned(question)
        ]

    def forgotten(self, correction: Correction) -> tuple[str, ...]:
        """Return the ids of the forgotten facts that a correction states: it is not used."""
        found = self._redactor.redact_all(correction.texts)
        return tuple(dict.fromkeys(key for redacted in found for key in redacted.record_ids))

    def _concerned(self, question: str) -> list[tuple[Correction, float]]:
        """The corrections that answer, the latest first, each with how likely it does."""
        near = self._near(question)
        if not near:
            return []
        asked = [(question, with_title(TITLE, each.statement)) for each in near]
        readings = self._reader.read(asked)
        asks = self._judge.asks([(question, each.statement) for each in near])
        usable = []
        for correction, reading, likely in reversed(list(zip(near, readings, asks, strict=True))):
            answers = _both(reading.answers, likely)
            said = with_title(correction.scope, correction.statement)
            answers = answerability.probability(question, said, answers)
            if not reading.answer or answers < ANSWERS:
                continue
            forgotten = self.forgotten(correction)  # perhaps only after it was pinned
            for record_id in forgotten:
                trace.withheld(record_id, LAYER)
            if not forgotten:
                usable.append((correction, answers))
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

    def _refuse_forgotten(self, correction: Correction) -> None:
        forgotten = self.forgotten(correction)
        for record_id in forgotten:
            self._ledger.note("withheld", record_id, layer=LAYER)
        if forgotten:
            raise InputError(
                "the correction says something that is forgotten, which stands above corrections; "
                "leave it out, or have an administrator remove it from what is forgotten"
            )

    def _unknown(self, correction_id: str) -> str:
        gone = [
            event
            for event in self._ledger.events()
            if (event.kind, event.record_id) == (WITHDRAWN, correction_id)
        ]
        if gone:
            return f"correction {correction_id} was withdrawn already, at {gone[0].time}"
        return f"there is no correction {shown(correction_id)}; list them to see their ids"


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
            "the statement is empty; say what holds, as in: The refund window is 30 days"
        )
    if len(statement) > LONGEST:
        raise InputError(
            f"the statement has {len(statement):,} characters, the limit is {LONGEST:,}; give one "
            "statement at a time, and long text as a document"
        )
    for name, text in texts.items():
        if len(text) > LONGEST_TEXT:
            raise InputError(f"{name} has {len(text):,} characters, the limit is {LONGEST_TEXT:,}")
    if is_question(statement):
        raise InputError(
            f"{shown(statement)} is a question; say what holds, as in: The refund window is 30 days"
        )
    return replace(correction, **texts)


def is_question(text: str) -> bool:
    """Whether a text ends with a question mark of any script, or begins as English questions do."""
    last = text.rstrip("\"'”’»)]! ")[-1:]
    marked = last != "" and "QUESTION MARK" in unicodedata.name(last, "")
    return marked or ASKS.match(text) is not None


def _both(*likely: float) -> float:
    """The probability whose log-odds are the mean of those given."""
    inside = [min(max(each, SUREST), 1 - SUREST) for each in likely]
    return 1 / (1 + math.exp(-sum(math.log(each / (1 - each)) for each in inside) / len(inside)))


def _identity(correction: Correction) -> list[str]:
    """The values that are equal for two corrections that say the same."""
    return [text.casefold().strip(" .!") for text in (correction.statement, correction.scope)]


def _fields(correction: Correction) -> dict[str, str]:
    """The fields that are encrypted; id and time have columns of their own."""
    return {name: value for name, value in vars(correction).items() if name not in ("id", "time")}


def _correction(event: Event) -> Correction:
    fields: dict[str, Any] = event.details
    return Correction(**fields, time=event.time, id=event.record_id)
