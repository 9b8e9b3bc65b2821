"""Questions whose passages are known: built-in ones, conversations, and RAMDocs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data import DIRECTORY as DATA
from evaluation.datasets.conflicts import spread
from foundation import records
from foundation.errors import DataError
from foundation.files import replacing
from foundation.records import DataRecord
from retrieval.rewriter import Turn

PASSAGES = DATA / "passages.jsonl"
PLAIN_KIND = "plain"
RAMDOCS_KIND = "RAMDocs"


@dataclass(frozen=True)
class RetrievalQuestion:
    """A question, what was said before it, what answers it, and where that stands.

    Attributes:
        id: Of the question.
        kind: ``plain``, ``follow-up``, ``ambiguous``, ``two-hop``, ``comparison`` or ``RAMDocs``.
        question: As asked.
        history: Questions and answers before it.
        answers: Any of them is right.
        evidence: For each passage that an answer needs, the ids of those that serve; empty where
            nothing answers the question.
        noise: Ids of passages known not to answer it.
    """

    id: str
    kind: str
    question: str
    history: tuple[Turn, ...]
    answers: tuple[str, ...]
    evidence: tuple[tuple[str, ...], ...]
    noise: tuple[str, ...] = ()

    def recalled(self, found: Sequence[str]) -> bool:
        """Whether all of the evidence is among the passages found, as a whole or as a part."""
        ids = {*found, *(name.split(":")[0] for name in found)}
        return all(ids.intersection(serving) for serving in self.evidence)

    def serving(self) -> list[str]:
        """Ids of all passages that answer it."""
        return [name for serving in self.evidence for name in serving]


def built_in(split: str, limit: int | None = None) -> list[RetrievalQuestion]:
    """The built-in questions and conversations of a split; at most ``limit`` of each kind."""
    items = [
        RetrievalQuestion(
            record.values["id"],
            record.values.get("kind", PLAIN_KIND),
            record.values["question"],
            tuple((asked, answered) for asked, answered in record.values.get("history", ())),
            tuple(record.values["answers"]),
            tuple(
                (name,) for name in record.values.get("passages") or [record.values["passage_id"]]
            ),
        )
        for name in ("questions.jsonl", "conversations.jsonl")
        for record in records.load(DATA / name)
        if record.values["split"] == split
    ]
    kinds = dict.fromkeys(item.kind for item in items)
    return [
        item
        for kind in kinds
        for item in spread([item for item in items if item.kind == kind], limit)
    ]


def ramdocs(path: Path, limit: int | None = None) -> list[RetrievalQuestion]:
    """RAMDocs's questions; a passage typed ``correct`` answers its question.

    Raises:
        DataError: The file is not in the form of RAMDocs, or holds nothing.
    """
    items = []
    for record in spread(records.load(path), limit):
        types = [kind for kind, _ in ramdocs_documents(record)]
        right = [_name(record, n) for n, kind in enumerate(types) if kind == "correct"]
        items.append(
            RetrievalQuestion(
                str(record.number),
                RAMDOCS_KIND,
                records.text(record, "question"),
                (),
                records.texts(record, "gold_answers"),
                (tuple(right),),
                tuple(_name(record, n) for n, kind in enumerate(types) if kind == "noise"),
            )
        )
    if not items:
        raise DataError(f"{path}: no questions; give RAMDocs, JSON Lines with question, documents")
    return items


def corpus(path: Path, target: Path) -> Path:
    """All of RAMDocs's documents in one file that can be ingested, in ``target``."""
    return write_documents(
        target / "passages.jsonl",
        (
            (_name(record, number), text or "-")
            for record in records.load(path)
            for number, (_, text) in enumerate(ramdocs_documents(record))
        ),
    )


def write_documents(
    target: Path, documents: Iterable[tuple[str, str]], title: str = "Document"
) -> Path:
    """Write ids and texts as a file that can be ingested; all documents have one title."""
    with replacing(target) as new, new.open("w", encoding="utf-8") as file:
        for name, text in documents:
            line = {"id": name, "title": title, "text": text}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return target


def ramdocs_documents(record: DataRecord) -> list[tuple[str, str]]:
    """Type and text of each document of a record of RAMDocs.

    Raises:
        DataError: It has no list of documents.
    """
    listed = record.values.get("documents")
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise DataError(
            f"{record.where}: field 'documents' must be a list of objects with text and type"
        )
    return [(str(one.get("type")), str(one.get("text", "")).strip()) for one in listed]


def _name(record: DataRecord, number: int) -> str:
    return f"ramdocs-{record.number}-{number}"
