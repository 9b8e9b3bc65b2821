"""Evaluation items from files."""

import logging
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any

from data import DIRECTORY as DATA
from evaluation.datasets.formats import FORMATS, Conflict, Format
from foundation import records
from foundation.errors import DataError
from foundation.records import DataRecord

__all__ = [
    "BUILT_IN_CONFLICTS",
    "NATURAL_CONFLICTS",
    "Conflict",
    "conflicts",
    "for_calibration",
    "spread",
]

BUILT_IN_CONFLICTS = DATA / "conflicts.jsonl"  # from templates
NATURAL_CONFLICTS = DATA / "natural_conflicts.jsonl"  # passages that were written one by one

log = logging.getLogger(__name__)


def conflicts(path: Path, split: str | None = None) -> list[Conflict]:
    """Read conflicts; the format shows in the fields of the first record.

    Records that hold no conflict, or none that the strings of an answer can decide, are left out,
    and the log says how many and why.

    Args:
        path: The file, in one of ``formats.FORMATS``.
        split: Keep only the items of this split.

    Raises:
        DataError: The file is missing or empty, its format is not known, a record lacks a field
            (named with its line or number), an id stands twice, or no item belongs to the split.
    """
    loaded = records.load(path)
    if not loaded:
        raise DataError(f"{path}: no items; give {_known()}")
    chosen = _format(path, loaded[0])
    items: list[Conflict] = []
    left_out: Counter[str] = Counter()
    for result in chosen.read(loaded):
        if isinstance(result, Conflict):
            items.append(result)
        else:
            left_out[result] += 1
    for reason, count in left_out.items():
        log.warning("%s: %d of %d records left out: %s", path, count, len(loaded), reason)
    if blind := sum(not item.memory_answers for item in items):
        log.warning(
            "%s: %d of %d items come without the memory's answer; they count for ConR alone",
            path,
            blind,
            len(items),
        )
    if not items:
        raise DataError(
            f"{path}: none of its {len(loaded)} records ({chosen.name}) can be used: "
            + "; ".join(left_out)
        )
    _check_ids(path, items)
    if split is None:
        return items
    kept = [item for item in items if item.split == split]
    if not kept:
        there = ", ".join(sorted({item.split for item in items if item.split})) or "none"
        raise DataError(f"{path}: no item has the split {split!r}; the splits there: {there}")
    return kept


def for_calibration(limit: int | None = None) -> list[Conflict]:
    """The conflicts to choose settings on: built-in ones, and ones in natural text.

    Args:
        limit: At most so many, half of them of each where there are so many.
    """
    natural = spread(conflicts(NATURAL_CONFLICTS, "calibration"), limit and limit // 2)
    rest = limit and limit - len(natural)
    return [*spread(conflicts(BUILT_IN_CONFLICTS, "calibration"), rest), *natural]


def spread(items: list[Any], limit: int | None) -> list[Any]:
    """At most ``limit`` items, evenly spaced, so that every relation keeps its share."""
    if limit is None or limit >= len(items):
        return items
    return [items[index * len(items) // limit] for index in range(limit)]


def _format(path: Path, first: DataRecord) -> Format:
    for candidate in FORMATS:
        if candidate.keys & first.values.keys():
            return candidate
    fields = reprlib.repr(list(first.values))
    raise DataError(
        f"{path}: unknown format, the fields of the first record are {fields}; give {_known()}"
    )


def _known() -> str:
    *published, own = (known.name for known in FORMATS)
    return f"{own}, or one of {', '.join(published)}"


def _check_ids(path: Path, items: list[Conflict]) -> None:
    """Answers are kept by id: items that share one would share their answers."""
    twice, count = Counter(item.id for item in items).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path}: {count} items have the id {twice!r}; give each its own")
