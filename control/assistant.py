"""The pipeline of one question: `Assistant.ask_batch` names the steps in their order."""

import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from control import attribution, faithfulness, json_text, prompts, structured
from control.answer import Answer, compose
from control.conflict import dial, passage_claims, passage_drafts, policies
from control.conflict.calibration import Calibration
from control.conflict.counterparts import read_counterparts
from control.conflict.reader import AnswerReader, Reading
from control.conflict.sources import CORRECTION, NEUTRAL_TRUST, SourceOptions
from control.conflict.support import Support
from control.conflict.verdict import DecodedAnswer
from control.decoding.generate import Decoding
from control.engines.base import Engine
from control.engines.json_grammar import check_schema
from control.forgetting.clearing import ClearedToken, cleared_tokens
from control.forgetting.guard import WatchedFacts
from control.forgetting.suppressor import FactSuppressor, OnClearedToken
from control.prompts import Prompt
from control.question import FEWEST_READ, LONGEST_QUESTION, check_question
from control.state import Query, QuestionState
from foundation import trace
from foundation.errors import InputError
from foundation.trace import RequestTrace

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import NodeWithScore, QueryBundle

    from control.corrections import Corrections

    Nodes = Sequence[NodeWithScore]
    PassageReadings = Sequence[tuple[NodeWithScore, Reading]]

# A small window goes with a small model, which many passages distract. In a large one, the cost of
# reading decides: a passage takes a model of 1.5B about two seconds on two cores.
READING_SHARE = 1 / 15  # of the window: 3 passages in 8,192 tokens, 10 in 32,768
PASSAGE_TOKENS = 210  # of those passages: 9 of 10 have fewer
# Of passages that are read where some of them claim an answer: about 2,000 tokens. Of a long text
# that is given with a question, most is read for nothing: 26,000 characters took the packaged model
# two minutes on one busy core.
MOST_CHARACTERS = 8_000
FEW_WORDS = 40  # tokens of an answer in a few words
# Passages that are read, beside those kept, for what comes nearest to a claim. Of 222 questions of
# calibration (120 over real documents, 102 to ordinary files) the surest claim, or else what comes
# nearest, is in a right sentence for 98 where those kept alone are read, for 105 with the first 3
# found, 107 with 5 or 7 and 106 with 10.
FIRST_FOUND = 5


@runtime_checkable
class BatchRewriter(Protocol):
    """A query transform that rewrites several questions in one batch."""

    def rewrite_batch(
        self, asked: "Sequence[tuple[str, Sequence[tuple[str, str]], RequestTrace]]"
    ) -> "list[QueryBundle]":
        """The search of each question, given with its conversation and its trace."""


