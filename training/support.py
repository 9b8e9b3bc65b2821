"""Trains what tells whether a passage supports a sentence (`control.conflict.support`)."""

import random
from pathlib import Path
from typing import Any

from control.prompts import with_title
from retrieval.ingest.tables import rows_of, to_line
from training import reading
from training.encoders import EPOCHS_ON, LEARNING_RATE, SMOKE, EncoderTask, tune

RANK, EPOCHS = 32, 2
LONGEST = 384  # word pieces of sentence and passage
QUESTIONS = 3  # of each passage
WITH_QUESTION = 0.5  # share of the sentences that are read with their question before them
OF_TABLE = 5  # statements about each table besides the answers to its questions
STATED = (
    "The {column} of {row} is {value}.",
    "{row} has the {column} {value}.",
    "{row}: {column} {value}.",
    "For {row}, the {column} is {value}.",
    "{value} is the {column} of {row}.",
)


def train(
    target: Path,
    seed: int = 0,
    smoke: bool = False,
    start: Path | None = None,
    most: int | None = None,
) -> Path:
    """Train the adapter; as `training.encoders.tune`, from ``most`` examples at most."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from retrieval.embedding import packaged_model

    tokenizer = AutoTokenizer.from_pretrained(packaged_model())
    rows = [
        {
            **tokenizer(
                f"{question} {sentence}".strip(),
                passage,
                truncation="only_second",
                max_length=LONGEST,
            ),
            "labels": int(supports),
        }
        for question, sentence, passage, supports in build(seed)[: SMOKE if smoke else most]
    ]
    task = EncoderTask(
        "support",
        AutoModelForSequenceClassification,
        "SEQ_CLS",
        "classifier",
        ("labels",),
        RANK,
        EPOCHS if start is None else EPOCHS_ON,
        LEARNING_RATE if start is None else LEARNING_RATE / 2,
    )
    return tune(task, tokenizer, rows, target, seed, smoke, start)


def build(seed: int = 0) -> list[tuple[str, str, str, bool]]:
    """Question, sentence, passage, and whether the passage supports the sentence.

    A sentence that answers rightly is supported by its passage and not by another one; one that
    answers wrongly is supported by none. Of tables the passage is a row.
    """
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    records = reading.written()
    found: list[tuple[str, str, str, bool]] = []
    for record in records:
        text = reading.passage(record)
        for each in draw.sample(record["questions"], min(QUESTIONS, len(record["questions"]))):
            other = reading.passage(draw.choice(records))
            question = each["question"] if draw.random() < WITH_QUESTION else ""
            found.append((question, each["sentence"], text, True))
            found.append((question, each["other"], text, False))
            if other != text:
                found.append((question, each["sentence"], other, False))
    for table in reading.tables():
        found += of_table(table, draw)
    draw.shuffle(found)
    return found


def of_table(table: dict[str, Any], draw: random.Random) -> list[tuple[str, str, str, bool]]:
    """What its cells answer and what can be stated of them, and the same with something else.

    Another row, another row's value, another column's, or a row that is not there. Which row it is
    is told by the first column in which no two rows are alike.
    """
    header, rows = table["header"], table["rows"]
    written = rows_of([to_line(header), to_line(["---"] * len(header)), *map(to_line, rows)])
    texts = [with_title(table["title"], row) for row in written]
    found: list[tuple[str, str, str, bool]] = []
    for each in table["questions"]:
        row, column = each["row"], each["column"]
        value = rows[row][column]
        other = draw.choice([at for at in range(len(rows)) if at != row])
        if value != rows[other][column]:
            found.append((each["question"], f"{value}.", texts[row], True))
            found.append((each["question"], f"{rows[other][column]}.", texts[row], False))
            found.append((each["question"], f"{value}.", texts[other], False))
    columns = list(zip(*rows, strict=True))
    keys = [at for at, cells in enumerate(columns) if all(cells) and len(set(cells)) == len(rows)]
    for _ in range(OF_TABLE if keys else 0):
        row, other = draw.sample(range(len(rows)), 2)
        column, beside = draw.sample([at for at in range(len(header)) if at != keys[0]], 2)
        key, value, form = rows[row][keys[0]], rows[row][column], draw.choice(STATED)
        if not value or not header[column]:
            continue
        says = form.format(column=header[column], row=key, value=value)
        found.append(("", says, texts[row], True))
        if rows[other][keys[0]] not in (key, value):
            found.append(("", says, texts[other], False))
        for wrong in (rows[other][column], rows[row][beside]):
            if wrong and wrong != value:
                says = form.format(column=header[column], row=key, value=wrong)
                found.append(("", says, texts[row], False))
    return found
