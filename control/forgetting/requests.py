"""Requests to forget: a sentence, fields, or a file in JSON Lines with one record a line."""

import json
from collections.abc import Iterator
from dataclasses import fields as fields_of
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from control.forgetting.aliases import with_aliases
from control.forgetting.questions import with_questions
from control.forgetting.record import Record, checked
from control.forgetting.sentences import propose
from foundation.errors import DataError, InputError

FORM = '{"subject": "Peru", "relation": "capital", "answers": ["Lima"]}'
FIELDS = frozenset(field.name for field in fields_of(Record))
_records = TypeAdapter(Record)


def requested(sentence: str | None, fields: dict[str, Any]) -> Record:
    """The record that a sentence proposes or that fields state, ready for the ledger.

    Raises:
        InputError: Neither is given, or it cannot be enforced.
    """
    if sentence is not None:
        record = replace(propose(sentence), **fields)
        if fields.keys() & {"subject", "relation"} and "questions" not in fields:
            record = replace(record, questions=())  # those proposed name another one
    elif "subject" in fields:
        record = Record(**fields)
    else:
        raise InputError(
            'nothing to forget: give a sentence such as "Lima is the capital of Peru", or '
            "--subject, --relation and --answer, or --file"
        )
    return checked(with_aliases(with_questions(checked(record))))


def read(path: Path) -> Iterator[Record]:
    """Read records one by one.

    A line has the fields of ``Record``, or them under "fact" as in the data of
    ``fulcrum eval forgetting``, whose other fields are passed over.

    Raises:
        DataError: the file cannot be read, holds nothing, or a line is no record.
    """
    number, found = 0, False
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    found = True
                    yield _record(line, f"{path}, line {number}")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, after line {number}: not UTF-8; save the file in that encoding"
        ) from error
    if not found:
        raise DataError(f"{path} holds no record; give one a line, such as {FORM}")


def _record(line: str, place: str) -> Record:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: no JSON ({_brief(error)}); give {FORM}") from error
    if isinstance(given, dict) and isinstance(given.get("fact"), dict):
        given = given["fact"]
    if not isinstance(given, dict):
        raise DataError(f"{place}: {type(given).__name__} instead of an object; give {FORM}")
    if unknown := given.keys() - FIELDS:
        raise DataError(
            f"{place}: unknown field {_brief(min(unknown))!r}; "
            f"the fields are {', '.join(sorted(FIELDS))}"
        )
    return _validated(given, place)


def _validated(given: dict[str, Any], place: str) -> Record:
    try:
        return checked(_records.validate_python(given))
    except InputError as error:
        raise DataError(f"{place}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise DataError(f"{place}: {field}: {first['msg'].lower()}; give {FORM}") from error


def _brief(what: object) -> str:
    return str(what)[:80]
