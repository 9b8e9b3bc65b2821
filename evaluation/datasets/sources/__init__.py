"""Questions to judge what sources claim: what texts answer, where they disagree, what holds now.

All of it was written by hand for measuring alone, about things that do not exist, so that no model
remembers them; only the corrections also concern things that are generally known. The directory
``corpus`` holds the documents of `only_documents`, ``files`` those of `files`: ordinary files by
two authors who saw no code, one for choosing (``calibration``) and one for measuring (``test``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from evaluation.datasets import questions
from evaluation.datasets.conflicts import spread
from foundation import records
from foundation.records import DataRecord

DIRECTORY = Path(__file__).parent
CORPUS = DIRECTORY / "corpus"
FILES = DIRECTORY / "files"
PASSAGE_WORDS = 40  # a text of so many words and more is a passage, else a sentence or two

Record = TypeVar("Record")


@dataclass(frozen=True)
class Passage:
    """A text with its title; ``name`` is its file's, where it has one."""

    text: str
    title: str = ""
    name: str = ""


@dataclass(frozen=True)
class ReadText:
    """A text with the span that answers its question.

    Attributes:
        id: Of the record.
        question: The question.
        text: A sentence or a passage.
        answers: Spans that answer; any of them is right.
        value: The answer's value: ISO dates, digits with units, "yes" or "no", names as written.
    """

    id: str
    question: str
    text: str
    answers: tuple[str, ...]
    value: str

    @property
    def kind(self) -> str:
        """``passages`` or ``sentences``, by its length."""
        return "passages" if len(self.text.split()) >= PASSAGE_WORDS else "sentences"


@dataclass(frozen=True)
class TableStatement:
    """A sentence about a table.

    Attributes:
        table: Number of the table among those of `training.reading.tables` that are held out.
        kind: ``right`` if a row states it, ``wrong`` if it has another row's or column's value,
            ``absent`` if it is about a row that is not there.
        sentence: The sentence.
    """

    table: int
    kind: str
    sentence: str


@dataclass(frozen=True)
class ComparedSpans:
    """Two answer spans and how they relate: ``same``, ``compatible`` or ``contradictory``."""

    id: str
    question: str
    a: str
    b: str
    relation: str


@dataclass(frozen=True)
class LabelledClaim:
    """A claim that passages state.

    Attributes:
        says: Ways to say its value; any of them is right.
        passages: The places of the passages that state it.
    """

    says: tuple[str, ...]
    passages: tuple[int, ...]


@dataclass(frozen=True)
class GivenPassages:
    """A question with its passages and what they claim.

    Attributes:
        id: Of the record.
        kind: ``one`` passage answers, several ``agree``, they ``contradict`` each other, the
            question is ``ambiguous``, so that both are right, or all are ``silent``.
        question: The question.
        passages: The passages.
        claims: What they claim.
    """

    id: str
    kind: str
    question: str
    passages: tuple[Passage, ...]
    claims: tuple[LabelledClaim, ...]

    @property
    def disagree(self) -> bool:
        """Whether the passages do not all answer the same."""
        return self.kind in ("contradict", "ambiguous")


@dataclass(frozen=True)
class Versions:
    """A question about which documents of different dates say different things.

    Attributes:
        id: Of the record.
        question: The question.
        documents: The documents, as files.
        answers: What each document says; empty where it says nothing.
        shorter: Of each of them, parts that are right and complete as a reply: "94" of "94 staff".
        newest: The place of the newest document.
        how: How its date is stated.
        as_of: A date in ISO 8601 and the place of the document that held then, if it is asked.
    """

    id: str
    question: str
    documents: tuple[Passage, ...]
    answers: tuple[str, ...]
    shorter: tuple[tuple[str, ...], ...]
    newest: int
    how: str
    as_of: tuple[str, int] | None

    def accepted(self, place: int) -> list[str]:
        """What tells the answer of a document; nothing where it has none."""
        return [self.answers[place], *self.shorter[place]] if self.answers[place] else []


@dataclass(frozen=True)
class CorpusQuestion:
    """A question about the corpus.

    Attributes:
        id: Of the record.
        kind: ``answered``, ``unanswered``, or ``false claim`` where it presumes what the corpus
            contradicts.
        question: The question.
        answers: Any of them is right; none where the corpus does not answer.
        claimed: What the question presumes falsely.
    """

    id: str
    kind: str
    question: str
    answers: tuple[str, ...]
    claimed: str


@dataclass(frozen=True)
class LabelledSentence:
    """A sentence of an answer.

    Attributes:
        text: The sentence.
        passages: The places of the passages that support it.
        planted: Whether it contradicts a passage.
    """

    text: str
    passages: tuple[int, ...]
    planted: bool


@dataclass(frozen=True)
class FileQuestion:
    """A question about ordinary files.

    Attributes:
        id: Of the record.
        kind: What it asks for: ``person``, ``date``, ``table`` and others; of ``yesno`` the answer
            is "Yes" or "No", of ``open`` the files tell none.
        question: The question.
        answers: What a right answer has, each in any of its forms.
    """

    id: str
    kind: str
    question: str
    answers: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class WrittenAnswer:
    """A question with its passages and an answer, of which each sentence is labelled."""

    id: str
    question: str
    passages: tuple[Passage, ...]
    sentences: tuple[LabelledSentence, ...]


@dataclass(frozen=True)
class Neighbour:
    """A question beside a correction, which must not change its answer."""

    question: str
    passages: tuple[Passage, ...]
    answer: str


