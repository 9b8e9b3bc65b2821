"""One question's way through Fulcrum."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from control import dial, prompts
from control.calibration import ANY_MODEL, Calibration
from control.decoding import Alpha, Decoding, OnToken
from control.dial import Verdict
from control.model import LanguageModel
from control.rules import DIAL
from control.trace import TokenTrace
from foundation import trail
from foundation.errors import InputError
from foundation.trail import Trail

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import NodeWithScore, QueryBundle

    Nodes = Sequence[NodeWithScore]

LONGEST_QUESTION = 20_000  # characters; far beyond any question, well below a pasted book
STEPS = ("route", "rewrite", "trigger", "retrieve", "filter", "redact", "decode", "total")


@dataclass(frozen=True)
class Source:
    """A passage and what became of it.

    Attributes:
        id: The passage's stable id.
        title: Of its document.
        score: Cosine similarity with the question, or ``None`` for a passage given by the user.
        kept: Whether the model read it.
        reason: Why, or why not.
        text: The passage.
        answers: How likely it holds a clear answer, by the filter; ``None`` where none judged it.
    """

    id: str
    title: str
    score: float | None
    kept: bool
    reason: str
    text: str
    answers: float | None = None


@dataclass
class Answer:
    """An answer and its provenance: the object that ``fulcrum ask --json`` prints."""

    question: str
    rewritten: str
    queries: list[str]
    answer: str
    alpha: Alpha
    conflict: bool
    verdict: Verdict | None
    tokens: list[TokenTrace]
    sources: list[Source]
    forgotten: list[dict[str, str]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))


@dataclass(frozen=True)
class Assistant:
    """Answers questions from passages and memory.

    Attributes:
        model: The language model.
        calibration: How its dial is to be read.
        retriever: Finds passages for the searches of a question.
        rewriter: Makes the question stand on its own and writes the searches; ``None`` searches
            the question itself.
        processors: What passages go through before they are read, such as the filter.
        reads: Passages read at most.
    """

    model: LanguageModel
    calibration: Calibration
    retriever: "BaseRetriever"
    rewriter: "BaseQueryTransform | None" = None
    processors: "Sequence[BaseNodePostprocessor]" = ()
    reads: int = 3

    def ask(
        self,
        question: str,
        how: Decoding,
        given: "Nodes | None" = None,
        on_token: OnToken | None = None,
        history: Sequence[tuple[str, str]] = (),
    ) -> Answer:
        """Answer one question.

        Args:
            question: The question.
            how: Rule, alpha and sampling.
            given: Passages to read instead of retrieving any; an empty sequence asks the memory
                alone (closed-book).
            on_token: Told every token as it is chosen.
            history: Questions and answers of the conversation so far.

        Raises:
            InputError: The question is empty or too long, or no window is left for it.
        """
        question = checked(question)
        if how.reliance is not None:
            how = replace(how, alpha=self.calibration.alpha(how.reliance), reliance=None)
        room = self.model.room(how.max_new_tokens)
        started = time.perf_counter()
        with trail.following() as way:
            with trail.step("rewrite"):
                asked = self.rewritten(question, history, searching=given is None)
            with trail.step("retrieve"):  # the trigger books its own time
                found = self.retriever.retrieve(asked) if given is None else list(given)
            with trail.step("filter"):
                kept = self.filtered(found, asked) if given is None else found
            with trail.step("decode"):
                texts, trust = [node.text for node in kept], [_trust(node) for node in kept]
                prompt = prompts.build(self.model.tokenizer, asked.query_str, texts, room, trust)
                [settled] = dial.answer(
                    self.model, [prompt], how, self.calibration, on_token=on_token
                )
        read = [node.node_id for node in kept[: prompt.passages]]
        return Answer(
            question=question,
            rewritten=asked.query_str,
            queries=asked.embedding_strs,
            answer=settled.trace.text.strip(),
            alpha=how.alpha,
            conflict=settled.conflict,
            verdict=settled.verdict,
            tokens=settled.trace.tokens,
            sources=[_source(node, read, kept, way) for node in found],
            notices=way.notices + self._notices(how, given, found, kept, len(read)),
            seconds=dict.fromkeys(STEPS, 0.0)
            | dict(way.seconds)
            | {"total": time.perf_counter() - started},
        )

    def rewritten(
        self, question: str, history: Sequence[tuple[str, str]], searching: bool = True
    ) -> "QueryBundle":
        """The question on its own and its searches; without a search only a follow-up needs it."""
        from llama_index.core.schema import QueryBundle

        if self.rewriter is None or not (searching or history):
            return QueryBundle(question)
        return self.rewriter.run(question, {"history": history})

    def filtered(self, found: "Nodes", asked: "QueryBundle") -> "Nodes":
        """The passages to read, best first."""
        kept = list(found)
        for processor in self.processors:
            kept = processor.postprocess_nodes(kept, asked)
        return kept[: self.reads]

    def _notices(
        self, how: Decoding, given: "Nodes | None", found: "Nodes", kept: "Nodes", read: int
    ) -> list[str]:
        notices = []
        if given is None and not found:
            notices.append(NOTHING_FOUND)
        elif given is None and not kept:
            notices.append(NOTHING_KEPT.format(found=len(found)))
        if dropped := len(kept) - read:
            notices.append(TOO_LONG.format(dropped=dropped, all=len(kept)))
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


def checked(question: str) -> str:
    """The question without surrounding space.

    Raises:
        InputError: It is empty or too long.
    """
    question = question.strip()
    if not question:
        raise InputError('the question is empty; ask one, as in: fulcrum ask "What is ...?"')
    if len(question) > LONGEST_QUESTION:
        raise InputError(
            f"the question has {len(question):,} characters, the limit is {LONGEST_QUESTION:,}; "
            "give long text as a document: fulcrum ask QUESTION --context FILE"
        )
    return question


def _trust(node: "NodeWithScore") -> float:
    return float(node.metadata.get("trust", dial.NEUTRAL_TRUST))


def _source(node: "NodeWithScore", read: Sequence[str], kept: "Nodes", way: Trail) -> Source:
    answers = way.verdicts.get(node.node_id)
    if node.node_id in read:
        reason = "read by the model"
    elif any(node.node_id == other.node_id for other in kept):
        reason = "does not fit into the model's window"
    elif answers is not None and node.node_id not in way.passed:
        reason = f"holds no clear answer (probability {answers:.2f})"
    else:
        reason = "others rank before it"
    title = str(node.metadata.get("title", ""))
    return Source(node.node_id, title, node.score, node.node_id in read, reason, node.text, answers)
