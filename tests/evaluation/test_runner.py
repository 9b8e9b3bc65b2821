from dataclasses import dataclass

import pytest

from evaluation.runner import Rows
from foundation.errors import DataError


@dataclass
class Row:
    id: str
    text: str


def open_rows(path, model="a"):
    return Rows.of_dataclass(path, {"model": model}, Row, lambda row: row.id)


def test_only_missing_rows_are_computed_shortest_item_first_and_stored_by_batch(tmp_path):
    batches = []

    def compute(batch):
        batches.append(list(batch))
        return {item: Row(item, item.upper()) for item in batch}

    def complete(rows, *items):
        rows.complete(items, lambda item: [item], compute, 2, length=len)

    complete(open_rows(tmp_path / "rows.jsonl"), "long", "a")
    again = open_rows(tmp_path / "rows.jsonl")
    complete(again, "long", "longer", "b", "a", "of")
    assert batches == [["a", "long"], ["b", "of"], ["longer"]]
    assert again["long"] == Row("long", "LONG")
    assert list(again) == ["a", "long", "b", "of", "longer"]


def test_a_broken_batch_keeps_the_batches_before_it(tmp_path):
    def compute(batch):
        if batch == ["b"]:
            raise KeyboardInterrupt
        return {item: Row(item, "") for item in batch}

    with pytest.raises(KeyboardInterrupt):
        open_rows(tmp_path / "rows.jsonl").complete("ab", lambda item: [item], compute, 1)
    assert list(open_rows(tmp_path / "rows.jsonl")) == ["a"]


def test_rows_of_another_run_are_refused(tmp_path):
    open_rows(tmp_path / "rows.jsonl").add({"a": Row("a", "")})
    with pytest.raises(DataError, match="another run; give another --out"):
        open_rows(tmp_path / "rows.jsonl", model="b")
