"""Rows by key in a JSON Lines file, so that an interrupted run resumes where it stopped."""

import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from foundation.errors import DataError

Key = TypeVar("Key", bound=Hashable)
Row = TypeVar("Row")


class JsonlStore(Mapping[Key, Row]):
    """A mapping whose rows are on disk before they can be read."""

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any] | None,
        decode: Callable[[Any], tuple[Key, Row]] = tuple,
        encode: Callable[[Key, Row], Any] = lambda key, row: [key, row],
    ) -> None:
        """Open the file, or begin it. A half-written last line is dropped.

        Args:
            path: The file.
            header: What the rows belong to, such as the model's name; the first line. ``None``: the
                file has no header, another file of the run holds it.
            decode: From the JSON value of a line to key and row.
            encode: From key and row to the JSON value of a line.

        Raises:
            DataError: The file has another header.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._encode = path, encode
        self._rows: dict[Key, Row] = {}
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
        *whole, rest = lines
        if header is not None:
            first, *whole = whole or [json.dumps(header, ensure_ascii=False)]
            if first not in (json.dumps(header, ensure_ascii=False), json.dumps(header)):
                raise DataError(
                    f"{path}: holds the rows of another run; give another --out, or delete it "
                    f"(its run: {first})"
                )
            if len(lines) == 1:
                path.write_text(first + "\n", encoding="utf-8")
                rest = ""
        if rest:
            path.write_text("".join(line + "\n" for line in lines[:-1]), encoding="utf-8")
        for line in whole:
            with suppress(json.JSONDecodeError):  # half a line, which earlier versions left
                key, row = decode(json.loads(line))
                self._rows[key] = row

    def add(self, rows: Mapping[Key, Row]) -> None:
        """Append rows to the file, then to the mapping."""
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(
                json.dumps(self._encode(key, row), ensure_ascii=False) + "\n"
                for key, row in rows.items()
            )
        self._rows.update(rows)

    def __getitem__(self, key: Key) -> Row:
        return self._rows[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
