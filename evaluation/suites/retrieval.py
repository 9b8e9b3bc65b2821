"""What each retrieval module adds: the same questions with and without it."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.schema import NodeWithScore, QueryBundle
from tqdm import tqdm

from control import prompts
from control.conflict import dial
from control.decoding.generate import Decoding
from control.engines.transformers import LanguageModel
from evaluation import metrics
from evaluation.datasets.questions import RetrievalQuestion
from foundation import trace
from foundation.errors import DataError
from retrieval.rewriter import Turn

MAX_NEW_TOKENS = 32
RECALL_AT = 5
BASELINE = "read"

Rewrite = Callable[[str, Sequence[Turn]], QueryBundle]
Retrieve = Callable[[QueryBundle], list[NodeWithScore]]
Filter = Callable[[Sequence[NodeWithScore], QueryBundle], Sequence[NodeWithScore]]


Recalling = tuple[Rewrite, Retrieve, Filter]


@dataclass(frozen=True)
class Arm:
    """One way from a question to the passages that are read.

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


def run(
    language_model: LanguageModel,
    items: Sequence[RetrievalQuestion],
    arms: Sequence[Arm],
    target: Path,
    batch_size: int = 16,
) -> list[RetrievalRow]:
    """Take every question through every arm; plain RAG reads what was kept.

    Passages are found for one question at a time, as in use, and timed so; answers are decoded in
    batches. Rows are appended to ``target/rows.jsonl``; a second call goes on from there.

    Raises:
        DataError: ``target`` holds rows of another run.
    """
    target.mkdir(parents=True, exist_ok=True)
    path = target / "rows.jsonl"
    header = json.dumps({"model": language_model.name, "ids": [item.id for item in items]})
    done = _read(path, header)
    said: dict[str, tuple[str, float]] = {}
    with tqdm(total=len(items) * len(arms), unit=" questions", delay=2) as bar:
        bar.update(len(done))
        for arm in arms:
            todo = [item for item in items if (arm.name, item.id) not in done]
            bar.set_description(arm.name)
            for start in range(0, len(todo), batch_size):
                batch = todo[start : start + batch_size]
                rows = _answered(language_model, arm, batch, said)
                with path.open("a", encoding="utf-8") as file:
                    file.writelines(
                        json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows
                    )
                done |= {(row.arm, row.id): row for row in rows}
                bar.update(len(rows))
    return [done[arm.name, item.id] for arm in arms for item in items]


def _read(path: Path, header: str) -> dict[tuple[str, str], RetrievalRow]:
    if not path.exists() or not path.stat().st_size:
        path.write_text(header + "\n", encoding="utf-8")
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[0] != header:
        raise DataError(f"{path}: holds the rows of another run; give another --out, or delete it")
    whole = lines[:-1]  # what a killed run was writing has no line end
    path.write_text("".join(line + "\n" for line in whole), encoding="utf-8")
    rows = [RetrievalRow(**json.loads(line)) for line in whole[1:]]
    return {(row.arm, row.id): row for row in rows}


def _answered(
    language_model: LanguageModel,
    arm: Arm,
    batch: Sequence[RetrievalQuestion],
    said: dict[str, tuple[str, float]],
) -> list[RetrievalRow]:
    """Rows of one arm. ``said`` keeps answers and seconds by prompt: arms often read the same."""
    rows, written = [], []
    room = language_model.room(MAX_NEW_TOKENS)
    for item in batch:
        with trace.following() as way:
            with trace.step("rewrite"):
                asked = arm.rewrite(item.question, item.history)
            with trace.step("retrieve"):
                found = arm.retrieve(asked) if arm.retrieve else []
            with trace.step("filter"):
                kept = list(arm.keep(found, asked))[: arm.reads]
        texts = [node.text for node in kept]
        built = prompts.build(language_model.tokenizer, asked.query_str, texts, room)
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
    new = list({built.context: built for built in written if built.context not in said}.values())
    if new:
        started = time.perf_counter()
        how = Decoding(rule="plain", max_new_tokens=MAX_NEW_TOKENS)
        settled = dial.answer(language_model, new, how, None)
        decode = (time.perf_counter() - started) / len(new)
        for built, answer in zip(new, settled, strict=True):
            said[built.context] = (answer.trace.text.strip(), decode)
    for row, built in zip(rows, written, strict=True):
        row.answer, row.seconds["decode"] = said[built.context]
    return rows