@dataclass(frozen=True)
class Assistant:
    """Answers questions from passages and memory.

    Attributes:
        model: The language model.
        calibration: Of the dial for it.
        retriever: Finds passages; ``None`` where all questions come with theirs.
        rewriter: Rewrites the question to stand on its own and writes the search queries; ``None``
            searches the question itself.
        processors: Postprocessors of retrieved passages: the filter, and what remembers them.
        reads: Passages read at most; by default as the model's window allows, see `reading_limit`.
        forgetting: Suppresses forgotten facts.
        reader: Finds what passages and drafts claim; ``None`` compares drafts by their words alone.
        support: Finds the passages that support a sentence; ``None`` cites nothing.
        corrections: The pinned ones, which stand above passages and memory.
        sources: How what the sources claim is usually settled.
        longest_question: In characters.
        embed_model: Finds what another version of a document says where one claims an answer;
            ``None`` leaves that out.
        even_time: Whether a question that is refused is worked on like any other, and its answer
            thrown away, so that the time does not tell that it was refused.
    """

    model: Engine
    calibration: Calibration
    retriever: "BaseRetriever | None" = None
    rewriter: "BaseQueryTransform | None" = None
    processors: "Sequence[BaseNodePostprocessor]" = ()
    reads: int | None = None
    forgetting: FactSuppressor = field(default_factory=FactSuppressor)
    reader: AnswerReader | None = None
    support: Support | None = None
    corrections: "Corrections | None" = None
    sources: SourceOptions = field(default_factory=SourceOptions)
    longest_question: int = LONGEST_QUESTION
    embed_model: "BaseEmbedding | None" = None
    even_time: bool = False

    @property
    def reading_limit(self) -> int:
        """Retrieved passages that are read at most."""
        return self.reads or reading_limit(self.model)

    @property
    def reads_well(self) -> bool:
        """Whether the model was not measured to misread passages."""
        return math.isinf(self.calibration.reader_bar)

    def ask(
        self,
        question: str,
        decoding: Decoding,
        given: "Nodes | None" = None,
        on_token: OnClearedToken | None = None,
        history: Sequence[tuple[str, str]] = (),
        sources: SourceOptions | None = None,
    ) -> Answer:
        """Answer one question; arguments as in `Query`, the rest as in `ask_batch`."""
        query = Query(question, given, history, sources=sources or SourceOptions())
        [answer] = self.ask_batch([query], decoding, on_token)
        return answer

    def ask_batch(
        self, queries: Sequence[Query], decoding: Decoding, on_token: OnClearedToken | None = None
    ) -> list[Answer]:
        """Answer questions: prepare the prompt of each by itself, then decode all in one batch.

        Args:
            queries: The questions.
            decoding: Rule, alpha and sampling.
            on_token: Called with a question's place and its token, once the token is certain; not
                for answers that are also written as JSON.

        Raises:
            InputError: A question is empty or too long, or no window is left for it.
        """
        states = self.prepare(queries, decoding)
        states = self.decode(states, on_token)
        states = [self._run(state, self.cite) for state in states]
        states = self.structure(states)
        return [self.answer(state) for state in states]

    def prepare(self, queries: Sequence[Query], decoding: Decoding) -> list[QuestionState]:
        """The first half of `ask_batch`: a question that is not refused has its prompt."""
        if decoding.reliance is not None:
            alpha = self.calibration.alpha(decoding.reliance)
            decoding = replace(decoding, alpha=alpha, reliance=None)
        states = [self._run(self._start(query, decoding), self.suppress) for query in queries]
        states = self.rewrite(states)
        reading = (self.retrieve, self.redact, self.filter, self.correct, self.suppress_again)
        states = [self._run(state, *reading) for state in states]
        states = self.read_claims(states)
        return [self._run(state, self.write_prompt) for state in states]

    def _run(
        self, state: QuestionState, *steps: Callable[[QuestionState], QuestionState]
    ) -> QuestionState:
        """The state after the steps, timed; a question that a step refuses skips the others."""
        started = time.perf_counter()
        with trace.following(state.trace):
            for step in steps:
                if self._works_on(state):
                    state = step(state)
        return replace(state, seconds=state.seconds + (time.perf_counter() - started))

    def _works_on(self, state: QuestionState) -> bool:
        return self.even_time or not state.refused

    def _start(self, query: Query, decoding: Decoding) -> QuestionState:
        from llama_index.core.schema import QueryBundle

        question = check_question(query.question, self.longest_question)
        if len(query.system) > self.longest_question:
            raise InputError(
                f"the system message has {len(query.system):,} characters, the limit is "
                f"{self.longest_question:,}; shorten it"
            )
        query = replace(query, sources=query.sources.over(self.sources))
        if query.json_schema:
            check_schema(query.json_schema)
            schema = json_text.closed(json.loads(query.json_schema))
            query = replace(query, json_schema=json.dumps(schema, ensure_ascii=False))
        if query.sources.only_documents and self.reader is None:
            raise InputError(
                "only documents are to be answered from, but the reader, which finds what they "
                "claim, is left out; take it in: leave out --without reader"
            )
        if query.system:
            [(system, _)] = self.forgetting.redact_history([(query.system, "")])
            query = replace(query, system=system.strip())
        return QuestionState(query, question, decoding, QueryBundle(question))

    def suppress(self, state: QuestionState) -> QuestionState:
        """Refuse the question if it asks for a forgotten fact."""
        with trace.step("route"):
            query = state.query
            facts = self.forgetting.route(state.question, query.history, system=query.instructions)
        return replace(state, facts=facts)

    def rewrite(self, states: Sequence[QuestionState]) -> list[QuestionState]:
        """Rewrite questions to stand on their own and write their search queries, in one batch.

        Without retrieval, only a follow-up question needs it.
        """
        places = [
            place
            for place, state in enumerate(states)
            if self._works_on(state) and (state.query.given is None or state.query.history)
        ]
        changed = list(states)
        if self.rewriter is None or not places:
            return changed
        started = time.perf_counter()
        asked = [states[place] for place in places]
        histories = [self.forgetting.redact_history(each.query.history) for each in asked]
        searches = _rewritten(self.rewriter, asked, histories)
        share = (time.perf_counter() - started) / len(places)
        for place, search in zip(places, searches, strict=True):
            seconds = states[place].seconds + share
            changed[place] = replace(states[place], search=search, seconds=seconds)
        return changed

    def retrieve(self, state: QuestionState) -> QuestionState:
        """Take the passages given, or those that the search finds, and those to read beside."""
        with trace.step("retrieve"):  # the trigger records its own time
            found = state.query.given
            if found is None:
                found = self.retriever.retrieve(state.search) if self.retriever else []
            once = {node.node_id: node for node in (*found, *state.query.beside)}
            return replace(state, retrieved=list(once.values()))

    def redact(self, state: QuestionState) -> QuestionState:
        """Redact forgotten facts in the passages."""
        with trace.step("redact"):
            return replace(state, retrieved=self.forgetting.redact_passages(state.retrieved))

    def filter(self, state: QuestionState) -> QuestionState:
        """Keep the passages to read, best first, and remember them; given ones are all kept."""
        with trace.step("filter"):
            if state.query.given is not None:
                return replace(state, kept=state.retrieved)
            later = state.dated_later  # which must not set the bar for what is to be read
            own = {node.node_id for node in state.query.beside}
            kept = [node for node in state.retrieved if node.node_id not in later | own]
            for processor in self.processors:
                kept = processor.postprocess_nodes(kept, state.search)
            beside = [node for node in state.retrieved if node.node_id in own]
            kept = [*beside, *kept[: self.reading_limit]]
            related = passage_claims.related(state.search.query_str, kept, state.retrieved)
            aside = later | {node.node_id for node in related}
            related = [node for node in state.retrieved if node.node_id in aside]
            return replace(state, kept=kept, related=related)

    def correct(self, state: QuestionState) -> QuestionState:
        """Put the pinned corrections that answer the question before the passages."""
        if self.corrections is None:
            return state
        with trace.step("claims"):
            pinned = self.corrections.nodes_for(state.search.query_str)
        return replace(state, retrieved=[*pinned, *state.retrieved], kept=[*pinned, *state.kept])

    def suppress_again(self, state: QuestionState) -> QuestionState:
        """Refuse the question if, as it was rewritten, it asks for a forgotten fact."""
        with trace.step("route"):
            asked, system = state.search.query_str, state.query.instructions
            facts = self.forgetting.route(asked, before=state.facts, system=system)
        return replace(state, facts=facts)

    def read_claims(self, states: Sequence[QuestionState]) -> list[QuestionState]:
        """Read what each passage claims, in one batch, and settle it."""
        changed = list(states)
        places = [
            at
            for at, state in enumerate(states)
            if (state.kept or state.related) and self._works_on(state)
        ]
        if self.reader is None or not places:
            return changed
        started = time.perf_counter()
        readings = self.read_passages(
            [
                (each.search.query_str, [*each.kept, *each.related], each.retrieved)
                for each in (states[at] for at in places)
            ]
        )
        share = (time.perf_counter() - started) / len(places)
        for at, read in zip(places, readings, strict=True):
            state = replace(states[at], seconds=states[at].seconds + share)
            state.trace.seconds["claims"] += share
            steps = partial(self.settle, read), partial(self.read_nearest, read)
            changed[at] = self._run(state, *steps)
        return changed

    def read_passages(
        self, asked: "Sequence[tuple[str, Nodes, Nodes]]"
    ) -> "Sequence[PassageReadings]":
        """Find what passages answer: by the reader, and by a model that reads well.

        Args:
            asked: Questions, each with its passages and with all that were found with them.
        """
        reader = self.reader
        if reader is None:
            return [[] for _ in asked]
        readings = passage_claims.read(reader, asked)
        if self.embed_model is not None:
            readings = [
                read_counterparts(reader, self.embed_model, question, read, found)
                for read, (question, _, found) in zip(readings, asked, strict=True)
            ]
        if self.reads_well:
            questions = [question for question, _, _ in asked]
            pairs = list(zip(questions, readings, strict=True))
            readings = passage_drafts.reread(self.model, pairs, self.embed_model)
        return readings

    def settle(self, read: "PassageReadings", state: QuestionState) -> QuestionState:
        """Choose whom the answer follows where passages disagree.

        Those related to what is kept are kept too if they claim something.
        """
        question, options = state.search.query_str, state.query.sources
        claims = passage_claims.find(read, bool(options.only_documents))
        today = date.today().isoformat()
        settled = policies.settle(question, claims, options.policy, options.as_of, today)
        if state.query.system and options.policy is None:
            settled = replace(settled, told=())  # the model answers as it is told to
        texts = {node.node_id: passage_claims.passage_text(node) for node, _ in read}
        said = [(texts[each.claim.source], each.sentence, each.claim.says) for each in claims]
        facts = self.forgetting.without_claimed(state.facts, said)
        claiming = {claim.claim.source for claim in claims}
        known = {node.node_id for node in state.kept}
        more = [n for n, _ in read if n.node_id in claiming - known]
        kept = [*state.kept, *more]
        answering = {node.node_id: reading.answers for node, reading in read}
        kept = _worth_reading(kept, claiming, answering)
        return replace(state, facts=facts, kept=kept, answering=answering, settlement=settled)

    def read_nearest(self, read: "PassageReadings", state: QuestionState) -> QuestionState:
        """Find what comes nearest to a claim where the passages surely claim nothing.

        Where it may take the place of the model's answer, the first passages found are read for it
        too, whatever the filter said of them.
        """
        kept = {node.node_id for node in state.kept}
        if state.settlement.claims or not kept or self.reader is None:
            return state
        if self.reads_well or state.strict:
            own = [pair for pair in read if pair[0].node_id in kept]
            return replace(state, nearest=passage_claims.nearest(own))
        with trace.step("claims"):
            known = {node.node_id for node, _ in read} | state.dated_later
            first = [n for n in state.retrieved[:FIRST_FOUND] if n.node_id not in known]
            asked = state.search.query_str, first, state.retrieved
            read = [*read, *passage_claims.read(self.reader, [asked])[0]]
        near = passage_claims.nearest(read)
        more = [n for n, _ in read if near and n.node_id == near.claim.source not in kept]
        answering = {node.node_id: reading.answers for node, reading in read}
        return replace(state, kept=[*state.kept, *more], answering=answering, nearest=near)

    def write_prompt(self, state: QuestionState) -> QuestionState:
        """Write the prompt with the passages to follow and without, within the model's window."""
        pasted, nodes = state.query.given is not None or bool(state.query.beside), state.followed
        facts = self.forgetting.activate_from_passages(
            state.facts, nodes, state.trace.withheld, pasted
        )
        state = replace(state, facts=facts)
        state = replace(state, settlement=faithfulness.cleared(state, self.forgetting))
        room = self.model.room(state.decoding.max_new_tokens)
        texts, trust = [node.text for node in nodes], [_trust(node) for node in nodes]
        titles = [prompts.origin(node.metadata) for node in nodes]
        question, system = state.search.query_str, state.query.system or prompts.SYSTEM
        prompt = prompts.build(self.model, question, texts, room, trust, system, titles)
        pinned = any(node.node_id.startswith(CORRECTION) for node in nodes)
        searched = not (pasted or pinned)
        answers = max(state.answering.values(), default=None) if searched else None
        state = replace(state, prompt=prompt)
        quote = faithfulness.quote(state, self.model, self.support, self.forgetting)
        return replace(state, prompt=replace(prompt, quote=quote, answers=answers))

    def decode(
        self, states: Sequence[QuestionState], on_token: OnClearedToken | None = None
    ) -> list[QuestionState]:
        """Compare the claims of passages and memory, resolve conflicts, write the answers.

        All of it in one batch, with forgotten facts suppressed; refused questions are left out.
        """
        started = time.perf_counter()
        places = [place for place, state in enumerate(states) if state.prompt is not None]
        decoded = self._decode([states[place] for place in places], places, on_token)
        by_place = dict(zip(places, decoded, strict=True))
        share = (time.perf_counter() - started) / max(len(places), 1)
        return [
            replace(state, decoded=by_place.get(place), decode_seconds=share)
            for place, state in enumerate(states)
        ]

    def _decode(
        self,
        states: Sequence[QuestionState],
        places: Sequence[int],
        on_token: OnClearedToken | None,
    ) -> list[DecodedAnswer]:
        if not states:
            return []
        watches = [self.forgetting.watch(state.facts) for state in states]
        settled = [
            state.settlement.told or state.settlement.decided or state.strict for state in states
        ]
        silent = [state.refused or bool(state.query.json_schema) for state in states]

        def emit(index: int, token: ClearedToken) -> None:
            if on_token is not None and not (settled[index] or silent[index]):
                on_token(places[index], token)

        with self.forgetting.buffer_stream(emit, watches) as (buffer, stopped):
            answers = dial.answer(
                self.model,
                [state.prompt for state in states if state.prompt is not None],
                states[0].decoding,
                self.calibration,
                on_token=buffer,
                watches=watches if any(watches) else None,
                reader=self.reader,
            )
            answers = list(map(self.forgetting.released, answers, watches))
            stopped.update(index for index, each in enumerate(answers) if each.trace.blocked)
        answers = faithfulness.hold_to_documents(
            states, answers, self.reader, self.support, self.forgetting
        )
        stripped = list(map(self.forgetting.strip_leaks, answers, watches))
        briefly = self._answer_briefly(states, watches, answers, stripped)
        answers = [briefly.get(index, each) for index, each in enumerate(stripped)]
        if on_token is not None:
            for index, each in enumerate(answers):
                whole = settled[index] or index in briefly
                told = each.trace.tokens if whole and not silent[index] else ()
                for token in cleared_tokens(told, watches[index]):
                    on_token(places[index], token)
        return answers

    def _answer_briefly(
        self,
        states: Sequence[QuestionState],
        watches: Sequence[WatchedFacts],
        answers: Sequence[DecodedAnswer],
        stripped: Sequence[DecodedAnswer],
    ) -> dict[int, DecodedAnswer]:
        """Answers in a few words where nothing is left of the first one, by their places.

        To a question that cannot ask for a forgotten fact the model may volunteer one in its first
        sentence: "The Eiffel Tower in Paris was finished in 1889."
        """
        few = min(FEW_WORDS, states[0].decoding.max_new_tokens)
        asked: dict[int, Prompt] = {}
        for at, (state, watch) in enumerate(zip(states, watches, strict=True)):
            emptied = stripped[at].trace.blocked and not answers[at].trace.blocked
            may = self.forgetting.may_ask_again(watch) and not state.refused
            if not (emptied and may) or state.prompt is None:
                continue
            shorter = prompts.briefly(self.model, state.prompt, self.model.room(few))
            if shorter is not None:
                asked[at] = shorter
        if not asked:
            return {}
        again = dial.answer(
            self.model,
            list(asked.values()),
            replace(states[0].decoding, max_new_tokens=few),
            self.calibration,
            watches=[watches[at] for at in asked],
            reader=self.reader,
        )
        again = faithfulness.hold_to_documents(
            [states[at] for at in asked], again, self.reader, self.support, self.forgetting
        )
        found = {}
        for at, each in zip(asked, again, strict=True):
            found[at] = self.forgetting.strip_leaks(each, watches[at])
            withheld = (*stripped[at].trace.withheld, *found[at].trace.withheld)
            found[at].trace.withheld = list(dict.fromkeys(withheld))
        return found

    def cite(self, state: QuestionState) -> QuestionState:
        """Say whom the answer follows, and which passages support each of its sentences."""
        return attribution.cite(state, self.reader, self.support, self.forgetting)

    def structure(self, states: Sequence[QuestionState]) -> list[QuestionState]:
        """Write answers as JSON too, in one batch, where a schema is given."""
        return structured.write(states, self.model, self.forgetting)

    def answer(self, state: QuestionState) -> Answer:
        """The answer with its sources, notices and times; a refusal if the answer is withheld."""
        return compose(state, self.forgetting, self.model)


