"""The pipeline of one question: `Assistant.ask_batch` names the steps in their order."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from control import notices, prompts, structured
from control.answer import STEPS, Answer, StructuredOutput, sources
from control.conflict import dial, passage_claims, policies, values
from control.conflict.calibration import Calibration
from control.conflict.policies import Settlement
from control.conflict.reader import AnswerReader
from control.conflict.sources import MEMORY, Citation, SourceClaim, SourceOptions
from control.conflict.support import Support
from control.conflict.verdict import NEUTRAL_TRUST, DecodedAnswer
from control.decoding.generate import Decoding
from control.decoding.trace import written
from control.engines.base import Engine, Generation, GenerationRequest
from control.engines.json_grammar import check_schema
from control.forgetting.clearing import Cleared, ClearedToken, cleared_tokens, echoed, own
from control.forgetting.guard import WatchedFacts
from control.forgetting.suppressor import FactSuppressor, OnClearedToken, refusal
from control.prompts import Prompt
from control.question import FEWEST_READ, LONGEST_QUESTION, check_question
from control.state import ABSTAINED, Query, QuestionState
from foundation import trace
from foundation.errors import InputError
from foundation.text import holds
from foundation.trace import RequestTrace

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import NodeWithScore, QueryBundle

    from control.corrections import Corrections

    Nodes = Sequence[NodeWithScore]

# A small window goes with a small model, which many passages distract. In a large one, the cost of
# reading decides: a passage takes a model of 1.5B about two seconds on two cores.
READING_SHARE = 1 / 20  # of the window: 3 passages in 8,192 tokens, 7 in 32,768
PASSAGE_TOKENS = 210  # of those passages: 9 of 10 have fewer
FEW_WORDS = 40  # tokens of an answer in a few words


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
    even_time: bool = False

    @property
    def reading_limit(self) -> int:
        """Retrieved passages that are read at most."""
        return self.reads or reading_limit(self.model)

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
        if decoding.reliance is not None:
            alpha = self.calibration.alpha(decoding.reliance)
            decoding = replace(decoding, alpha=alpha, reliance=None)
        states = [self._run(self._start(query, decoding), self.suppress) for query in queries]
        states = self.rewrite(states)
        reading = (self.retrieve, self.redact, self.filter, self.correct, self.suppress_again)
        states = [self._run(state, *reading) for state in states]
        states = self.read_claims(states)
        states = [self._run(state, self.write_prompt) for state in states]
        states = self.decode(states, on_token)
        states = [self._run(state, self.cite) for state in states]
        states = self.structure(states)
        return [self.answer(state) for state in states]

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
            schema = structured.closed(json.loads(query.json_schema))
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
        histories = [
            self.forgetting.redact_history(states[place].query.history) for place in places
        ]
        searches = _rewritten(self.rewriter, [states[place] for place in places], histories)
        share = (time.perf_counter() - started) / len(places)
        for place, search in zip(places, searches, strict=True):
            seconds = states[place].seconds + share
            changed[place] = replace(states[place], search=search, seconds=seconds)
        return changed

    def retrieve(self, state: QuestionState) -> QuestionState:
        """Take the passages given, or those that the search finds."""
        with trace.step("retrieve"):  # the trigger records its own time
            if state.query.given is not None:
                given = {node.node_id: node for node in state.query.given}  # each but once
                return replace(state, retrieved=list(given.values()))
            found = self.retriever.retrieve(state.search) if self.retriever else []
            return replace(state, retrieved=found)

    def redact(self, state: QuestionState) -> QuestionState:
        """Redact forgotten facts in the passages."""
        with trace.step("redact"):
            return replace(state, retrieved=self.forgetting.redact_passages(state.retrieved))

    def filter(self, state: QuestionState) -> QuestionState:
        """Keep the passages to read, best first, and remember them; given ones are all kept."""
        with trace.step("filter"):
            if state.query.given is not None:
                return replace(state, kept=state.retrieved)
            kept = list(state.retrieved)
            for processor in self.processors:
                kept = processor.postprocess_nodes(kept, state.search)
            kept = kept[: self.reading_limit]
            others = passage_claims.other_versions(kept, state.retrieved)
            return replace(state, kept=kept, versions=others[: self.reading_limit])

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
        """Read what each passage claims, in one batch, and choose where they disagree.

        Other versions of those that are kept are kept too if they claim something.
        """
        changed, reader = list(states), self.reader
        places = [at for at, state in enumerate(states) if state.kept and self._works_on(state)]
        if reader is None or not places:
            return changed
        started = time.perf_counter()
        asked = [
            (states[at].search.query_str, [*states[at].kept, *states[at].versions]) for at in places
        ]
        readings = passage_claims.read(reader, asked)
        share = (time.perf_counter() - started) / len(places)
        for at, read in zip(places, readings, strict=True):
            alone = bool(states[at].query.sources.only_documents)
            claims = passage_claims.find(read, alone)
            options, question = states[at].query.sources, states[at].search.query_str
            settled = policies.settle(question, claims, options.policy, options.as_of)
            if states[at].query.system and options.policy is None:
                settled = replace(settled, told=())  # the model answers as it is told to
            settled = self._with_cleared_names(settled, states[at])
            states[at].trace.seconds["claims"] += share
            seconds = states[at].seconds + share
            claiming = {claim.claim.source for claim in claims}
            kept = [*states[at].kept, *(n for n in states[at].versions if n.node_id in claiming)]
            changed[at] = replace(states[at], kept=kept, settlement=settled, seconds=seconds)
        return changed

    def _with_cleared_names(self, settled: Settlement, state: QuestionState) -> Settlement:
        """What is told, without the names of documents that give a forgotten fact away."""
        if not settled.told:
            return settled
        clear = self.forgetting.door.open(self.forgetting.watch(state.facts), state.question)
        told = []
        for each in settled.told:
            names = dict.fromkeys(clear.name(name) or policies.WITHHELD for name in each.names)
            told.append(replace(each, names=tuple(names)))
        return replace(settled, told=tuple(told))

    def write_prompt(self, state: QuestionState) -> QuestionState:
        """Write the prompt with the passages to follow and without, within the model's window."""
        pasted, aside = state.query.given is not None, state.settlement.set_aside
        nodes = [node for node in state.kept if node.node_id not in aside]
        facts = self.forgetting.activate_from_passages(
            state.facts, nodes, state.trace.withheld, pasted
        )
        room = self.model.room(state.decoding.max_new_tokens)
        texts, trust = [node.text for node in nodes], [_trust(node) for node in nodes]
        titles = [prompts.origin(node.metadata) for node in nodes]
        question, system = state.search.query_str, state.query.system or prompts.SYSTEM
        prompt = prompts.build(self.model, question, texts, room, trust, system, titles)
        prompt = replace(prompt, quote=self._quote(state.settlement, bool(state.query.system)))
        return replace(state, facts=facts, prompt=prompt)

    def _quote(self, settlement: Settlement, instructed: bool) -> prompts.Quote | None:
        """What the passages claim, unless they disagree and nothing decides between them.

        Args:
            settlement: Of the passages.
            instructed: Whether a system message says how to answer, which a quote would not follow.
        """
        if not settlement.quoted or (settlement.disagree and not settlement.decided):
            return None
        text = self.model.without_markup(self._quoted(settlement))
        sure = max(each.confidence or 0.0 for each in settlement.claims if each.followed)
        return prompts.Quote(text, settlement.followed[0], 0.0 if instructed else sure)

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

        def emit(index: int, token: ClearedToken) -> None:
            state = states[index]
            silent = settled[index] or state.refused or state.query.json_schema
            if on_token is not None and not silent:
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
        answers = self._hold_to_documents(states, answers)
        stripped = list(map(self.forgetting.strip_leaks, answers, watches))
        briefly = self._answer_briefly(states, watches, answers, stripped)
        answers = [briefly.get(index, each) for index, each in enumerate(stripped)]
        if on_token is not None:
            for index, each in enumerate(answers):
                whole = settled[index] or index in briefly
                silent = states[index].refused or states[index].query.json_schema
                told = each.trace.tokens if whole and not silent else ()
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
        again = self._hold_to_documents([states[at] for at in asked], again)
        found = {}
        for at, each in zip(asked, again, strict=True):
            found[at] = self.forgetting.strip_leaks(each, watches[at])
            withheld = (*stripped[at].trace.withheld, *found[at].trace.withheld)
            found[at].trace.withheld = list(dict.fromkeys(withheld))
        return found

    def _hold_to_documents(
        self, states: Sequence[QuestionState], answers: Sequence[DecodedAnswer]
    ) -> list[DecodedAnswer]:
        """Answers of which the documents decide the words.

        Where documents disagree and nothing decides, every claim is told. Where one of them is
        followed, only documents are to be answered from, or a correction is pinned, an answer that
        does not claim what they do gives way to the sentence that does, or to `ABSTAINED`; in the
        last two cases sentences without support are left out. An answer that follows memory stays
        where documents disagree, and what the guard has blocked stays blocked.
        """
        held, reader = list(answers), self.reader
        places = []
        for at, state in enumerate(states):
            verdict, settlement = held[at].verdict, state.settlement
            by_memory = verdict is not None and verdict.follows == "memory"
            if settlement.told:
                held[at] = held[at] if by_memory else self._all_told(state, held[at])
            elif state.strict or (settlement.decided and not by_memory):
                places += [] if held[at].trace.blocked else [at]
        if reader is None or not places:
            return held
        asked = [states[at].search.query_str for at in places]
        readings = reader.read(
            [(q, held[at].trace.text) for q, at in zip(asked, places, strict=True)]
        )
        for at, question, reading in zip(places, asked, readings, strict=True):
            settlement, text = states[at].settlement, held[at].trace.text
            claimed = any(
                values.agrees(question, says, reading.answer) for says in settlement.followed
            )
            kept = text.strip() if claimed else ""
            if kept and states[at].strict:
                kept = self._supported(text, states[at])
            if kept != text.strip():
                held[at] = _rewritten_as(held[at], kept or self._quoted(settlement) or ABSTAINED)
                if states[at].strict:
                    held[at] = replace(held[at], conflict=False, verdict=None)
                else:
                    held[at] = _judged_by(question, settlement.followed[0], held[at])
        return held

    def _all_told(self, state: QuestionState, decoded: DecodedAnswer) -> DecodedAnswer:
        """Every claim of the documents in place of an answer."""
        told = self.forgetting.without_wording(state.settlement.text)
        decoded = _rewritten_as(decoded, told)
        for claim in state.settlement.followed:
            decoded = _judged_by(state.search.query_str, claim, decoded)
        return decoded

    def _quoted(self, settlement: Settlement) -> str:
        """The sentence that holds the claim to follow; the claim where it cannot be told."""
        says = [*settlement.followed, ""][0]
        whole = settlement.quoted or says
        told = self.forgetting.without_wording(whole)
        return whole if told == whole else self.forgetting.without_wording(says)

    def _supported(self, text: str, state: QuestionState) -> str:
        """The sentences of an answer that a passage supports."""
        if self.support is None:
            return text.strip()
        cited = self.support.cite(text, state.passages_read)
        return " ".join(text[each.start : each.end] for each in cited if each.passages)

    def cite(self, state: QuestionState) -> QuestionState:
        """Say whom the answer follows, and which passages support each of its sentences.

        A passage whose claim the answer does not follow supports none.
        """
        if state.decoded is None:
            return state
        with trace.step("cite"):
            claims, text = self._claims(state, state.decoded), state.decoded.trace.text.strip()
            state = replace(state, claims=claims)
            if text and text == state.settlement.text:
                return replace(state, citations=state.settlement.citations)
            if self.support is None or text == ABSTAINED or not state.kept:
                return state
            against = {claim.source for claim in claims if not claim.followed}
            passages = [(name, read) for name, read in state.passages_read if name not in against]
            citations = self.support.cite(text, passages)
            if state.query.sources.policy == "majority" and state.settlement.decided:
                citations = self._with_majority(state, text, citations)
            return replace(state, citations=citations)

    def _with_majority(
        self, state: QuestionState, text: str, citations: list[Citation]
    ) -> list[Citation]:
        """Citations with all documents of the majority where a sentence claims what they do.

        What supports a sentence need not be all of those that count: one says "12 March 1968", and
        another one "1968".
        """
        if self.reader is None or not citations:
            return citations
        question, followed = state.search.query_str, [c for c in state.claims if c.followed]
        said = [text[each.start : each.end] for each in citations]
        readings = self.reader.read([(question, sentence) for sentence in said])
        cited = []
        for each, reading, sentence in zip(citations, readings, said, strict=True):
            claims = any(_claims_it(question, c.says, reading.answer, sentence) for c in followed)
            more = [c.source for c in followed if c.source != MEMORY] if claims else []
            cited.append(replace(each, passages=tuple(dict.fromkeys([*each.passages, *more]))))
        return cited

    def structure(self, states: Sequence[QuestionState]) -> list[QuestionState]:
        """Write answers as JSON where a schema is given, in one batch; one that leaks is refused.

        What the documents do not say is not written as JSON.
        """
        changed = list(states)
        asked: dict[int, GenerationRequest] = {}
        started, watches = time.perf_counter(), dict[int, WatchedFacts]()
        for at, state in enumerate(states):
            if not state.query.json_schema or state.decoded is None or state.prompt is None:
                continue
            if state.decoded.trace.blocked or state.abstained:
                continue
            watches[at] = self.forgetting.watch(state.facts)
            asked[at] = self._as_json(state, state.decoded, state.prompt, watches[at])
        if not asked:
            return changed
        written = self.model.generate(list(asked.values()))
        share = (time.perf_counter() - started) / len(asked)
        for at, generation in zip(asked, written, strict=True):
            changed[at] = self._structured(states[at], generation, watches[at])
            seconds = states[at].decode_seconds + share
            changed[at] = replace(changed[at], decode_seconds=seconds)
        return changed

    def _as_json(
        self, state: QuestionState, decoded: DecodedAnswer, prompt: Prompt, watch: WatchedFacts
    ) -> GenerationRequest:
        longest, schema = state.decoding.max_new_tokens, state.query.json_schema
        by_memory = decoded.verdict is not None and decoded.verdict.follows == "memory"
        text, room = decoded.trace.text.strip(), self.model.room(longest)
        alone = by_memory or state.strict  # no passage may add to what was checked
        given = structured.prompt(self.model, prompt, text, schema, room, not alone)
        return structured.request(given, schema, longest, watch)

    def _structured(
        self, state: QuestionState, generation: Generation, watch: WatchedFacts
    ) -> QuestionState:
        """The state with what was written as JSON, or with its answer withheld."""
        text = generation.text.strip()
        said = structured.sentences(text)
        leaks = (watch and self.forgetting.first_leak(said, watch) is not None) or any(
            self.forgetting.door.open().name(each) != each
            for each in structured.repeated(text, state.query.json_schema)
        )
        if state.decoded is not None and (generation.blocked or leaks):
            trace = replace(state.decoded.trace.until(0), blocked=True)
            named = [*generation.withheld, *(each.id for each in watch.active_records(said))]
            trace.withheld = list(dict.fromkeys([*trace.withheld, *named]))
            return replace(state, decoded=replace(state.decoded, trace=trace, verdict=None))
        whole = structured.is_json(text)
        if generation.finished and not whole:
            raise InputError(
                "the answer cannot be written by the JSON schema: it allows no text, or "
                f"{self.model.name}'s server follows none; change it, or ask for text"
            )
        output = StructuredOutput(Cleared(text), len(generation.tokens), whole)
        return replace(state, structured=output)

    def answer(self, state: QuestionState) -> Answer:
        """The answer with its sources, notices and times; a refusal if the answer is withheld."""
        decoded, search, steps = state.decoded, state.search, state.trace
        output = decoded.trace.withheld if decoded and not state.refused else []
        blocked = decoded is None or state.refused or decoded.trace.blocked
        decoded = None if blocked else decoded
        shown = self.forgetting.leak_free([search.query_str, *search.embedding_strs], state.facts)
        withheld = [*steps.withheld, *((each, "output") for each in output)]
        self.forgetting.record_withheld(withheld)
        times = dict.fromkeys(STEPS, 0.0) | dict(steps.seconds)
        times |= {"decode": state.decode_seconds, "total": state.seconds + state.decode_seconds}
        answer = Answer(
            question=echoed(state.question),
            rewritten=echoed(state.question),
            queries=[],
            answer=own(refusal(state.question)),
            alpha=state.decoding.alpha,
            conflict=False,
            verdict=None,
            tokens=[],
            sources=[],
            forgotten=[{"id": own(each), "layer": own(layer)} for each, layer in withheld],
            seconds=times,
        )
        if decoded is None:
            return answer
        text = decoded.trace.text.strip()
        watch = self.forgetting.watch(state.facts)
        clear = self.forgetting.door.open(watch, f"{state.question}\n{text}")
        rewritten = shown[:1] == [search.query_str] and clear.text(search.query_str)
        return replace(
            answer,
            rewritten=rewritten or answer.rewritten,
            queries=[clear.text(query) for query in search.embedding_strs if query in shown],
            answer=Cleared(text),  # by the guard, see `FactSuppressor.strip_leaks`
            conflict=decoded.conflict,
            verdict=clear.verdict(decoded.verdict),
            tokens=cleared_tokens(decoded.trace.tokens, watch),
            sources=sources(
                state.retrieved, state.read, state.kept, steps, clear, state.settlement.set_aside
            ),
            notices=[
                clear.line(each)
                for each in (
                    *steps.notices,
                    *notices.of_answer(state, self.model, self.calibration),
                )
            ],
            claims=clear.claims(state.claims),
            settled=clear.name(state.settlement.reason),
            citations=clear.citations(state.citations),
            abstained=state.abstained,
            structured=state.structured,
        )

    def _followed(self, state: QuestionState, decoded: DecodedAnswer) -> list[SourceClaim]:
        """The claims of the passages; where nothing else decided, those that the answer makes."""
        settlement, claims = state.settlement, list(state.settlement.claims)
        agreed = state.strict and not settlement.disagree
        decided = settlement.decided or settlement.told or agreed
        if self.reader is None or decided or not claims:
            return claims
        question = state.search.query_str
        [reading] = self.reader.read([(question, decoded.trace.text)])
        said = decoded.trace.text
        return [
            replace(
                each,
                followed=each.followed and _claims_it(question, each.says, reading.answer, said),
            )
            for each in claims
        ]

    def _claims(self, state: QuestionState, decoded: DecodedAnswer) -> list[SourceClaim]:
        """What each passage claims, and memory if it claims anything; which the answer follows."""
        claims, says = self._followed(state, decoded), decoded.memory
        if says is None or not self.forgetting.leak_free([says.text], state.facts):
            return claims
        groups = values.group(state.search.query_str, [*(each.says for each in claims), says.text])
        wins = decoded.verdict is not None and decoded.verdict.follows == "memory"
        own = SourceClaim(
            MEMORY, says.text, confidence=decoded.confidence, group=groups[-1], followed=wins
        )
        if wins:
            claims = [replace(each, followed=each.group == own.group) for each in claims]
        return [*claims, own]


