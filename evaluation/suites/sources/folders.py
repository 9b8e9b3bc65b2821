"""Claims of documents that lie in one folder, few of which say whose they are."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode

from control.conflict import passage_claims
from control.conflict.passage_claims import LEAST_ALONE, LEAST_ANSWERS
from control.conflict.reader import AnswerReader, Reading
from evaluation import metrics
from evaluation.suites.sources.checks import Table
from training import reading

LEAST_F1 = 0.5  # of the words of a claim and of the answer, from which it counts as right


def measure(reader: AnswerReader, limit: int | None = None) -> Table:
    """What the documents of a folder claim, of each question asked of all of them.

    Args:
        reader: Reads them.
        limit: Folders of each kind at most.
    """
    rows: Table = []
    for kind in ("one owner", "two owners"):
        folders = [each for each in reading.folders() if each["kind"] == kind][:limit]
        asked = [one for folder in folders for one in _read(reader, folder)]
        rows += [_row(kind, least, asked) for least in (LEAST_ANSWERS, LEAST_ALONE)]
    return rows


def documents(folder: dict[str, Any]) -> list[NodeWithScore]:
    """The documents of a folder as passages."""
    return [
        NodeWithScore(
            node=TextNode(
                text=one["text"],
                metadata={"title": one["title"], "date": one["date"], "source": one["name"]},
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=one["name"])},
            )
        )
        for one in folder["documents"]
    ]


def _read(reader: AnswerReader, folder: dict[str, Any]) -> Iterator[tuple[str, Reading]]:
    """Of each question and document what answers, and what was read."""
    nodes = documents(folder)
    asked = [(one["question"], nodes, nodes) for one in folder["questions"]]
    for one, found in zip(folder["questions"], passage_claims.read(reader, asked), strict=True):
        for answer, (_, each) in zip(one["answers"], found, strict=True):
            yield answer, each


def _row(kind: str, least: float, asked: Sequence[tuple[str, Reading]]) -> dict[str, Any]:
    answering = np.array([bool(answer) for answer, _ in asked])
    claimed = np.array([bool(each.answer) and each.answers >= least for _, each in asked])
    right = np.array([metrics.token_f1(each.answer, answer) >= LEAST_F1 for answer, each in asked])
    measured = {
        "claimed rightly, of those that answer": (claimed & right)[answering],
        "claimed wrongly, of those that answer": (claimed & ~right)[answering],
        "claimed, of those that do not": claimed[~answering],
    }
    return {
        "folders of": kind,
        "from": least,
        "n": len(asked),
        **metrics.percents(measured),
        "ci": metrics.intervals(measured),
    }
