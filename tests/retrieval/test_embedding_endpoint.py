import time

import numpy as np
import pytest

from foundation import model_server
from foundation.errors import ModelError
from retrieval.embedding import cache_vectors, embed_queries, embed_texts, open_embedding
from retrieval.index import open_index
from retrieval.ingest.chunking import passage
from tests.embedding_server import serving
from tests.retrieval.conftest import BagOfWords


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(model_server, "FIRST_WAIT", 0.001)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://another.invalid/never-sent")


@pytest.fixture
def server():
    with serving() as running:
        yield running


def failing(url, key=None):
    with pytest.raises(ModelError) as caught:
        open_embedding(url, key).get_text_embedding("a river")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_texts_are_embedded_in_batches_and_in_their_order(server):
    model, done = open_embedding(server.url), []
    texts = [f"word{n} and more" for n in range(150)]
    vectors = np.array(embed_texts(model, texts, done.append))
    assert done == [64, 64, 22]
    assert [len(batch) for batch in server.batches] == done
    expected = np.array([BagOfWords()._vector(text) for text in texts])
    assert vectors == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True))


def test_many_queries_are_sent_in_batches_and_none_twice(server):
    model = open_embedding(server.url)
    queries = [f"word{n}" for n in range(70)]
    assert len(embed_queries(model, queries)) == 70
    assert embed_queries(model, queries[:1]) == [model.get_text_embedding("word0")]
    assert [len(batch) for batch in server.batches] == [64, 6]


def test_vectors_of_the_store_are_not_computed_again(server):
    model = open_embedding(server.url)
    node = passage("1", "1", "a river", {"title": "", "content_hash": ""})
    node.embedding = [1.0, 0.0]
    cache_vectors(model, [node])
    assert model.get_text_embedding(node.get_content("embed")) == [1.0, 0.0]
    assert not server.batches


def test_an_index_over_a_server(server, home, json_lines):
    facts = [{"title": f"River {n}", "text": f"river{n} is {n} km long."} for n in range(70)]
    index = open_index(home, None, open_embedding(server.url))
    assert index.ingest([json_lines(facts)]).passages == 70
    assert index.retrieve("river7")[0].metadata["title"] == "River 7"
    with serving() as moved:  # the same model at another address
        index = open_index(home, None, open_embedding(f"{moved.url}#words"))
        assert index.retrieve("river8")[0].metadata["title"] == "River 8"


def test_one_of_several_models_is_named(server):
    server.models = ["small", "words"]
    model = open_embedding(f"{server.url}#words")
    assert server.requests == 0  # nothing is sent before the first text
    assert (model.model_name, model.public_name) == ("words (served)", "words")
    assert len(model.get_text_embedding("a river")) == 8192
    assert "has small, words; name one after a #" in failing(server.url)
    assert "no such model; it has small, words" in failing(f"{server.url}#large")
    server.models = []
    assert "has no model; name one after a #" in failing(server.url)


def test_the_key_is_shown_and_no_other(server):
    server.key = "right"
    assert open_embedding(server.url, "right").get_text_embedding("a river")
    for key in ("wrong", None):
        message = failing(server.url, key)
        assert "refuses the key; set FULCRUM_EMBEDDING_KEY" in message
        assert "wrong" not in message
        assert "never-sent" not in str(server.headers)
    assert "holds characters" in failing(server.url, "sch\u00f6n")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_for_a_moment_is_asked_again(server, status):
    model = open_embedding(server.url)
    server.failures = [status] * (model_server.ATTEMPTS - 1)
    assert model.get_text_embedding("a river")
    assert server.requests == 1 + model_server.ATTEMPTS  # one for the models
    server.failures = [status] * model_server.ATTEMPTS
    message = failing(f"{server.url}#words")
    assert f"answers {status} (out of order); try again later" in message


def test_a_server_that_asks_for_a_pause_gets_a_short_one(server):
    model = open_embedding(f"{server.url}#words")
    server.failures, server.retry_after = [429], "1"
    started = time.monotonic()
    assert model.get_text_embedding("a river")
    assert time.monotonic() - started >= 1
    server.failures, server.retry_after = [429], "3600"
    assert "answers 429" in failing(f"{server.url}#words")
    assert server.requests == 3


def test_a_request_that_is_wrong_is_not_repeated(server):
    server.failures = [422]
    assert "answers 422 (out of order); send less text, or give another model" in failing(
        f"{server.url}#words"
    )
    assert server.requests == 1


def test_a_server_that_is_down():
    with serving() as server:
        url = server.url
    assert "cannot be reached; start it" in failing(url)
    assert "cannot be reached; start it" in failing(f"{url}#words")


def test_a_url_without_the_path(server):
    address = server.url.removesuffix("/v1")
    assert "answers 404" in failing(address)
    assert "no embeddings at this address; give its URL up to /v1" in failing(f"{address}#words")


@pytest.mark.parametrize(
    "url",
    ["http://", "http://host:port/v1", "http://host:99999/v1", "https://me:secret@host/v1",
     "http://host/v1?key=secret"],
)  # fmt: skip
def test_a_url_that_cannot_be_used(url):
    message = failing(url)
    assert "give its URL up to /v1" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"", b"[]", {"data": [{"index": 0, "embedding": []}]},
     {"data": [{"index": 0, "embedding": "AAAA"}]}, {"object": "list"}],
)  # fmt: skip
def test_an_answer_of_another_form(server, body):
    server.body = body
    assert "not that of an OpenAI-compatible server" in failing(server.url)


def test_vectors_that_are_missing_or_not_finite(server):
    server.body = {"data": []}
    assert "gave 0 vectors for 1 texts" in failing(server.url)
    server.body = b'{"data": [{"index": 0, "embedding": [1.0, NaN]}]}'
    assert "not finite" in failing(server.url)
    server.body = {"data": [{"index": n, "embedding": [1.0] * (n + 1)} for n in range(2)]}
    with pytest.raises(ModelError, match="vectors of 2 numbers, before of 1"):
        open_embedding(server.url).get_text_embedding_batch(["a", "b"])


def test_another_dimension_than_before(server):
    model = open_embedding(server.url)
    model.get_text_embedding("a river")
    server.dimension = 16
    with pytest.raises(ModelError, match=r"vectors of 16 numbers, before of 8192; it serves"):
        model.get_text_embedding("a lake")
