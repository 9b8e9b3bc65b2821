"""What a long run has found out, kept line by line so that an interrupted one can go on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundation.errors import DataError


class JsonlStore:
    """Values by key in a JSON Lines file; what was added is on disk before it can be read."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Open the file, or begin it.

        Args:
            path: The file.
            header: What the values belong to, such as the model's name; its first line.

        Raises:
            DataError: The file belongs to something else.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, first = path, json.dumps(header, ensure_ascii=False)
        self._values: dict[str, Any] = {}
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        *whole, _ = lines or [""]  # what a killed run was writing has no line end
        if not whole:
            path.write_text(first + "\n", encoding="utf-8")
            return
        if whole[0] != first:
            raise DataError(f"{path}: belongs to another run ({whole[0]}); give another directory")
        if lines[-1]:
            path.write_text("".join(line + "\n" for line in whole), encoding="utf-8")
        self._values = dict(json.loads(line) for line in whole[1:])

    def add(self, values: Mapping[str, Any]) -> None:
        """Keep these values."""
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(
                json.dumps([key, value], ensure_ascii=False) + "\n" for key, value in values.items()
            )
        self._values.update(values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]
