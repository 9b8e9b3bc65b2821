import json
import logging
import sqlite3
from contextlib import closing

import pytest

from app import factory
from app.page import views
from control.assistant import Assistant
from control.decoding.generate import Decoding
from control.forgetting.suppressor import REFUSALS
from foundation.errors import IndexStateError, UnavailableError
from tests.app.conftest import ADMINISTRATION, READING
from tests.embedding_server import serving
from tests.json_writer import json_writer

MINIMAL = {"model": "fulcrum", "messages": [{"role": "user", "content": "Who?"}], "documents": []}
JSON = {"content-type": "application/json"}
CHILE = {"sentence": "The capital of Chile is Santiago", "reason": "asked", "who": "me"}


def ask(client, path="/v1/chat/completions", **more):
    body = dict(MINIMAL)
    if path == "/v1/completions":
        del body["messages"]
        body["prompt"] = "Who?"
    sent = json.dumps({**body, "max_tokens": 12, **more})  # of halves of characters, too
    return client.post(path, content=sent, headers=JSON)


def events(response):
    """The objects of a stream, whose last line says that it is done."""
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_an_answer_has_the_form_of_openai_and_all_that_fulcrum_knows(client, tiny):
    body = ask(client()).json()
    assert body["object"] == "chat.completion"
    assert body["model"] == tiny.name
    [choice] = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == body["fulcrum"]["answer"]
    assert len(body["fulcrum"]["tokens"]) == body["usage"]["completion_tokens"] == 12
    assert body["fulcrum"]["seconds"]["total"] > 0


def test_a_stream_says_the_same_as_the_whole(client):
    one = client()
    whole = ask(one, logprobs=True, top_logprobs=2).json()
    parts = events(
        ask(
            one,
            stream=True,
            logprobs=True,
            top_logprobs=2,
            stream_options={"include_usage": True},
        )
    )
    said = "".join(each["choices"][0]["delta"].get("content", "") for each in parts[:-1])
    assert said.strip() == whole["choices"][0]["message"]["content"]
    assert parts[0]["choices"][0]["delta"]["role"] == "assistant"
    assert parts[-2]["choices"][0]["finish_reason"] == "length"
    assert parts[-2]["fulcrum"]["tokens"] == whole["fulcrum"]["tokens"]
    assert parts[-1]["usage"] == whole["usage"]
    streamed = [
        entry
        for each in parts[:-1]
        if each["choices"][0]["logprobs"]
        for entry in each["choices"][0]["logprobs"]["content"]
    ]
    assert streamed == whole["choices"][0]["logprobs"]["content"]
    assert len(streamed[0]["top_logprobs"]) == 2
    assert all(entry["logprob"] <= 0 for entry in streamed)


def test_several_prompts_are_answered_as_a_batch(client):
    one = client()
    both = ask(one, "/v1/completions", prompt=["Who?", "Where?"], logprobs=1).json()
    assert both["object"] == "text_completion"
    assert [choice["index"] for choice in both["choices"]] == [0, 1]
    assert [answer["question"] for answer in both["fulcrum"]] == ["Who?", "Where?"]
    found = both["choices"][0]["logprobs"]
    assert len(found["tokens"]) == len(found["token_logprobs"]) == len(found["text_offset"]) == 12
    parts = events(ask(one, "/v1/completions", prompt=["Who?", "Where?"], stream=True))
    for choice in both["choices"]:
        said = [
            c["text"] for part in parts for c in part["choices"] if c["index"] == choice["index"]
        ]
        assert "".join(said).strip() == choice["text"]


def test_an_answer_ends_before_a_stop_text(client):
    one = client()
    full = ask(one).json()["choices"][0]["message"]["content"]
    stop = full[4:6]
    expected = full[: full.index(stop)].strip()
    cut = ask(one, stop=[stop]).json()["choices"][0]
    assert cut["message"]["content"] == expected
    assert cut["finish_reason"] == "stop"
    parts = events(ask(one, stop=stop, stream=True))
    said = "".join(each["choices"][0]["delta"].get("content", "") for each in parts)
    assert said.strip() == expected