def reading_limit(model: Engine) -> int:
    """How many passages a model reads at most, by its window."""
    return max(FEWEST_READ, int(model.window * READING_SHARE / PASSAGE_TOKENS))


def _claims_it(question: str, says: str, answer: str, text: str) -> bool:
    """Whether a text, which the reader takes for this answer, claims what a passage says."""
    return values.agrees(question, says, answer) or holds(text, [says])


def _judged_by(question: str, claim: str, decoded: DecodedAnswer) -> DecodedAnswer:
    """A rewritten answer with the conflict between memory and what it now claims, if any."""
    verdict = decoded.verdict
    if verdict is None:
        return decoded
    if values.compare(question, claim, verdict.memory_says) != "contradictory":
        return replace(decoded, conflict=False, verdict=None)
    verdict = replace(verdict, passages_say=claim, follows="passages")
    return replace(decoded, verdict=verdict)


def _rewritten_as(decoded: DecodedAnswer, text: str) -> DecodedAnswer:
    """An answer with another text; one that the guard has blocked stays as it is."""
    if decoded.trace.blocked:
        return decoded
    trace = written(text)
    trace.withheld = list(decoded.trace.withheld)
    return replace(decoded, trace=trace)


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


def _trust(node: "NodeWithScore") -> float:
    return float(node.metadata.get("trust", NEUTRAL_TRUST))
