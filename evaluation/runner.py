"""The runner of all evaluations: rows are computed in batches, stored at once, and resumed."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from foundation.jsonl import JsonlStore, Key, Row

Item = TypeVar("Item")
Result = TypeVar("Result")
RunStep = Callable[[Callable[[], Any]], Any]
"""Runs one step of work with the model, such as in turn with other users of it."""


def run_now(work: Callable[[], Result]) -> Result:
    """Run a step at once, where nobody else needs the model."""
    return work()


def digest(content: object) -> str:
    """16 hexadecimal digits that identify what a run asks, for its header."""
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


class Rows(JsonlStore[Key, Row]):
    """The rows of a run by key."""

    @classmethod
    def of_dataclass(
        cls,
        path: Path,
        header: Mapping[str, Any],
        row_class: Callable[..., Row],
        key: Callable[[Row], Key],
    ) -> "Rows[Key, Row]":
        """Rows that are dataclasses and know their own key, each stored as one JSON object."""

        def decode(values: dict[str, Any]) -> tuple[Key, Row]:
            row = row_class(**values)
            return key(row), row

        return cls(path, header, decode, lambda _, row: asdict(row))  # type: ignore[call-overload]

    def complete(
        self,
        items: Iterable[Item],
        keys: Callable[[Item], Iterable[Key]],
        compute: Callable[[Sequence[Item]], Mapping[Key, Row]],
        batch_size: int,
        *,
        length: Callable[[Item], int] = lambda _: 0,
        title: str = "",
        unit: str = "items",
        run_step: RunStep = run_now,
    ) -> None:
        """Compute the rows of all items that lack one, in batches of items of like length.

        Args:
            items: What the rows are about.
            keys: Of an item's rows.
            compute: Rows of a batch of items.
            batch_size: Items at a time.
            length: By which items are sorted.
            title: Of the progress bar.
            unit: Of the progress bar.
            run_step: Runs the computation of each batch.
        """
        todo = [item for item in items if any(key not in self for key in keys(item))]
        todo.sort(key=length)
        with tqdm(total=len(todo), desc=title, unit=f" {unit}", delay=2) as bar:
            for start in range(0, len(todo), batch_size):
                batch = todo[start : start + batch_size]
                self.add(run_step(partial(compute, batch)))
                bar.update(len(batch))