def test_the_dial_and_the_sampling_reach_the_decoding(client, service, monkeypatch):
    over, seen = service(), []
    submit = over.submit

    def noting(queries, how, *rest):
        seen.append((queries[0], how))
        return submit(queries, how, *rest)

    monkeypatch.setattr(over, "submit", noting)
    messages = [
        {"role": "system", "content": "Be rude."},
        {"role": "user", "content": "What does Peru live from?"},
        {"role": "assistant", "content": "Copper."},
        {"role": "user", "content": [{"type": "text", "text": "And its currency?"}]},
    ]
    body = ask(
        client(over),
        messages=messages,
        alpha=0.25,
        rule="ck_plug",
        temperature=0.5,
        top_p=0.9,
        seed=7,
        max_completion_tokens=5,
        documents=[{"title": "Peru", "text": "The sol.", "trust": 0.9}],
    ).json()
    [(query, how)] = seen
    assert how == Decoding(
        rule="ck_plug", alpha=0.25, temperature=0.5, top_p=0.9, seed=7, max_new_tokens=5
    )
    assert query.question == "And its currency?"
    assert list(query.history) == [("What does Peru live from?", "Copper.")]
    [source] = body["fulcrum"]["sources"]
    assert (source["title"], source["text"], source["kept"]) == ("Peru", "The sol.", True)
    assert query.system == "Be rude."


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"alpha": 2}, "alpha"),
        ({"alpha": "high"}, "alpha: Input should be a valid number, or 'auto'"),
        ({"stop": 5}, "stop: Input should be a valid string, or a valid list"),
        (
            {"messages": [{"role": "boss", "content": "x"}]},
            "messages.0.role: Input should be 'system', 'developer', 'user', 'assistant' or 'tool'",
        ),
        ({"alpha": 0.5, "reliance": 0.5}, "give one of them"),
        ({"reliance": 0.5, "rule": "cad"}, "reliance is measured for rule fulcrum"),
        ({"rule": "nonsense"}, "rule"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "the question"),
        ({"messages": [{"role": "user", "content": " "}]}, "the question is empty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "the question"),
        ({"messages": [{"role": "user", "content": "x" * 21_000}]}, "21,000 characters"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"n": 0}, "n: "),
        ({"n": 17}, "n: "),
        ({"messages": [{"role": "system", "content": "x"}]}, "the question"),
        ({"messages": [{"role": "user"}, {"role": "assistant", "content": "I"}]}, "the question"),
        ({"stream_options": {"include_usage": True}}, "set stream to true"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "half a character"),
    ],
)
def test_a_wrong_request_is_told_in_one_line_what_is_wrong(client, changed, said):
    response = ask(client(), **changed)
    assert response.status_code == 400
    error = response.json()["error"]
    assert said in error["message"]
    assert "\n" not in error["message"]
    assert "fulcrum ask" not in error["message"]
    assert error["type"] == "invalid_request_error"


TOOL = {
    "type": "function",
    "function": {
        "name": "book",
        "description": "Books a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
BOOK = {"type": "function", "function": {"name": "book"}}
CITY = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
AS_CITY = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}


@pytest.fixture
def writing(client, service, monkeypatch, tiny):
    """Make a client of a model that writes this JSON where a schema is given."""

    def make(text, **changed):
        model = json_writer(tiny, text, identity="tiny", **changed)
        over = service(loaded=False)
        monkeypatch.setattr(factory, "language_model", lambda _: model)
        over.load()
        return client(over)

    return make


@pytest.mark.parametrize("given", [AS_CITY, {"type": "json_object"}])
def test_an_answer_is_json_where_that_is_asked_for(writing, given):
    one = writing('{"name": "Lima"}')
    body = ask(one, response_format=given, max_tokens=30).json()
    [choice] = body["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": '{"name": "Lima"}',
        "refusal": None,
    }
    assert choice["finish_reason"] == "stop"
    in_words = len(body["fulcrum"]["tokens"])
    assert body["fulcrum"]["answer"] not in ("", choice["message"]["content"])
    assert body["usage"]["completion_tokens"] == in_words + len('{"name": "Lima"}')
    parts = events(ask(one, response_format=given, max_tokens=30, stream=True))
    said = "".join(each["choices"][0]["delta"].get("content") or "" for each in parts)
    assert said == choice["message"]["content"]


def test_json_that_is_too_long_ends_by_its_length(writing):
    one = writing('{"name": "Lima"}', longest=12)
    [choice] = ask(one, response_format=AS_CITY).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == '{"name": "Li'


@pytest.mark.parametrize("how", ["required", BOOK])
def test_a_tool_that_must_be_called_gets_its_arguments(writing, how):
    one = writing('{"place": "Lima"}')
    given = {"tools": [TOOL], "tool_choice": how, "max_tokens": 30}
    body = ask(one, **given).json()
    [choice] = body["choices"]
    [call] = choice["message"]["tool_calls"]
    assert choice["message"]["content"] is None
    assert (call["type"], call["function"]) == (
        "function",
        {"name": "book", "arguments": '{"place": "Lima"}'},
    )
    parts = events(ask(one, **given, stream=True))
    [told] = [c for p in parts for c in p["choices"][0]["delta"].get("tool_calls", [])]
    assert (told["index"], told["function"]) == (0, call["function"])


def test_a_refusal_is_no_json(writing):
    one = writing('{"name": "Santiago"}')
    assert one.post("/v1/forget", json=CHILE).status_code == 201
    chile = [{"role": "user", "content": "What is the capital of Chile?"}]
    for given in ({"response_format": AS_CITY}, {"tools": [TOOL], "tool_choice": "required"}):
        [choice] = ask(one, messages=chile, **given).json()["choices"]
        assert choice["message"]["content"] is None
        assert choice["message"]["refusal"] in REFUSALS
        assert "tool_calls" not in choice["message"]
        parts = events(ask(one, messages=chile, stream=True, **given))
        [said] = [p["choices"][0]["delta"].get("refusal") for p in parts[1:2]]
        assert said == choice["message"]["refusal"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"response_format": {"type": "json_schema"}}, "give the schema"),
        ({"response_format": {**AS_CITY, "json_schema": {"name": "a b"}}}, "name"),
        ({"response_format": AS_CITY, "logprobs": True}, "logprobs"),
        ({"tools": [TOOL, TOOL], "tool_choice": "required"}, "name the function"),
        ({"tools": [TOOL], "tool_choice": {**BOOK, "function": {"name": "x"}}}, "no function 'x'"),
        ({"tools": [{"type": "function"}], "tool_choice": "required"}, "tools: function"),
        ({"tool_choice": "required"}, "0 tools"),
    ],
)
def test_what_is_wrong_about_a_schema_or_a_tool_is_said_in_one_line(writing, given, said):
    response = ask(writing("{}"), **given)
    assert response.status_code == 400
    assert said in response.json()["error"]["message"]
    assert "\n" not in response.json()["error"]["message"]


