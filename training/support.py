"""Trains what tells whether a passage supports a sentence (`control.conflict.support`)."""

import random
from pathlib import Path

from training import reading
from training.encoders import EPOCHS_ON, LEARNING_RATE, SMOKE, EncoderTask, tune

RANK, EPOCHS = 32, 2
LONGEST = 384  # word pieces of sentence and passage
QUESTIONS = 3  # of each passage
WITH_QUESTION = 0.5  # share of the sentences that are read with their question before them


def train(
    target: Path,
    seed: int = 0,
    smoke: bool = False,
    start: Path | None = None,
    most: int | None = None,
) -> Path:
    """Train the adapter; arguments, result and errors as of `training.reader.train`."""
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
    answers wrongly is supported by none.
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
    draw.shuffle(found)
    return found
