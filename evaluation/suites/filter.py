"""How well the Knowledge Filter tells passages that answer a question from others."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_index.core.schema import MetadataMode

from evaluation import metrics
from evaluation.datasets.questions import RAMDOCS_KIND, RetrievalQuestion
from retrieval.filter import Judge
from retrieval.index import PassageIndex

HARD = 5  # passages found for a question, of which those that do not answer it are the hard ones
TIMED = 40  # questions whose passages are timed


def filter_report(
    judges: dict[str, tuple[Judge, float]], items: Sequence[RetrievalQuestion], index: PassageIndex
) -> dict[str, Any]:
    """Precision, recall and AUROC of each judge, and its milliseconds a passage.

    Of RAMDocs, documents typed correct against noise. Of the built-in questions, the passage that
    answers against the others that a search for the question brings up.

    Args:
        judges: By name: the judge and its threshold.
        items: Questions that stand on their own.
        index: Where their passages are.
    """
    asked = [item for item in items if not item.history and len(item.evidence) == 1]
    cases = [_case(item, index) for item in asked]
    rows = [
        _row(name, judge, threshold, asked, cases) for name, (judge, threshold) in judges.items()
    ]
    return {"n": len(asked), "tables": {"filter": rows}}


Case = tuple[list[str], list[bool]]
"""Passages of one question, and whether each answers it."""


def _case(item: RetrievalQuestion, index: PassageIndex) -> Case:
    if item.kind == RAMDOCS_KIND:
        nodes = index.get_nodes([*item.serving(), *item.noise])
    else:
        [found] = index.retrieve_batch([item.question], HARD)
        nodes = [one.node for one in found]
    texts = [node.get_content(MetadataMode.EMBED) for node in nodes]
    return texts, [node.node_id in item.serving() for node in nodes]


def _row(
    name: str,
    judge: Judge,
    threshold: float,
    items: Sequence[RetrievalQuestion],
    cases: Sequence[Case],
) -> dict[str, Any]:
    likely: list[float] = []
    for item, (texts, _) in zip(items, cases, strict=True):
        likely += judge(item.question, texts)
    answers = np.array([right for _, flags in cases for right in flags])
    kept = np.array(likely) >= threshold
    started, timed = time.perf_counter(), 0
    for item, (texts, _) in list(zip(items, cases, strict=True))[:TIMED]:
        judge(item.question, texts)
        timed += len(texts)
    spent = time.perf_counter() - started
    measured = {"precision": answers[kept], "recall": kept[answers]}
    return {
        "judge": name,
        "n": len(answers),
        "answering": int(answers.sum()),
        "threshold": threshold,
        **metrics.percents(measured),
        "AUROC": metrics.auroc(answers, likely),
        "ms a passage": 1000 * spent / max(timed, 1),
        "ci": metrics.intervals(measured),
    }
