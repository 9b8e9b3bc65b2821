"""The assistant as a system under test, with forgetting, without it, and without its router."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llama_index.core.schema import NodeWithScore, TextNode

from control import assistant as assistants
from control.answer import Answer
from control.assistant import Assistant
from control.decoding.generate import Decoding
from control.forgetting.suppressor import FactSuppressor, refusal
from evaluation.replies import GuardedReply, How, ProbeQuery

if TYPE_CHECKING:
    from control.forgetting.record import Record
    from control.forgetting.router import Route, Router

MAX_NEW_TOKENS = 48  # two sentences: an answer comes in the first, a slip in the second
TEMPERATURE = 1.0  # of the draws for Success@B
ADDED = ("route", "redact")  # steps that are there for forgetting alone


@dataclass(frozen=True)
class Assisted:
    """Asks an assistant.

    Attributes:
        assistant: With what keeps forgotten facts back.
        how: How it decodes.
    """

    assistant: Assistant
    how: Decoding

    def __call__(
        self, queries: Sequence[ProbeQuery], how: How, samples: int = 1
    ) -> Sequence[Sequence[GuardedReply]]:
        """Replies to each query: greedy if ``samples`` is 1, else so many at temperature 1."""
        assistant = self._arm(how)
        if samples == 1:
            answers = assistant.ask_batch([_asked(query) for query in queries], self.how)
            return [[_reply(answer)] for answer in answers]
        drawn = replace(self.how, temperature=TEMPERATURE)
        replies = []
        for query in queries:
            # The router draws nothing: what it refuses once, it refuses every time.
            scope = assistant.forgetting.route(query.question.strip(), query.history)
            if scope.refused is not None:
                said = refusal(query.question.strip())
                replies.append([GuardedReply(said, refused=True, routed=True)] * samples)
            else:
                answers = assistant.ask_batch([_asked(query)] * samples, drawn)
                replies.append([_reply(answer) for answer in answers])
        return replies

    def _arm(self, how: How) -> Assistant:
        if how == "guarded":
            return self.assistant
        guarding = self.assistant.forgetting
        if how == "off" or guarding.router is None:
            return replace(self.assistant, forgetting=FactSuppressor())
        arming: Router = _Arming(guarding.router)  # type: ignore[assignment]
        return replace(self.assistant, forgetting=replace(guarding, router=arming))


class _Arming:
    """A router that refuses nothing; what it would have refused, the other layers must hold."""

    def __init__(self, router: "Router") -> None:
        self._router = router

    def route(self, question: str, history: Sequence[tuple[str, str]] = ()) -> "Route":
        found = self._router.route(question, history)
        refused = () if found.refused is None else (found.refused,)
        watched = {record.id: record for record in (*found.watched, *refused)}
        check_paraphrase = found.check_paraphrase | {record.id for record in refused}
        return replace(
            found,
            refused=None,
            watched=tuple(watched.values()),
            check_paraphrase=check_paraphrase,
            decide_on_output=frozenset(),
        )

    def watching(self, question: str) -> "Callable[[str], list[Record]]":
        return self._router.watching(question)


def _asked(query: ProbeQuery) -> assistants.Query:
    given = None
    if query.context is not None:
        given = [NodeWithScore(node=TextNode(text=query.context))] if query.context else []
    return assistants.Query(query.question, given, query.history)


def _reply(answer: Answer) -> GuardedReply:
    return GuardedReply(
        answer.answer,
        refused=not answer.tokens and answer.answer == refusal(answer.question),
        routed=any(one["layer"] == "prompt" for one in answer.forgotten),
        read=tuple(one.text for one in answer.sources if one.kept),
        added_ms=1000 * sum(answer.seconds[step] for step in ADDED),
    )
