"""A question on its way to the answer: what was asked, and what each step found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from control import json_text
from control.conflict.dates import Period
from control.conflict.passage_claims import PassageClaim, date_of, passage_text
from control.conflict.policies import Settlement
from control.conflict.sources import Citation, SourceClaim, SourceOptions
from control.conflict.verdict import DecodedAnswer
from control.decoding.generate import Decoding
from control.forgetting.clearing import Cleared
from control.forgetting.suppressor import FactContext
from control.prompts import Prompt
from foundation.trace import RequestTrace

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore, QueryBundle

    Nodes = Sequence[NodeWithScore]

ABSTAINED = "The documents do not say."


@dataclass(frozen=True)
class Query:
    """A question to be answered.

    Attributes:
        question: As it was asked.
        given: Passages to read instead of retrieving any; an empty sequence asks the memory alone
            (closed-book).
        history: Questions and answers of the conversation so far.
        system: An instruction that takes the place of ``prompts.SYSTEM``. It stands above the
            passages and below the forgotten facts: it is redacted, and what it asks for is refused
            as if the question asked for it.
        sources: How what the sources claim is settled; what is not said there is as usual.
        json_schema: JSON Schema by which the answer is also to be written; empty for words alone.
        beside: Passages to read as well, whatever is given or retrieved.
    """

    question: str
    given: "Nodes | None" = None
    history: Sequence[tuple[str, str]] = ()
    system: str = ""
    sources: SourceOptions = field(default_factory=SourceOptions)
    json_schema: str = ""
    beside: "Nodes" = ()

    @property
    def instructions(self) -> str:
        """All that says how to answer, and may itself ask for something."""
        return f"{self.system}\n{json_text.words(self.json_schema)}".strip()


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


@dataclass(frozen=True)
class QuestionState:
    """The state of one question; each step takes it and returns the next one.

    Attributes:
        query: What was asked.
        question: The question, checked.
        decoding: Rule, alpha and sampling.
        search: The question rewritten to stand on its own, and its search queries.
        trace: Seconds, notices and verdicts of the steps.
        facts: The forgotten facts that it concerns.
        retrieved: Passages retrieved, or given.
        kept: Those of them to read.
        related: Passages of the same owner, of other versions, and those that are dated later than
            the day asked for, which the filter has not kept.
        answering: How likely each passage that was read answers the question, in [0, 1], by its id.
        settlement: What they claim, and which of it the answer follows.
        nearest: What comes nearest to a claim, where the passages to read surely claim nothing.
        prompt: With them and without; ``None`` where the question is refused.
        decoded: The answer; ``None`` where the question is refused.
        claims: What each source claims, and which of it the answer follows.
        citations: Of its sentences.
        structured: The answer as JSON.
        seconds: Time of all steps before decoding.
        decode_seconds: Its share of the batch's decoding.
    """

    query: Query
    question: str
    decoding: Decoding
    search: "QueryBundle"
    trace: RequestTrace = field(default_factory=RequestTrace)
    facts: FactContext = field(default_factory=FactContext)
    retrieved: "Nodes" = ()
    kept: "Nodes" = ()
    related: "Nodes" = ()
    answering: Mapping[str, float] = field(default_factory=dict)
    settlement: Settlement = field(default_factory=Settlement)
    nearest: PassageClaim | None = None
    prompt: Prompt | None = None
    decoded: DecodedAnswer | None = None
    claims: Sequence[SourceClaim] = ()
    citations: Sequence[Citation] = ()
    structured: StructuredOutput | None = None
    seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def refused(self) -> bool:
        """Whether it asks for a forgotten fact."""
        return self.facts.refused is not None

    @property
    def passages_read(self) -> list[tuple[str, str]]:
        """Id and text of the passages in the prompt."""
        texts = {node.node_id: passage_text(node) for node in self.kept}
        return [(name, texts[name]) for name in self.read]

    @property
    def dated_later(self) -> set[str]:
        """Ids of the passages that are dated later than the day asked for, if one is."""
        as_of = self.query.sources.as_of
        return {
            node.node_id
            for node in self.retrieved
            if as_of and not Period(as_of).covers(date_of(node))
        }

    @property
    def followed(self) -> "list[NodeWithScore]":
        """The kept passages that the answer may follow."""
        aside = self.settlement.set_aside | self.dated_later
        return [node for node in self.kept if node.node_id not in aside]

    @property
    def read(self) -> list[str]:
        """Ids of the passages in the prompt."""
        count = self.prompt.passages if self.prompt else 0
        return [node.node_id for node in self.followed[:count]]

    @property
    def strict(self) -> bool:
        """Whether nothing may be said that no document supports."""
        return bool(self.query.sources.only_documents) or self.settlement.pinned

    @property
    def abstained(self) -> bool:
        """Whether the documents do not say, and nothing else was to be said."""
        return self.decoded is not None and self.decoded.trace.text == ABSTAINED
