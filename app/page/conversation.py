"""A conversation on the page: its turns, and how the next one comes about."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from app.api.errors import told
from app.page import views
from app.page.views import ShownPassage, Word
from control.answer import Answer
from control.assistant import Query, check_question
from control.decoding.generate import Decoding
from control.decoding.trace import TokenTrace
from foundation.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    from app.server.service import Service
    from control.decoding.generate import Alpha
    from control.forgetting.record import Record

Reading = Literal["documents", "passage", "memory"]

AUTO: Final = "auto"
HISTORY = 8  # turns that a follow-up may refer to; what is older is seldom meant
BETWEEN = 0.05  # seconds between two pictures of an answer that is being written


@dataclass(frozen=True)
class Turn:
    """A question and what has become of it so far.

    Attributes:
        number: Its place in the conversation, from 1.
        question: As it was asked.
        dial: Alpha as text, or ``auto``.
        reading: What is read for it.
        passage: The text to be read, where that is a passage.
        tokens: The answer so far.
        answer: The whole of it.
        error: Why there is none.
        live: Whether it is being answered.
        stopped: Whether the user ended it.
    """

    number: int
    question: str
    dial: str = "0.5"
    reading: Reading = "documents"
    passage: str = ""
    tokens: tuple[TokenTrace, ...] = ()
    answer: Answer | None = None
    error: str = ""
    live: bool = True
    stopped: bool = False

    @property
    def setting(self) -> str:
        """What it was asked with, in words."""
        return f"dial {self.dial}"

    @property
    def words(self) -> list[Word]:
        """The answer's words so far."""
        return views.words(self.answer) if self.answer else views.spoken(self.tokens)

    @property
    def passages(self) -> list[ShownPassage]:
        """What was read."""
        return views.passages(self.answer) if self.answer else []

    @property
    def unread(self) -> list[ShownPassage]:
        """What was found besides."""
        return views.unread(self.answer) if self.answer else []

    def holds(self, record: "Record") -> bool:
        """Whether anything that is shown of it may give the record's fact away."""
        from control.forgetting import normalize

        shown = [self.question, self.passage]
        if self.answer:
            shown += [self.answer.answer, self.answer.rewritten, str(self.answer.verdict)]
            shown += [f"{source.title} {source.text}" for source in self.answer.sources]
        return normalize.holds("\n".join(shown), record.spans or record.names)


def alpha(dial: str) -> "Alpha":
    """The dial's setting as a number, or ``auto``."""
    try:
        return AUTO if dial == AUTO else float(dial)
    except (TypeError, ValueError):
        raise InputError(f"the dial is at {dial!r}; turn it from 0 to 1, or to auto") from None


def query(turn: Turn, before: Sequence[Turn] = ()) -> Query:
    """What the assistant is asked for a turn, with the turns before it."""
    said = [(one.question, one.answer.answer) for one in before if one.answer]
    return Query(turn.question, _given(turn), said[-HISTORY:])


def answered(
    service: "Service",
    turn: Turn,
    before: Sequence[Turn],
    cancelled: threading.Event,
    client: str = "",
) -> Iterator[Turn]:
    """The turn again and again while it is answered; the last one is no longer live.

    Args:
        service: Answers.
        turn: What is asked.
        before: The turns before it.
        cancelled: Once set, the answer ends with the next token.
        client: Who asks.
    """
    drawn = 0.0
    try:
        asked = query(replace(turn, question=check_question(turn.question)), before)
        for item in service.stream(asked, Decoding(alpha=alpha(turn.dial)), cancelled, client):
            if isinstance(item, Answer):
                turn = replace(turn, answer=item)
                continue
            turn = replace(turn, tokens=(*turn.tokens, item))
            if time.monotonic() - drawn > BETWEEN:
                drawn = time.monotonic()
                yield turn
    except Exception as error:
        turn = replace(turn, error=told(error)[1])
    stopped = cancelled.is_set() and not (turn.answer or turn.error)
    yield replace(turn, live=False, stopped=stopped)


def _given(turn: Turn) -> "Sequence[NodeWithScore] | None":
    if turn.reading == "documents":
        return None
    return pasted(turn.passage) if turn.reading == "passage" else []


def pasted(text: str) -> "list[NodeWithScore]":
    """A text that comes with the question, as passages."""
    from llama_index.core.schema import Document, NodeWithScore

    from retrieval.ingest.chunking import split

    text = text.strip()
    metadata = {"title": "", "content_hash": ""}
    document = Document(id_="pasted", text=text, metadata=metadata)
    return [NodeWithScore(node=node) for node in split(document)] if text else []


class Running:
    """Which session is being answered, so that a newer question or leaving ends the older one."""

    def __init__(self) -> None:
        self._events: dict[tuple[str, str], threading.Event] = {}
        self._lock = threading.Lock()

    def begin(self, session: str, what: str = "answer") -> threading.Event:
        """End what the session is being answered, and begin anew.

        Args:
            session: The whole name of a visitor's session.
            what: Which of the page's tasks; a session may have one of each.
        """
        with self._lock:
            if older := self._events.get((session, what)):
                older.set()
            event = self._events[session, what] = threading.Event()
        return event

    def current(self, session: str, event: threading.Event, what: str = "answer") -> bool:
        """Whether nothing newer has begun."""
        return self._events.get((session, what)) is event

    def stop(self, session: str, what: str = "answer") -> None:
        """End it, because the user says so."""
        with self._lock:
            if event := self._events.get((session, what)):
                event.set()

    def leave(self, session: str) -> None:
        """End all that the session is being answered, because the user has gone."""
        with self._lock:
            for mine in [each for each in self._events if each[0] == session]:
                self._events.pop(mine).set()
