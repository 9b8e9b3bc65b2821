"""Examples for the reader: a question, a text, and the words of the text that answer it.

From passages written for it in many styles (``reading.jsonl``), from documents in two versions,
most of which state their own date (``dated.jsonl``), from further documents about the same things
that leave their questions open (``companions.jsonl``), from texts that tell the same of several
things (``parallel.jsonl``), from tables (``tables.jsonl``), from the calibration relations of the
built-in corpus, from natural text that the user names, and from questions over real documents with
what a search finds for them. Each question is also asked of texts that do not answer it: of the
most similar passage of another document, of the other sentences of its own, of answers to other
questions, of its own with another name in the question, and questions about the topic of a passage
that it leaves open.
"""

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from control.conflict.reader import DATE_QUESTION, REPLACES_QUESTION
from control.forgetting.parts import parts
from control.prompts import with_title
from foundation.text import find, holds
from retrieval.ingest.tables import rows_of, to_line
from training import corpus
from training.corpus import CorpusFact
from training.encoders import Embed
from training.fact_questions import build_cases

WRITTEN = Path(__file__).with_name("reading.jsonl")
DATED = Path(__file__).with_name("dated.jsonl")
COMPANIONS = Path(__file__).with_name("companions.jsonl")
PARALLEL = Path(__file__).with_name("parallel.jsonl")
TABLES = Path(__file__).with_name("tables.jsonl")
FOLDERS = Path(__file__).with_name("folders.jsonl")
DEVELOPMENT = 8  # one in so many written passages, or pairs of versions, is held out
ORDERS = 3  # of the rows, in which each table is read
RELATION_FACTS = 300  # of the built-in relations, whose sentences have few forms
ELSEWHERE = 0.4  # share of the questions that are also asked of a text which answers another one
LONGEST_PHRASE = 8  # words; a longer answer is an explanation
LONGEST_SPAN = 12  # words of an answer over documents; for a longer one others would do as well
BESIDE = 3  # words on either side of such an answer by which its place is known
NEAREST = 8  # passages looked through for one of another document
STATEMENTS = 600  # questions asked of a fact's statement that answers them, and as many others
RENAMED = 0.5  # share of the questions that are also asked with another name
# Of a question: a name within it, or a number.
NAME = re.compile(r"(?<=\s)[A-Z][\w'’-]*(?:\s[A-Z][\w'’-]*)*|\b\d[\d.,:/-]*\d\b|\b\d\b")
STATED = (
    "The {relation} of {subject} is {answer}.",
    "{subject}'s {relation} is {answer}.",
    "{answer} is the {relation} of {subject}.",
    "{subject}: {relation} {answer}",
)


@dataclass(frozen=True)
class ReadingExample:
    """A question, a text, and the span of it that answers; an empty one where none does.

    Attributes:
        question: The question.
        text: The text.
        answer: The words of it that answer.
        start: Their first character, where the text holds them in several places.
    """

    question: str
    text: str
    answer: str
    start: int | None = None


@dataclass(frozen=True)
class SearchedQuestion:
    """A question over documents, and what a search finds for it.

    Attributes:
        question: The question.
        answers: The answer and its other forms, as the documents give it; none where the passages
            are known to leave it open.
        evidence: The places of documents that answer, each with the words around the answer; or
            the first words of the passage that leaves the question open.
        passages: Title and text of each passage found, as the reader gets them.
    """

    question: str
    answers: tuple[str, ...]
    evidence: tuple[str, ...]
    passages: tuple[tuple[str, str], ...]


