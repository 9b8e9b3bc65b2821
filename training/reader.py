"""Trains the reader (`control.conflict.reader`): an adapter of the packaged embedding model."""

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from control.engines.transformers import preferred_device, preferred_dtype
from foundation.text import find
from training import reading
from training.reading import ReadingExample
from training.runs import arguments, keep, last_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

RANK, ALPHA = 64, 64
TARGETS = ("query", "key", "value", "dense")
LEARNING_RATE = 1e-3
BATCH = 32
EPOCHS = 3
LONGEST = 384  # word pieces of question and text
SMOKE = 48  # examples of a trial run


def train(target: Path, files: Sequence[Path] = (), seed: int = 0, smoke: bool = False) -> Path:
    """Train the reader. Interrupted, the same call goes on from the last checkpoint.

    Args:
        target: Directory of the run; the adapter is written to its folder ``adapter``.
        files: Natural questions with passages besides the packaged ones.
        seed: Of data and training.
        smoke: A few steps only.

    Returns:
        The adapter's directory.

    Raises:
        DataError: A file cannot be read or used.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForQuestionAnswering,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from retrieval.embedding import PACKAGED_NAME, packaged_model

    started = time.monotonic()
    set_seed(seed)  # before the head is drawn
    base = packaged_model()
    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = reading.build(files, seed)[: SMOKE if smoke else None]
    rows = [row for each in examples if (row := _encoded(tokenizer, each)) is not None]
    model = get_peft_model(
        AutoModelForQuestionAnswering.from_pretrained(base),
        LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            target_modules=list(TARGETS),
            modules_to_save=["qa_outputs"],
            task_type="QUESTION_ANS",
        ),
    )
    runs, epochs = target / "checkpoints", 1 if smoke else EPOCHS
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            **arguments(runs, epochs, seed),
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            bf16=preferred_dtype() == torch.bfloat16,
            use_cpu=preferred_device().type == "cpu",  # else bf16 is refused there
            label_names=["start_positions", "end_positions"],
        ),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(runs))
    settings = {"rank": RANK, "batch": BATCH, "rate": LEARNING_RATE, "epochs": epochs, "seed": seed}
    card = CARD.format(
        base=PACKAGED_NAME,
        minutes=(time.monotonic() - started) / 60,
        count=len(rows),
        **settings,
    )
    keep(model.to(torch.float16), target / "adapter", PACKAGED_NAME, card)
    shutil.rmtree(runs, ignore_errors=True)
    return target / "adapter"


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


CARD = """\
# The reader, an adapter of {base}

Written by `fulcrum train reader --out DIR --seed {seed}` in {minutes:.0f} minutes: LoRA of rank
{rank} and a head for starts and ends, {epochs} epochs over {count:,} examples, batch {batch},
learning rate {rate:g} (cosine). `training/reading.py` builds the examples from passages written for
it (`training/reading.jsonl`), from the calibration relations of the built-in corpus, and from the
files given by --data. What it is worth: `docs/sources.md`.
"""
