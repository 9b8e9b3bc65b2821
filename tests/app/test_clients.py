"""What other people's programs see: OpenAI's package, LlamaIndex, the example of docs/api.md."""

import asyncio
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Literal

import openai
import pydantic
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from app import factory
from evaluation.harness import DIRECTORY as HARNESS
from tests.app.conftest import ADMINISTRATION, READING
from tests.json_writer import json_writer

PAGE = Path(__file__).parent.parent.parent / "docs" / "api.md"
WHO = [{"role": "user", "content": "Who?"}]
MEMORY = {"documents": []}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture
def served(running):
    """A server and OpenAI's client of it."""
    server = running()
    return server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_openais_package_asks_and_streams_the_same(served, tiny):
    _, client = served
    assert [model.id for model in client.models.list()] == [tiny.name, "all-MiniLM-L6-v2"]
    given = {"model": "fulcrum", "messages": WHO, "max_tokens": 12, "extra_body": MEMORY}
    whole = client.chat.completions.create(**given, logprobs=True, top_logprobs=3)
    [choice] = whole.choices
    assert choice.finish_reason == "length"
    assert len(choice.logprobs.content) == whole.usage.completion_tokens == 12
    for token in choice.logprobs.content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
    assert whole.fulcrum["answer"] == choice.message.content
    parts = list(
        client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True})
    )
    said = "".join(part.choices[0].delta.content or "" for part in parts[:-1])
    assert said.strip() == choice.message.content
    assert parts[-1].usage == whole.usage
    assert parts[-2].fulcrum["tokens"] == whole.fulcrum["tokens"]


def test_its_extra_fields_turn_the_dial_and_give_passages(served):
    _, client = served
    passage = {"text": "The capital of Norway is Cairo.", "title": "Norway", "trust": 0.9}
    answer = client.chat.completions.create(
        model="fulcrum",
        messages=WHO,
        max_tokens=8,
        extra_body={"alpha": 0.25, "rule": "ck_plug", "documents": [passage]},
    )
    assert answer.fulcrum["alpha"] == 0.25
    assert [source["title"] for source in answer.fulcrum["sources"]] == ["Norway"]


def test_it_embeds_and_completes(served):
    _, client = served
    vectors = client.embeddings.create(model="all-MiniLM-L6-v2", input=["a capital", "a city"])
    assert [len(one.embedding) for one in vectors.data] == [384, 384]
    batch = client.completions.create(
        model="fulcrum", prompt=["Who?", "Where?"], max_tokens=4, extra_body=MEMORY
    )
    assert [choice.index for choice in batch.choices] == [0, 1]


def test_its_errors_are_of_its_own_kinds(served):
    _, client = served
    with pytest.raises(openai.NotFoundError, match="no model"):
        client.chat.completions.create(model="gpt-4o", messages=WHO)
    with pytest.raises(openai.BadRequestError, match="alpha"):
        client.chat.completions.create(model="fulcrum", messages=WHO, extra_body={"alpha": 3})


def test_it_sends_what_it_likes_and_learns_what_has_no_effect(served):
    _, client = served
    raw = client.chat.completions.with_raw_response.create(
        model="fulcrum",
        messages=[{"role": "system", "content": "Be brief."}, {**WHO[0], "name": "ann"}],
        max_completion_tokens=4,
        n=2,
        user="ann",
        metadata={"run": "1"},
        tools=[TOOL],
        parallel_tool_calls=False,
        reasoning_effort="low",
        extra_body={**MEMORY, "top_k": 4},
    )
    assert set(raw.headers["fulcrum-ignored"].split(", ")) == {
        "user",
        "metadata",
        "tools",
        "parallel_tool_calls",
        "reasoning_effort",
        "top_k",
        "messages.name",
    }
    first, second = raw.parse().choices
    assert first.message.content == second.message.content  # greedy
    assert first.message.tool_calls is None


def test_its_own_message_is_a_turn_of_the_conversation(served):
    _, client = served
    given = {"model": "fulcrum", "max_tokens": 4, "extra_body": MEMORY}
    said = client.chat.completions.create(**given, messages=WHO).choices[0].message
    again = client.chat.completions.create(**given, messages=[*WHO, said, *WHO])
    assert again.choices[0].message.content


def test_it_learns_by_openais_code_what_cannot_be_done(served):
    _, client = served
    ask = client.chat.completions
    for call in (
        lambda: ask.create(model="fulcrum", messages=WHO, response_format={"type": "x"}),
        lambda: ask.create(model="fulcrum", messages=WHO, presence_penalty=1),
    ):
        with pytest.raises(openai.BadRequestError) as raised:
            call()
        assert raised.value.code == "unsupported_value"
    with pytest.raises(openai.NotFoundError) as missing:
        ask.create(model="gpt-4o", messages=WHO)
    assert missing.value.code == "model_not_found"


class City(pydantic.BaseModel):
    name: str
    country: Literal["Peru", "Chile"]


LIMA = {"name": "Lima", "country": "Peru"}


@pytest.fixture
def structuring(running, service, monkeypatch, tiny):
    """The address of a server whose model writes Lima as JSON."""
    over = service(loaded=False)
    model = json_writer(tiny, json.dumps(LIMA), identity="tiny")
    monkeypatch.setattr(factory, "language_model", lambda _: model)
    over.load()
    return f"{running(over).url}/v1"


