"""One question's way through Fulcrum."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from control import prompts
from control.answer import STEPS, Answer, source
from control.conflict import dial
from control.conflict.calibration import ANY_MODEL, Calibration
from control.conflict.dial import DecodedAnswer
from control.decoding.generate import Decoding, OnToken
from control.decoding.rules import DIAL
from control.decoding.trace import TokenTrace
from control.engines.transformers import LanguageModel
from control.forgetting.refusal import refusal
from control.forgetting.suppressor import FactContext, FactSuppressor
from control.prompts import Prompt
from foundation import trace
from foundation.errors import InputError
from foundation.trace import RequestTrace

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import NodeWithScore, QueryBundle

    Nodes = Sequence[NodeWithScore]

LONGEST_QUESTION = 20_000  # characters; far beyond any question, well below a pasted book


@dataclass(frozen=True)
class Query:
    """A question to be answered.

    Attributes:
        question: As it was asked.
        given: Passages to read instead of retrieving any; an empty sequence asks the memory alone
            (closed-book).
        history: Questions and answers of the conversation so far.
    """

    question: str
    given: "Nodes | None" = None
    history: Sequence[tuple[str, str]] = ()


@dataclass
class QuestionState:
    """One question on its way.

    Attributes:
        query: What was asked.
        question: The question, checked.
        trail: What happened on the way.
        scope: What it has to do with forgotten facts.
        asked: The question on its own and its searches.
        found: Passages found, or given.
        kept: Those to be read.
        prompt: With them and without; ``None`` where the question is refused.
        seconds: It took so far.
    """

    query: Query
    question: str
    trail: RequestTrace
    scope: FactContext
    asked: "QueryBundle"
    found: "Nodes" = ()
    kept: "Nodes" = ()
    prompt: Prompt | None = None
    seconds: float = 0.0

    @property
    def read(self) -> list[str]:
        """Ids of the passages that the model read."""
        return [node.node_id for node in self.kept[: self.prompt.passages if self.prompt else 0]]


@dataclass(frozen=True)
class Assistant:
    """Answers questions from passages and memory.

    Attributes:
        model: The language model.
        calibration: How its dial is to be read.
        retriever: Finds passages for the searches of a question; ``None`` where all questions come
            with theirs.
        rewriter: Makes the question stand on its own and writes the searches; ``None`` searches
            the question itself.
        processors: What passages go through before they are read, such as the filter.
        reads: Passages read at most.
        forgetting: What keeps forgotten facts back.
        longest_question: In characters.
    """

    model: LanguageModel
    calibration: Calibration
    retriever: "BaseRetriever | None" = None
    rewriter: "BaseQueryTransform | None" = None
    processors: "Sequence[BaseNodePostprocessor]" = ()
    reads: int = 3
    forgetting: FactSuppressor = field(default_factory=FactSuppressor)
    longest_question: int = LONGEST_QUESTION

    def ask(
        self,
        question: str,
        how: Decoding,
        given: "Nodes | None" = None,
        on_token: OnToken | None = None,
        history: Sequence[tuple[str, str]] = (),
    ) -> Answer:
        """Answer one question; arguments as in `Query`, the rest as in `ask_batch`."""
        [answer] = self.ask_batch([Query(question, given, history)], how, on_token)
        return answer

    def ask_batch(
        self, queries: Sequence[Query], how: Decoding, on_token: OnToken | None = None
    ) -> list[Answer]:
        """Answer questions: each goes its way up to its prompt, then all are decoded in one batch.

        Args:
            queries: The questions.
            how: Rule, alpha and sampling.
            on_token: Told a question's place and its token, once the token is certain.

        Raises:
            InputError: A question is empty or too long, or no window is left for it.
        """
        if how.reliance is not None:
            how = replace(how, alpha=self.calibration.alpha(how.reliance), reliance=None)
        ways = [self._begun(query) for query in queries]
        self._rewrite([way for way in ways if way.scope.refused is None])
        for way in ways:
            self._gather(way, how)
        started = time.perf_counter()
        settled = self._decoded(ways, how, on_token)
        share = (time.perf_counter() - started) / max(len(settled), 1)
        return [self._answer(way, how, settled.get(place), share) for place, way in enumerate(ways)]

    def _begun(self, query: Query) -> QuestionState:
        """A question at the beginning of its way, refused if it asks for what is forgotten."""
        from llama_index.core.schema import QueryBundle

        started = time.perf_counter()
        question = checked(query.question, self.longest_question)
        with trace.following() as followed, trace.step("route"):
            scope = self.forgetting.route(question, query.history)
        way = QuestionState(query, question, followed, scope, QueryBundle(question))
        way.seconds = time.perf_counter() - started
        return way

    def _rewrite(self, ways: Sequence[QuestionState]) -> None:
        """Let questions stand on their own and write their searches, of several in one batch.

        Where nothing is searched, only a follow-up needs it.
        """
        wanted = [way for way in ways if way.query.given is None or way.query.history]
        if self.rewriter is None or not wanted:
            return
        started = time.perf_counter()
        said = [self.forgetting.said(way.query.history) for way in wanted]
        rewritten = _rewritten(self.rewriter, wanted, said)
        share = (time.perf_counter() - started) / len(wanted)
        for way, asked in zip(wanted, rewritten, strict=True):
            way.asked, way.seconds = asked, way.seconds + share

    def _gather(self, way: QuestionState, how: Decoding) -> None:
        """Find what is to be read and write the prompt, unless the question is refused."""
        started, pasted = time.perf_counter(), way.query.given is not None
        with trace.following(way.trail):
            if way.scope.refused is None:
                with trace.step("retrieve"):  # the trigger books its own time
                    way.found = self.found(way.query, way.asked)
                with trace.step("redact"):
                    way.found = self.forgetting.redacted(way.found)
                with trace.step("filter"):
                    way.kept = way.found if pasted else self.filtered(way)
                with trace.step("route"):  # by now it is clear what is asked
                    way.scope = self.forgetting.route(way.asked.query_str, before=way.scope)
            if way.scope.refused is None:
                way.scope = self.forgetting.reading(way.scope, way.kept, way.trail.withheld, pasted)
                way.prompt = self.prompt(way, self.model.room(how.max_new_tokens))
        way.seconds += time.perf_counter() - started

    def found(self, query: Query, asked: "QueryBundle") -> "Nodes":
        """The passages given, or those that the searches find."""
        if query.given is not None:
            return list(query.given)
        return self.retriever.retrieve(asked) if self.retriever else []

    def filtered(self, way: QuestionState) -> "Nodes":
        """The passages to read, best first."""
        kept = list(way.found)
        for processor in self.processors:
            kept = processor.postprocess_nodes(kept, way.asked)
        return kept[: self.reads]

    def prompt(self, way: QuestionState, room: int) -> Prompt:
        """The question with the passages and without, at most ``room`` tokens long."""
        texts, trust = [node.text for node in way.kept], [_trust(node) for node in way.kept]
        return prompts.build(self.model.tokenizer, way.asked.query_str, texts, room, trust)

    def _decoded(
        self, ways: Sequence[QuestionState], how: Decoding, on_token: OnToken | None
    ) -> dict[int, DecodedAnswer]:
        """The answers to those questions that are not refused, by the questions' places."""
        places = [place for place, way in enumerate(ways) if way.prompt is not None]
        if not places:
            return {}
        watches = [self.forgetting.watch(ways[place].scope) for place in places]

        def tell(at: int, token: TokenTrace) -> None:
            if on_token is not None:
                on_token(places[at], token)

        with self.forgetting.buffer_stream(tell, watches) as (told, unsaid):
            settled = dial.answer(
                self.model,
                [way.prompt for way in ways if way.prompt is not None],
                how,
                self.calibration,
                on_token=told,
                watches=watches if any(watches) else None,
            )
            unsaid.update(at for at, each in enumerate(settled) if each.trace.blocked)
        cleared = map(self.forgetting.strip_leaks, settled, watches)
        return dict(zip(places, cleared, strict=True))

    def _answer(
        self, way: QuestionState, how: Decoding, settled: DecodedAnswer | None, decode: float
    ) -> Answer:
        """What is told of a question's way; ``decode`` are the seconds of its decoding."""
        said = None if settled is None or settled.trace.blocked else settled
        shown = self.forgetting.sayable([way.asked.query_str, *way.asked.embedding_strs], way.scope)
        withheld = [*way.trail.withheld, *((each, "output") for each in _withheld(settled))]
        self.forgetting.note(withheld)
        read = way.read
        return Answer(
            question=way.question,
            rewritten=shown[0] if said and shown[:1] == [way.asked.query_str] else way.question,
            queries=[query for query in way.asked.embedding_strs if said and query in shown],
            answer=said.trace.text.strip() if said else refusal(way.question),
            alpha=how.alpha,
            conflict=said is not None and said.conflict,
            verdict=said.verdict if said else None,
            tokens=said.trace.tokens if said else [],
            sources=[source(node, read, way.kept, way.trail) for node in way.found if said],
            forgotten=[{"id": each, "layer": layer} for each, layer in withheld],
            notices=way.trail.notices + self._notices(way, how) if said else [],
            seconds=dict.fromkeys(STEPS, 0.0)
            | dict(way.trail.seconds)
            | {"decode": decode, "total": way.seconds + decode},
        )

    def _notices(self, way: QuestionState, how: Decoding) -> list[str]:
        notices, searched = [], way.query.given is None
        if searched and not way.found:
            notices.append(NOTHING_FOUND)
        elif searched and not way.kept:
            notices.append(NOTHING_KEPT.format(found=len(way.found)))
        if dropped := len(way.kept) - len(way.read):
            notices.append(TOO_LONG.format(dropped=dropped, all=len(way.kept)))
        if how.rule == DIAL and self.calibration.model == ANY_MODEL:
            notices.append(NOT_CALIBRATED.format(model=self.model.name))
        return notices


