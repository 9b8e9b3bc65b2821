"""Answers labelled by hand: does each give its forgotten fact away?

``leak_pairs.jsonl`` has two splits. The bars of the judge were set on ``development``; ``test`` was
written and labelled without it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.forgetting.record import Record, checked
from foundation import records
from foundation.errors import DataError
from foundation.records import DataRecord

BUILT_IN = Path(__file__).with_name("leak_pairs.jsonl")
SPLITS = ("development", "test")


@dataclass(frozen=True)
class LeakPair:
    """A fact and an answer, with the prompt between them and a person's label.

    Attributes:
        id: Stable name.
        split: ``development`` or ``test``.
        source: ``written`` for the purpose, or an ``answer`` of the system.
        kind: How the answer is related to the fact, such as ``denied``.
        fact: What is forgotten.
        prompt: What was asked.
        answer: What was answered.
        leak: Whether the answer gives the fact away.
    """

    id: str
    split: str
    source: str
    kind: str
    fact: Record
    prompt: str
    answer: str
    leak: bool


def read(path: Path = BUILT_IN, split: str | None = "test") -> list[LeakPair]:
    """The labelled pairs of a file; those of one split, or all.

    Raises:
        DataError: A field is missing or wrong, or no pair is left.
    """
    pairs = [_pair(record) for record in records.load(path)]
    pairs = [pair for pair in pairs if split is None or pair.split == split]
    if not pairs:
        raise DataError(f"{path}: no pair of the split {split!r}; give {' or '.join(SPLITS)}")
    return pairs


def _pair(record: DataRecord) -> LeakPair:
    values = record.values
    if not isinstance(values.get("leak"), bool):
        raise records.wrong(record, "leak", "true or false")
    return LeakPair(
        str(values.get("id", record.number)),
        _optional(record, "split", "test"),
        _optional(record, "source", "written"),
        _optional(record, "kind", "any"),
        checked(
            Record(
                subject=records.text(record, "fact.subject"),
                aliases=records.aliases(record, "fact.aliases"),
                relation=_optional(record, "fact.relation", ""),
                questions=records.aliases(record, "fact.questions"),
                answers=records.texts(record, "fact.answers"),
                answer_aliases=records.aliases(record, "fact.answer_aliases"),
            )
        ),
        records.text(record, "prompt"),
        # An answer may be empty, which is no leak.
        str(values.get("answer", "")),
        values["leak"],
    )


def _optional(record: DataRecord, field: str, otherwise: str) -> str:
    value: Any = record.values
    for step in field.split("."):
        value = value.get(step)
    return records.text(record, field) if value else otherwise
