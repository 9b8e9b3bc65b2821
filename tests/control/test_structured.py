import json

import pytest

from app import factory
from control import json_text
from control.assistant import Assistant
from control.conflict.sources import SourceOptions
from control.decoding.generate import Decoding
from control.engines.base import EnginePrompt, GenerationRequest
from control.engines.json_grammar import check_schema
from control.forgetting.ledger import open_ledger
from control.forgetting.questions import with_questions
from control.forgetting.record import Record
from control.forgetting.suppressor import REFUSALS
from control.state import Query
from foundation.errors import InputError
from tests.control.fakes import DaysReader, dated
from tests.json_writer import json_writer

STRING = {"type": "string"}
CITY = {"type": "object", "properties": {"capital": STRING}, "required": ["capital"]}
LONG = Decoding(max_new_tokens=120)


def schema(**properties):
    return {"type": "object", "properties": properties, "required": list(properties)}


def asked(model, always, question, form=CITY, given=(), **parts):
    assistant = Assistant(model, always(1, model=model.identity), **parts)
    heard = []
    query = Query(question, given, json_schema=json.dumps(form))
    [answer] = assistant.ask_batch([query], LONG, lambda _, token: heard.append(token))
    assert heard == []
    return answer


def test_an_answer_is_told_in_words_and_as_json(tiny, always):
    answer = asked(json_writer(tiny, '{"capital": "Lima"}'), always, "What is it?")
    assert answer.structured.text == '{"capital": "Lima"}'
    assert (answer.structured.tokens, answer.structured.finished) == (19, True)
    assert answer.answer == "".join(token.text for token in answer.tokens).strip()


def test_json_that_is_cut_off_says_so(tiny, always):
    answer = asked(json_writer(tiny, '{"capital": "Lima"}', longest=9), always, "What is it?")
    assert (answer.structured.text, answer.structured.finished) == ('{"capital', False)


def test_a_server_that_follows_no_schema_is_an_error(tiny, always):
    with pytest.raises(InputError, match="cannot be written by the JSON schema"):
        asked(json_writer(tiny, "The capital is Lima."), always, "What is it?")


def test_what_the_documents_do_not_say_is_not_written_as_json(tiny, always):
    model = json_writer(tiny, '{"capital": "Lima"}')
    assistant = Assistant(model, always(1, model=tiny.identity), reader=DaysReader())
    only = SourceOptions(only_documents=True)
    given = dated(one=("", "Nothing of the kind."))
    query = Query("How long?", given, sources=only, json_schema=json.dumps(CITY))
    [answer] = assistant.ask_batch([query], LONG)
    assert answer.abstained
    assert answer.structured is None


@pytest.fixture
def forgetting(home):
    """Keeps back the capital of Chile."""
    ledger = open_ledger(home)
    fact = Record("Chile", relation="capital", answers=("Santiago",))
    [record] = ledger.add([with_questions(fact)])
    return record.id, factory.fact_suppressor(ledger)


@pytest.mark.parametrize(
    "written",
    [
        '{"country": "Chile", "capital": "Santiago"}',
        r'{"country": "Chile", "capital": "S\u0061ntiago"}',
        r'{"country": "Chile", "capital": "\u0053\u0061\u006e\u0074\u0069\u0061\u0067\u006f"}',
        '[{"land": "Chile"}, {"town": ["Lima", "Santiago"]}]',
    ],
)
def test_json_that_states_a_forgotten_fact_is_refused(tiny, always, forgetting, written):
    record, suppressor = forgetting
    model = json_writer(tiny, written)
    answer = asked(model, always, "Which towns are there in Chile?", {}, forgetting=suppressor)
    assert answer.answer in REFUSALS
    assert answer.structured is None
    assert answer.tokens == []
    assert [each["id"] for each in answer.forgotten] == [record]
    harmless = json_writer(tiny, '{"country": "Peru", "capital": "Lima"}')
    answer = asked(harmless, always, "Which towns are there in Peru?", {}, forgetting=suppressor)
    assert answer.structured.text == harmless.json


