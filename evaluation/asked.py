"""Questions whose passages are known: built-in ones, conversations, and RAMDocs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_index.core.schema import Document

from evaluation import records
from evaluation.datasets import spread
from foundation.errors import DataError
from retrieval.documents import hidden_keys
from retrieval.rewriting import Turn

DATA = Path(__file__).parent.parent / "data"
PLAIN_KIND = "plain"
RAMDOCS_KIND = "RAMDocs"


@dataclass(frozen=True)
class Asked:
    """A question, what was said before it, what answers it, and where that stands.

    Attributes:
        id: Of the question.
        kind: ``plain``, ``follow-up``, ``ambiguous``, ``two-hop``, ``comparison`` or ``RAMDocs``.
        question: As asked.
        history: Questions and answers before it.
        answers: Any of them is right.
        passages: Ids of the passages that answer it.
        needed: How many of them an answer needs.
    """

    id: str
    kind: str
    question: str
    history: tuple[Turn, ...]
    answers: tuple[str, ...]
    passages: tuple[str, ...]
    needed: int

    def recalled(self, found: Sequence[str]) -> bool:
        """Whether enough of the passages are among those found."""
        return len(set(self.passages) & set(found)) >= self.needed


def built_in(split: str, limit: int | None = None) -> list[Asked]:
    """The built-in questions and conversations of a split; at most ``limit`` of each kind."""
    items = [
        Asked(
            record.values["id"],
            record.values.get("kind", PLAIN_KIND),
            record.values["question"],
            tuple((asked, answered) for asked, answered in record.values.get("history", ())),
            tuple(record.values["answers"]),
            passages := tuple(record.values.get("passages") or [record.values["passage_id"]]),
            len(passages),
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


def ramdocs(path: Path, limit: int | None = None) -> tuple[list[Asked], list[Document]]:
    """RAMDocs's questions, and all of their documents as one corpus.

    Raises:
        DataError: The file is not in the form of RAMDocs.
    """
    items: list[Asked] = []
    documents: dict[str, Document] = {}
    for record in spread(records.load(path), limit):
        question = records.text(record, "question")
        listed = record.values.get("documents")
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise DataError(
                f"{record.where}: field 'documents' must be a list of objects with text and type"
            )
        right = []
        for number, one in enumerate(listed):
            name = f"ramdocs-{record.number}-{number}"
            metadata = {"title": "", "content_hash": name}
            documents[name] = Document(
                id_=name,
                text=str(one.get("text", "")).strip() or "-",
                metadata=metadata,
                excluded_embed_metadata_keys=hidden_keys(metadata),
                excluded_llm_metadata_keys=hidden_keys(metadata),
                metadata_template="{value}",
            )
            if one.get("type") == "correct":
                right.append(name)
        answers = records.texts(record, "gold_answers")
        items.append(
            Asked(str(record.number), RAMDOCS_KIND, question, (), answers, tuple(right), 1)
        )
    return items, list(documents.values())