def written(held_out: bool = False) -> list[dict[str, Any]]:
    """The written passages with their questions: to learn from, or those held out.

    Most have the words that state the date of the document itself (``dated``; mostly empty) and
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


def companions(held_out: bool = False) -> list[dict[str, Any]]:
    """Documents about the same things as those in two versions, whose questions they leave open.

    They are as `written` gives passages, on the same side as the pair of versions that they belong
    to, the one with the number ``of``.
    """
    with COMPANIONS.open(encoding="utf-8") as file:
        return [
            record
            for record in map(json.loads, file)
            if (record["of"] % DEVELOPMENT == 0) == held_out
        ]


def parallel(held_out: bool = False) -> list[dict[str, Any]]:
    """Texts that tell the same of several things: to learn from, or those held out.

    They are as `written` gives passages, with statements that are ``true`` by the text and others
    that are ``false`` in place of sentences that answer.
    """
    with PARALLEL.open(encoding="utf-8") as file:
        return [
            record
            for number, record in enumerate(map(json.loads, file))
            if (number % DEVELOPMENT == 0) == held_out
        ]


def tables(held_out: bool = False) -> list[dict[str, Any]]:
    """Tables, with questions that a cell answers: to learn from, or those held out."""
    with TABLES.open(encoding="utf-8") as file:
        return [
            record
            for number, record in enumerate(map(json.loads, file))
            if (number % DEVELOPMENT == 0) == held_out
        ]


def folders() -> list[dict[str, Any]]:
    """Folders of documents of one owner or two, few of which say whose they are; all held out."""
    with FOLDERS.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def passage(record: dict[str, Any]) -> str:
    """A written passage with its title, as the reader gets passages."""
    return f"{record['title']}: {record['text']}"


def table_passage(table: dict[str, Any]) -> str:
    """A table with its title, as passages have it."""
    return with_title(table["title"], "\n".join(_rows(table)))


def of_passage(record: dict[str, Any]) -> list[ReadingExample]:
    """Its questions, asked of it: those that it answers, and those that it leaves open."""
    text = passage(record)
    asked = [(each["question"], each["answer"]) for each in record["questions"]]
    asked += [(question, "") for question in record["unanswered"]]
    return [ReadingExample(question, text, answer) for question, answer in asked]


def of_document(record: dict[str, Any]) -> list[ReadingExample]:
    """What is asked about every document, asked of it; nothing where nobody has noted it."""
    if "dated" not in record:
        return []
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


def by_sentence(record: dict[str, Any], draw: random.Random) -> list[ReadingExample]:
    """Its questions, asked of single sentences of it, as `control.conflict.reader` reads them.

    Each is asked of the sentence that answers it, and some of another one that does not.
    """
    title, text = record["title"], record["text"]
    sentences = [text[start:end].strip() for start, end in parts(text)]
    found = []
    for each in record["questions"]:
        answering = [one for one in sentences if holds(one, [each["answer"]])]
        beside = [one for one in sentences if one not in answering]
        if len(answering) == 1:
            one = with_title(title, answering[0])
            found.append(ReadingExample(each["question"], one, each["answer"]))
        if beside and draw.random() < ELSEWHERE:
            found.append(
                ReadingExample(each["question"], with_title(title, draw.choice(beside)), "")
            )
    for question in record["unanswered"]:
        if draw.random() >= ELSEWHERE:
            continue
        found.append(ReadingExample(question, draw.choice(record["questions"])["sentence"], ""))
    return found


def by_thing(record: dict[str, Any], draw: random.Random) -> list[ReadingExample]:
    """The questions of a text about several things, asked of single sentences of it.

    Of the one that answers, if it names what is asked about, and of some about other things.
    """
    title, text, found = record["title"], record["text"], []
    for each in record["questions"]:
        question, answer = each["question"], each["answer"]
        for start, end in parts(text):
            one = text[start:end].strip()
            if not holds(one, [answer]):
                if draw.random() < ELSEWHERE:
                    found.append(ReadingExample(question, with_title(title, one), ""))
            elif holds(one, _names(question)):
                found.append(ReadingExample(question, with_title(title, one), answer))
    return found


def renamed(records: Sequence[dict[str, Any]], draw: random.Random) -> list[ReadingExample]:
    """Questions that passages answer, each asked of its own with another name, which it lacks.

    Another one of as many words, or a number of as many digits, from the questions about others.
    Half are asked of the whole passage, half of the sentence that answers the question as it was.
    """
    there: dict[tuple[int, int], list[str]] = defaultdict(list)
    for record in records:
        for each in record["questions"]:
            for name in _names(each["question"]):
                there[_form(name)].append(name)
    found = []
    for record in records:
        text, title = passage(record), record["title"]
        for each in record["questions"]:
            question = each["question"]
            names = [name for name in _names(question) if holds(text, [name])]
            if not names:
                continue
            name = draw.choice(names)
            other = draw.choice(there[_form(name)])
            if holds(text, other.split()):
                continue
            alone = [
                one
                for start, end in parts(record["text"])
                if holds(record["text"][start:end], [each["answer"]])
                and holds(one := with_title(title, record["text"][start:end].strip()), [name])
            ]
            asked = alone[0] if alone and draw.random() < 1 / 2 else text
            found.append(ReadingExample(question.replace(name, other), asked, ""))
    return found


def of_table(table: dict[str, Any], draw: random.Random) -> list[ReadingExample]:
    """Its questions, asked of its rows as passages have them, in any order.

    Some are also asked of the row that answers, and of another one.
    """
    rows = _rows(table)
    order = draw.sample(range(len(rows)), len(rows))
    title = with_title(table["title"], "")
    text = "\n".join(rows[place] for place in order)
    found = [ReadingExample(question, title + text, "") for question in table["unanswered"]]
    for each in table["questions"]:
        question, row, column = each["question"], each["row"], each["column"]
        cells = table["rows"][row]
        # The cells before it are in the row that ends with it.
        [upto] = _rows({**table, "rows": [cells[: column + 1]]})
        inside = len(upto) - len(cells[column])
        before = sum(len(rows[place]) + 1 for place in order[: order.index(row)])
        answer = cells[column]
        found.append(ReadingExample(question, title + text, answer, len(title) + before + inside))
        names_row = any(holds(question, [cell]) for cell in cells if cell)
        if names_row and draw.random() < ELSEWHERE:
            found.append(ReadingExample(question, title + rows[row], answer, len(title) + inside))
            other = draw.choice([one for one in range(len(rows)) if one != row])
            found.append(ReadingExample(question, title + rows[other], ""))
    return found


def elsewhere(records: Sequence[dict[str, Any]], embed: Embed) -> list[ReadingExample]:
    """Questions, each asked of the most similar passage of another thing, which does not answer.

    Args:
        records: Documents in two versions, both versions next to each other; their questions name
            what they are about.
        embed: The vectors that find the passage.
    """
    texts = [passage(record) for record in records]
    asked = [
        (place, each["question"]) for place, one in enumerate(records) for each in one["questions"]
    ]
    similarity = embed([question for _, question in asked]) @ embed(texts).T
    found = []
    for (own, question), row in zip(asked, similarity, strict=True):
        nearest = np.argsort(-row)[:NEAREST]
        other = next((int(place) for place in nearest if place // 2 != own // 2), None)
        if other is not None:
            found.append(ReadingExample(question, texts[other], ""))
    return found


def across(draw: random.Random) -> list[ReadingExample]:
    """What companions answer, asked of one of the two versions, which leaves it open."""
    with DATED.open(encoding="utf-8") as file:
        versions = [json.loads(line) for line in file]
    found = []
    for record in companions():
        text = passage(draw.choice(versions[2 * record["of"] :][:2]))
        found += [
            ReadingExample(each["question"], text, "")
            for each in record["questions"]
            if not holds(text, [each["answer"]])
        ]
    return found


def statements(draw: random.Random) -> list[ReadingExample]:
    """Questions about a fact's subject, asked of a sentence that states the fact.

    From the questions that the classifier of forgotten facts is fitted on.
    """
    answering, others = list[ReadingExample](), list[ReadingExample]()
    for case in build_cases():
        record = case.record
        if not record.relation:
            continue
        for each in case.questions:
            if each.history or each.kind not in ("paraphrase", "plain", "hint"):
                continue
            text = draw.choice(STATED).format(
                relation=record.relation,
                subject=record.subject,
                answer=record.answers[0].rstrip("."),
            )
            answer = record.answers[0].rstrip(".") if each.asks else ""
            (answering if each.asks else others).append(ReadingExample(each.text, text, answer))
    return [
        *draw.sample(answering, min(STATEMENTS, len(answering))),
        *draw.sample(others, min(STATEMENTS, len(others))),
    ]


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


def of_searches(asked: Sequence[SearchedQuestion], seed: int = 0) -> list[ReadingExample]:
    """Questions over documents, asked of passages found for them and of sentences, in random order.

    The passage that holds the evidence answers, another one that does not hold the answer does not.
    What holds it elsewhere is left out: it may answer or not.
    """
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    found = []
    for each in asked:
        others = []
        for title, text in each.passages:
            if not (each.answers or any(find(text, one) for one in each.evidence)):
                continue  # it may answer what the other leaves open
            span = _answering(each, text)
            if span is None and not holds(text, each.answers):
                others.append((title, text))
            elif span and len(text[slice(*span)].split()) <= LONGEST_SPAN:
                found += _of_found(each.question, title, text, span, draw)
        if others:
            found += _of_found(each.question, *draw.choice(others), None, draw)
    draw.shuffle(found)
    return found


def _of_found(
    question: str, title: str, text: str, span: tuple[int, int] | None, draw: random.Random
) -> list[ReadingExample]:
    """A question asked of a passage, and of a sentence that answers it and one that does not.

    Args:
        question: The question.
        title: Of the passage.
        text: Of the passage.
        span: Where it answers, in characters; ``None`` where it does not.
        draw: Chooses the sentence that does not.
    """
    start, end = span or (0, 0)
    said = text[start:end]
    found = [ReadingExample(question, with_title(title, text), said, _before(title, text) + start)]
    sentences = [(first, last) for first, last in parts(text) if text[first:last].strip()]
    if len(sentences) == 1:
        return found
    beside = [
        text[first:last].strip()
        for first, last in sentences
        if not (said and holds(text[first:last], [said]))
    ]
    for first, last in sentences if said else ():
        if first <= start and end <= last:
            alone = text[first:last].strip()
            place = _before(title, alone) + start - text.index(alone, first)
            found.append(ReadingExample(question, with_title(title, alone), said, place))
    if beside and draw.random() < ELSEWHERE:
        found.append(ReadingExample(question, with_title(title, draw.choice(beside)), ""))
    return found


def _before(title: str, text: str) -> int:
    """Characters of a title before a text, which may begin with it."""
    return len(with_title(title, text)) - len(text)


def _answering(asked: SearchedQuestion, text: str) -> tuple[int, int] | None:
    """Where a passage that holds the evidence gives the answer, in its shortest form."""
    spans = []
    for before, answer, after in _evidence(asked):
        around = find(text, f"{before} {answer} {after}")
        inside = around and _literally(text[slice(*around)], before, answer)
        if around and inside:
            spans.append((around[0] + inside[0], around[0] + inside[1]))
    return min(spans, key=lambda span: span[1] - span[0], default=None)


def _evidence(asked: SearchedQuestion) -> Iterator[tuple[str, str, str]]:
    """The answers as the evidence gives them, each with the words before and after it."""
    for evidence in asked.evidence:
        for answer in asked.answers:
            for match in re.finditer(re.escape(answer), evidence) if answer else ():
                before = evidence[: match.start()].split()[-BESIDE:]
                after = evidence[match.end() :].split()[:BESIDE]
                yield " ".join(before), answer, " ".join(after)


def _literally(text: str, before: str, answer: str) -> tuple[int, int] | None:
    """Where an answer stands in a text that begins with what is before it, signs and all."""
    skipped = find(text, before) if before else (0, 0)
    words = r"\s+".join(map(re.escape, answer.split()))
    found = re.compile(words).search(text, skipped[1] if skipped else 0)
    return found.span() if found else None


def build(files: Sequence[Path], embed: Embed, seed: int = 0) -> list[ReadingExample]:
    """All examples to learn from but those of a search, in random order.

    Args:
        files: Natural questions with passages, in a form that `training.corpus.read` takes.
        embed: The vectors that find similar passages.
        seed: Of choice and order.

    Raises:
        DataError: A file cannot be read or used.
    """
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    relations = corpus.read()
    examples = []
    versions, beside, several = dated(), companions(), parallel()
    for record in [*written(), *versions, *beside]:
        examples += [*of_document(record), *of_passage(record)]
        examples += draw.sample(sentences := of_sentences(record), len(sentences) // 2)
    for record in [*versions, *beside]:
        examples += by_sentence(record, draw)
    for record in several:
        examples += [*of_passage(record), *by_thing(record, draw)]
    other = renamed([*written(), *versions, *beside, *several], draw)
    examples += draw.sample(other, int(RENAMED * len(other)))
    for table in ORDERS * tables():
        examples += of_table(table, draw)
    far = elsewhere(versions, embed)
    examples += [*draw.sample(far, int(ELSEWHERE * len(far))), *across(draw), *statements(draw)]
    examples += answered(draw.sample(relations, min(RELATION_FACTS, len(relations))), seed)
    for path in files:
        examples += answered(corpus.read(path), seed)
    draw.shuffle(examples)
    return examples


def _names(question: str) -> list[str]:
    return [match.group() for match in NAME.finditer(question)]


def _form(name: str) -> tuple[int, int]:
    """Number of words, and of digits."""
    return len(name.split()), sum(map(str.isdigit, name))


def _rows(table: dict[str, Any]) -> list[str]:
    """The rows of a table as passages have them."""
    separator = to_line(["---"] * len(table["header"]))
    return rows_of([to_line(table["header"]), separator, *map(to_line, table["rows"])])


def _shortest(fact: CorpusFact) -> str | None:
    """The shortest answer that stands in the passage, as it stands there."""
    spans = [span for answer in fact.answers if (span := find(fact.passage, answer)) is not None]
    if not spans:
        return None
    start, end = min(spans, key=lambda span: span[1] - span[0])
    answer = fact.passage[start:end]
    return answer if len(answer.split()) <= LONGEST_PHRASE else None
