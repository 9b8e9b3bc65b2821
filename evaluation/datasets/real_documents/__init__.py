"""Questions over real documents: what packages bring, written by many people for other readers.

The questions were written by hand while reading the documents, in words of their own; a tenth of
them or so in key words. Of the test and calibration questions a fifth has no answer in the corpus
(kind ``none``). Packages, not questions, are split: ``test`` against ``calibration`` and
``training``, whose questions are about the same packages. Of the latter most were written over one
passage (kind ``passage``); those of kind ``open`` are left open by it; others may answer.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llama_index.core.schema import BaseNode

from evaluation.datasets.conflicts import spread
from evaluation.datasets.questions import RetrievalQuestion
from evaluation.datasets.real_documents.corpus import build, packages
from foundation import records
from retrieval.rewriter import Turn

__all__ = ["ASKINGS", "asked_again", "build", "evidence", "folders", "questions"]

QUESTIONS = Path(__file__).with_name("questions.jsonl")
TRAINING, CALIBRATION, TEST = "training", "calibration", "test"
REWORDED, FOLLOW_UP = "reworded", "follow-up"
ASKINGS = ("first", "again", REWORDED, FOLLOW_UP)
# Of the words of a span that a passage must hold: readers of files differ in how they part words.
HELD = 0.8
WORD = re.compile(r"\w+")


def folders(corpus: Path, split: str) -> list[Path]:
    """Return the folders of the packages of a split."""
    tested = split == TEST
    return [corpus / package.name for package in packages() if (package.split == TEST) == tested]


def questions(
    split: str, corpus: Path, passages: Sequence[BaseNode], limit: int | None = None
) -> list[RetrievalQuestion]:
    """Return the questions of a split, with the passages that hold their evidence.

    Args:
        split: ``training``, ``calibration`` or ``test``.
        corpus: The directory that the passages were ingested from.
        passages: All passages of the index.
        limit: At most so many, drawn evenly.
    """
    by_file: dict[str, list[BaseNode]] = defaultdict(list)
    for passage in passages:
        by_file[_within(passage.metadata["source"], corpus)].append(passage)
    rows = [record for record in records.load(QUESTIONS) if record.values["split"] == split]
    return [
        RetrievalQuestion(
            f"real-{record.number}",
            record.values["kind"],
            record.values["question"],
            (),
            tuple(record.values["answers"]),
            tuple(
                tuple(_holding(each["span"], by_file[each["path"]]))
                for each in record.values["evidence"]
            ),
        )
        for record in spread(rows, limit)
    ]


def evidence(split: str) -> dict[str, tuple[str, ...]]:
    """Return, by the ids of a split's questions, the words of the documents around the answers.

    Of a question of kind ``open`` the first words of the passage that leaves it open.
    """
    return {
        f"real-{record.number}": tuple(each["span"] for each in record.values["evidence"])
        for record in records.load(QUESTIONS)
        if record.values["split"] == split
    }


def asked_again(
    items: Sequence[RetrievalQuestion], split: str
) -> dict[str, list[RetrievalQuestion]]:
    """Return questions as they are asked for the first time, again, reworded, and as a follow-up.

    Questions without such wordings are left out.
    """
    wordings = {
        f"real-{record.number}": record.values
        for record in records.load(QUESTIONS)
        if record.values["split"] == split and "reworded" in record.values
    }
    chosen = [item for item in items if item.id in wordings]

    def asked(item: RetrievalQuestion, kind: str) -> RetrievalQuestion:
        values, question = wordings[item.id], item.question
        history: tuple[Turn, ...] = ()
        if kind == REWORDED:
            question = values["reworded"]
        elif kind == FOLLOW_UP:
            question = values["follow_up"]
            history = tuple((said, answered) for said, answered in values["history"])
        return replace(item, id=f"{item.id}, {kind}", question=question, history=history)

    return {kind: [asked(item, kind) for item in chosen] for kind in ASKINGS}


def _within(source: str, corpus: Path) -> str:
    path, root = Path(source).resolve(), corpus.resolve()  # either may be given relative
    return str(path.relative_to(root)) if path.is_relative_to(root) else source


def _holding(span: str, passages: Sequence[BaseNode]) -> list[str]:
    """Return the ids of the passages that hold the words of a span."""
    wanted = _words(span)
    held = {
        passage.node_id: len(wanted & _words(passage.get_content())) / max(len(wanted), 1)
        for passage in passages
    }
    return [name for name, share in held.items() if share >= HELD]


def _words(text: str) -> set[str]:
    return set(WORD.findall(unicodedata.normalize("NFKC", text).lower()))