@pytest.mark.parametrize(
    "form",
    [
        schema(capital_of_chile=STRING),
        schema(capitalOfChile=STRING),
        schema(x={"type": "string", "description": "What is the capital of Chile?"}),
        {"title": "The capital of Chile", **CITY},
    ],
)
def test_a_schema_that_asks_for_a_forgotten_fact_is_refused(tiny, always, forgetting, form):
    _, suppressor = forgetting
    model = json_writer(tiny, '{"x": "y"}')
    answer = asked(model, always, "Fill this in.", form, forgetting=suppressor)
    assert answer.answer in REFUSALS
    assert answer.structured is None


def test_a_schema_confirms_no_answer_that_it_gives_itself(tiny, always, forgetting):
    _, suppressor = forgetting
    form = schema(x={"enum": ["Santiago", "Lima"]})
    question = "Where did they meet?"
    for said, refused in (("Santiago", True), ("Lima", False)):
        model = json_writer(tiny, json.dumps({"x": said}))
        answer = asked(model, always, question, form, forgetting=suppressor)
        assert (answer.answer in REFUSALS) == refused
        assert (answer.structured is None) == refused


@pytest.mark.parametrize(
    "given", ["nonsense", "[]", "true", '{"type": "obj"}', '{"$ref": "http://x/y"}', "{" * 30_000]
)
def test_what_is_no_schema_is_said_in_one_line_before_anything_is_asked(given):
    with pytest.raises(InputError) as raised:
        check_schema(given)
    assert "JSON schema" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_objects_have_no_other_keys_than_a_schema_names_unless_it_says_so():
    inner = schema(properties=STRING)
    assert json_text.closed(schema(a=inner, properties=STRING)) == {
        **schema(a={**inner, "additionalProperties": False}, properties=STRING),
        "additionalProperties": False,
    }
    for left in (
        {"type": "object"},
        {**CITY, "additionalProperties": STRING},
        {**CITY, "allOf": [schema(b=STRING)]},
        {"const": {"properties": {}}},
    ):
        assert json_text.closed(left) == left


def test_what_a_schema_asks_for_is_told_in_words():
    nested = {"$defs": {"birthPlace": {"enum": ["Oslo", "Lima"]}}, "items": [CITY]}
    assert json_text.words(json.dumps(nested)).split("\n") == [
        "birth Place",
        "Oslo",
        "Lima",
        "capital",
    ]
    assert json_text.words("") == ""


def test_json_is_read_as_sentences_whole_or_not():
    whole = '{"full_name": "Ann", "born": {"year": 1987, "in": ["a\\u0062", null]}}'
    assert json_text.sentences(whole) == "full name: Ann. year: 1987. in: ab. in: None."
    assert json_text.sentences(r'{"a": "\u0053\"x\n') == '{"a": "S"x '


@pytest.mark.model
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_the_real_model_writes_nothing_but_what_the_schema_allows(real, temperature):
    form = schema(
        open={"type": "boolean"},
        days={"type": "array", "items": {"enum": ["Monday", "Sunday"]}, "maxItems": 3},
        price={"type": "integer", "minimum": 1, "maximum": 99},
    )
    prompt = EnginePrompt(real.render([{"role": "user", "content": "When is the pool open?"}]))
    written = real.generate(
        [
            GenerationRequest(
                prompt,
                max_new_tokens=80,
                temperature=temperature,
                seed=seed,
                json_schema=json.dumps(json_text.closed(form)),
            )
            for seed in range(3)
        ]
    )
    for generation in written:
        assert generation.finished
        told = json.loads(generation.text)
        assert list(told) == ["open", "days", "price"]
        assert isinstance(told["open"], bool)
        assert set(told["days"]) <= {"Monday", "Sunday"}
        assert 1 <= told["price"] <= 99
