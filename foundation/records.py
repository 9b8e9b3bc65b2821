"""Reads JSON, JSON Lines and CSV; each record knows its place for error messages."""

import csv
import io
import json
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import DataError

SHORT = reprlib.Repr()  # a wrong value in a message: enough to find it, and still one line
SHORT.maxstring = 60


@dataclass(frozen=True)
class DataRecord:
    """One object of a JSON or JSON Lines file, or one row of a CSV file.

    Attributes:
        number: Line in JSON Lines, else position; from 1.
        where: File and number, for messages.
        values: The fields.
    """

    number: int
    where: str
    values: dict[str, Any]


def load(path: Path) -> list[DataRecord]:
    """Read a JSON list, JSON Lines or CSV, told apart by the first character.

    Raises:
        DataError: The file cannot be read, is not JSON where it begins like it, or holds something
            other than objects.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); give JSON Lines, a JSON list or CSV in UTF-8"
        ) from error
    start = content.lstrip()[:1]
    if start == "[":
        return list(_listed(path, content))
    if start == "{":
        return list(_objects(path, content))
    return list(_rows(path, content))


def text(record: DataRecord, field: str) -> str:
    """Return a required text; dots in ``field`` lead into objects and lists (``questions.0``).

    Raises:
        DataError: It is missing, empty or not a text.
    """
    value = _value(record, field)
    if not isinstance(value, str) or not value.strip():
        raise wrong(record, field, "a non-empty text")
    return value


def texts(record: DataRecord, field: str) -> tuple[str, ...]:
    """Return a required list of texts, not empty.

    Raises:
        DataError: It is missing, empty or holds something else.
    """
    values = _value(record, field)
    if not isinstance(values, list) or not values or not all(map(_is_text, values)):
        raise wrong(record, field, "a list of texts, not empty")
    return tuple(values)


def aliases(record: DataRecord, field: str) -> tuple[str, ...]:
    """Return a list of texts that may be empty or missing.

    Raises:
        DataError: It holds something else.
    """
    return texts(record, field) if _value(record, field) else ()


def size(record: DataRecord, field: str) -> int:
    """Return the length of a required list, not empty.

    Raises:
        DataError: It is missing, empty or not a list.
    """
    value = _value(record, field)
    if not isinstance(value, list) or not value:
        raise wrong(record, field, "a list, not empty")
    return len(value)


def wrong(record: DataRecord, field: str, must_be: str) -> DataError:
    """Return the error for a field that is missing or of the wrong kind."""
    value = _value(record, field)
    given = "is missing" if value is None else f"is {SHORT.repr(value)}"
    return DataError(f"{record.where}: field {field!r} {given}, must be {must_be}")


def _value(record: DataRecord, field: str) -> Any:
    value: Any = record.values
    for step in field.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _objects(path: Path, content: str) -> Iterator[DataRecord]:
    """Yield one object, however it is formatted, or one for each line."""
    try:
        yield _record(1, f"{path}, line 1", json.loads(content))
    except json.JSONDecodeError:
        yield from _lines(path, content)


def _lines(path: Path, content: str) -> Iterator[DataRecord]:
    # Not splitlines(): JSON may hold the line separators of Unicode inside a text.
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON ({error.msg}); write one object per line") from None
        yield _record(number, where, values)


def _listed(path: Path, content: str) -> Iterator[DataRecord]:
    try:
        listed = json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}); give one list of objects"
        ) from None
    for number, values in enumerate(listed, start=1):
        yield _record(number, f"{path}, record {number}", values)


def _rows(path: Path, content: str) -> Iterator[DataRecord]:
    try:
        for number, row in enumerate(csv.DictReader(io.StringIO(content)), start=1):
            yield DataRecord(number, f"{path}, record {number}", row)
    except csv.Error as error:
        raise DataError(f"{path}: neither JSON nor CSV ({error})") from None


def _record(number: int, where: str, values: Any) -> DataRecord:
    if not isinstance(values, dict):
        raise DataError(f"{where}: {type(values).__name__}, must be an object")
    return DataRecord(number, where, values)
