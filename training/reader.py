"""Trains the reader (`control.conflict.reader`): an adapter of the packaged embedding model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.text import find
from training import reading
from training.encoders import EPOCHS_ON, LEARNING_RATE, SMOKE, EncoderTask, tune, vectors
from training.reading import ReadingExample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RANK, EPOCHS = 64, 3
LONGEST = 384  # word pieces of question and text


def train(
    target: Path,
    files: Sequence[Path] = (),
    seed: int = 0,
    smoke: bool = False,
    start: Path | None = None,
    most: int | None = None,
) -> Path:
    """Train the reader. Interrupted, the same call goes on from the last checkpoint.

    Args:
        target: Directory of the run; the adapter is written to its folder ``adapter``.
        files: Natural questions with passages besides the packaged ones.
        seed: Of data and training.
        smoke: A few steps only.
        start: A reader's adapter to go on from, for one epoch.
        most: Learn from so many examples at most, drawn at random.

    Returns:
        The adapter's directory.

    Raises:
        DataError: A file cannot be read or used.
    """
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    from retrieval.embedding import packaged_model

    base = packaged_model()
    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = reading.build(files, vectors, seed)[: SMOKE if smoke else most]
    rows = [row for each in examples if (row := _encoded(tokenizer, each)) is not None]
    task = EncoderTask(
        "reader",
        AutoModelForQuestionAnswering,
        "QUESTION_ANS",
        "qa_outputs",
        ("start_positions", "end_positions"),
        RANK,
        EPOCHS if start is None else EPOCHS_ON,
        LEARNING_RATE if start is None else LEARNING_RATE / 2,
    )
    return tune(task, tokenizer, rows, target, seed, smoke, start)


def _encoded(
    tokenizer: "PreTrainedTokenizerBase", example: ReadingExample
) -> dict[str, Any] | None:
    """An example as word pieces; ``None`` where its answer is cut off."""
    encoded = tokenizer(
        example.question,
        example.text,
        truncation="only_second",
        max_length=LONGEST,
        return_offsets_mapping=True,
    )
    first = last = 0
    if example.answer:
        span = find(example.text, example.answer)
        inside = [
            piece
            for piece, ((start, end), part) in enumerate(
                zip(encoded.pop("offset_mapping"), encoded.sequence_ids(), strict=True)
            )
            if span is not None and part == 1 and start < span[1] and end > span[0]
        ]
        if not inside:
            return None
        first, last = inside[0], inside[-1]
    encoded.pop("offset_mapping", None)
    return {**encoded, "start_positions": first, "end_positions": last}
