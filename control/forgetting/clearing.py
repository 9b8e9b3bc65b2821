"""The one door through which texts leave: it clears them of forgotten facts.

What is shown to anybody is typed `Cleared`, and only this module makes such texts, so mypy refuses
one that has not passed. Texts are of three kinds:

- A text of sentences loses those that state a forgotten fact, and those that hold an answer which
  the question at hand must not be told.
- A name (a title, an id, a file name, a date) stands beside what it names, so its subject is not in
  it. It is withheld where it holds an answer of any record, whatever that is about.
- A line that the program writes, such as an error, quotes both. What is forbidden in it is cut out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NewType, cast

from control.conflict.sources import CORRECTION, MEMORY, Citation, SourceClaim
from control.decoding.trace import Choice, TokenTrace
from control.forgetting import normalize
from control.forgetting.matcher import find_answers
from control.forgetting.parts import joined, parts
from control.forgetting.record import forbidden
from control.forgetting.verbatim import NEAR, cut

if TYPE_CHECKING:
    from control.answer import ClearedVerdict  # imports torch
    from control.conflict.verdict import Verdict
    from control.forgetting.cipher import LedgerCipher
    from control.forgetting.guard import WatchedFacts
    from control.forgetting.ledger import Ledger
    from control.forgetting.record import Record
    from control.forgetting.redaction import Redactor

Cleared = NewType("Cleared", str)
"""A text without forgotten facts."""
ClearedToken = NewType("ClearedToken", TokenTrace)
ClearedClaim = NewType("ClearedClaim", SourceClaim)
ClearedCitation = NewType("ClearedCitation", Citation)

SPELLED = 4  # characters for each one of an answer, in which it may be spelled: "S - a - n"
ID_DIGITS = 16  # of an id in place of a withheld one; as of those made of a document's content
HIDDEN_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")


NOTHING = Cleared("")


def own(text: str) -> Cleared:
    """A text that the program's authors wrote, with numbers and constants at most put into it."""
    return Cleared(text)


def echoed(text: str) -> Cleared:
    """What the reader of the response has written, given back where its form demands that."""
    return Cleared(text)


@dataclass(frozen=True)
class Door:
    """Clears what leaves the system by the records of one ledger.

    Attributes:
        redactor: Knows what is forgotten; ``None`` where nothing is.
        ledger: Its key hides the ids that are withheld.
    """

    redactor: "Redactor | None" = None
    ledger: "Ledger | None" = None

    def open(self, watch: "WatchedFacts | None" = None, said: str = "") -> "Clearance":
        """What clears the texts of one response, by the records as they are now.

        Args:
            watch: The facts that the answer must not state.
            said: Question and answer, which may name further subjects.

        Raises:
            IndexStateError: The ledger cannot be read.
        """
        redactor = self.redactor if self.redactor is not None and self.redactor.refresh() else None
        active = [*watch.active_records(said), *watch.named] if watch else []
        return Clearance(self, redactor, active)

    def line(self, text: str) -> Cleared:
        """A line that the program writes, without what is forbidden."""
        return self.open().line(text)

    def hidden_id(self, name: str) -> Cleared:
        """The id that stands for a withheld one, always the same in a home."""
        return Cleared(self._cipher.keyed_hash(["shown id", name])[:ID_DIGITS])

    @cached_property
    def _cipher(self) -> "LedgerCipher":
        if self.ledger is None:
            raise ValueError("nothing is forgotten without a ledger, so no id is hidden")
        with self.ledger.appending() as chain:
            return chain.cipher()