NOT_CALIBRATED = (
    "{model} has not been calibrated: the dial judges it by probabilities alone and may turn too "
    "far or too little; measure it by: fulcrum eval dial --calibrate --out DIR"
)
NOTHING_FOUND = (
    "no passages were found, so the answer is from memory alone; add documents by: fulcrum ingest"
)
NOTHING_KEPT = (
    "none of the {found} passages found holds a clear answer, so the answer is from memory alone"
)
TOO_LONG = (
    "{dropped} of {all} passages did not fit into the model's window and were left out, "
    "the last ones first"
)


def checked(question: str, longest: int = LONGEST_QUESTION) -> str:
    """The question without surrounding space.

    Raises:
        InputError: It is empty or too long.
    """
    question = question.strip()
    if not question:
        raise InputError('the question is empty; ask one, as in: fulcrum ask "What is ...?"')
    if len(question) > longest:
        raise InputError(
            f"the question has {len(question):,} characters, the limit is {longest:,}; "
            "give long text as a document: fulcrum ask QUESTION --context FILE"
        )
    return question


def _rewritten(
    rewriter: "BaseQueryTransform",
    ways: Sequence[QuestionState],
    said: Sequence[Sequence[tuple[str, str]]],
) -> "list[QueryBundle]":
    """Any query transform of LlamaIndex will do; one that can take several takes them all."""
    if hasattr(rewriter, "rewrite_batch"):
        asked = [(way.question, turns, way.trail) for way, turns in zip(ways, said, strict=True)]
        together: list[QueryBundle] = rewriter.rewrite_batch(asked)
        return together
    found = []
    for way, turns in zip(ways, said, strict=True):
        with trace.following(way.trail), trace.step("rewrite"):
            found.append(rewriter.run(way.question, {"history": turns}))
    return found


def _trust(node: "NodeWithScore") -> float:
    return float(node.metadata.get("trust", dial.NEUTRAL_TRUST))


def _withheld(settled: DecodedAnswer | None) -> list[str]:
    return settled.trace.withheld if settled else []