def test_more_tokens_than_the_server_gives_are_as_many_as_it_gives(client, service):
    one = client(service(token_limit=5))
    for field in ("max_tokens", "max_completion_tokens"):
        body = ask(one, **{field: 100_000, "max_tokens": 100_000}).json()
        assert body["usage"]["completion_tokens"] == 5
        assert body["choices"][0]["finish_reason"] == "length"


def test_what_tools_have_found_is_read_instead_of_the_index(client):
    one = client()
    calls = [{"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}]
    called = {"role": "assistant", "content": None, "tool_calls": calls}
    found = ["The lamp of Ebro was lit in 1904.", "It is painted red."]
    results = [{"role": "tool", "tool_call_id": "1", "content": text} for text in found]
    question = {"role": "user", "content": "When was the lamp of Ebro lit?"}
    response = ask(one, messages=[question, called, *results], documents=None)
    assert response.status_code == 200
    assert "fulcrum-ignored" not in response.headers
    read = [source["text"] for source in response.json()["fulcrum"]["sources"]]
    assert read == found
    given = ask(one, messages=[question], documents=[{"text": text} for text in found])
    assert response.json()["choices"] == given.json()["choices"]


def test_what_tools_found_earlier_is_read_as_well(client):
    one = client()
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    said = [
        {"role": "user", "content": "Who mends the lamp?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "Rosa mends the lamp."},
        {"role": "assistant", "content": "Rosa does."},
        {"role": "user", "content": "And what does she mend?"},
    ]
    for documents in (None, [], [{"text": "Rosa likes tea."}]):
        sources = ask(one, messages=said, documents=documents).json()["fulcrum"]["sources"]
        read = [source["text"] for source in sources if source["kept"]]
        own = [each["text"] for each in documents or ()]
        assert sorted(read) == sorted([*own, "Rosa mends the lamp."])


@pytest.mark.parametrize(
    ("result", "read"),
    [
        ('{"city": "Ebro", "sky": {"lightOf": "red"}}', "city: Ebro\nsky light Of: red"),
        (
            '{"first_name": "Ann", "first-name": "Bea", "x": null}',
            "first name: Ann; first name: Bea",
        ),
        ('[{"item": "oil", "price": 3}, {"item": "wick; cut"}]', "item: oil; price: 3"),
        ("17 degrees", "17 degrees"),
        ("[" * 5000, "[[["),
    ],
)
def test_json_that_a_tool_found_is_read_as_rows(client, result, read):
    found = [{"role": "user", "content": "Who?"}, {"role": "tool", "content": result}]
    response = ask(client(), messages=found, documents=None)
    assert response.status_code == 200
    texts = "\n".join(source["text"] for source in response.json()["fulcrum"]["sources"])
    assert texts.startswith(read)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize(
    ("changed", "param", "said"),
    [
        ({"tools": [TOOL], "tool_choice": {"type": "custom"}}, "tool_choice", "required"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice", "required"),
        ({"function_call": {"name": "f"}}, "function_call", "tools"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages.0.role", "tool_calls"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content.0.type", "text"),
        ({"response_format": {"type": "grammar"}}, "response_format.type", "json_schema"),
        (
            {"response_format": {**AS_CITY, "json_schema": {"name": "a", "schema": {"type": "x"}}}},
            "response_format.json_schema.schema",
            "cannot be followed",
        ),
        ({"modalities": ["text", "audio"]}, "modalities", "only text"),
        ({"presence_penalty": 0.5}, "presence_penalty", "only 0"),
        ({"frequency_penalty": -1}, "frequency_penalty", "only 0"),
        ({"logit_bias": {"50256": -100}}, "logit_bias", "empty"),
    ],
)
def test_what_cannot_be_done_is_refused_with_openais_code(client, changed, param, said):
    response = ask(client(), **changed)
    assert response.status_code == 400
    error = response.json()["error"]
    assert said in error["message"]
    assert error["message"].startswith(f"{param}: ")
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error",
        param,
        "unsupported_value",
    )


def test_fields_without_effect_are_ignored_and_named_in_a_header(client):
    one = client()
    plain = ask(one)
    assert "fulcrum-ignored" not in plain.headers
    message = {"role": "user", "content": "Who?", "name": "Ann", "tool_calls": None, "type": "x"}
    given = {
        "alhpa": 0.5,
        "top_k": 5,
        "user": "ann",
        "store": True,
        "tools": [{}],
        "f": "\ud800",
    }
    given |= {"reasoning_effort": None, "x\r\nSet-Cookie": "a", "\u00e4": 1, "a b": 2}
    given |= {"tool_choice": "auto", "response_format": {"type": "text"}, "logit_bias": {}}
    response = ask(one, messages=[message], **given)
    assert response.headers["fulcrum-ignored"] == (
        "alhpa, top_k, user, store, f, messages.name, messages.type, tools"
    )
    assert response.json()["choices"] == plain.json()["choices"]
    streamed = ask(one, stream=True, mood="good")
    assert streamed.headers["fulcrum-ignored"] == "mood"
    vectors = {"model": "all-MiniLM-L6-v2", "input": "a river", "user": "ann"}
    assert one.post("/v1/embeddings", json=vectors).headers["fulcrum-ignored"] == "user"
    many = ask(one, **{f"field{number}": 1 for number in range(50)})
    assert many.headers["fulcrum-ignored"].count(",") == 19
    # A slip in what is to be forgotten is no small thing.
    assert one.post("/v1/forget", json={**CHILE, "dryrun": True}).status_code == 400


def test_an_answer_that_comes_back_as_a_message_is_taken(client):
    one = client()
    said = ask(one).json()["choices"][0]["message"]
    said |= {"annotations": [], "audio": None, "function_call": None, "tool_calls": None}
    parts = [{"type": "refusal", "refusal": "No."}, {"type": "text", "text": "Or yes."}]
    messages = [
        *MINIMAL["messages"],
        said,
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": parts},
        {"role": "user", "content": "Really?"},
        {"role": "developer", "content": "Be brief."},
    ]
    assert ask(one, messages=messages).status_code == 200


def test_system_messages_are_followed_up_to_forgotten_facts(client, service, monkeypatch):
    over, seen = service(), []
    submit = over.submit
    monkeypatch.setattr(
        over, "submit", lambda queries, *rest: (seen.append(queries[0]), submit(queries, *rest))[1]
    )
    one = client(over)
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": "Who?"},
        {"role": "system", "content": "Be kind."},
    ]
    body = ask(one, messages=messages).json()
    assert seen[0].system == "Be brief.\n\nBe kind."
    assert body["fulcrum"]["notices"] == ask(one).json()["fulcrum"]["notices"]
    assert body["usage"]["prompt_tokens"] > ask(one).json()["usage"]["prompt_tokens"]
    one.post("/v1/forget", json=CHILE)
    for system, question in (
        ("What is the capital of Chile? Tell it to everybody.", "Hello"),
        ("You speak of Chile.", "What is its capital?"),
    ):
        asked = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        [choice] = ask(one, messages=asked).json()["choices"]
        assert choice["finish_reason"] == "content_filter"


def test_n_answers_are_given_to_each_question(client):
    one = client()
    drawn = ask(one, n=3, temperature=1.5, seed=-3, stream_options=None).json()
    assert [choice["index"] for choice in drawn["choices"]] == [0, 1, 2]
    texts = [choice["message"]["content"] for choice in drawn["choices"]]
    assert len(set(texts)) > 1
    assert [answer["answer"] for answer in drawn["fulcrum"]] == texts
    assert drawn["usage"]["completion_tokens"] == sum(
        len(answer["tokens"]) for answer in drawn["fulcrum"]
    )
    single = ask(one).json()
    assert drawn["usage"]["prompt_tokens"] == single["usage"]["prompt_tokens"]
    again = {
        ask(one, temperature=1.5, stream_options=None).json()["choices"][0]["message"]["content"]
        for _ in range(4)
    }
    assert len(again) > 1  # without a seed
    greedy = ask(one, n=2, temperature=1.5, top_p=0).json()["choices"]
    assert {choice["message"]["content"] for choice in greedy} == {
        single["choices"][0]["message"]["content"]
    }
    parts = events(ask(one, n=2, stream=True, stream_options={"include_usage": True}))
    assert [part["choices"][0]["index"] for part in parts[:2]] == [0, 1]
    assert all(part["choices"][0]["delta"]["role"] == "assistant" for part in parts[:2])
    assert all(part["usage"] is None for part in parts[:-1])
    assert parts[-1]["usage"]["completion_tokens"] == 24
    batch = ask(one, "/v1/completions", prompt=["Who?", "Where?"], n=2, best_of=2).json()
    assert [answer["question"] for answer in batch["fulcrum"]] == ["Who?"] * 2 + ["Where?"] * 2


def test_prompts_are_taken_as_ids_of_tokens(client, tiny):
    one = client()
    ids = [tiny.tokenizer(text).input_ids for text in ("Who?", "Where?")]
    both = ask(one, "/v1/completions", prompt=ids).json()
    assert [answer["question"] for answer in both["fulcrum"]] == ["Who?", "Where?"]
    alone = ask(one, "/v1/completions", prompt=ids[0]).json()
    assert alone["choices"][0] == both["choices"][0]
    assert alone["usage"]["prompt_tokens"] == 4
    unknown = ask(one, "/v1/completions", prompt=[5, 99_999])
    assert unknown.status_code == 400
    assert "token 99999 is none of tiny's" in unknown.json()["error"]["message"]


def test_an_answer_comes_after_its_prompt_where_that_is_asked_for(client):
    one = client()
    plain = ask(one, "/v1/completions").json()["choices"][0]["text"]
    assert ask(one, "/v1/completions", echo=True).json()["choices"][0]["text"] == f"Who?\n{plain}"
    parts = events(ask(one, "/v1/completions", echo=True, stream=True))
    said = "".join(each["choices"][0]["text"] for each in parts)
    assert said.startswith("Who?\n")
    assert said.removeprefix("Who?\n").strip() == plain


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_prompts_are_scored_by_the_model_alone(client, service, tiny, max_tokens):
    over = service()
    one = client(over)
    ids = [tiny.tokenizer(text).input_ids for text in ("Who is it?", "Where?")]
    given = {"documents": None, "echo": True, "logprobs": 2, "max_tokens": max_tokens}
    body = ask(one, "/v1/completions", prompt=ids, **given).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    expected = over.score(["Who is it?", "Where?"], 2, predict=True).result()
    for choice, own, scored in zip(body["choices"], ids, expected, strict=True):
        found = choice["logprobs"]
        assert len({len(values) for values in found.values()}) == 1
        assert len(found["tokens"]) == len(own) + max_tokens
        assert choice["text"].startswith(scored.text)
        assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
        assert found["token_logprobs"][1 : len(own)] == [t.log_p for t in scored.tokens[1:]]
        for token, value, top in zip(
            found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True
        ):
            assert top is None or (top[token] == value and 2 <= len(top) <= 3)
        assert choice["finish_reason"] in ("length", "stop")
    assert body["usage"]["completion_tokens"] == 2 * max_tokens
    [part] = events(ask(one, "/v1/completions", prompt=ids, **given, stream=True))
    assert part["choices"] == body["choices"]


def test_a_forgotten_fact_is_not_scored(client):
    one = client()
    fact = one.post("/v1/forget", json=CHILE).json()
    prompts = ["The capital of Chile is Lima", "The capital of Chile is Santiago", "Who?"]
    given = {"echo": True, "logprobs": 5, "max_tokens": 1}
    body = ask(one, "/v1/completions", prompt=prompts, **given).json()
    for choice, details in zip(body["choices"][:2], body["fulcrum"][:2], strict=True):
        assert (choice["logprobs"], choice["finish_reason"]) == (None, "content_filter")
        assert "capital" not in choice["text"]
        assert details == {"forgotten": [{"id": fact["id"], "layer": "prompt"}]}
    assert body["choices"][2]["logprobs"]["tokens"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"echo": True, "logprobs": 1, "max_tokens": 5}, "give 0 or 1"),
        ({"max_tokens": 0}, "max_tokens: 0 is for scoring"),
        ({"echo": True, "logprobs": 1, "max_tokens": 1, "n": 2}, "n: "),
        (
            {"echo": True, "logprobs": 1, "max_tokens": 1, "documents": [{"text": "x"}]},
            "documents: ",
        ),
        ({"echo": True, "logprobs": 1, "max_tokens": 1, "prompt": "a" * 600}, "has 600 tokens"),
        ({"best_of": 3}, "best_of: "),
        ({"suffix": "x"}, "suffix: "),
        ({"prompt": ["Who?"] * 9, "n": 2}, "at most 16"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["Who?", 5]}, "prompt"),
    ],
)
def test_a_wrong_completion_is_told_what_is_wrong(client, changed, said):
    response = ask(client(), "/v1/completions", **changed)
    assert response.status_code == 400
    assert said in response.json()["error"]["message"]


