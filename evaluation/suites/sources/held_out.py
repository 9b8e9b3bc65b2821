"""The task on texts held out of the reader's training: what it finds, and where it sees nothing."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from control.conflict.passage_claims import LEAST_ALONE, LEAST_ANSWERS
from control.conflict.reader import AnswerReader, Reading
from evaluation import metrics
from evaluation.datasets import sources
from evaluation.suites.sources import folders
from evaluation.suites.sources.checks import Table
from evaluation.suites.sources.folders import LEAST_F1
from evaluation.suites.sources.system import Run
from foundation.errors import InputError
from training import reading
from training.encoders import Embed
from training.reading import ReadingExample

ANSWERS = 0.7  # probability from which a text counts as answering here
NEAREST = 5  # documents that a question is asked of, where the surest one answers
TABLES = "tables"  # of the kinds of text: all rows of a table, in any order
SEED = 0  # of the sentences that are drawn


def held_out(run: Run) -> dict[str, Table]:
    """The reader alone on each kind of text, where the answer is known or none is there.

    Raises:
        InputError: The system has no reader.
    """
    reader, vectors = run.system.assistant.reader, run.system.vectors
    if reader is None or vectors is None:
        raise InputError("--task held-out needs the reader; leave out --without reader")
    kinds = examples(vectors)
    if run.limit is not None:
        kinds = {kind: several[: run.limit] for kind, several in kinds.items()}
    questions = nearest(vectors)[: run.limit]
    run.counts["held-out"] = sum(map(len, kinds.values())) + len(questions)
    readings = {
        kind: _read(reader, several, run.batch_size)
        for kind, several in tqdm(kinds.items(), desc="held out", delay=2)
    }
    rows = [_row(kind, kinds[kind], each) for kind, each in readings.items()]
    flat = [one for question in questions for one in question.asked]
    found = iter(_read(reader, flat, run.batch_size))
    surest = [
        max((next(found) for _ in question.asked), key=lambda each: each.answers)
        for question in questions
    ]
    tables = [AskedOfSeveral([one], frozenset(filter(None, [one.answer]))) for one in kinds[TABLES]]
    bars = (LEAST_ANSWERS, ANSWERS, LEAST_ALONE)
    return {
        "held-out": rows,
        "held-out: several documents": [_bar(questions, surest, least) for least in bars],
        "held-out: tables": [_bar(tables, readings[TABLES], least) for least in bars],
        "held-out: folders": folders.measure(reader, run.limit),
        "held-out: citations": _cited(run),
        "failures": [],
    }


def examples(embed: Embed) -> dict[str, list[ReadingExample]]:
    """Questions and texts by kind, in an order without meaning.

    Args:
        embed: Finds passages that are similar to a question about something else.
    """
    draw = random.Random(SEED)  # noqa: S311 - a reproducible choice, nothing secret
    passages, versions = reading.written(held_out=True), reading.dated(held_out=True)
    beside, several = reading.companions(held_out=True), reading.parallel(held_out=True)
    asked = [one for record in versions for one in reading.of_passage(record)]
    answered = [one for one in asked if one.answer]
    found = {
        "passages": [one for record in passages for one in reading.of_passage(record)],
        "documents": asked,
        "documents, and similar ones about something else": [
            *answered,
            *reading.elsewhere(versions, embed),
        ],
        "documents beside them": [one for record in beside for one in reading.of_passage(record)],
        "single sentences of documents": [
            one for record in versions for one in reading.by_sentence(record, draw)
        ],
        "sentences that answer": [
            one for record in (*passages, *versions) for one in reading.of_sentences(record)
        ],
    }
    asked = [
        one for table in reading.tables(held_out=True) for one in reading.of_table(table, draw)
    ]
    found[TABLES] = [one for one in asked if "\n" in one.text]
    found["single rows of tables"] = [one for one in asked if "\n" not in one.text]
    found["texts about several things"] = [
        one for record in several for one in reading.of_passage(record)
    ]
    found["single sentences of them"] = [
        one for record in several for one in reading.by_thing(record, draw)
    ]
    found["documents, and with another name in the question"] = [
        *answered,
        *reading.renamed([*passages, *versions, *beside, *several], draw),
    ]
    return {kind: draw.sample(several, len(several)) for kind, several in found.items()}


@dataclass(frozen=True)
class AskedOfSeveral:
    """A question asked of one or several documents.

    Attributes:
        asked: The question with each of them.
        answers: What the documents answer that are asked about it; empty where all leave it open.
    """

    asked: list[ReadingExample]
    answers: frozenset[str]


def nearest(embed: Embed) -> list[AskedOfSeveral]:
    """Every question about the documents, asked of those that are most similar to it.

    Args:
        embed: Finds them.
    """
    documents = [*reading.dated(held_out=True), *reading.companions(held_out=True)]
    texts = [reading.passage(one) for one in documents]
    answers: dict[str, set[str]] = {}
    for record in documents:
        for each in record["questions"]:
            answers.setdefault(each["question"], set()).add(each["answer"])
        for question in record["unanswered"]:
            answers.setdefault(question, set())
    similarity = embed(list(answers)) @ embed(texts).T
    found = [
        AskedOfSeveral(
            [ReadingExample(question, texts[at], "") for at in np.argsort(-row)[:NEAREST]],
            frozenset(right),
        )
        for (question, right), row in zip(answers.items(), similarity, strict=True)
    ]
    draw = random.Random(SEED)  # noqa: S311 - a reproducible choice, nothing secret
    return draw.sample(found, len(found))


def _bar(
    questions: Sequence[AskedOfSeveral], surest: Sequence[Reading], least: float
) -> dict[str, Any]:
    """What the surest of several documents answers, if it is as sure as ``least``."""
    open_ = np.array([not one.answers for one in questions])
    said = np.array([bool(each.answer) and each.answers >= least for each in surest])
    right = np.array(
        [
            max((metrics.token_f1(each.answer, one) for one in question.answers), default=0.0)
            for question, each in zip(questions, surest, strict=True)
        ]
    )
    measured = {
        "answered, of those that one answers": said[~open_],
        "right (F1 from 0.5 on), of those answered": right[~open_ & said] >= LEAST_F1,
        "answered, of those that all leave open": said[open_],
    }
    return {
        "from": least,
        "n": len(questions),
        **metrics.percents(measured),
        "AUROC": _auroc(~open_, surest),
        "ci": metrics.intervals(measured),
    }


def _cited(run: Run) -> list[dict[str, Any]]:
    """How often sentences are cited that a table or a text about several things states, or not."""
    support, tables = run.system.assistant.support, reading.tables(held_out=True)
    if support is None:
        return []
    asked = [
        (f"tables: {one.kind}", one.sentence, reading.table_passage(tables[one.table]))
        for one in sources.table_statements(run.limit)
    ]
    for kind in ("true", "false"):
        asked += [
            (f"several things: {kind}", sentence, reading.passage(record))
            for record in reading.parallel(held_out=True)[: run.limit]
            for sentence in record[kind]
        ]
    found: dict[str, list[bool]] = {}
    for kind, sentence, passage in asked:
        citations = support.cite(sentence, [("passage", passage)])
        found.setdefault(kind, []).append(all(each.passages for each in citations))
    return [
        {
            "sentences": kind,
            "n": len(flags),
            "cited": metrics.percent(cited := np.array(flags)),
            "ci": {"cited": metrics.interval(metrics.percent, cited)},
        }
        for kind, flags in found.items()
    ]


def _read(reader: AnswerReader, asked: Sequence[ReadingExample], batch_size: int) -> list[Reading]:
    pairs = [(one.question, one.text) for one in asked]
    starts = range(0, len(pairs), batch_size)
    return [found for at in starts for found in reader.read(pairs[at : at + batch_size])]


def _row(kind: str, asked: Sequence[ReadingExample], found: Sequence[Reading]) -> dict[str, Any]:
    answering = np.array([bool(one.answer) for one in asked])
    said = np.array([bool(each.answer) and each.answers >= ANSWERS for each in found])
    exact = np.array(
        [
            metrics.normalise(each.answer) == metrics.normalise(one.answer)
            for each, one in zip(found, asked, strict=True)
        ]
    )
    measured = {
        "exact span": exact[answering],
        "answered, of those that answer": said[answering],
        "answered, of those that do not": said[~answering],
    }
    return {
        "text": kind,
        "n": len(asked),
        **metrics.percents(measured),
        "AUROC": _auroc(answering, found),
        "ci": metrics.intervals(measured),
    }


def _auroc(answering: NDArray[np.bool_], found: Sequence[Reading]) -> float | None:
    """How well the probabilities tell what answers; ``None`` where all or none does."""
    if answering.all() or not answering.any():
        return None
    return metrics.auroc(answering, [each.answers for each in found])