def report(
    items: Sequence[RetrievalQuestion], rows: Sequence[RetrievalRow]
) -> list[dict[str, Any]]:
    """For each kind of question and each arm: recall@5, hit, F1, seconds, passages read.

    ``seconds`` are those of rewriting, triggering, retrieving and filtering, the mean over the
    questions; ``decode`` that of an answer within its batch. ``hit`` is tested against the arm
    ``read`` by McNemar's exact test.
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
                    "hit": metrics.percent(hits),
                    "F1": 100 * float(np.mean([_f1(row.answer, asked[row.id]) for row in chosen])),
                    "passages": float(np.mean([len(row.read) for row in chosen])),
                    "seconds": _mean_seconds(chosen),
                    "decode": float(np.mean([row.seconds["decode"] for row in chosen])),
                    "ci": {
                        "recall@5": metrics.interval(metrics.percent, recalled),
                        "hit": metrics.interval(metrics.percent, hits),
                    },
                    "p": metrics.mcnemar(hits, baseline) if len(baseline) == len(hits) else None,
                }
            )
    return table


def _hits(rows: Sequence[RetrievalRow], asked: dict[str, RetrievalQuestion]) -> metrics.Flags:
    return np.array([metrics.holds(row.answer, asked[row.id].answers) for row in rows], dtype=bool)


def _f1(answer: str, item: RetrievalQuestion) -> float:
    return max(metrics.token_f1(answer, right) for right in item.answers)


def _mean_seconds(rows: Sequence[RetrievalRow]) -> float:
    return float(
        np.mean([sum(s for step, s in row.seconds.items() if step != "decode") for row in rows])
    )


@dataclass(frozen=True)
class Modules:
    """The parts of the pipeline, to be measured with and without each other.

    Attributes:
        rewrite: Query Rewriter+.
        search: The index, for a plain question or for several searches.
        judge: The Knowledge Filter.
        recall: Of a reservoir in a directory, with tau and theta (or their defaults): rewriting
            that spares itself where the reservoir serves and, if asked for, where a first look at
            the index finds the answer; search by the trigger; and a filter that remembers what it
            keeps.
        reads: Passages read at most.
    """

    rewrite: Rewrite
    search: Retrieve
    judge: Filter
    recall: Callable[[Path, float | None, int | None, bool], Recalling]
    reads: int


def modules_report(
    language_model: LanguageModel,
    modules: Modules,
    items: Sequence[RetrievalQuestion],
    target: Path,
) -> dict[str, Any]:
    """Direct, retrieve-and-read, each module alone, and all of them."""
    rewrite, triggered, remembered = modules.recall(target / "reservoir", None, None, True)
    ways = [
        Arm("direct", as_asked, None, everything, modules.reads),
        Arm(BASELINE, as_asked, modules.search, everything, modules.reads),
        Arm("read, with history", with_history, modules.search, everything, modules.reads),
        Arm("+ rewriter", modules.rewrite, modules.search, everything, modules.reads),
        Arm("+ filter", as_asked, modules.search, modules.judge, modules.reads),
        Arm("all", rewrite, triggered, remembered, modules.reads),
    ]
    rows = run(language_model, items, ways, target)
    return {"n": len(items), "tables": {"modules": report(items, rows)}}


def as_asked(question: str, _history: Sequence[Turn]) -> QueryBundle:
    """The question itself is searched and read."""
    return QueryBundle(question)


def with_history(question: str, history: Sequence[Turn]) -> QueryBundle:
    """The conversation is searched and read along with the question: the common way."""
    said = " ".join(text for turn in history for text in turn)
    return QueryBundle(f"{said} {question}".strip())


def everything(found: Sequence[NodeWithScore], _asked: QueryBundle) -> Sequence[NodeWithScore]:
    """Nothing is filtered out."""
    return found
