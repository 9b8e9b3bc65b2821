"""What each retrieval module adds: the same questions with and without it, and by the assistant."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.schema import NodeWithScore, QueryBundle

from control import prompts
from control.answer import Answer
from control.conflict import dial
from control.decoding.generate import Decoding
from control.engines.base import Engine
from control.state import Query
from evaluation import metrics
from evaluation.datasets.questions import RetrievalQuestion
from evaluation.runner import Rows
from foundation import trace
from foundation.errors import InputError
from retrieval.rewriter import Turn
from retrieval.trigger import TAU

MAX_NEW_TOKENS = 32
RECALL_AT = 5
BASELINE = "read"
ASSISTANT = "assistant"
MODULES = "modules"  # what is measured by arms
PLAIN_ARMS = ("direct", BASELINE, "read, with history", "+ rewriter", "+ filter", "all")

Ask = Callable[[Sequence[Query], Decoding], list[Answer]]
Rewrite = Callable[[str, Sequence[Turn]], QueryBundle]
Retrieve = Callable[[QueryBundle], list[NodeWithScore]]
Filter = Callable[[Sequence[NodeWithScore], QueryBundle], Sequence[NodeWithScore]]
ReservoirModules = tuple[Rewrite, Retrieve]
"""Rewriter and search over a reservoir"""


@dataclass(frozen=True)
class Arm:
    """One way from a question to the passages that plain RAG reads.

    Attributes:
        name: Of the row.
        rewrite: The question and conversation to searches.
        retrieve: Searches to passages, best first; ``None`` reads none.
        keep: Those to read, at most ``reads``.
        reads: Passages read.
    """

    name: str
    rewrite: Rewrite
    retrieve: Retrieve | None
    keep: Filter
    reads: int


@dataclass(frozen=True)
class AssistantArm:
    """The assistant as it is used: all modules, then reader and dial.

    Attributes:
        ask: Answers queries in one batch.
        name: Of the row.
    """

    ask: Ask
    name: str = ASSISTANT


@dataclass
class RetrievalRow:
    """What one arm did with one question."""

    arm: str
    id: str
    kind: str
    asked: str
    queries: list[str]
    found: list[str]
    read: list[str]
    answer: str
    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str]:
        """Arm and id."""
        return self.arm, self.id

    @property
    def seconds_before(self) -> float:
        """Seconds until the passages to read are there."""
        return sum(spent for step, spent in self.seconds.items() if step != "decode")


def run(
    language_model: Engine,
    items: Sequence[RetrievalQuestion],
    arms: Sequence[Arm | AssistantArm],
    target: Path,
    batch_size: int = 16,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[RetrievalRow]:
    """Take every question through every arm; plain RAG reads what was kept, or the assistant asks.

    Passages are found for one question at a time, as in use, and timed so; answers are decoded in
    batches. Rows are appended to ``target/rows.jsonl``; a second call goes on from there.

    Raises:
        DataError: ``target`` holds rows of another run.
    """
    header = {
        "model": language_model.name,
        "ids": [item.id for item in items],
        "max_new_tokens": max_new_tokens,
    }
    rows: Rows[tuple[str, str], RetrievalRow] = Rows.of_dataclass(
        target / "rows.jsonl", header, RetrievalRow, lambda row: row.key
    )
    decoded: dict[str, tuple[str, float]] = {}
    for arm in arms:
        work = (
            partial(_asked, arm, Decoding(max_new_tokens=max_new_tokens))
            if isinstance(arm, AssistantArm)
            else partial(_answer, language_model, arm, decoded, max_new_tokens)
        )
        rows.complete(
            items,
            lambda item, name=arm.name: [(name, item.id)],  # type: ignore[misc]
            work,
            batch_size,
            title=arm.name,
            unit="questions",
        )
    return [rows[arm.name, item.id] for arm in arms for item in items]


def _answer(
    language_model: Engine,
    arm: Arm,
    decoded: dict[str, tuple[str, float]],
    max_new_tokens: int,
    batch: Sequence[RetrievalQuestion],
) -> dict[tuple[str, str], RetrievalRow]:
    """Rows of one arm; ``decoded``: answers and seconds by prompt, as arms often read the same."""
    rows, written = [], []
    room = language_model.room(max_new_tokens)
    for item in batch:
        with trace.following() as way:
            with trace.step("rewrite"):
                asked = arm.rewrite(item.question, item.history)
            with trace.step("retrieve"):
                found = arm.retrieve(asked) if arm.retrieve else []
            with trace.step("filter"):
                kept = list(arm.keep(found, asked))[: arm.reads]
        texts = [node.text for node in kept]
        titles = [prompts.origin(node.metadata) for node in kept]
        built = prompts.build(language_model, asked.query_str, texts, room, titles=titles)
        written.append(built)
        rows.append(
            RetrievalRow(
                arm.name,
                item.id,
                item.kind,
                asked.query_str,
                asked.embedding_strs,
                [node.node_id for node in found],
                [node.node_id for node in kept[: built.passages]],
                "",
                dict(way.seconds),
                dict(way.counts),
                way.notices,
            )
        )
    new = list({built.context: built for built in written if built.context not in decoded}.values())
    if new:
        started = time.perf_counter()
        how = Decoding(rule="plain", max_new_tokens=max_new_tokens)
        settled = dial.answer(language_model, new, how, None)
        decode = (time.perf_counter() - started) / len(new)
        for built, answer in zip(new, settled, strict=True):
            decoded[built.context] = (answer.trace.text.strip(), decode)
    for row, built in zip(rows, written, strict=True):
        row.answer, row.seconds["decode"] = decoded[built.context]
    return {row.key: row for row in rows}


def _asked(
    arm: AssistantArm, how: Decoding, batch: Sequence[RetrievalQuestion]
) -> dict[tuple[str, str], RetrievalRow]:
    """Rows of the assistant."""
    answers = arm.ask([Query(item.question, history=item.history) for item in batch], how)
    rows = [
        RetrievalRow(
            arm.name,
            item.id,
            item.kind,
            answer.rewritten,
            list(answer.queries),
            [source.id for source in answer.sources],
            [source.id for source in answer.sources if source.kept],
            answer.answer,
            {
                "before": answer.seconds["total"] - answer.seconds["decode"],
                "decode": answer.seconds["decode"],
            },
            notices=list(answer.notices),
        )
        for item, answer in zip(batch, answers, strict=True)
    ]
    return {row.key: row for row in rows}


def report(
    items: Sequence[RetrievalQuestion], rows: Sequence[RetrievalRow]
) -> list[dict[str, Any]]:
    """For each kind of question and each arm: recall, hit, F1, seconds, passages read.

    ``found`` and ``read``: share of questions with all of their evidence among the passages found,
    and among those read. ``seconds`` are those of rewriting, triggering, retrieving and filtering,
    of the assistant all but decoding, the mean over the questions; ``decode`` that of an answer
    within its batch. ``hit`` is tested
    against the arm ``read`` by McNemar's exact test.
    """
    asked = {item.id: item for item in items}
    kinds = [*dict.fromkeys(item.kind for item in items), "all"]
    arms = list(dict.fromkeys(row.arm for row in rows))
    table = []
    for kind in kinds:
        within = [row for row in rows if kind in (row.kind, "all")]
        baseline = _hits([row for row in within if row.arm == BASELINE], asked)
        for arm in arms:
            chosen = [row for row in within if row.arm == arm]
            hits = _hits(chosen, asked)
            recalled = np.array([asked[row.id].recalled(row.found[:RECALL_AT]) for row in chosen])
            table.append(
                {
                    "kind": kind,
                    "arm": arm,
                    "n": len(chosen),
                    "recall@5": metrics.percent(recalled),
                    "found": metrics.percent(_recalled(chosen, asked, "found")),
                    "read": metrics.percent(_recalled(chosen, asked, "read")),
                    "hit": metrics.percent(hits),
                    "F1": 100 * float(np.mean([_f1(row.answer, asked[row.id]) for row in chosen])),
                    "passages": float(np.mean([len(row.read) for row in chosen])),
                    "seconds": float(np.mean([row.seconds_before for row in chosen])),
                    "decode": float(np.mean([row.seconds["decode"] for row in chosen])),
                    "ci": {
                        "recall@5": metrics.interval(metrics.percent, recalled),
                        "hit": metrics.interval(metrics.percent, hits),
                    },
                    "p": metrics.mcnemar(hits, baseline) if len(baseline) == len(hits) else None,
                }
            )
    return table


def failures(
    items: Sequence[RetrievalQuestion], rows: Sequence[RetrievalRow]
) -> list[dict[str, Any]]:
    """For each arm, how many questions were answered right, and where the others were lost.

    A question without a right answer counts where its evidence went missing first: it was not
    found, found but not read (dropped by the filter or beyond the passages read), or read.
    """
    asked = {item.id: item for item in items}
    table = []
    for arm in dict.fromkeys(row.arm for row in rows):
        chosen = [row for row in rows if row.arm == arm]
        right = _hits(chosen, asked)
        found, read = (_recalled(chosen, asked, place) for place in ("found", "read"))
        table.append(
            {
                "arm": arm,
                "n": len(chosen),
                "right": int(right.sum()),
                "not found": int((~right & ~found).sum()),
                "found, not read": int((~right & found & ~read).sum()),
                "read, wrong answer": int((~right & read).sum()),
            }
        )
    return table


def _recalled(
    rows: Sequence[RetrievalRow], asked: dict[str, RetrievalQuestion], place: str
) -> metrics.Flags:
    return np.array([asked[row.id].recalled(getattr(row, place)) for row in rows], dtype=bool)


def _hits(rows: Sequence[RetrievalRow], asked: dict[str, RetrievalQuestion]) -> metrics.Flags:
    return np.array([metrics.holds(row.answer, asked[row.id].answers) for row in rows], dtype=bool)


def _f1(answer: str, item: RetrievalQuestion) -> float:
    return max(metrics.token_f1(answer, right) for right in item.answers)


@dataclass(frozen=True)
class Modules:
    """The parts of the pipeline, to be measured with and without each other.

    Attributes:
        rewrite: Query Rewriter+.
        search: The index, for a plain question or for several searches.
        judge: The Knowledge Filter.
        with_reservoir: The same over a reservoir in a directory, with a tau: rewriting only where a
            first search does not find the answer, and search by the trigger.
        reads: Passages read at most.
        ask: The assistant with all of them.
    """

    rewrite: Rewrite
    search: Retrieve
    judge: Filter
    with_reservoir: Callable[[Path, float], ReservoirModules]
    reads: int
    ask: Ask


def modules_report(
    language_model: Engine,
    modules: Modules,
    items: Sequence[RetrievalQuestion],
    target: Path,
    only: Collection[str] = (),
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> dict[str, Any]:
    """Direct, retrieve-and-read, each module alone, all of them, and the assistant.

    Args:
        language_model: The model.
        modules: To be measured.
        items: The questions.
        target: Directory of the report.
        only: Names of the ways to measure; all if empty.
        max_new_tokens: Longest answer, in tokens.

    Raises:
        InputError: There is no such arm.
    """
    check_arms(only)
    rewrite, triggered = modules.with_reservoir(target / "reservoir", TAU)
    parts: Sequence[tuple[Rewrite, Retrieve | None, Filter]] = (
        (plain_query, None, keep_all),
        (plain_query, modules.search, keep_all),
        (with_history, modules.search, keep_all),
        (modules.rewrite, modules.search, keep_all),
        (plain_query, modules.search, modules.judge),
        (rewrite, triggered, modules.judge),
    )
    ways: list[Arm | AssistantArm] = [
        Arm(name, *part, modules.reads) for name, part in zip(PLAIN_ARMS, parts, strict=True)
    ]
    ways.append(AssistantArm(modules.ask))
    ways = [way for way in ways if not only or way.name in only]
    rows = run(language_model, items, ways, target, max_new_tokens=max_new_tokens)
    tables = {"modules": report(items, rows), "failures": failures(items, rows)}
    return {"n": len(items), "tables": tables}


def check_arms(names: Collection[str], measure: str = MODULES) -> None:
    """Check the names of arms.

    Raises:
        InputError: There is no such arm, or what is measured has none.
    """
    if names and measure != MODULES:
        raise InputError(f"--arm: --measure {measure} has none; leave one of them out")
    if unknown := set(names) - {*PLAIN_ARMS, ASSISTANT}:
        told = ", ".join(map(repr, (*PLAIN_ARMS, ASSISTANT)))
        raise InputError(f"--arm {min(unknown)!r}: there is {told}")


def plain_query(question: str, _history: Sequence[Turn]) -> QueryBundle:
    """The question itself is searched and read."""
    return QueryBundle(question)


def with_history(question: str, history: Sequence[Turn]) -> QueryBundle:
    """The conversation is searched and read along with the question: the common way."""
    said = " ".join(text for turn in history for text in turn)
    return QueryBundle(f"{said} {question}".strip())


def keep_all(found: Sequence[NodeWithScore], _asked: QueryBundle) -> Sequence[NodeWithScore]:
    """Nothing is filtered out."""
    return found