def reading_limit(model: Engine) -> int:
    """How many passages a model reads at most, by its window."""
    return max(FEWEST_READ, int(model.window * READING_SHARE / PASSAGE_TOKENS))


def _rewritten(
    rewriter: "BaseQueryTransform",
    states: Sequence[QuestionState],
    histories: Sequence[Sequence[tuple[str, str]]],
) -> "list[QueryBundle]":
    pairs = list(zip(states, histories, strict=True))
    if isinstance(rewriter, BatchRewriter):
        return rewriter.rewrite_batch([(each.question, turns, each.trace) for each, turns in pairs])
    found = []
    for state, turns in pairs:
        with trace.following(state.trace), trace.step("rewrite"):
            found.append(rewriter.run(state.question, {"history": turns}))
    return found


def _worth_reading(
    nodes: "Nodes", claiming: Collection[str], answering: Mapping[str, float]
) -> "list[NodeWithScore]":
    """Passages as they came, without the least likely to answer where some claim an answer.

    Those that claim one are all kept.
    """
    room = MOST_CHARACTERS
    chosen = set(claiming)
    for node in sorted(nodes, key=lambda node: -answering.get(node.node_id, 1.0)):
        room -= len(node.text)
        if not claiming or room >= 0:
            chosen.add(node.node_id)
    return [node for node in nodes if node.node_id in chosen]


def _trust(node: "NodeWithScore") -> float:
    return float(node.metadata.get("trust", NEUTRAL_TRUST))
