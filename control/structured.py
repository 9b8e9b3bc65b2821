"""Structured outputs: an answer that is also written as JSON by a schema.

The answer is found in words, by passages and dial; then the model writes it as JSON, and each of
its tokens is one that the JSON Schema allows (`control.engines.json_grammar`). Schema and JSON are
read as text, so that forgotten facts are kept out of both.
"""

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from control import prompts
from control.engines.base import EnginePrompt, GenerationRequest, Message
from foundation.errors import InputError

if TYPE_CHECKING:
    from control.forgetting.guard import WatchedFacts
    from control.prompts import Prompt, PromptFormat

# The schema before the answer: the packaged model copies what it has read last.
JSON_SCHEMA, AS_JSON = "JSON Schema:\n", "Write this answer as JSON by the schema."
AS_OBJECT = "Write this answer as a JSON object."
ANY_OBJECT = '{"type": "object"}'
NAMING = ("properties", "patternProperties", "$defs", "definitions")  # their keys are names
TELLING = ("title", "description", "enum", "const", "default", "examples", "required")
AS_IS = {"allOf", "not", "if", "then", "else", "const", "enum", "default", "examples"}
# Beside these an object may have keys that stand elsewhere.
COMBINED = {"allOf", "anyOf", "oneOf", "$ref", "if", "patternProperties", "unevaluatedProperties"}
ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
# Where words meet in a key: "capitalOf", "capital_of".
BORDER = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])|[_-]+")


def request(
    given: EnginePrompt, schema: str, longest: int, watch: "WatchedFacts"
) -> GenerationRequest:
    """What is asked of an engine: the most probable JSON, ended before it states a forgotten fact.

    Args:
        given: From `prompt`.
        schema: JSON Schema.
        longest: Tokens of the JSON at most.
        watch: The facts that it must not state.
    """

    def withholds(before: str, new: str) -> str | None:
        record = watch.completed("", plain(before + new)) if watch else None
        return None if record is None else record.id

    return GenerationRequest(
        given,
        max_new_tokens=longest,
        json_schema=schema,
        withholds=withholds,
        refuses=lambda _: True,
    )


def prompt(
    model: "PromptFormat", asked: "Prompt", answer: str, schema: str, room: int, passages: bool
) -> EnginePrompt:
    """The prompt for writing an answer as JSON.

    Args:
        model: As for `prompts.build`.
        asked: By which the question was answered.
        answer: The answer, in words.
        schema: JSON Schema.
        room: Longest prompt, in tokens; passages are dropped from the end until it fits.
        passages: Whether the answer is from the passages.

    Raises:
        InputError: It does not fit even without passages.
    """
    texts = list(asked.texts) if passages else []
    question = f"{prompts.QUESTION}{asked.question}\nAnswer: {model.without_markup(answer)}"
    form = [] if schema == ANY_OBJECT else [JSON_SCHEMA + model.without_markup(schema)]
    while True:
        read = [prompts.PASSAGES + "\n\n".join(texts)] if texts else []
        user = "\n\n".join([*read, *form, question, AS_JSON if form else AS_OBJECT])
        chat = (asked.memory_chat[0], Message(role="user", content=user))
        rendered = model.render(chat)
        if (used := prompts.length(model, rendered, chat)) <= room:
            return EnginePrompt(rendered, chat)
        if not texts:
            raise InputError(
                f"question, answer and JSON schema take {used} tokens, but the model's window "
                f"leaves room for {room}; give a shorter schema"
            )
        texts.pop()


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


def repeated(text: str, schema: str) -> list[str]:
    """The values in a JSON text that stand in its schema, as those of an enumeration do."""
    if not is_json(text):
        return []
    given = set(_asked(json.loads(schema)))
    return [each for each in dict.fromkeys(_strings(json.loads(text))) if each in given]


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
