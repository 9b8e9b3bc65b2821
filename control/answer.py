"""An answer with its sources: the passages, and whether each was read."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NewType

from control import prompts
from control.conflict.verdict import Verdict
from control.decoding.generate import Alpha
from control.forgetting.clearing import (
    NOTHING,
    Clearance,
    Cleared,
    ClearedCitation,
    ClearedClaim,
    ClearedToken,
    own,
)
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


@dataclass(frozen=True)
class StructuredOutput:
    """An answer written as JSON by a schema.

    Attributes:
        text: The JSON.
        tokens: How many tokens the model has written.
        finished: Whether it is whole, and not cut off at its greatest length.
    """

    text: Cleared
    tokens: int
    finished: bool


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


def sources(
    nodes: "Sequence[NodeWithScore]",
    read: Collection[str],
    kept: "Sequence[NodeWithScore]",
    trace: RequestTrace,
    clear: Clearance,
    set_aside: Collection[str] = (),
) -> list[Source]:
    """Retrieved passages as sources, each with the reason why it was read or not.

    Args:
        nodes: The passages.
        read: Ids of the passages in the prompt.
        kept: Passages that passed the filter.
        trace: Holds the filter's verdicts.
        clear: Clears its texts.
        set_aside: Ids of the passages whose claim the answer does not follow.
    """
    files = prompts.file_names(map(prompts.path, nodes))
    passed = {node.node_id for node in kept}
    return [
        _source(node, _reason(node, read, passed, trace, set_aside), read, trace, clear, files)
        for node in nodes
    ]


def _reason(
    node: "NodeWithScore",
    read: Collection[str],
    passed: Collection[str],
    trace: RequestTrace,
    set_aside: Collection[str],
) -> str:
    """Why a passage was read or not."""
    answers = trace.verdicts.get(node.node_id)
    if node.node_id in read:
        return "read by the model"
    if node.node_id in set_aside:
        return "claims what the answer does not follow"
    if node.node_id in passed:
        return "does not fit into the model's window"
    if answers is not None and node.node_id not in trace.passed:
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
