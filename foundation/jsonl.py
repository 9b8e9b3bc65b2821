"""A JSON Lines file of a long run's results, so that an interrupted run can resume."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundation.errors import DataError


class JsonlStore:
    """Values by key in a JSON Lines file; values are on disk before they can be read."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Open or create the file.

        Args:
            path: The file.
            header: Identifies the run, such as by the model's name; the first line.

        Raises:
            DataError: The file belongs to another run.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, first = path, json.dumps(header, ensure_ascii=False)
        self._values: dict[str, Any] = {}
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        *complete, _ = lines or [""]  # the last line of a killed run has no end
        if not complete:
            path.write_text(first + "\n", encoding="utf-8")
            return
        if complete[0] != first:
            raise DataError(
                f"{path}: belongs to another run ({complete[0]}); give another directory"
            )
        if lines[-1]:
            path.write_text("".join(line + "\n" for line in complete), encoding="utf-8")
        self._values = dict(json.loads(line) for line in complete[1:])

    def add(self, values: Mapping[str, Any]) -> None:
        """Append values."""
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(
                json.dumps([key, value], ensure_ascii=False) + "\n" for key, value in values.items()
            )
        self._values.update(values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]
