"""What the passages found claim: rightly, wrongly, or where none answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_index.core.schema import NodeWithScore
from tqdm import tqdm

from control.conflict.passage_claims import LEAST_ALONE, LEAST_ANSWERS
from control.conflict.reader import Reading
from evaluation import metrics
from evaluation.datasets.questions import RetrievalQuestion
from evaluation.suites.retrieval import Modules, plain_query

READ = 7  # passages found that are read, as many as a model of a large window reads
BATCH = 16  # questions read at once
ReadPassages = Callable[
    [Sequence[tuple[str, Sequence[NodeWithScore], Sequence[NodeWithScore]]]],
    Sequence[Sequence[tuple[NodeWithScore, Reading]]],
]
"""What passages answer, such as `control.assistant.Assistant.read_passages`."""
LEAST = {"beside memory": LEAST_ANSWERS, "only documents": LEAST_ALONE}
"""Probability from which a passage claims something, by what may be answered from."""


@dataclass(frozen=True)
class SurestClaim:
    """What the surest of the passages read for a question claims.

    Attributes:
        item: The question.
        read: Whether the passages read hold its evidence.
        says: The claim; empty where none is found.
        answers: Its probability, in [0, 1].
    """

    item: RetrievalQuestion
    read: bool
    says: str = ""
    answers: float = 0.0

    @property
    def right(self) -> bool:
        """Whether it holds a right answer."""
        return metrics.holds(self.says, self.item.answers)


def report(
    read: ReadPassages, modules: Modules, items: Sequence[RetrievalQuestion]
) -> dict[str, Any]:
    """How often the surest claim is right, is wrong, and is made where nothing answers.

    Args:
        read: Finds the claims.
        modules: Search and filter; a question is searched as it is asked.
        items: Questions with right answers, and without any where the documents leave them open.
    """
    surest = [
        each
        for start in tqdm(range(0, len(items), BATCH), desc="reading", unit="batch", delay=2)
        for each in _surest(read, modules, items[start : start + BATCH])
    ]
    kinds = [*dict.fromkeys(each.item.kind for each in surest if each.item.answers), "all"]
    return {
        "n": len(items),
        "tables": {
            "claims": [
                _row(kind, way, least, [one for one in surest if kind in (one.item.kind, "all")])
                for kind in kinds
                for way, least in LEAST.items()
            ]
        },
    }


def _surest(
    read: ReadPassages, modules: Modules, items: Sequence[RetrievalQuestion]
) -> list[SurestClaim]:
    asked = []
    for item in items:
        query = plain_query(item.question, ())
        found = modules.search(query)
        asked.append((item.question, list(modules.judge(found, query))[:READ], found))
    claimed = []
    for item, readings in zip(items, read(asked), strict=True):
        has = bool(item.answers) and item.recalled([node.node_id for node, _ in readings])
        claims = [reading for _, reading in readings if reading.answer]
        best = max(claims, key=lambda one: one.answers, default=None)
        claimed.append(
            SurestClaim(item, has, *((best.answer, best.answers) if best is not None else ()))
        )
    return claimed


def _row(kind: str, way: str, least: float, surest: Sequence[SurestClaim]) -> dict[str, Any]:
    answered = [each for each in surest if each.item.answers]
    said = np.array([each.answers >= least for each in answered])
    right = np.array([each.right for each in answered])
    open_ = np.array(
        [each.answers >= least for each in surest if not each.item.answers], dtype=bool
    )
    measured = {"right": said & right, "wrong": said & ~right, "claimed, none answers": open_}
    return {
        "kind": kind,
        "answered from": way,
        "from": least,
        "n": len(answered),
        "evidence read": metrics.percent(np.array([each.read for each in answered])),
        **{
            name: metrics.percent(flags) if len(flags) else None for name, flags in measured.items()
        },
        "n without an answer": len(open_),
        "ci": {
            name: metrics.interval(metrics.percent, flags)
            for name, flags in measured.items()
            if len(flags)
        },
    }
