"""Structured outputs: an answer that is also written as JSON by a schema.

The answer is found in words, by passages and dial; then the model writes it as JSON, and each of
its tokens is one that the JSON Schema allows (`control.engines.json_grammar`).
"""

import time
from collections.abc import Sequence
from dataclasses import replace

from control import json_text, prompts
from control.conflict.verdict import DecodedAnswer
from control.engines.base import Engine, EnginePrompt, Generation, GenerationRequest, Message
from control.forgetting.clearing import Cleared
from control.forgetting.guard import WatchedFacts
from control.forgetting.suppressor import FactSuppressor
from control.prompts import Prompt
from control.state import QuestionState, StructuredOutput
from foundation.errors import InputError

# The schema before the answer: the packaged model copies what it has read last.
JSON_SCHEMA, AS_JSON = "JSON Schema:\n", "Write this answer as JSON by the schema."
AS_OBJECT = "Write this answer as a JSON object."


def write(
    states: Sequence[QuestionState], model: Engine, forgetting: FactSuppressor
) -> list[QuestionState]:
    """Write answers as JSON where a schema is given, in one batch; one that leaks is refused.

    What the documents do not say is not written as JSON.
    """
    changed, started = list(states), time.perf_counter()
    asked, watches = dict[int, GenerationRequest](), dict[int, WatchedFacts]()
    for at, state in enumerate(states):
        if not state.query.json_schema or state.decoded is None or state.prompt is None:
            continue
        if state.decoded.trace.blocked or state.abstained:
            continue
        watches[at] = forgetting.watch(state.facts)
        asked[at] = _request(state, state.decoded, state.prompt, model, watches[at])
    if not asked:
        return changed
    written = model.generate(list(asked.values()))
    share = (time.perf_counter() - started) / len(asked)
    for at, generation in zip(asked, written, strict=True):
        changed[at] = _with_json(states[at], generation, model, watches[at], forgetting)
        seconds = states[at].decode_seconds + share
        changed[at] = replace(changed[at], decode_seconds=seconds)
    return changed


def _request(
    state: QuestionState, decoded: DecodedAnswer, asked: Prompt, model: Engine, watch: WatchedFacts
) -> GenerationRequest:
    """Asks an engine for the most probable JSON, ended before it states a forgotten fact."""

    def withholds(before: str, new: str) -> str | None:
        record = watch.completed("", json_text.plain(before + new)) if watch else None
        return None if record is None else record.id

    return GenerationRequest(
        _prompt(state, decoded, asked, model),
        max_new_tokens=state.decoding.max_new_tokens,
        json_schema=state.query.json_schema,
        withholds=withholds,
        refuses=lambda _: True,
    )


def _prompt(
    state: QuestionState, decoded: DecodedAnswer, asked: Prompt, model: Engine
) -> EnginePrompt:
    """The prompt for writing an answer as JSON; passages are dropped from the end until it fits.

    Raises:
        InputError: It does not fit even without passages.
    """
    schema, room = state.query.json_schema, model.room(state.decoding.max_new_tokens)
    alone = decoded.follows_memory or state.strict  # no passage may add to what was checked
    texts = [] if alone else list(asked.texts)
    answer = model.without_markup(decoded.trace.text.strip())
    question = f"{prompts.QUESTION}{asked.question}\nAnswer: {answer}"
    plain = schema == json_text.ANY_OBJECT
    form = [] if plain else [JSON_SCHEMA + model.without_markup(schema)]
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


def _with_json(
    state: QuestionState,
    generation: Generation,
    model: Engine,
    watch: WatchedFacts,
    forgetting: FactSuppressor,
) -> QuestionState:
    """The state with what was written as JSON, or with its answer withheld."""
    text = generation.text.strip()
    said = json_text.sentences(text)
    leaks = (watch and forgetting.first_leak(said, watch) is not None) or any(
        forgetting.door.open().name(each) != each
        for each in json_text.repeated(text, state.query.json_schema)
    )
    if state.decoded is not None and (generation.blocked or leaks):
        trace = replace(state.decoded.trace.until(0), blocked=True)
        named = [*generation.withheld, *(each.id for each in watch.active_records(said))]
        trace.withheld = list(dict.fromkeys([*trace.withheld, *named]))
        return replace(state, decoded=replace(state.decoded, trace=trace, verdict=None))
    whole = json_text.is_json(text)
    if generation.finished and not whole:
        raise InputError(
            "the answer cannot be written by the JSON schema: it allows no text, or "
            f"{model.name}'s server follows none; change it, or ask for text"
        )
    output = StructuredOutput(Cleared(text), len(generation.tokens), whole)
    return replace(state, structured=output)