def test_other_errors_have_their_codes(client):
    one = client()
    assert ask(one, model="gpt-4o").status_code == 404
    assert ask(one, model="gpt-4o").json()["error"]["code"] == "model_not_found"
    assert "gpt-4o" in ask(one, model="gpt-4o").json()["error"]["message"]
    assert one.get("/v1/nothing").status_code == 404
    assert one.put("/v1/forget").status_code == 405
    broken = one.post("/v1/chat/completions", content=b"{", headers=JSON)
    assert broken.json()["error"]["message"] == "the body is not valid JSON"
    for path in ("/v1/documents/none", "/v1/forget/none"):
        assert one.delete(path).status_code == 404


def test_models_are_listed_and_shown(client, tiny):
    one = client()
    names = [model["id"] for model in one.get("/v1/models").json()["data"]]
    assert names == [tiny.name, "all-MiniLM-L6-v2"]
    assert one.get(f"/v1/models/{tiny.name}").json()["object"] == "model"
    assert one.get("/v1/models/other").status_code == 404


def test_the_embedding_model_is_the_one_of_the_settings(client, service):
    with serving() as server:
        one = client(service(embedding=server.url))
        assert [model["id"] for model in one.get("/v1/models").json()["data"]][1] == "words"
        body = one.post("/v1/embeddings", json={"model": "words", "input": "a river"}).json()
        assert (body["model"], len(body["data"][0]["embedding"])) == ("words", 8192)
        assert one.post("/v1/embeddings", json={"model": "other", "input": "a"}).status_code == 404


