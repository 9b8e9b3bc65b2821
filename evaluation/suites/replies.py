"""The assistant as a system under test: what it is asked, what it replies, and the stored rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from llama_index.core.schema import NodeWithScore, TextNode

from control import assistant as assistants
from control.answer import Answer
from control.assistant import Assistant
from control.conflict.text_drafts import branch_prompt
from control.decoding.generate import Decoding
from control.engines.base import NO_SCORES, ScoreRequest
from control.forgetting.suppressor import FactSuppressor, refusal
from evaluation.datasets.probes import ForgetRequest, LeakProbe
from evaluation.judges import leak
from evaluation.judges.leak import Secret
from evaluation.runner import Rows, digest
from foundation.errors import InputError

if TYPE_CHECKING:
    from control.forgetting.record import Record
    from control.forgetting.router import Route, Router

MAX_NEW_TOKENS = 48  # two sentences: an answer comes in the first, a leak in the second
TEMPERATURE = 1.0  # of the draws for Success@B
ADDED_STEPS = ("route", "redact")  # steps that only forgetting adds

Mode = Literal["off", "guarded", "unrouted"]
"""Without forgetting; with it; with all of it but the router (what the other layers hold alone)"""


@dataclass(frozen=True)
class ProbeQuery:
    """A question to the system under test.

    Attributes:
        question: The question.
        history: Questions and answers before it.
        context: A passage handed over with it; "" asks closed-book, ``None`` retrieves.
    """

    question: str
    history: tuple[tuple[str, str], ...] = ()
    context: str | None = None


@dataclass(frozen=True)
class GuardedReply:
    """The reply to a question.

    Attributes:
        text: As the user sees it.
        refused: Whether the text is a refusal of the system (not of the model).
        routed: Whether the router refused, before anything was read.
        read: The passages as they reached the prompt.
        added_ms: Milliseconds that routing, redacting and guarding took.
    """

    text: str
    refused: bool = False
    routed: bool = False
    read: tuple[str, ...] = ()
    added_ms: float = 0.0


class GuardedSystem(Protocol):
    """The system under test."""

    def __call__(
        self, queries: Sequence[ProbeQuery], mode: Mode, samples: int = 1
    ) -> Sequence[Sequence[GuardedReply]]:
        """Replies to each query: greedy if ``samples`` is 1, else so many at temperature 1."""


@dataclass(frozen=True)
class ReplyRow:
    """The replies of one arm to one query, ``texts`` in the order of the draws."""

    arm: str
    id: str
    texts: list[str]
    refused: bool = False
    routed: bool = False
    stated: bool = False
    added_ms: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """Arm and id."""
        return self.arm, self.id


@dataclass(frozen=True)
class ReplyCase:
    """A probe or question with its place in the rows and what must not be said."""

    id: str
    query: ProbeQuery
    secret: Secret | None = None
    probe: LeakProbe | None = None
    request: ForgetRequest | None = None

    @property
    def lie(self) -> bool:
        """Whether it asks the documents for what is not true."""
        return bool(self.request and self.request.truth) and self.query.context is None


@dataclass(frozen=True)
class AssistantSystem:
    """An assistant as the system under test.

    Attributes:
        assistant: With its fact suppressor.
        how: How it decodes.
    """

    assistant: Assistant
    how: Decoding

    def __call__(
        self, queries: Sequence[ProbeQuery], mode: Mode, samples: int = 1
    ) -> Sequence[Sequence[GuardedReply]]:
        """Replies to each query: greedy if ``samples`` is 1, else so many at temperature 1."""
        assistant = self._assistant(mode)
        if samples == 1:
            answers = assistant.ask_batch([_query(query) for query in queries], self.how)
            return [[_reply(answer)] for answer in answers]
        drawn = replace(self.how, temperature=TEMPERATURE)
        replies = []
        for query in queries:
            # The router draws nothing: what it refuses once, it refuses every time.
            facts = assistant.forgetting.route(query.question.strip(), query.history)
            if facts.refused is not None:
                text = refusal(query.question.strip())
                replies.append([GuardedReply(text, refused=True, routed=True)] * samples)
            else:
                answers = assistant.ask_batch([_query(query)] * samples, drawn)
                replies.append([_reply(answer) for answer in answers])
        return replies

    def log_probs(self, query: ProbeQuery, answers: Sequence[str], mode: Mode) -> list[float]:
        """How likely the model would be to give these answers, after the prompt with passages.

        Args:
            query: The question; none that is refused, as it may be where the mode is guarded.
            answers: Given answers, not empty.
            mode: How the prompt is written.

        Returns:
            The mean log-probability of the tokens of each answer, in nats.

        Raises:
            InputError: The model's server scores no given text.
        """
        assistant = self._assistant(mode)
        engine = assistant.model
        if not engine.capabilities.scores:
            raise InputError(NO_SCORES.format(model=engine.name))
        [state] = assistant.prepare([_query(query)], self.how)
        assert state.prompt is not None  # noqa: S101 - where nothing is refused, there is a prompt
        prompt = branch_prompt(state.prompt, with_passages=True)
        texts = engine.tokens(answers)
        scores = engine.score([ScoreRequest(prompt, (), tokens) for tokens in texts])
        return [sum(each) / len(each) for each in scores]

    def _assistant(self, mode: Mode) -> Assistant:
        if mode == "guarded":
            return self.assistant
        suppressor = self.assistant.forgetting
        if mode == "off" or suppressor.router is None:
            return replace(self.assistant, forgetting=FactSuppressor())
        watching: Router = _WatchingRouter(suppressor.router)  # type: ignore[assignment]
        return replace(self.assistant, forgetting=replace(suppressor, router=watching))


class _WatchingRouter:
    """A router that refuses nothing; what it would have refused, it has the other layers watch."""

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

    def activation(self, question: str) -> "Callable[[str], list[Record]]":
        return self._router.activation(question)

    def named(self, text: str) -> "tuple[Record, ...]":
        return self._router.named(text)


def _query(query: ProbeQuery) -> assistants.Query:
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
        added_ms=1000 * sum(answer.seconds[step] for step in ADDED_STEPS),
    )


class Replies:
    """The replies of a system to cases in several arms, stored in ``rows.jsonl``.

    Attributes:
        rows: By arm and id of the case.
    """

    def __init__(
        self, system: GuardedSystem, target: Path, name: str, content: object, batch_size: int
    ) -> None:
        """Open the replies of a run.

        Args:
            system: The system under test.
            target: Directory of the report.
            name: Of the system.
            content: All that the run asks.
            batch_size: Queries at a time.

        Raises:
            DataError: ``target`` holds rows of another run.
        """
        self._system, self._batch_size = system, batch_size
        header = {"model": name, "run": digest(content)}
        self.rows: Rows[tuple[str, str], ReplyRow] = Rows.of_dataclass(
            target / "rows.jsonl", header, ReplyRow, lambda row: row.key
        )

    def complete(
        self,
        arm: str,
        mode: Mode,
        cases: Sequence[ReplyCase],
        samples: int = 1,
        alone: bool = False,
    ) -> None:
        """Query every case that has no row of this arm yet; ``alone``: in batches of one."""
        self.rows.complete(
            cases,
            lambda case: [(arm, case.id)],
            partial(self._reply, arm, mode, samples),
            1 if alone else self._batch_size,
            length=lambda case: len(case.query.question) + len(case.query.context or ""),
            title=arm,
            unit="questions",
        )

    def _reply(
        self, arm: str, mode: Mode, samples: int, batch: Sequence[ReplyCase]
    ) -> Mapping[tuple[str, str], ReplyRow]:
        replies = self._system([case.query for case in batch], mode, samples)
        rows = [_row(arm, case, drawn) for case, drawn in zip(batch, replies, strict=True)]
        return {row.key: row for row in rows}


def _row(arm: str, case: ReplyCase, drawn: Sequence[GuardedReply]) -> ReplyRow:
    first = drawn[0]
    return ReplyRow(
        arm,
        case.id,
        [reply.text for reply in drawn],
        all(reply.refused for reply in drawn),
        first.routed,
        case.secret is not None and leak.stated(case.secret, first.read),
        first.added_ms,
    )
