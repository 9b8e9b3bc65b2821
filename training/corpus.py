"""Questions with the passages that answer them, from the built-in corpus or a file."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data import DIRECTORY as DATA
from foundation import records
from foundation.errors import DataError
from foundation.records import DataRecord
from foundation.text import holds

SPLIT = "calibration"  # the built-in test relations are for judging
LONG = 3  # words; from here on an answer is a phrase of its own kind
DIGIT = re.compile(r"\d")


Contrary = tuple[str, tuple[str, ...]]
"""A counterfactual passage, and what it says with its other names"""


@dataclass(frozen=True)
class CorpusFact:
    """A question, what answers it, and a passage that says so.

    Attributes:
        id: Of the question.
        question: The question.
        answers: The answer and its other names.
        passage: Holds the answer.
        kind: Facts of one kind have answers of one type, so that one may stand for another.
        contrary: A passage that gives another answer; ``None`` where none was written.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    passage: str
    kind: str
    contrary: Contrary | None = None

    @property
    def text(self) -> str:
        """All that stands in it, a line each."""
        contrary = [] if self.contrary is None else [self.contrary[0], *self.contrary[1]]
        return "\n".join([self.question, *self.answers, self.passage, *contrary])


def read(path: Path | None = None) -> list[CorpusFact]:
    """Facts of a file, or the built-in ones of the calibration relations.

    A file is SQuAD (Rajpurkar et al. 2016), or JSON Lines of ``question``, ``answers``, ``passage``
    and, optionally, ``id`` and ``kind``. Where no kind is stated it is guessed from the answer.

    Raises:
        DataError: The file cannot be read, lacks a field, or no passage in it holds its answer.
    """
    if path is None:
        return list(_built_in())
    loaded = records.load(path)
    if not loaded:
        raise DataError(
            f"{path}: no questions; give SQuAD, or JSON Lines of question, answers, passage"
        )
    squad = isinstance(loaded[0].values.get("data"), list)
    facts = list(_squad(loaded[0]) if squad else map(_line, loaded))
    answered = [fact for fact in facts if holds(fact.passage, fact.answers)]
    if not answered:
        raise DataError(
            f"{path}: none of its {len(facts)} questions has an answer that stands in its passage; "
            "give passages that answer their questions"
        )
    twice, count = Counter(fact.id for fact in answered).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path}: {count} questions have the id {twice!r}; give each its own")
    return answered


def guess_kind(answer: str) -> str:
    """The type of an answer, by its look: a number, a name, a word, a phrase."""
    words = answer.split()
    if DIGIT.search(answer):
        return "date" if len(words) > 1 else "number"
    look = "name" if answer[:1].isupper() else "phrase" if len(words) > 1 else "word"
    return f"long {look}" if len(words) >= LONG else look


def _built_in() -> Iterator[CorpusFact]:
    with (DATA / "conflicts.jsonl").open(encoding="utf-8") as file:
        for values in map(json.loads, file):
            if values["split"] == SPLIT:
                yield CorpusFact(
                    values["id"],
                    values["question"],
                    tuple(values["memory_answers"]),
                    values["true_context"],
                    values["relation"],
                )


def _line(record: DataRecord) -> CorpusFact:
    answers = records.texts(record, "answers")
    kind = record.values.get("kind")
    return CorpusFact(
        str(record.values.get("id", record.number)),
        records.text(record, "question"),
        answers,
        records.text(record, "passage"),
        guess_kind(answers[0]) if kind is None else records.text(record, "kind"),
    )


def _squad(record: DataRecord) -> Iterator[CorpusFact]:
    """Answerable questions; SQuAD 2's others have no answer to prefer."""
    for article in range(records.size(record, "data")):
        for number in range(records.size(record, f"data.{article}.paragraphs")):
            paragraph = f"data.{article}.paragraphs.{number}"
            passage = records.text(record, f"{paragraph}.context")
            for asked in range(records.size(record, f"{paragraph}.qas")):
                where = f"{paragraph}.qas.{asked}"
                values = record.values["data"][article]["paragraphs"][number]["qas"][asked]
                if values.get("answers"):
                    given = tuple(
                        dict.fromkeys(
                            records.text(record, f"{where}.answers.{place}.text")
                            for place in range(len(values["answers"]))
                        )
                    )
                    question = records.text(record, f"{where}.question")
                    name = str(values.get("id", where))
                    yield CorpusFact(name, question.strip(), given, passage, guess_kind(given[0]))
