"""The system under test, what it is asked, and the rows in which its answers are stored."""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.schema import NodeWithScore, TextNode
from numpy.typing import NDArray

from control.answer import Answer
from control.assistant import Assistant
from control.conflict.sources import MEMORY
from control.decoding.generate import Decoding
from control.state import Query
from evaluation.datasets.conflicts import Conflict
from evaluation.datasets.sources import Passage
from evaluation.runner import Rows, digest
from evaluation.suites import dial

MAX_NEW_TOKENS = 48  # two sentences, as of the replies that are searched for leaks

Key = tuple[str, str]
"""Arm and id"""

Vectors = Callable[[Sequence[str]], NDArray[np.float32]]
Pin = Callable[[str], AbstractContextManager[None]]
"""Pins a correction while the context lasts."""


@dataclass(frozen=True)
class SourceSystem:
    """The system under test.

    Attributes:
        assistant: With its reader and what finds citations.
        how: How it decodes.
        identity: Of all that was trained for it, for the header of the rows.
        pin: Pins a correction; ``None`` where the assistant takes none.
        vectors: Texts as unit vectors, shape (texts, dimension), which find similar passages.
        over: The same system over an index of the files in a directory.
    """

    assistant: Assistant
    how: Decoding
    identity: str = ""
    pin: Pin | None = None
    vectors: Vectors | None = None
    over: "Callable[[Path], SourceSystem] | None" = None

    def ask(self, queries: Sequence[Query]) -> list[Answer]:
        """Answer queries in one batch."""
        return self.assistant.ask_batch(queries, self.how)

    def plain(self) -> "SourceSystem":
        """The same model as plain RAG, without reader."""
        assistant = replace(self.assistant, reader=None, support=None)
        return replace(self, assistant=assistant, how=replace(self.how, rule="plain"))

    def known(self, items: Sequence[Conflict], count: int, target: Path) -> list[Conflict]:
        """So many of the facts that the model answers rightly closed-book, drawn at random."""
        answers = dial.DialAnswers(self.assistant.model, items, target, dial_batch := 16)
        alone = dial.AnswerSetting("none", dial.PLAIN, (dial.CLOSED_BOOK,))
        drawn = random.Random(0).sample(items, len(items))  # noqa: S311 - nothing secret
        found: list[Conflict] = []
        for start in range(0, len(drawn), dial_batch):
            batch = drawn[start : start + dial_batch]
            answers.complete(batch, alone)
            scored = dial.ScoredAnswers(answers, batch, "none")
            right = scored.memory(dial.PLAIN, dial.CLOSED_BOOK)
            found += [item for item, knows in zip(batch, right, strict=True) if knows]
            if len(found) >= count:
                break
        return found[:count]


@dataclass(frozen=True)
class AnswerRow:
    """What the assistant answered.

    Attributes:
        arm: How it was asked.
        id: Of the record.
        answer: The text.
        claims: Of each source, as in `SourceClaim`.
        settled: Whom the answer follows and why; empty where the documents do not disagree.
        conflict: Whether memory and documents disagree.
        verdict: On that conflict, as in `Verdict`.
        abstained: Whether it said that the documents do not say.
        read: Ids of the passages read.
        cited: Ids of those that support a sentence of it.
    """

    arm: str
    id: str
    answer: str
    claims: list[dict[str, Any]] = field(default_factory=list)
    settled: str = ""
    conflict: bool = False
    verdict: dict[str, Any] | None = None
    abstained: bool = False
    read: list[str] = field(default_factory=list)
    cited: list[str] = field(default_factory=list)

    @property
    def key(self) -> Key:
        """Arm and id."""
        return self.arm, self.id

    @property
    def from_documents(self) -> list[dict[str, Any]]:
        """The claims of passages."""
        return [claim for claim in self.claims if claim["source"] != MEMORY]

    @property
    def remembers(self) -> bool:
        """Whether memory is said to claim anything."""
        told = any(claim["source"] == MEMORY for claim in self.claims)
        return told or self.conflict or self.verdict is not None


@dataclass(frozen=True)
class RecordRow:
    """What was found for one record."""

    id: str

    @property
    def key(self) -> str:
        """The id."""
        return self.id


@dataclass(frozen=True)
class Run:
    """One run of the evaluation.

    Attributes:
        system: The system under test.
        target: Directory of the report; the rows of each task are in ``rows/TASK.jsonl``.
        limit: Records of each task; ``None`` is all.
        batch_size: Questions at a time.
        counts: Records of the tasks that were begun.
    """

    system: SourceSystem
    target: Path
    limit: int | None = None
    batch_size: int = 8
    counts: dict[str, int] = field(default_factory=dict)

    def rows(
        self, task: str, records: Sequence[Any], row_class: Callable[..., Any] = AnswerRow
    ) -> Rows[Any, Any]:
        """The stored rows of a task.

        Raises:
            DataError: They are those of another run.
        """
        header = {
            "model": self.system.assistant.model.name,
            "system": self.system.identity,
            "run": digest(list(records)),
        }
        self.counts[task] = len(records)
        path = self.target / "rows" / f"{task}.jsonl"
        return Rows.of_dataclass(path, header, row_class, lambda row: row.key)

    def answers(
        self,
        rows: Rows[Key, AnswerRow],
        queries: Mapping[Key, Query],
        title: str,
        system: SourceSystem | None = None,
        alone: bool = False,
    ) -> None:
        """Answer the queries that have no row yet; ``alone``: in batches of one."""
        rows.complete(
            list(queries.items()),
            lambda pair: [pair[0]],
            partial(_answer, system or self.system),
            1 if alone else self.batch_size,
            length=lambda pair: sum(len(node.text) for node in pair[1].given or ()),
            title=title,
            unit="questions",
        )


def _answer(system: SourceSystem, batch: Sequence[tuple[Key, Query]]) -> dict[Key, AnswerRow]:
    answers = system.ask([query for _, query in batch])
    return {key: _row(key, answer) for (key, _), answer in zip(batch, answers, strict=True)}


def _row(key: Key, answer: Answer) -> AnswerRow:
    return AnswerRow(
        *key,
        answer.answer,
        [asdict(claim) for claim in answer.claims],
        answer.settled,
        answer.conflict,
        asdict(answer.verdict) if answer.verdict else None,
        answer.abstained,
        [source.id for source in answer.sources if source.kept],
        list(dict.fromkeys(name for each in answer.citations for name in each.passages)),
    )


def given(name: str, passages: Sequence[Passage]) -> list[NodeWithScore]:
    """Passages as nodes that are given with a question; the id of each ends in its place."""
    return [
        NodeWithScore(
            node=TextNode(
                id_=f"{name}:{place}",
                text=passage.text,
                metadata={"title": passage.title} if passage.title else {},
            )
        )
        for place, passage in enumerate(passages)
    ]


def place(node_id: str) -> int:
    """The place of a given passage, by its id."""
    return int(node_id.rpartition(":")[2])
