"""Evaluation items from files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import DataError

BUILT_IN_CONFLICTS = Path(__file__).parent.parent / "data" / "conflicts.jsonl"


@dataclass(frozen=True)
class Conflict:
    """A question whose passage contradicts what is generally known.

    Attributes:
        id: Stable name of the item.
        question: The question.
        context: The counterfactual passage.
        context_answers: What the passage says, aliases included.
        memory_answers: What is true and may be known from training, aliases included.
        true_context: The passage with the right answer, if there is one.
        split: Part of the data that it belongs to, if any.
        relation: Kind of fact, if stated.
    """

    id: str
    question: str
    context: str
    context_answers: tuple[str, ...]
    memory_answers: tuple[str, ...]
    true_context: str | None
    split: str | None
    relation: str | None


def conflicts(path: Path, split: str | None = None) -> list[Conflict]:
    """Read conflicts from JSON Lines.

    Args:
        path: The file.
        split: Keep only the items of this split.

    Raises:
        DataError: The file is missing or empty, a line lacks a field (named with its line), or no
            item belongs to the split.
    """
    items = [
        Conflict(
            id=str(record.get("id", number)),
            question=_text(record, "question", where),
            context=_text(record, "context", where),
            context_answers=_texts(record, "context_answers", where),
            memory_answers=_texts(record, "memory_answers", where),
            true_context=_text(record, "true_context", where) if "true_context" in record else None,
            split=record.get("split"),
            relation=record.get("relation"),
        )
        for number, where, record in _records(path)
    ]
    if not items:
        raise DataError(f"{path}: no items; give a JSON Lines file with one conflict per line")
    if split is None:
        return items
    chosen = [item for item in items if item.split == split]
    if not chosen:
        there = ", ".join(sorted({item.split for item in items if item.split})) or "none"
        raise DataError(f"{path}: no item has the split {split!r}; the splits there: {there}")
    return chosen


def spread(items: list[Any], limit: int | None) -> list[Any]:
    """At most ``limit`` items, evenly spaced, so that every relation keeps its share."""
    if limit is None or limit >= len(items):
        return items
    return [items[index * len(items) // limit] for index in range(limit)]


def _records(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a JSON Lines file") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON ({error.msg}); write one object per line") from None
        if not isinstance(record, dict):
            raise DataError(f"{where}: {type(record).__name__}, must be an object")
        yield number, where, record


def _text(record: dict[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: field {name!r} is {value!r}, must be a non-empty text")
    return value


def _texts(record: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    values = record.get(name)
    if (
        not isinstance(values, list)
        or not values
        or not all(isinstance(value, str) and value.strip() for value in values)
    ):
        raise DataError(
            f"{where}: field {name!r} is {values!r}, must be a list of texts, not empty"
        )
    return tuple(values)
