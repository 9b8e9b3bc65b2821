"""A model behind each kind of server: what it can do, what it says, and what goes wrong."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from control.engines import openai_server
from control.engines.base import Capabilities, EnginePrompt, GenerationRequest, ScoreRequest
from control.engines.endpoint import ServedModel
from control.engines.servers import connect
from foundation import model_server
from foundation.errors import ModelError
from tests.control.engines.fake_servers import LIKELY, UNLIKELY, FakeModel, serving

QUESTIONS = 125  # to each kind of server
KINDS = ("llama", "completions", "chat", "bare")
QUESTION = [{"role": "user", "content": "capital of Norway"}]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(model_server, "FIRST_WAIT", 0.01)


@pytest.fixture
def model():
    return FakeModel(
        {
            "one two three": "one two three four five six",
            "capital of Norway": "The capital of Norway is Oslo.",
        }
    )


@pytest.fixture
def opened(model, request):
    """A server of the kind that the test asks for, and the engine over it."""
    with serving(model, request.param) as fake:
        engine = ServedModel(partial(connect, fake.url))
        yield fake, engine
        engine.close()


@pytest.mark.parametrize("opened", KINDS, indirect=True)
def test_a_schema_is_handed_on_in_the_servers_words(opened):
    fake, engine = opened
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    asked = GenerationRequest(prompt(engine), json_schema=json.dumps(schema))
    engine.generate([asked, replace(asked, json_schema="")])
    bodies = [body for path, body in fake.requests if path.endswith("completions")][-2:]
    named = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True}}
    named["json_schema"]["schema"] = schema
    told = [body.get("json_schema") or body.get("response_format") for body in bodies]
    assert sorted(told, key=str) == sorted(
        [schema if fake.kind == "llama" else named, None], key=str
    )


def prompt(engine):
    return EnginePrompt(engine.render(QUESTION), tuple(QUESTION))


@pytest.mark.parametrize(
    ("opened", "can"),
    [
        ("llama", Capabilities()),
        ("completions", Capabilities()),
        ("chat", Capabilities(scores=False, bans=False, plain_text=False)),
        (
            "bare",
            Capabilities(
                log_probabilities=False, scores=False, bans=False, prefix=False, plain_text=False
            ),
        ),
    ],
    indirect=["opened"],
)
def test_capabilities_are_found_out(opened, can):
    fake, engine = opened
    kept_free = 1 if fake.kind == "completions" else 0  # for the token that scoring generates
    assert engine.capabilities == can
    assert (engine.name, engine.window) == ("fake", 2048 - kept_free)


@pytest.mark.parametrize("opened", KINDS, indirect=True)
def test_an_answer_comes_token_by_token(opened):
    _, engine = opened
    heard = []
    [answer] = engine.generate(
        [GenerationRequest(prompt(engine))], lambda place, token: heard.append((place, token.text))
    )
    assert answer.text == "The capital of Norway is Oslo."
    assert answer.finished
    assert "".join(each for _, each in heard) == answer.text
    assert all(place == 0 for place, _ in heard)
    scored = engine.capabilities.log_probabilities
    assert all(token.log_p == (LIKELY if scored else None) for token in answer.tokens)
    assert all(token.text for token in answer.tokens)  # the end of text is none of them


@pytest.mark.parametrize("together", [2, 3, 20])
def test_tokens_that_come_in_one_event_are_told_apart(model, together):
    model.script["capital of Denmark"] = "It is København, they say."
    with serving(model, "completions", together=together) as fake:
        engine = ServedModel(partial(connect, fake.url))
        ask = [{"role": "user", "content": "capital of Denmark"}]
        request = GenerationRequest(EnginePrompt(engine.render(ask), tuple(ask)))
        plain, accented = engine.generate([GenerationRequest(prompt(engine)), request])
        engine.close()
    assert [token.text for token in plain.tokens][:3] == ["The", " capital", " of"]
    assert (plain.text, plain.finished) == ("The capital of Norway is Oslo.", True)
    assert (accented.text, len(accented.tokens)) == ("It is København, they say.", 7)
    assert model.text([token.id for token in accented.tokens]) == accented.text


def test_what_the_models_files_say_of_sampling_does_not_count(model):
    with serving(model, "completions") as fake:
        engine = ServedModel(partial(connect, fake.url))
        engine.generate([GenerationRequest(prompt(engine))])
        engine.close()
    _, body = fake.requests[-1]
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (-1, 0.0, 1.0)


def test_a_server_that_answers_as_sglang(model):
    with serving(model, "completions", answers_text=True) as fake:
        engine = ServedModel(partial(connect, fake.url))
        assert engine.capabilities == Capabilities()
        assert engine.render(QUESTION) == "<|user|>capital of Norway<|assistant|>"
        engine.close()


@pytest.mark.parametrize("behaviour", [{"adds_start": True}, {"tells_ids": False}])
def test_where_token_ids_cannot_be_trusted_it_is_a_chat(model, behaviour):
    with serving(model, "completions", **behaviour) as fake:
        engine = ServedModel(partial(connect, fake.url))
        assert engine.capabilities == Capabilities(scores=False, bans=False, plain_text=False)
        [answer] = engine.generate([GenerationRequest(prompt(engine))])
        engine.close()
    assert answer.text == "The capital of Norway is Oslo."


@pytest.mark.parametrize("opened", ["llama", "completions", "chat"], indirect=True)
def test_an_answer_that_has_begun_is_continued(opened):
    _, engine = opened
    [begun] = engine.generate([GenerationRequest(prompt(engine), max_new_tokens=3)])
    assert (begun.text, begun.finished) == ("The capital of", False)
    [rest] = engine.generate([GenerationRequest(prompt(engine), tuple(begun.tokens))])
    assert rest.text == " Norway is Oslo."


@pytest.mark.parametrize("opened", KINDS, indirect=True)
def test_it_ends_where_it_is_told_to(opened):
    _, engine = opened
    request = GenerationRequest(prompt(engine), ended=lambda so_far: so_far.endswith("Norway"))
    [answer] = engine.generate([request])
    assert (answer.text, answer.finished) == ("The capital of Norway", False)


@pytest.mark.parametrize("opened", ["llama", "completions"], indirect=True)
def test_given_tokens_are_scored_where_they_stand(opened):
    _, engine = opened
    [answer] = engine.generate([GenerationRequest(prompt(engine))])
    tokens = tuple(answer.tokens)
    [wrong] = engine.tokens([" Bergen"])
    right, other = engine.score(
        [
            ScoreRequest(prompt(engine), tokens[:5], tokens[5:]),
            ScoreRequest(prompt(engine), tokens[:5], wrong),
        ]
    )
    assert right == [LIKELY, LIKELY]
    assert other == [UNLIKELY]


@pytest.mark.parametrize("opened", ["completions"], indirect=True)
def test_the_tokens_of_a_prompt_are_asked_for_once(opened):
    fake, engine = opened
    request = GenerationRequest(prompt(engine))
    fake.requests.clear()
    [answer] = engine.generate([request])
    engine.score([ScoreRequest(request.prompt, (), tuple(answer.tokens))])
    assert [path for path, _ in fake.requests] == ["/tokenize", *2 * ["/v1/completions"]]


@pytest.mark.parametrize("opened", ["llama", "completions"], indirect=True)
def test_a_fact_that_is_withheld_is_not_said(opened):
    _, engine = opened

    def withholds(before, new):
        return "fact" if "Oslo" in before + new else None

    heard = []
    [answer] = engine.generate(
        [GenerationRequest(prompt(engine), withholds=withholds)],
        lambda _, token: heard.append(token.text),
    )
    assert answer.text.startswith("The capital of Norway is something")
    assert "Oslo" not in "".join(heard)
    assert (answer.withheld, answer.blocked) == (["fact"], False)


@pytest.mark.parametrize("opened", ["chat", "bare"], indirect=True)
def test_where_nothing_can_be_banned_the_answer_ends(opened):
    _, engine = opened
    request = GenerationRequest(
        prompt(engine), withholds=lambda before, new: "fact" if "Oslo" in before + new else None
    )
    [answer] = engine.generate([request])
    assert answer.blocked
    assert "Oslo" not in answer.text


@pytest.mark.parametrize("opened", KINDS, indirect=True)
def test_a_question_that_may_ask_for_the_fact_ends_at_once(opened):
    fake, engine = opened
    before = len(fake.requests)
    request = GenerationRequest(
        prompt(engine), withholds=lambda *_: "fact", refuses=lambda fact: fact == "fact"
    )
    [answer] = engine.generate([request])
    assert (answer.text, answer.blocked) == ("", True)
    assert sum(path.endswith("completions") for path, _ in fake.requests[before:]) == 1


@pytest.mark.parametrize("opened", KINDS, indirect=True)
def test_control_tokens_leave_a_document(opened):
    _, engine = opened
    cleaned = engine.without_markup("<|user|>Say yes<|assistant|> a < b")
    assert "<|" not in cleaned
    assert "Say yes" in cleaned
    assert "a < b" in cleaned


@pytest.mark.parametrize("opened", ["llama"], indirect=True)
def test_requests_of_one_call_are_at_the_server_together(opened):
    _, engine = opened
    answers = engine.generate([GenerationRequest(prompt(engine))] * 8)
    assert {answer.text for answer in answers} == {"The capital of Norway is Oslo."}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("faults", [[429], [503, 429], [502]])
def test_a_busy_server_is_asked_again(model, kind, faults):
    with serving(model, kind) as fake:
        engine = ServedModel(partial(connect, fake.url))
        fake.faults.extend(faults)
        [answer] = engine.generate([GenerationRequest(prompt(engine))])
        engine.close()
    assert answer.text == "The capital of Norway is Oslo."


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (500, "the server answers 500 (on purpose)"),
        ("malformed", "the server's answer is not that of an OpenAI-compatible server"),
        ("cut", "the server broke off in the middle of an answer"),
        ("dropped", "the server broke off in the middle of an answer"),
        ("filtered", 'the server ended the answer before it was whole ("content_filter")'),
        ("quiet", "no answer in 0.5 seconds"),
        ("other model", "the server answers with another model (another) than fake"),
        ("hang", "no answer in 0.5 seconds"),
    ],
)
def test_a_failing_server_gives_one_line_and_no_answer(model, kind, fault, said, monkeypatch):
    monkeypatch.setattr(openai_server, "READ_SECONDS", 0.5)
    monkeypatch.setattr(model_server, "ATTEMPTS", 2)
    with serving(model, kind) as fake:
        engine = ServedModel(partial(connect, fake.url))
        engine.generate([GenerationRequest(prompt(engine))])
        fake.faults.extend([fault, fault])
        with pytest.raises(ModelError) as caught:
            engine.generate([GenerationRequest(prompt(engine))])
        engine.close()
    assert said in str(caught.value)
    assert fake.url in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["llama", "completions", "chat"])
def test_an_answer_that_the_server_cuts_off_early_is_none(model, kind):
    with serving(model, kind) as fake:
        engine = ServedModel(partial(connect, fake.url))
        fake.faults.append("short")
        with pytest.raises(ModelError, match=r"cut the answer off after 1 of 128 tokens"):
            engine.generate([GenerationRequest(prompt(engine))])
        engine.close()


@pytest.mark.parametrize("kind", KINDS)
def test_reasoning_is_no_answer(model, kind):
    model.script["capital of Norway"] = "<think>They ask for Norway.</think>It is Oslo."
    with serving(model, kind) as fake:
        engine = ServedModel(partial(connect, fake.url))
        with pytest.raises(ModelError, match="fake writes down its reasoning before the answer"):
            engine.generate([GenerationRequest(prompt(engine))])
        engine.close()


@pytest.mark.parametrize("opened", ["llama", "completions"], indirect=True)
def test_templates_are_asked_not_to_reason(opened):
    fake, engine = opened
    fake.requests.clear()
    engine.render(QUESTION)
    (_, body), *_ = fake.requests
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize("kind", ["chat", "bare"])
def test_a_chat_that_answers_nothing_is_an_error(model, kind):
    model.script["capital of Norway"] = ""
    with serving(model, kind) as fake:
        engine = ServedModel(partial(connect, fake.url))
        with pytest.raises(ModelError, match="fake answered nothing"):
            engine.generate([GenerationRequest(prompt(engine))])
        engine.close()


def in_parts(text):
    return [{"type": "thinking", "thinking": []}, {"type": "text", "text": text}]


def test_a_chat_may_tell_its_text_in_parts(model):
    with serving(model, "bare", content=in_parts) as fake:
        engine = ServedModel(partial(connect, fake.url))
        [answer] = engine.generate([GenerationRequest(prompt(engine))])
        fake.content = len
        with pytest.raises(ModelError, match="is not that of an OpenAI-compatible server"):
            engine.generate([GenerationRequest(prompt(engine))])
        engine.close()
    assert answer.text == "The capital of Norway is Oslo."


@pytest.mark.parametrize("kind", KINDS)
def test_answers_may_name_the_model_otherwise_but_not_one_after_the_other(model, kind):
    with serving(model, kind, answers_as="fake-2026-08-01") as fake:
        engine = ServedModel(partial(connect, fake.url))
        told = engine.generate([GenerationRequest(prompt(engine))] * 2)
        fake.answers_as = ""  # untold
        told += engine.generate([GenerationRequest(prompt(engine))])
        fake.answers_as = "fake-2026-11-01"
        with pytest.raises(ModelError, match=r"another model .fake-2026-11-01. than fake-2026-08"):
            engine.generate([GenerationRequest(prompt(engine))])
        engine.close()
    assert [each.text for each in told] == ["The capital of Norway is Oslo."] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loading", [1, 3])
def test_a_server_that_is_still_loading_is_waited_for(model, kind, loading):
    with serving(model, kind) as fake:
        engine = ServedModel(partial(connect, fake.url))
        fake.loading = loading
        again = ServedModel(partial(connect, fake.url))
        assert again.capabilities == engine.capabilities
        assert fake.loading == 0
        engine.close()
        again.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_never_loads_is_not_taken_for_a_lesser_kind(model, kind, monkeypatch):
    monkeypatch.setattr(model_server, "ATTEMPTS", 2)
    with serving(model, kind, loading=100) as fake:
        with pytest.raises(ModelError, match=r"answers 503 .Loading model.; try again later"):
            ServedModel(partial(connect, fake.url))
        assert fake.loading == 98


def test_an_address_without_v1(model):
    with (
        serving(model, "chat") as fake,
        pytest.raises(ModelError, match="has no /models there; give its URL up to /v1"),
    ):
        ServedModel(partial(connect, fake.url.removesuffix("/v1")))


def test_a_key_that_is_wrong(model):
    with serving(model, "llama", key="right") as fake:
        for key in ("wrong", None):
            with pytest.raises(ModelError, match="refuses the key; set FULCRUM_MODEL_KEY"):
                ServedModel(partial(connect, fake.url, key))
        ServedModel(partial(connect, fake.url, "right")).close()


def test_a_model_that_the_server_does_not_have(model):
    with serving(model, "llama") as fake:
        ServedModel(partial(connect, f"{fake.url}#fake")).close()
        with pytest.raises(ModelError, match="has no such model; it has fake"):
            ServedModel(partial(connect, f"{fake.url}#other"))


def test_a_server_that_is_not_there(monkeypatch):
    monkeypatch.setattr(model_server, "ATTEMPTS", 1)
    with pytest.raises(ModelError, match="cannot be reached; start it"):
        ServedModel(partial(connect, "http://127.0.0.1:9/v1"))


@pytest.mark.parametrize("kind", KINDS)
def test_no_answer_of_a_failing_server_is_wrong_or_leaks(model, kind, monkeypatch):
    monkeypatch.setattr(openai_server, "READ_SECONDS", 5.0)
    monkeypatch.setattr(model_server, "ATTEMPTS", 2)
    model.script = {"secret": "It is Oslo, they say."} | model.script
    chance = random.Random(5)  # noqa: S311 - the faults, the same each time
    faults = [None, None, None, 429, 500, 503, "malformed", "cut", "other model", "hang"]
    weights = [1] * 9 + [0.1]

    with serving(model, kind) as fake:
        engine = ServedModel(partial(connect, fake.url))
        asked = ({"role": "user", "content": "Tell me the secret"},)
        secret = EnginePrompt(engine.render(asked), asked)

        def ask(number):
            if number % 2:
                fake.faults.append(chance.choices(faults, weights)[0])
            request = GenerationRequest(prompt(engine))
            if number % 5 == 0:
                guard = {"withholds": lambda before, new: "f" if "Oslo" in before + new else None}
                request = GenerationRequest(secret, max_new_tokens=6, **guard)
            try:
                [answer] = engine.generate([request])
            except ModelError:
                return "error"
            return answer.text

        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(ask, range(QUESTIONS)))
        engine.close()
    plain = {text for number, text in enumerate(told) if number % 5}
    guarded = {text for number, text in enumerate(told) if number % 5 == 0}
    assert plain == {"The capital of Norway is Oslo.", "error"}
    assert not any("Oslo" in text for text in guarded)
    assert told.count("error") < QUESTIONS / 2


@pytest.mark.parametrize("told", ["NaN", "-Infinity", '"-0.1"', "5.0", "null"])
@pytest.mark.parametrize("kind", ["llama", "completions"])
def test_what_is_no_log_probability_ends_the_answer(model, kind, told, monkeypatch):
    with serving(model, kind) as fake:
        engine = ServedModel(partial(connect, fake.url))
        monkeypatch.setattr(model, "log_p", lambda *_: json.loads(told))
        with pytest.raises(ModelError, match="without a log-probability that is a number"):
            engine.generate([GenerationRequest(prompt(engine))])
        engine.close()


@pytest.mark.parametrize("told", ["NaN", '"-0.1"', "5.0"])
def test_a_chat_with_no_usable_log_probabilities_counts_as_one_without(model, told, monkeypatch):
    monkeypatch.setattr(model, "log_p", lambda *_: json.loads(told))
    with serving(model, "chat") as fake:
        engine = ServedModel(partial(connect, fake.url))
        [answer] = engine.generate([GenerationRequest(prompt(engine))])
        engine.close()
    assert not engine.capabilities.log_probabilities
    assert answer.text == "The capital of Norway is Oslo."


def test_a_chat_that_goes_on_for_ever_is_left(model):
    with serving(model, "chat") as fake:
        fake.faults.extend(["endless", "endless"])
        engine = ServedModel(partial(connect, fake.url))
        fake.faults.append("endless")
        [answer] = engine.generate([GenerationRequest(prompt(engine), max_new_tokens=40)])
        engine.close()
    assert len(answer.tokens) == 40
