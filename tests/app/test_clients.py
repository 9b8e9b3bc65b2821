"""What other people's programs see: OpenAI's package, LlamaIndex, the example of docs/api.md."""

import contextlib
import io
import re
from pathlib import Path

import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from tests.app.conftest import ADMINISTRATION, READING

PAGE = Path(__file__).parent.parent.parent / "docs" / "api.md"
WHO = [{"role": "user", "content": "Who?"}]
MEMORY = {"documents": []}


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
        max_retries=0,
        additional_kwargs={"extra_body": MEMORY},
    )
    asked = [ChatMessage(role="user", content="Who?")]
    whole = model.chat(asked).message.content
    *_, last = model.stream_chat(asked)
    assert whole
    assert last.message.content.strip() == whole


def test_the_example_of_the_documentation_runs(running):
    [example] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(example.replace("http://127.0.0.1:7860", running().url), {})  # noqa: S102
    assert len(printed.getvalue().splitlines()) >= 2
