"""Trains the reader (`control.conflict.reader`): an adapter of an encoder."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from control.encoders import quietly, read_adapter
from control.engines.transformers import first_line
from foundation.errors import ModelError
from foundation.files import replacing
from foundation.text import find
from training import reading
from training.encoders import (
    EPOCHS_ON,
    LEARNING_RATE,
    SMOKE,
    EncoderTask,
    check_adapter,
    encoder,
    tune,
    vectors,
)
from training.reading import ReadingExample, SearchedQuestion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RANK, EPOCHS = 64, 3
OTHERS_RATE = 3e-4  # of another encoder: one of 110M parameters learned at it, see docs/results.md
LONGEST = 384  # word pieces of question and text


def train(
    target: Path,
    files: Sequence[Path] = (),
    seed: int = 0,
    smoke: bool = False,
    start: Path | None = None,
    most: int | None = None,
    base: str | None = None,
    search: Callable[[], Sequence[SearchedQuestion]] | None = None,
) -> Path:
    """Train the reader. Interrupted, the same call goes on from the last checkpoint.

    Args:
        target: Directory of the run; the adapter is written to its folder ``adapter``.
        files: Natural questions with passages besides the packaged ones.
        seed: Of data and training.
        smoke: A few steps only.
        start: A reader's adapter to go on from, for one epoch.
        most: Learn from so many examples at most, drawn at random, and so many of ``search``.
        base: Hugging Face id or directory of another encoder than the packaged one.
        search: Gives questions over documents, with what a search finds for them; it is asked once
            everything else has been checked, as it may take minutes.

    Returns:
        The adapter's directory; with ``base`` the directory of the encoder with the adapter merged,
        which `control.conflict.reader.open_reader` takes.

    Raises:
        DataError: A file cannot be read or used.
        ModelError: ``base`` is no encoder, or ``start`` no adapter of it.
    """
    from transformers import AutoModelForQuestionAnswering

    tokenizer = _tokenizer(base)
    if start is not None:
        check_adapter(start, "reader")
    examples = reading.build(files, vectors, seed)[:most]
    if search is not None:
        examples += reading.of_searches(search(), seed)[:most]
        random.Random(seed).shuffle(examples)  # noqa: S311 - a reproducible choice, nothing secret
    examples = examples[:SMOKE] if smoke else examples
    rows = [row for each in examples if (row := _encoded(tokenizer, each)) is not None]
    rate = OTHERS_RATE if base else LEARNING_RATE
    task = EncoderTask(
        "reader",
        AutoModelForQuestionAnswering,
        "QUESTION_ANS",
        "qa_outputs",
        ("start_positions", "end_positions"),
        RANK,
        EPOCHS if start is None else EPOCHS_ON,
        rate if start is None else rate / 2,
        base=base,
    )
    adapter = tune(task, tokenizer, rows, target, seed, smoke, start)
    return adapter if base is None else _merged(base, adapter, target / "model")


def _tokenizer(base: str | None) -> "PreTrainedTokenizerBase":
    """The tokenizer of an encoder that can be trained, which takes a moment to find out."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    try:
        with quietly():
            AutoModelForQuestionAnswering.from_pretrained(encoder(base))
            tokenizer = AutoTokenizer.from_pretrained(encoder(base))
    except Exception as error:  # transformers raises anything from OSError to KeyError
        raise ModelError(
            f"--base {base}: no encoder that can be loaded ({first_line(error)}); give a Hugging "
            "Face id or a directory of one"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"--base {base}: its tokenizer does not tell where its pieces stand")
    return tokenizer


def _merged(base: str, adapter: Path, target: Path) -> Path:
    """Write an encoder with its adapter merged, and its tokenizer."""
    from transformers import AutoModelForQuestionAnswering

    model, tokenizer = read_adapter(AutoModelForQuestionAnswering, Path(base), adapter)
    with replacing(target) as new:
        model.save_pretrained(str(new))
        tokenizer.save_pretrained(str(new))
    return target


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
        start = example.start
        span = (
            find(example.text, example.answer)
            if start is None
            else (start, start + len(example.answer))
        )
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
