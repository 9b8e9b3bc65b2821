"""Examples for the reader: a question, a text, and the words of the text that answer it.

From passages written for it in many styles (``reading.jsonl``), from documents in two versions,
most of which state their own date (``dated.jsonl``), from the calibration relations of the built-in
corpus, and from natural text that the user names. Each question is also asked of texts that do not
answer it: of other passages, of answers to other questions, and questions about the topic of a
passage that it leaves open.
"""

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.conflict.reader import DATE_QUESTION, REPLACES_QUESTION
from foundation.text import find, holds
from training import corpus
from training.corpus import CorpusFact

WRITTEN = Path(__file__).with_name("reading.jsonl")
DATED = Path(__file__).with_name("dated.jsonl")
DEVELOPMENT = 8  # one in so many written passages, or pairs of versions, is held out
RELATION_FACTS = 300  # of the built-in relations, whose sentences have few forms
ELSEWHERE = 0.4  # share of the questions that are also asked of a passage which answers another one
LONGEST_PHRASE = 8  # words; a longer answer is an explanation


@dataclass(frozen=True)
class ReadingExample:
    """A question, a text, and the span of it that answers; an empty one where none does."""

    question: str
    text: str
    answer: str


def written(held_out: bool = False) -> list[dict[str, Any]]:
    """The written passages with their questions: to learn from, or those held out.

    Each has the words that state the date of the document itself (``dated``; mostly empty) and
    those that name what it ``replaces``.
    """
    with WRITTEN.open(encoding="utf-8") as file:
        return [
            record
            for number, record in enumerate(map(json.loads, file), start=1)
            if (number % DEVELOPMENT == 0) == held_out
        ]


def dated(held_out: bool = False) -> list[dict[str, Any]]:
    """The documents in two versions: to learn from, or those held out, both versions alike.

    They are as `written` gives passages; the ``date`` that is stated is there in ISO 8601 too.
    """
    with DATED.open(encoding="utf-8") as file:
        return [
            record
            for number, record in enumerate(map(json.loads, file))
            if (number // 2 % DEVELOPMENT == 0) == held_out
        ]


def passage(record: dict[str, Any]) -> str:
    """A written passage with its title, as the reader gets passages."""
    return f"{record['title']}: {record['text']}"


def of_passage(record: dict[str, Any]) -> list[ReadingExample]:
    """Its questions, asked of it: those that it answers, and those that it leaves open."""
    text = passage(record)
    asked = [(each["question"], each["answer"]) for each in record["questions"]]
    asked += [(question, "") for question in record["unanswered"]]
    return [ReadingExample(question, text, answer) for question, answer in asked]


def of_document(record: dict[str, Any]) -> list[ReadingExample]:
    """What is asked about every document, asked of it."""
    return [
        ReadingExample(DATE_QUESTION, passage(record), record["dated"]),
        ReadingExample(REPLACES_QUESTION, passage(record), record["replaces"]),
    ]


def of_sentences(record: dict[str, Any]) -> list[ReadingExample]:
    """Its questions, asked of sentences: a right answer, a wrong one, and one to another question.

    The reader tells what a sentence claims, not whether that is right.
    """
    found, asked = [], record["questions"]
    for at, each in enumerate(asked):
        question, beside = each["question"], asked[at - 1]
        found.append(ReadingExample(question, each["sentence"], each["answer"]))
        found.append(ReadingExample(question, each["other"], each["other_answer"]))
        if beside["answer"] != each["answer"]:
            found.append(ReadingExample(question, beside["sentence"], ""))
    return found


def answered(facts: Sequence[CorpusFact], seed: int = 0) -> list[ReadingExample]:
    """Examples from questions and their passages, each asked of another fact's passage too."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    by_kind: dict[str, list[CorpusFact]] = defaultdict(list)
    for fact in facts:
        by_kind[fact.kind].append(fact)
    found = []
    for fact in facts:
        span = _shortest(fact)
        if span is None:
            continue
        found.append(ReadingExample(fact.question, fact.passage, span))
        other = draw.choice(by_kind[fact.kind])
        if draw.random() < ELSEWHERE and not holds(other.passage, fact.answers):
            found.append(ReadingExample(fact.question, other.passage, ""))
    return found


def build(files: Sequence[Path], seed: int = 0) -> list[ReadingExample]:
    """All examples to learn from, in random order.

    Args:
        files: Natural questions with passages, in a form that `training.corpus.read` takes.
        seed: Of choice and order.

    Raises:
        DataError: A file cannot be read or used.
    """
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    relations = corpus.read()
    examples = []
    for record in [*written(), *dated()]:
        examples += [*of_document(record), *of_passage(record)]
        examples += draw.sample(sentences := of_sentences(record), len(sentences) // 2)
    examples += answered(draw.sample(relations, min(RELATION_FACTS, len(relations))), seed)
    for path in files:
        examples += answered(corpus.read(path), seed)
    draw.shuffle(examples)
    return examples


def _shortest(fact: CorpusFact) -> str | None:
    """The shortest answer that stands in the passage, as it stands there."""
    spans = [span for answer in fact.answers if (span := find(fact.passage, answer)) is not None]
    if not spans:
        return None
    start, end = min(spans, key=lambda span: span[1] - span[0])
    answer = fact.passage[start:end]
    return answer if len(answer.split()) <= LONGEST_PHRASE else None