def test_openais_package_parses_an_answer_and_a_call(structuring):
    client = openai.OpenAI(base_url=structuring, api_key="none", max_retries=0)
    given = {"model": "fulcrum", "messages": WHO, "extra_body": MEMORY, "max_tokens": 40}
    said = client.chat.completions.parse(**given, response_format=City).choices[0].message
    assert said.parsed == City(**LIMA)
    with client.chat.completions.stream(**given, response_format=City) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == City(**LIMA)
    called = client.chat.completions.parse(
        **given, tools=[openai.pydantic_function_tool(City)], tool_choice="required"
    )
    [call] = called.choices[0].message.tool_calls
    assert call.function.parsed_arguments == City(**LIMA)


def test_llamaindex_gets_a_structured_answer(structuring):
    model = OpenAILike(
        model="fulcrum",
        api_base=structuring,
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        max_tokens=40,
        max_retries=0,
    )
    said = model.as_structured_llm(City).chat([ChatMessage(role="user", content="Who?")])
    assert said.raw == City(**LIMA)


def test_its_stream_has_one_usage(served):
    _, client = served
    given = {"model": "fulcrum", "messages": WHO, "max_tokens": 4, "extra_body": MEMORY}
    with client.chat.completions.stream(
        **given, n=2, stream_options={"include_usage": True}
    ) as stream:
        final = [event for event in stream if event.type == "chunk"][-1].snapshot
    assert [choice.finish_reason for choice in final.choices] == ["length", "length"]
    assert final.usage.completion_tokens == 8


def test_it_scores_prompts_as_evaluation_programs_do(served, tiny):
    _, client = served
    ids = [tiny.tokenizer(text).input_ids for text in ("Who? abc", "Who? abcd")]
    scored = client.completions.create(
        model="fulcrum", prompt=ids, temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True
    )
    for own, choice in zip(ids, scored.choices, strict=True):
        values = choice.logprobs.token_logprobs[4:-1]  # after "Who?", without the new token
        assert len(values) == len(own) - 4
        assert all(value < 0 for value in values)
        for value, best in zip(values, choice.logprobs.top_logprobs[4:-1], strict=True):
            assert value <= max(best.values())


def test_keys_are_asked_for_by_their_roles(running):
    server = running(read_key=READING, admin_key=ADMINISTRATION)

    def client(key):
        return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)

    with pytest.raises(openai.AuthenticationError):
        client("wrong" * 8).models.list()
    assert len(list(client(READING).models.list())) == 2
    with pytest.raises(openai.PermissionDeniedError):
        client(READING).get("/forget", cast_to=object)
    assert client(ADMINISTRATION).get("/forget", cast_to=object)["data"] == []


def test_llamaindexs_client_chats_and_streams(served):
    server, _ = served
    model = OpenAILike(
        model="fulcrum",
        api_base=f"{server.url}/v1",
        api_key="none",
        is_chat_model=True,
        max_tokens=8,
        temperature=0,  # the package's own is 0.1, and no seed
        max_retries=0,
        additional_kwargs={"extra_body": MEMORY},
    )
    asked = [
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", content="Who?"),
    ]
    whole = model.chat(asked).message.content
    *_, last = model.stream_chat(asked)
    assert whole
    assert last.message.content.strip() == whole
    assert asyncio.run(model.achat(asked)).message.content == whole
    called = model.model_copy(update={"is_function_calling_model": True})
    tool = FunctionTool.from_defaults(lambda city: city, name="weather", description="Of a city.")
    assert called.chat_with_tools([tool], user_msg="Who?").message.content


def test_llamaindexs_client_completes_and_streams(served):
    server, _ = served
    model = OpenAILike(
        model="fulcrum",
        api_base=f"{server.url}/v1",
        api_key="none",
        is_chat_model=False,
        max_tokens=8,
        temperature=0,  # the package's own is 0.1, and no seed
        max_retries=0,
        additional_kwargs={"extra_body": MEMORY},
    )
    whole = model.complete("Who?").text
    *_, last = model.stream_complete("Who?")
    assert whole
    assert last.text.strip() == whole


@pytest.mark.parametrize("at_once", [1, 4])
def test_the_evaluation_harness_asks_for_conflicts(served, tmp_path, at_once):
    server, client = served
    conflicts = [
        {
            "question": f"Who is {who}?",
            "context": f"{who} is a cook.",
            "context_answers": ["cook"],
            "memory_answers": ["king"],
        }
        for who in ("Ada", "Ben", "Eve")
    ]
    file = tmp_path / "conflicts.jsonl"
    file.write_text("".join(map(json.dumps, conflicts)).replace("}{", "}\n{"), encoding="utf-8")
    [task] = tasks = ["fulcrum_conflicts_passage"]
    given = {"model": "fulcrum", "base_url": f"{server.url}/v1/chat/completions"}
    done = simple_evaluate(
        "local-chat-completions",
        model_args=given | {"num_concurrent": at_once},
        tasks=tasks,
        task_manager=TaskManager(
            include_path=str(HARNESS), include_defaults=False, metadata=given | {"data": str(file)}
        ),
        gen_kwargs="alpha=1,max_gen_toks=8",
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    assert done["results"][task]["MR_all,none"] == 0  # the model says nothing that is a word
    for sample in done["samples"][task]:
        asked = sample["doc"]
        answer = client.chat.completions.create(
            model="fulcrum",
            messages=[{"role": "user", "content": asked["text"]}],
            max_tokens=8,
            extra_body={"alpha": 1, "documents": [{"text": each} for each in asked["passages"]]},
        )
        assert sample["resps"] == [[answer.choices[0].message.content]]


def test_the_example_of_the_documentation_runs(running):
    example, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(example.replace("http://127.0.0.1:7860", running().url), {})  # noqa: S102
    assert len(printed.getvalue().splitlines()) >= 2