@dataclass(frozen=True)
class LabelledCorrection:
    """A statement to pin, and questions that it answers or must leave alone.

    Attributes:
        id: Of the record.
        statement: The correction.
        answer: Its value.
        old: What the passages say instead.
        questions: That it answers, the plain one first.
        passages: Given with them.
        neighbours: Questions beside it.
    """

    id: str
    statement: str
    answer: str
    old: str
    questions: tuple[str, ...]
    passages: tuple[Passage, ...]
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True)
class RightAndWrong:
    """A question of RAMDocs.

    Attributes:
        id: Its line.
        question: The question.
        documents: Texts that state right answers, wrong ones, or neither.
        right: Each of them has to be given.
        wrong: None of them may be.
    """

    id: str
    question: str
    documents: tuple[Passage, ...]
    right: tuple[str, ...]
    wrong: tuple[str, ...]


def claims(limit: int | None = None) -> list[ReadText]:
    """Texts to read."""
    return _load(
        "claims",
        limit,
        lambda of: ReadText(
            of["id"], of["question"], of["text"], (of["answer"], *of["also"]), of["value"]
        ),
    )


def values(limit: int | None = None, worded: bool = False) -> list[ComparedSpans]:
    """Pairs of spans to compare; a record's id is its line.

    Args:
        limit: Only so many, drawn evenly.
        worded: Those that mostly differ in words instead of those in notations.
    """
    name = "worded_values" if worded else "values"
    loaded = spread(records.load(DIRECTORY / f"{name}.jsonl"), limit)
    return [ComparedSpans(f"{name} {record.number}", **record.values) for record in loaded]


def verdicts(limit: int | None = None) -> list[GivenPassages]:
    """Questions with their passages."""
    return _load(
        "verdicts",
        limit,
        lambda of: GivenPassages(
            of["id"],
            of["kind"],
            of["question"],
            _passages(of["passages"]),
            tuple(
                LabelledClaim((one["says"], *one["also"]), tuple(one["passages"]))
                for one in of["claims"]
            ),
        ),
    )


def versions(limit: int | None = None, beside: bool = False) -> list[Versions]:
    """Questions about documents of different dates; ``beside``: those with other documents, too."""

    def build(of: dict[str, Any]) -> Versions:
        as_of = of.get("as_of")
        return Versions(
            of["id"],
            of["question"],
            _passages(of["documents"]),
            tuple(of["answers"]),
            tuple(map(tuple, of.get("shorter", [()] * len(of["answers"])))),
            of["newest"],
            of["how"],
            (as_of["date"], as_of["answer"]) if as_of else None,
        )

    return _load("versions_beside" if beside else "versions", limit, build)


def only_documents(limit: int | None = None) -> list[CorpusQuestion]:
    """Questions about the corpus."""
    return _load(
        "only_documents",
        limit,
        lambda of: CorpusQuestion(
            of["id"], of["kind"], of["question"], tuple(of["answers"]), of["claimed"]
        ),
    )


def files(limit: int | None = None, split: str = "test") -> list[FileQuestion]:
    """Questions about the files of a split."""
    rows = [record.values for record in records.load(DIRECTORY / "files.jsonl")]
    return [
        FileQuestion(of["id"], of["kind"], of["question"], tuple(map(tuple, of["answers"])))
        for of in spread([of for of in rows if of["split"] == split], limit)
    ]


def sentences(limit: int | None = None) -> list[WrittenAnswer]:
    """Answers whose sentences are to be cited."""
    return _load(
        "sentences",
        limit,
        lambda of: WrittenAnswer(
            of["id"],
            of["question"],
            _passages(of["passages"]),
            tuple(
                LabelledSentence(one["text"], tuple(one["passages"]), one["planted"])
                for one in of["sentences"]
            ),
        ),
    )


def table_statements(limit: int | None = None) -> list[TableStatement]:
    """Sentences about tables that are held out of training."""
    loaded = spread(records.load(DIRECTORY / "table_statements.jsonl"), limit)
    return [TableStatement(**record.values) for record in loaded]


def corrections(limit: int | None = None) -> list[LabelledCorrection]:
    """Statements to pin."""
    return _load(
        "corrections",
        limit,
        lambda of: LabelledCorrection(
            of["id"],
            of["correction"],
            of["answer"],
            of["old"],
            (of["question"], *of["paraphrases"]),
            _passages(of["passages"]),
            tuple(
                Neighbour(one["question"], _passages(one["passages"]), one["answer"])
                for one in of["neighbours"]
            ),
        ),
    )


def ramdocs(path: Path, limit: int | None = None) -> list[RightAndWrong]:
    """The questions of RAMDocs (Wang et al. 2025, arXiv:2504.13079) with their documents.

    Raises:
        DataError: The file is not in the form of RAMDocs.
    """
    return [_ramdocs(record) for record in spread(records.load(path), limit)]


def _ramdocs(record: DataRecord) -> RightAndWrong:
    texts = [text for _, text in questions.ramdocs_documents(record) if text]
    return RightAndWrong(
        str(record.number),
        records.text(record, "question"),
        tuple(map(Passage, texts)),
        records.texts(record, "gold_answers"),
        records.aliases(record, "wrong_answers"),
    )


def _load(name: str, limit: int | None, build: Callable[[dict[str, Any]], Record]) -> list[Record]:
    loaded = spread(records.load(DIRECTORY / f"{name}.jsonl"), limit)
    return [build(record.values) for record in loaded]


def _passages(listed: list[dict[str, str]]) -> tuple[Passage, ...]:
    return tuple(Passage(one["text"], one["title"], one.get("name", "")) for one in listed)
