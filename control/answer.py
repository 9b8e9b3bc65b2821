"""An answer with its sources: the passages, and whether each was read."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NewType

from control import notices, prompts
from control.conflict.verdict import Verdict
from control.decoding.generate import Alpha
from control.engines.base import Engine
from control.forgetting.clearing import (
    NOTHING,
    Clearance,
    Cleared,
    ClearedCitation,
    ClearedClaim,
    ClearedToken,
    cleared_tokens,
    echoed,
    own,
)
from control.forgetting.suppressor import FactSuppressor, refusal
from control.state import QuestionState, StructuredOutput
from foundation.trace import RequestTrace

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

ClearedVerdict = NewType("ClearedVerdict", Verdict)  # made by `Clearance.verdict`

STEPS = (
    "route",
    "rewrite",
    "trigger",
    "retrieve",
    "filter",
    "redact",
    "claims",
    "decode",
    "cite",
    "total",
)


@dataclass(frozen=True)
class Source:
    """A passage that was retrieved or given.

    Attributes:
        id: The passage's stable id.
        title: Of its document.
        score: Cosine similarity with the question, or ``None`` for a passage given by the user.
        kept: Whether the model read it.
        reason: Why, or why not.
        text: The passage.
        answers: The filter's probability that it holds a clear answer; ``None`` without a filter.
        page: Of the document, or slide, on which it begins, from 1; ``None`` if there are none.
        heading: The headings that it stands under, "outer > inner"; empty if there are none.
        date: Of its document, in ISO 8601, of which day or month may lack; empty if not known.
        replaces: What its document says it replaces; empty if it says nothing of it.
        file: Name of the file that its document was read from, with its folders as far as they
            tell it from others; empty if it was given.
    """

    id: Cleared
    title: Cleared
    score: float | None
    kept: bool
    reason: Cleared
    text: Cleared
    answers: float | None = None
    page: int | None = None
    heading: Cleared = NOTHING
    date: Cleared = NOTHING
    replaces: Cleared = NOTHING
    file: Cleared = NOTHING


@dataclass
class Answer:
    """An answer and its sources: the object that ``fulcrum ask --json`` prints.

    All of it is cleared of forgotten facts, see `control.forgetting.clearing`.

    Attributes:
        question: As asked.
        rewritten: To stand on its own.
        queries: What was searched for.
        answer: The text.
        alpha: The setting of the dial.
        conflict: Whether memory and passages disagree.
        verdict: On that conflict.
        tokens: Of the answer, with the scores of both branches.
        sources: Passages found or given.
        forgotten: The forgotten facts that were withheld, and where.
        notices: What the user should know, one sentence each.
        seconds: Of each step.
        claims: What each source claims.
        settled: In one sentence, which claims the answer follows and why; empty where the sources
            do not disagree.
        citations: Of each sentence with something to check, the passages that support it.
        abstained: Whether the documents do not say, and nothing else was to be said.
        structured: The answer as JSON, where a schema was given and something was answered.
    """

    question: Cleared
    rewritten: Cleared
    queries: list[Cleared]
    answer: Cleared
    alpha: Alpha
    conflict: bool
    verdict: ClearedVerdict | None
    tokens: list[ClearedToken]
    sources: list[Source]
    forgotten: list[dict[str, Cleared]] = field(default_factory=list)
    notices: list[Cleared] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    claims: list[ClearedClaim] = field(default_factory=list)
    settled: Cleared = NOTHING
    citations: list[ClearedCitation] = field(default_factory=list)
    abstained: bool = False
    structured: StructuredOutput | None = None


def compose(state: QuestionState, forgetting: FactSuppressor, model: Engine) -> Answer:
    """The answer with its sources, notices and times; a refusal if the answer is withheld."""
    decoded, search, steps = state.decoded, state.search, state.trace
    output = decoded.trace.withheld if decoded and not state.refused else []
    blocked = decoded is None or state.refused or decoded.trace.blocked
    decoded = None if blocked else decoded
    shown = forgetting.leak_free([search.query_str, *search.embedding_strs], state.facts)
    withheld = [*steps.withheld, *((each, "output") for each in output)]
    forgetting.record_withheld(withheld)
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
    watch = forgetting.watch(state.facts)
    clear = forgetting.door.open(watch, f"{state.question}\n{text}")
    claims = clear.claims(state.claims)
    state = replace(state, claims=claims)  # a notice names those that are told
    told = [*steps.notices, *notices.of_answer(state, model)]

    def searched(query: str) -> Cleared:
        """A search; the question itself as it was asked, whatever it guesses."""
        if query == state.question:
            return answer.question
        return clear.text(query) if query in shown else NOTHING

    return replace(
        answer,
        rewritten=searched(search.query_str) or answer.question,
        queries=list(filter(None, map(searched, search.embedding_strs))),
        answer=Cleared(text),  # by the guard, see `FactSuppressor.strip_leaks`
        conflict=decoded.conflict,
        verdict=clear.verdict(decoded.verdict),
        tokens=cleared_tokens(decoded.trace.tokens, watch),
        sources=_sources(state, clear),
        notices=[clear.line(each) for each in told],
        claims=claims,
        settled=clear.name(state.settlement.reason),
        citations=clear.citations(state.citations),
        abstained=state.abstained,
        structured=state.structured,
    )


def _sources(state: QuestionState, clear: Clearance) -> list[Source]:
    """Retrieved passages as sources, each with the reason why it was read or not."""
    files = prompts.file_names(map(prompts.path, state.retrieved))
    passed, read = {node.node_id for node in state.kept}, state.read
    trace = state.trace
    aside = dict.fromkeys(state.settlement.set_aside, "claims what the answer does not follow")
    aside |= dict.fromkeys(state.dated_later, "is dated later than the day asked for")
    return [
        _source(node, _reason(node, read, passed, trace, aside), read, trace, clear, files)
        for node in state.retrieved
    ]


def _reason(
    node: "NodeWithScore",
    read: Collection[str],
    passed: Collection[str],
    trace: RequestTrace,
    aside: Mapping[str, str],
) -> str:
    """Why a passage was read or not."""
    answers = trace.verdicts.get(node.node_id)
    dropped = answers is not None and node.node_id not in trace.passed
    if node.node_id in read:
        return "read by the model" + (", though the filter had left it out" if dropped else "")
    if node.node_id in aside:
        return aside[node.node_id]
    if node.node_id in passed:
        return "does not fit into the model's window"
    if dropped:
        return f"holds no answer that is clear enough (probability {answers:.2f})"
    return "others rank before it"


def _source(
    node: "NodeWithScore",
    reason: str,
    read: Collection[str],
    trace: RequestTrace,
    clear: Clearance,
    files: Mapping[str, str],
) -> Source:
    page = node.metadata.get("page")
    title, heading, date, replaces = (
        str(node.metadata.get(key, "")) for key in ("title", "heading", "date", "replaces")
    )
    return Source(
        id=clear.id(node.node_id),
        title=clear.name(title),
        score=node.score,
        kept=node.node_id in read,
        reason=own(reason),
        text=clear.text(node.text, prompts.origin(node.metadata)),
        answers=trace.verdicts.get(node.node_id),
        page=page if isinstance(page, int) else None,  # a JSON line may call anything so
        heading=clear.name(heading),
        date=clear.name(date),
        replaces=clear.name(replaces),
        file=clear.name(files[prompts.path(node)]),
    )


def source_names(sources: Sequence[Source]) -> dict[str, str]:
    """What passages are called, by id: title and page; where files share a title, the file too."""
    files = defaultdict[str, set[str]](set)
    for each in sources:
        files[each.title].add(each.file)
    names: dict[str, str] = {}
    for each in sources:
        told = len(files[each.title]) > 1 and bool(each.file)
        page = "" if each.page is None else f"page {each.page}"
        parts = (each.title, each.file if told else "", page)
        names[each.id] = ", ".join(part for part in parts if part)
    return names