def test_embeddings_are_unit_vectors_in_both_encodings(client):
    import numpy as np

    one = client()
    body = {"model": "all-MiniLM-L6-v2", "input": ["a river", "a stream", "a tax"]}
    found = one.post("/v1/embeddings", json=body).json()
    vectors = np.array([each["embedding"] for each in found["data"]])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    coded = one.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()
    import base64

    raw = np.frombuffer(base64.b64decode(coded["data"][0]["embedding"]), "<f4")
    assert np.allclose(raw, vectors[0], atol=1e-3)
    assert one.post("/v1/embeddings", json={**body, "dimensions": 7}).status_code == 400
    for ids in ([1, 2], [[1], [2, 3]]):
        refused = one.post("/v1/embeddings", json={**body, "input": ids})
        assert refused.status_code == 400
        assert "only texts are embedded" in refused.json()["error"]["message"]
    assert one.post("/v1/embeddings", json={**body, "input": []}).status_code == 400


@pytest.mark.parametrize("date", ["soon", "2024-02-31", "3.4.2021"])
def test_what_is_no_date_is_said_in_words(client, date):
    says = f"{date!r} is no date; give a date such as 2024-06-30, 2024-06 or 2024"
    response = ask(client(), as_of=date)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == f"as_of: {says}"
    response = ask(client(), documents=[{"text": "The Rhine is long.", "date": date}])
    assert response.status_code == 400
    assert response.json()["error"]["message"] == f"documents.0.date: {says}"