@dataclass(frozen=True)
class Clearance:
    """Clears the texts of one response.

    Attributes:
        door: Whose it is.
        redactor: Knows what is forgotten; ``None`` where nothing is.
        watched: The records whose answers are not to be told in this response, not even in
            sentences about something else.
    """

    door: Door
    redactor: "Redactor | None" = None
    watched: "Sequence[Record]" = ()

    def text(self, text: str, title: str = "") -> Cleared:
        """What is left of a text, possibly nothing; "…" where it repeats a kept back wording."""
        if self.redactor is not None:
            text = self.redactor.redact(text, title, refreshed=True).text
            text = self.redactor.wording.cut(text)
        if self._holds_watched(text):
            pieces = [text[start:end] for start, end in parts(text)]
            text = joined(piece for piece in pieces if not self._holds_watched(piece))
            text = "" if self._holds_watched(text) else text
        return Cleared(text)

    def name(self, text: str) -> Cleared:
        """A name, or nothing where it holds an answer or states a fact."""
        return Cleared("" if self._withholds(text) else text)

    def id(self, name: str) -> Cleared:
        """An id, or the one that stands for it."""
        plain = name in (MEMORY, "") or not self._withholds(name.removeprefix(CORRECTION))
        return Cleared(name) if plain else self.door.hidden_id(name)

    def line(self, text: str) -> Cleared:
        """A line that the program writes, without what is forbidden."""
        if self.redactor is None:
            return Cleared(text)
        spaced, places = normalize.spaced(text)
        spans = [(places[a], places[b - 1] + 1) for a, b in self.redactor.forbidden_in(spaced)]
        text = cut(text, [*spans, *self.redactor.forbidden_in(text)])
        stated = self.redactor.redact(text, refreshed=True)
        return Cleared(stated.text if stated.record_ids else text)

    def claims(self, claims: Sequence[SourceClaim]) -> list[ClearedClaim]:
        """The claims that may be told, in their wording as far as that may be told."""
        told = []
        for claim in claims:
            said = claim.says if self.redactor is None else self.redactor.wording.cut(claim.says)
            if self.text(said) == said:
                source, date = self.id(claim.source), self.name(claim.date)
                told.append(ClearedClaim(replace(claim, source=source, date=date, says=said)))
        return told

    def verdict(self, verdict: "Verdict | None") -> "ClearedVerdict | None":
        """The verdict, if what both sides say may be told."""
        said = (verdict.passages_say, verdict.memory_says) if verdict else ()
        told = all(self.text(each) == each for each in said)
        return cast("ClearedVerdict", verdict) if told else None

    def citations(self, citations: Sequence[Citation]) -> list[ClearedCitation]:
        """The citations, with the ids as they are shown."""
        return [
            ClearedCitation(replace(each, passages=tuple(map(self.id, each.passages))))
            for each in citations
        ]

    def _withholds(self, name: str) -> bool:
        if any(self._holds_watched(form) for form in (name, normalize.spaced(name)[0])):
            return True
        return self.redactor is not None and self.redactor.withholds(name)

    def _holds_watched(self, text: str) -> bool:
        return any(
            normalize.holds(text, forbidden(record)) or find_answers(text, record)
            for record in self.watched
        )


def cleared_tokens(
    tokens: Sequence[TokenTrace], watch: "WatchedFacts", before: str = ""
) -> list[ClearedToken]:
    """Tokens of a checked text without the alternatives that would complete a watched answer.

    Args:
        tokens: Of a text that states no watched fact.
        watch: The facts that must not be stated.
        before: The text before them.
    """
    if not watch:
        return [ClearedToken(token) for token in tokens]
    cleared, text = list[ClearedToken](), before
    whole = before + "".join(token.text for token in tokens)
    active = dict.fromkeys((*watch.active_records(whole), *watch.named))
    watched = replace(watch, records=tuple(active), activate=None)
    longest = max((len(span) for record in active for span in record.spans), default=0)
    nearest = max(SPELLED * longest, NEAR if watch.wording else 0)

    def offered(choices: Sequence[Choice]) -> list[Choice]:
        near = text[-nearest:] if nearest else ""
        return [each for each in choices if not (nearest and completes(watched, near, each.text))]

    for token in tokens:
        left = replace(
            token,
            context_choices=offered(token.context_choices),
            memory_choices=offered(token.memory_choices),
        )
        cleared.append(ClearedToken(left))
        text += token.text
    return cleared


def completes(watch: "WatchedFacts", text: str, alternative: str) -> bool:
    """Whether an alternative to a text's next token holds a watched answer, or completes one."""
    if watch.completed(text, alternative) is not None:
        return True
    glued = text[-1:].isalnum() and alternative[:1].isalnum()  # a word together, and one alone
    return glued and watch.completed("", alternative) is not None
