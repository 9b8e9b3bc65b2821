"""One question's way through Fulcrum."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from control import dial, prompts
from control.calibration import ANY_MODEL, Calibration
from control.decoding import Alpha, Decoding, OnToken
from control.dial import Verdict
from control.model import LanguageModel
from control.rules import DIAL
from control.trace import TokenTrace
from foundation.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import NodeWithScore

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
    """

    id: str
    title: str
    score: float | None
    kept: bool
    reason: str
    text: str


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
        retriever: Finds passages for a question.
    """

    model: LanguageModel
    calibration: Calibration
    retriever: "BaseRetriever"

    def ask(
        self,
        question: str,
        how: Decoding,
        given: "Sequence[NodeWithScore] | None" = None,
        on_token: OnToken | None = None,
    ) -> Answer:
        """Answer one question.

        Args:
            question: The question.
            how: Rule, alpha and sampling.
            given: Passages to read instead of retrieving any; an empty sequence asks the memory
                alone (closed-book).
            on_token: Told every token as it is chosen.

        Raises:
            InputError: The question is empty or too long, or no window is left for it.
        """
        question = checked(question)
        if how.reliance is not None:
            how = replace(how, alpha=self.calibration.alpha(how.reliance), reliance=None)
        room = self.model.room(how.max_new_tokens)
        result = Answer(question, question, [question], "", how.alpha, False, None, [], [])
        with _timed(result, "total"):
            with _timed(result, "retrieve"):
                found = self.retriever.retrieve(question) if given is None else list(given)
            if given is None and not found:
                result.notices.append(NOTHING_FOUND)
            with _timed(result, "decode"):
                texts, trust = [node.text for node in found], [_trust(node) for node in found]
                prompt = prompts.build(self.model.tokenizer, question, texts, room, trust)
                [settled] = dial.answer(
                    self.model, [prompt], how, self.calibration, on_token=on_token
                )
        result.sources = [_source(node, at < prompt.passages) for at, node in enumerate(found)]
        if dropped := len(found) - prompt.passages:
            result.notices.append(TOO_LONG.format(dropped=dropped, all=len(found)))
        if how.rule == DIAL and self.calibration.model == ANY_MODEL:
            result.notices.append(NOT_CALIBRATED.format(model=self.model.name))
        result.answer = settled.trace.text.strip()
        result.tokens = settled.trace.tokens
        result.verdict = settled.verdict
        result.conflict = settled.conflict
        return result


NOT_CALIBRATED = (
    "{model} has not been calibrated: the dial judges it by probabilities alone and may turn too "
    "far or too little; measure it by: fulcrum eval dial --calibrate --out DIR"
)
NOTHING_FOUND = (
    "no passages were found, so the answer is from memory alone; add documents by: fulcrum ingest"
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


def _source(node: "NodeWithScore", kept: bool) -> Source:
    reason = "read by the model" if kept else "does not fit into the model's window"
    title = str(node.metadata.get("title", ""))
    return Source(node.node_id, title, node.score, kept, reason, node.text)


@contextmanager
def _timed(result: Answer, step: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        result.seconds[step] += time.perf_counter() - started