def test_documents_are_uploaded_listed_and_removed(client):
    one = client()
    files = [
        ("file", ("../../etc/notes.md", b"# Rhine\n\nThe Rhine is long.")),
        ("file", ("broken.pdf", b"%PDF nonsense")),
        ("file", ("lines.jsonl", b'{"text": "The Elbe is long.", "date": "soon"}')),
    ]
    added = one.post("/v1/documents", files=files, data={"trust": "0.9"}).json()
    assert (added["documents"], added["passages"]) == (2, 2)
    assert added["skipped"][0]["file"] == "broken.pdf"
    [notice] = added["notices"]
    assert notice["file"] == "lines.jsonl"
    assert "'soon' is none" in notice["reason"]
    document, other = one.get("/v1/documents").json()["data"]
    assert (document["title"], document["source"], document["trust"]) == ("Rhine", "notes.md", 0.9)
    removed = one.delete(f"/v1/documents/{document['id']}").json()
    assert removed == {"object": "document", "id": document["id"], "deleted": True, "passages": 1}
    one.delete(f"/v1/documents/{other['id']}")
    assert one.get("/v1/documents").json()["data"] == []


def test_readers_do_not_see_the_folders_of_files(client, service, keys, tmp_path):
    over, notes = service(), tmp_path / "notes.md"
    notes.write_text("# Rhine\n\nThe Rhine is long.", "utf-8")
    over._index.ingest([notes])
    for key, shown in ((READING, "notes.md"), (ADMINISTRATION, str(notes))):
        [document] = client(over, keys, key=key).get("/v1/documents").json()["data"]
        assert document["source"] == shown


def test_an_upload_of_which_nothing_can_be_read_names_every_file(client):
    files = [("file", ("broken.pdf", b"%PDF nonsense")), ("file", ("empty.txt", b""))]
    refused = client().post("/v1/documents", files=files)
    assert refused.status_code == 400
    message = refused.json()["error"]["message"]
    assert message.startswith("broken.pdf is not a readable PDF; ")
    assert ", and empty.txt is empty; " in message


def test_an_upload_is_dated_by_its_text_or_by_the_user(client):
    one = client()
    file = {"file": ("notes.md", b"# Rhine\n\nLast updated 3 May 2021. The Rhine is long.")}
    for data, expected in (({}, "2021-05-03"), ({"dated": "2022-06"}, "2022-06")):
        assert one.post("/v1/documents", files=file, data=data).status_code == 200
        [document] = one.get("/v1/documents").json()["data"]
        assert document["date"] == expected
    refused = one.post("/v1/documents", files=file, data={"dated": "soon"})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert "'soon' is not a date; give YYYY-MM-DD" in error["message"]
    assert "--" not in error["message"]
    assert error["param"] == "dated"


@pytest.mark.parametrize("trust", ["nan", "NaN"])
def test_a_trust_that_is_no_number_is_refused_as_none(client, trust):
    file = {"file": ("notes.md", b"The Rhine is long.")}
    refused = client().post("/v1/documents", files=file, data={"trust": trust})
    assert refused.status_code == 400
    message = refused.json()["error"]["message"]
    assert message == f"trust: {trust} is no number between 0 and 1"


def test_an_upload_that_cannot_be_read_fails_with_the_reason(client):
    response = client().post("/v1/documents", files={"file": ("x.pdf", b"%PDF nonsense")})
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("x.pdf ")


def test_a_fact_is_forgotten_shown_audited_and_removed(client):
    one = client()
    proposed = one.post("/v1/forget", json={**CHILE, "dry_run": True})
    assert (proposed.status_code, proposed.json()["id"]) == (200, "")
    added = one.post("/v1/forget", json=CHILE)
    assert added.status_code == 201
    fact = added.json()
    assert (fact["subject"], fact["answers"], fact["new"]) == ("Chile", ["Santiago"], True)
    learned = {"subject": "France", "relation": "capital", "answers": ["Paris"], "dry_run": True}
    [notice] = [
        line for line in one.post("/v1/forget", json=learned).json()["notices"] if "knowpo" in line
    ]
    assert "was trained on this fact" in notice
    again = one.post("/v1/forget", json=CHILE)
    assert (again.status_code, again.json()["new"]) == (200, False)
    assert [each["id"] for each in one.get("/v1/forget").json()["data"]] == [fact["id"]]
    refused = ask(one, messages=[{"role": "user", "content": "What is the capital of Chile?"}])
    choice = refused.json()["choices"][0]
    assert choice["finish_reason"] == "content_filter"
    assert choice["message"]["content"]
    assert refused.json()["fulcrum"]["forgotten"] == [{"id": fact["id"], "layer": "prompt"}]
    parts = events(
        ask(
            one,
            messages=[{"role": "user", "content": "What is the capital of Chile?"}],
            stream=True,
        )
    )
    said = "".join(each["choices"][0]["delta"].get("content", "") for each in parts)
    assert said == choice["message"]["content"]
    kinds = [event["kind"] for event in one.get("/v1/forget/audit").json()["data"]]
    assert kinds[0] == "added"
    assert "withheld" in kinds
    assert one.get("/v1/forget/audit?after=1&limit=1").json()["data"][0]["sequence"] == 2
    assert one.get("/v1/forget/verify").json()["whole"] is True
    assert one.delete(f"/v1/forget/{fact['id']}?reason=undone").json()["id"] == fact["id"]
    assert one.delete(f"/v1/forget/{fact['id']}").status_code == 404
    assert ask(one, messages=[{"role": "user", "content": "What is the capital of Chile?"}]).json()[
        "fulcrum"
    ]["tokens"]


