"""The task on texts held out of the reader's training: what it finds, and where it sees nothing."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from control.conflict.reader import AnswerReader, Reading
from evaluation import metrics
from evaluation.suites.sources.checks import Table
from evaluation.suites.sources.system import Run
from foundation.errors import InputError
from training import reading
from training.encoders import Embed
from training.reading import ReadingExample

ANSWERS = 0.7  # probability from which a text counts as answering here
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
    run.counts["held-out"] = sum(map(len, kinds.values()))
    rows = [
        _row(kind, several, _read(reader, several, run.batch_size))
        for kind, several in tqdm(kinds.items(), desc="held out", delay=2)
    ]
    return {"held-out": rows, "failures": []}


def examples(embed: Embed) -> dict[str, list[ReadingExample]]:
    """Questions and texts by kind, in an order without meaning.

    Args:
        embed: Finds passages that are similar to a question about something else.
    """
    draw = random.Random(SEED)  # noqa: S311 - a reproducible choice, nothing secret
    passages, versions = reading.written(held_out=True), reading.dated(held_out=True)
    asked = [one for record in versions for one in reading.of_passage(record)]
    answered = [one for one in asked if one.answer]
    found = {
        "passages": [one for record in passages for one in reading.of_passage(record)],
        "documents": asked,
        "documents, and similar ones about something else": [
            *answered,
            *reading.elsewhere(versions, embed),
        ],
        "documents beside them": [
            one
            for record in reading.companions(held_out=True)
            for one in reading.of_passage(record)
        ],
        "single sentences of documents": [
            one for record in versions for one in reading.by_sentence(record, draw)
        ],
        "sentences that answer": [
            one for record in (*passages, *versions) for one in reading.of_sentences(record)
        ],
    }
    return {kind: draw.sample(several, len(several)) for kind, several in found.items()}


def _read(reader: AnswerReader, asked: Sequence[ReadingExample], batch_size: int) -> list[Reading]:
    pairs = [(one.question, one.text) for one in asked]
    starts = range(0, len(pairs), batch_size)
    return [found for at in starts for found in reader.read(pairs[at : at + batch_size])]


def _row(kind: str, asked: Sequence[ReadingExample], found: Sequence[Reading]) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

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
    scores = [each.answers for each in found]
    both = answering.any() and not answering.all()
    intervals = {name: metrics.interval(metrics.percent, one) for name, one in measured.items()}
    return {
        "text": kind,
        "n": len(asked),
        **{name: metrics.percent(flags) for name, flags in measured.items()},
        "AUROC": float(roc_auc_score(answering, scores)) if both else None,
        "ci": intervals,
    }
