"""A conversation on the page: its turns, and how they are answered."""

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from markupsafe import Markup

from app.api.errors import describe_error
from app.page import views, words
from app.page.views import ShownClaim, ShownPassage
from control.answer import Answer
from control.conflict.sources import Policy, SourceOptions
from control.decoding.generate import Decoding
from control.forgetting.clearing import ClearedToken
from control.forgetting.record import forbidden
from control.question import check_question
from control.state import Query
from foundation.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    from app.server.service import Service
    from control.decoding.generate import Alpha
    from control.forgetting.record import Record

Reading = Literal["documents", "passage", "memory"]

AUTO: Final = "auto"
READ = {"documents": "from my documents", "passage": "from a passage", "memory": "memory alone"}
DOING = {
    "documents": "Searching the documents, and asking memory",
    "passage": "Reading the passage, and asking memory",
    "memory": "Asking memory",
}
POLICY_NAMES: dict[Policy, str] = {
    "newest": "the newest",
    "trusted": "the trusted",
    "majority": "the majority",
    "all": "all of them",
}
HISTORY = 8  # turns that a follow-up may refer to; what is older is seldom meant
BETWEEN = 0.05  # seconds between two updates of an answer


@dataclass(frozen=True)
class ConversationTurn:
    """A question and its answer so far.

    Attributes:
        number: Its place in the conversation, from 1.
        question: As typed.
        dial: Alpha as text, or ``auto``.
        reading: What the answer is read from.
        passage: The given text, if it is read from that.
        only_documents: Whether nothing is answered from memory; ``None`` is as usual in the home.
            It says nothing where memory alone is asked, and neither does the policy.
        policy: Which documents are followed where they disagree; ``None`` is as usual in the home.
        tokens: The tokens so far.
        answer: The complete answer.
        error: Why there is no answer.
        live: Whether it is being answered.
        stopped: Whether the user stopped it.
    """

    number: int
    question: str
    dial: str = "0.5"
    reading: Reading = "documents"
    passage: str = ""
    only_documents: bool | None = None
    policy: Policy | None = None
    tokens: tuple[ClearedToken, ...] = ()
    answer: Answer | None = None
    error: str = ""
    live: bool = True
    stopped: bool = False

    @property
    def setting(self) -> str:
        """The setting of the dial, what is read and how it is settled, in words."""
        said = [f"dial {self.dial}", READ[self.reading]]
        if self.sources.only_documents:
            said.append("only documents")
        if self.sources.policy:
            said.append(f"where documents disagree: {POLICY_NAMES[self.sources.policy]}")
        return " · ".join(said)

    @property
    def sources(self) -> SourceOptions:
        """How what the sources claim is settled; memory alone answers in every home."""
        if self.reading == "memory":
            return SourceOptions(only_documents=False)
        return SourceOptions(self.policy, only_documents=self.only_documents)

    @property
    def doing(self) -> str:
        """What happens before the first word, as one line."""
        return DOING[self.reading]

    def said(self, place: str) -> Markup:
        """Render the answer so far.

        Args:
            place: Names the turn in the links to its passages.
        """
        if self.answer:
            return views.answer_html(self.answer, place)
        return words.to_html(
            "".join(each.text for each in self.tokens), self.tokens, live=self.live
        )

    @property
    def claims(self) -> list[ShownClaim]:
        """What the sources claim, where they are to be compared."""
        return views.claims(self.answer) if self.answer else []

    @property
    def passages(self) -> list[ShownPassage]:
        """The passages that were read."""
        return views.passages(self.answer) if self.answer else []

    @property
    def unread(self) -> list[ShownPassage]:
        """The passages that were found and not read."""
        return views.unread(self.answer) if self.answer else []

    def holds(self, records: "Iterable[Record]") -> bool:
        """Whether anything of it, shown or not, holds the fact of one of the records."""
        from control.forgetting import normalize
        from control.forgetting.verbatim import VerbatimIndex

        tokens = self.answer.tokens if self.answer else self.tokens
        texts = ["".join(token.text for token in tokens), *dict.fromkeys(_texts(asdict(self)))]
        phrases = {phrase for one in records for phrase in forbidden(one)}
        wording = VerbatimIndex(one for one in records if one.scope == "verbatim")
        text = "\n".join(texts)
        return bool(wording.repeated(text)) or normalize.holds(text, sorted(phrases))


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value made of lists and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))


def without_forgotten(
    turns: Iterable[ConversationTurn], records: "Collection[Record]"
) -> list[ConversationTurn]:
    """Leave out the turns that hold a fact which was forgotten meanwhile."""
    return [turn for turn in turns if not turn.holds(records)]


def alpha(dial: str) -> "Alpha":
    """Return the dial's setting as a number or ``auto``."""
    try:
        return AUTO if dial == AUTO else float(dial)
    except (TypeError, ValueError):
        raise InputError(f"the dial is at {dial!r}; turn it from 0 to 1, or to auto") from None


def query(turn: ConversationTurn, before: Sequence[ConversationTurn] = ()) -> Query:
    """Return the query of a turn, with the turns before it as its history."""
    history = [(one.question, one.answer.answer) for one in before if one.answer]
    given = _given_passages(turn)
    return Query(turn.question, given, history[-HISTORY:], sources=turn.sources)


def answer_turn(
    service: "Service",
    turn: ConversationTurn,
    before: Sequence[ConversationTurn],
    cancelled: threading.Event,
    client: str = "",
) -> Iterator[ConversationTurn]:
    """Answer a turn: yield it again as its tokens come; the last one is no longer live.

    Args:
        service: The assistant.
        turn: The question.
        before: The turns before it.
        cancelled: Set it to stop at the next token.
        client: Who asks, for the fair queue.
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
        turn = replace(turn, error=describe_error(error, service.error_line)[1])
    stopped = cancelled.is_set() and not (turn.answer or turn.error)
    yield replace(turn, live=False, stopped=stopped)


def _given_passages(turn: ConversationTurn) -> "Sequence[NodeWithScore] | None":
    if turn.reading == "documents":
        return None
    return split_pasted(turn.passage) if turn.reading == "passage" else []


def split_pasted(text: str) -> "list[NodeWithScore]":
    """Cut a text that was given with the question into passages."""
    from retrieval.ingest.chunking import split_text

    return split_text(text.strip(), "pasted") if text.strip() else []


class SessionTasks:
    """The running tasks of each session; a newer task of a kind cancels the older one."""

    def __init__(self) -> None:
        self._events: dict[tuple[str, str], threading.Event] = {}
        self._lock = threading.Lock()

    def begin(self, session: str, what: str = "answer") -> threading.Event:
        """Cancel the session's task of a kind, and start a new one.

        Args:
            session: The full name of a visitor's session.
            what: The kind of task; a session may have one of each.
        """
        with self._lock:
            if older := self._events.get((session, what)):
                older.set()
            event = self._events[session, what] = threading.Event()
        return event

    def has_begun(self, session: str, what: str = "answer") -> bool:
        """Whether a task of the kind was started since the session came."""
        return (session, what) in self._events

    def is_current(self, session: str, event: threading.Event, what: str = "answer") -> bool:
        """Whether no newer task has started."""
        return self._events.get((session, what)) is event

    def stop(self, session: str, what: str = "answer") -> None:
        """Cancel a task."""
        with self._lock:
            if event := self._events.get((session, what)):
                event.set()

    def leave(self, session: str) -> None:
        """Cancel all tasks of a session, whose user has left."""
        with self._lock:
            for mine in [each for each in self._events if each[0] == session]:
                self._events.pop(mine).set()