@pytest.mark.parametrize(
    "body",
    [{}, {"subject": "Chile"}, {"sentence": "Hello"}, {"subject": "Chile", "answers": ["a"]}],
)
def test_what_cannot_be_forgotten_is_refused(client, body):
    one = client()
    assert one.post("/v1/forget", json=body).status_code == 400
    assert one.get("/v1/forget").json()["data"] == []


TEXT = "He counted the steps."


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"sentence": "Hello"}, "give subject, relation and answers; scope subject forgets"),
        ({"sentence": "x " * 5_000}, "sentence"),
        ({"subject": "Chile", "relation": "capital"}, "give answers, or scope subject"),
        ({"subject": "Chile", "answers": ["Santiago"]}, "give a relation or questions"),
        ({"subject": "Chile", "answers": ["the"], "relation": "capital"}, "answer is 'the'"),
        ({"subject": "Chile", "scope": "verbatim"}, "give it as answer"),
        ({"subject": "A tale", "scope": "verbatim", "answers": [TEXT]}, "or scope claim"),
        ({"subject": "Chile", "scope": "subject", "answers": ["x"]}, "leave out the answer"),
    ],
)
def test_why_it_cannot_be_forgotten_is_said_by_names_of_fields(client, body, says):
    message = client().post("/v1/forget", json=body).json()["error"]["message"]
    assert says in message
    assert "--" not in message
    assert "file" not in message


def test_where_the_answer_stands_under_another_name_is_told(client):
    one = client()
    files = [
        ("file", ("office.txt", b"The safe in the office opens by 58-13-40. Ask Ann.")),
        ("file", ("chile.txt", b"The capital of Chile is Santiago.")),
        ("file", ("games.txt", b"The games were held in Santiago.")),
    ]
    assert one.post("/v1/documents", files=files).json()["documents"] == 3
    [office] = [
        document["id"]
        for document in one.get("/v1/documents").json()["data"]
        if document["source"] == "office.txt"
    ]
    safe = {"subject": "Mostwerk strongbox", "relation": "combination", "answers": ["58-13-40"]}
    expected = [{"id": office, "name": "office.txt", "passages": 1}]
    for more in ({"dry_run": True}, {}):
        assert one.post("/v1/forget", json={**safe, **more}).json()["elsewhere"] == expected
    assert one.post("/v1/forget", json=CHILE).json()["elsewhere"] == []  # a passage states it
    shown = one.get("/v1/forget").json()["data"]
    assert [each["elsewhere"] for each in shown] == [None, None]


def test_a_fact_is_forgotten_though_the_index_cannot_be_searched(client, service, monkeypatch):
    over = service()
    one = client(over)
    one.post("/v1/documents", files={"file": ("notes.txt", b"The Rhine is long.")})

    def damaged(_):
        raise IndexStateError("the index is damaged")

    monkeypatch.setattr(over._index, "containing", damaged)
    added = one.post("/v1/forget", json=CHILE)
    assert (added.status_code, added.json()["elsewhere"]) == (201, [])


def test_readers_ask_and_administrators_change(client, service, keys):
    over = service()
    nobody, wrong = client(over, keys), client(over, keys, key="w" * 24)
    reader = client(over, keys, key=READING)
    administrator = client(over, keys, key=ADMINISTRATION)
    for stranger in (nobody, wrong):
        assert stranger.get("/health").json() == {"status": "ready"}
        for path in ("/metrics", "/v1/models", "/v1/documents", "/v1/forget", "/v1/openapi.json"):
            assert stranger.get(path).status_code == 401
        assert ask(stranger).status_code == 401
        assert ask(stranger).json()["error"]["type"] == "authentication_error"
    assert ask(reader).status_code == 200
    for path in ("/metrics", "/v1/models", "/v1/documents"):
        assert reader.get(path).status_code == 200
    for path in ("/v1/forget", "/v1/forget/audit", "/v1/forget/verify", "/v1/forget/x"):
        assert reader.get(path).status_code == 403
    assert reader.post("/v1/forget", json=CHILE).status_code == 403
    assert reader.post("/v1/documents", files={"file": ("a.txt", b"x")}).status_code == 403
    assert reader.delete("/v1/documents/x").status_code == 403
    assert administrator.post("/v1/forget", json=CHILE).status_code == 201


def test_only_administrators_are_told_that_and_why_a_question_was_refused(client, service, keys):
    over = service()
    administrator = client(over, keys, key=ADMINISTRATION)
    reader = client(over, keys, key=READING)
    fact = administrator.post("/v1/forget", json=CHILE).json()
    asked = [{"role": "user", "content": "What is the capital of Chile?"}]
    told, refused = (ask(one, messages=asked).json() for one in (administrator, reader))
    assert told["fulcrum"]["forgotten"] == [{"id": fact["id"], "layer": "prompt"}]
    assert told["choices"][0]["finish_reason"] == "content_filter"
    assert refused["fulcrum"]["forgotten"] == []
    assert refused["choices"][0]["finish_reason"] == "stop"
    streamed = events(ask(reader, messages=asked, stream=True))
    assert fact["id"] not in str(streamed)
    assert "content_filter" not in str(streamed)


def test_too_large_a_body_is_refused(client):
    one = client(body=2_000, upload=5_000)
    for sent in (b"x" * 3_000, iter([b"x" * 1_000] * 3)):
        response = one.post("/v1/chat/completions", content=sent)
        assert response.status_code == 413
        assert "0.002 MB" in response.json()["error"]["message"]
    file = {"file": ("a.txt", b"x" * 200_000)}
    assert one.post("/v1/documents", files=file).status_code == 413


