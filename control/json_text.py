"""JSON and its schemas, read as text, so that forgotten facts are kept out of both."""

import json
import re
from collections.abc import Iterator
from typing import Any

ANY_OBJECT = '{"type": "object"}'
NAMING = ("properties", "patternProperties", "$defs", "definitions")  # their keys are names
TELLING = ("title", "description", "enum", "const", "default", "examples", "required")
AS_IS = {"allOf", "not", "if", "then", "else", "const", "enum", "default", "examples"}
# Beside these an object may have keys that stand elsewhere.
COMBINED = {"allOf", "anyOf", "oneOf", "$ref", "if", "patternProperties", "unevaluatedProperties"}
ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
# Where words meet in a key: "capitalOf", "capital_of".
BORDER = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])|[_-]+")


def closed(schema: Any) -> Any:
    """A JSON Schema whose objects have no other keys than it names, unless it says so itself.

    A model that may add keys goes on adding them.
    """
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = dict[str, Any]()
    for key, value in schema.items():
        if key in NAMING and isinstance(value, dict):
            found[key] = {name: closed(each) for name, each in value.items()}
        else:
            found[key] = value if key in AS_IS else closed(value)
    if isinstance(schema.get("properties"), dict) and COMBINED.isdisjoint(schema):
        found.setdefault("additionalProperties", False)
    return found


def words(schema: str) -> str:
    """What a JSON Schema asks for: its names, titles, descriptions and values, one on each line."""
    told = _asked(json.loads(schema)) if schema else ()
    return "\n".join(dict.fromkeys(BORDER.sub(" ", each) for each in told))


def plain(text: str) -> str:
    """JSON that may not be whole, with the characters that its escapes stand for."""

    def character(found: re.Match[str]) -> str:
        return chr(int(found[1], 16)) if found[1] else found[2] if found[2] in '"\\/' else " "

    return ESCAPE.sub(character, text)


def is_json(text: str) -> bool:
    """Whether a text is JSON, from its beginning to its end."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def sentences(text: str) -> str:
    """JSON as sentences, "key: value.", in which a statement can be looked for."""
    if not is_json(text):
        return plain(text)
    return " ".join(_statements(json.loads(text), ""))


def rows(text: str) -> str:
    """JSON as lines of "key: value; key: value", an object each, as passages have rows of tables.

    Text that is no JSON object or list stays as it is.
    """
    try:
        value = json.loads(text)
        return "\n".join(_rows(value, "")) if isinstance(value, dict | list) else text
    except (ValueError, RecursionError):  # the latter where it is nested a thousand times
        return text


def repeated(text: str, schema: str) -> list[str]:
    """The values in a JSON text that stand in its schema, as those of an enumeration do."""
    if not is_json(text):
        return []
    given = set(_asked(json.loads(schema)))
    return [each for each in dict.fromkeys(_strings(json.loads(text))) if each in given]


def _rows(value: Any, name: str) -> Iterator[str]:
    if not isinstance(value, dict):
        for each in value if isinstance(value, list) else [value]:
            yield from _rows(each, name) if isinstance(each, dict | list) else [_cell(name, each)]
        return
    named = [(BORDER.sub(" ", key).strip(), each) for key, each in value.items()]
    cells = [
        _cell(f"{name} {key}".strip(), each)
        for key, each in named
        if each is not None and not _holds_objects(each)
    ]
    if cells:
        yield "; ".join(cells)
    for key, each in named:
        if _holds_objects(each):
            yield from _rows(each, key if isinstance(each, dict) else "")


def _holds_objects(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(each, dict | list) for each in value)
    )


def _cell(name: str, value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    said = ", ".join(one if isinstance(one, str) else json.dumps(one) for one in values)
    said = " ".join(said.replace(";", ",").split())
    return f"{name.replace(':', ' ')}: {said}" if name else said


def _asked(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for each in schema:
            yield from _asked(each)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key in TELLING:
                yield from _strings(value)
                continue
            names = value if key in NAMING and isinstance(value, dict) else {}
            yield from names
            yield from _asked(list(names.values()) or value)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _statements(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _statements(each, BORDER.sub(" ", key))
    elif isinstance(value, list):
        for each in value:
            yield from _statements(each, name)
    else:
        yield f"{name}: {value}." if name else f"{value}."