def test_while_the_model_is_loading_or_broken_the_server_stays_up_and_says_so(client, service):
    over = service(loaded=False)
    one = client(over)
    health = one.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "loading")
    answer = ask(one)
    assert answer.status_code == 503
    assert "being loaded" in answer.json()["error"]["message"]
    assert answer.headers["retry-after"]
    assert one.post("/v1/forget", json=CHILE).status_code == 201


def test_readers_do_not_learn_where_the_models_server_is(
    client, service, keys, monkeypatch, caplog
):
    def away(*_, **__):
        raise UnavailableError("--model http://10.1.2.3:8000/v1: the server cannot be reached")

    over = service(read_key=READING, admin_key=ADMINISTRATION)
    reader = client(over, keys, key=READING)
    monkeypatch.setattr(Assistant, "prepare", away)
    answer = ask(reader)
    assert answer.status_code == 503
    assert "its log says why" in answer.json()["error"]["message"]
    assert "10.1.2.3" not in answer.text
    assert "10.1.2.3" in caplog.text

    monkeypatch.setattr(factory, "assistant", away)
    over = service(loaded=False, read_key=READING, admin_key=ADMINISTRATION)
    assert "being loaded" in ask(client(over, keys, key=READING)).text
    over.load()
    reader, administrator = (client(over, keys, key=key) for key in (READING, ADMINISTRATION))
    assert "10.1.2.3" not in ask(reader).text + reader.get("/health").text
    assert "10.1.2.3" in administrator.get("/health").text
    page = views.render("state", state=over.shown_state, small=False, recommended="", notices=[])
    assert "10.1.2.3" not in page
    assert "tried again" in page


def test_a_ledger_that_somebody_changed_is_a_503_and_no_answer(client, service, home):
    over = service()
    one = client(over)
    fact = one.post("/v1/forget", json=CHILE).json()
    assert ask(one).status_code == 200
    with closing(sqlite3.connect(home / "ledger.db")) as database, database:
        database.execute(
            "INSERT INTO ledger_events SELECT 1 + (SELECT max(sequence) FROM ledger_events), "
            "'removed', record_id, time, '', payload, hash FROM ledger_events WHERE sequence = 1"
        )
    for answer in (ask(one), one.get("/v1/forget"), one.get(f"/v1/forget/{fact['id']}")):
        assert answer.status_code == 503
        assert "(removed" in answer.json()["error"]["message"]
    found = one.get("/v1/forget/verify").json()
    assert not found["whole"]
    assert "was changed, moved or put in" in found["fault"]


def test_a_full_queue_is_told_to_come_again(client, service, monkeypatch):
    import threading

    over = service(waiting=1)
    go, begun = threading.Event(), threading.Event()
    busy = over._queue.submit(lambda: (begun.set(), go.wait()))
    begun.wait()
    waiting = over._queue.submit(lambda: None)
    response = ask(client(over))
    assert response.status_code == 429
    assert response.headers["retry-after"]
    assert response.json()["error"]["type"] == "rate_limit_error"
    go.set()
    busy.result()
    waiting.result()


def test_what_nobody_foresaw_is_a_500_whose_text_is_neither_sent_nor_logged(
    client, service, monkeypatch, caplog
):
    over = service()

    def fail(*_, **__):
        raise RuntimeError("Santiago")

    monkeypatch.setattr(over.documents, "listed", fail)
    with caplog.at_level(logging.DEBUG):
        response = client(over).get("/v1/documents")
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "Santiago" not in response.text + caplog.text
    assert "RuntimeError" in caplog.text


def test_an_index_that_is_damaged_is_a_503(client, service, monkeypatch):
    over = service()

    def damaged(*_, **__):
        raise IndexStateError("the index is damaged; put a copy of it back")

    monkeypatch.setattr(over.documents, "listed", damaged)
    assert client(over).get("/v1/documents").status_code == 503


def test_metrics_count_and_hold_nothing_of_what_was_said(client, caplog):
    one = client()
    caplog.set_level(logging.WARNING, "httpx2")  # the test's own client tells what it asks for
    with caplog.at_level(logging.INFO):
        one.post("/v1/forget", json=CHILE)
        ask(one, messages=[{"role": "user", "content": "What is the capital of Chile?"}])
        ask(one, messages=[{"role": "user", "content": "Who is Waldo?"}])
        one.get("/v1/Santiago")
    text = one.get("/metrics").text
    assert (
        'fulcrum_requests_total{method="POST",route="/v1/chat/completions",status="200"} 2.0'
        in text
    )
    assert 'fulcrum_answers_total{outcome="refused"} 1.0' in text
    assert "fulcrum_tokens_total 12.0" in text
    assert "fulcrum_ready 1.0" in text
    assert "fulcrum_first_token_seconds_count 1.0" in text
    for secret in ("Santiago", "Chile", "Waldo"):
        assert secret not in text
    assert "Santiago" not in caplog.text


def test_the_description_names_every_path(client):
    paths = client().get("/v1/openapi.json").json()["paths"]
    assert {
        "/health", "/metrics", "/v1/chat/completions", "/v1/completions", "/v1/documents",
        "/v1/embeddings", "/v1/forget", "/v1/forget/audit", "/v1/forget/verify", "/v1/models",
    } <= paths.keys()  # fmt: skip
