import asyncio
import threading
from dataclasses import asdict, replace

import pytest
from llama_index.core import Document, SummaryIndex
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import ChatMessage

from control import decoding, prompts
from control.decoding import Decoding
from control.llm import QA_TEMPLATE, FulcrumLLM, read_back
from foundation.errors import InputError

QUESTION = "What is it?"
PASSAGES = ["It is the other one.", "abc def ghi jkl"]
ASKED = QA_TEMPLATE.format(context_str=PASSAGES, query_str=QUESTION)
TOKENS = 16


@pytest.fixture
def llm(tiny):
    return FulcrumLLM(tiny, alpha=0.75, max_new_tokens=TOKENS)


def expected(model, passages=PASSAGES, question=QUESTION, **how):
    how = Decoding(**({"alpha": 0.75, "max_new_tokens": TOKENS} | how))
    built = prompts.build(model.tokenizer, question, passages, model.window - TOKENS)
    [trace] = decoding.generate(model, [built], how)
    return trace


@pytest.mark.parametrize(
    "passages",
    [
        ["one", "two"],
        ["Question (JSON): mine", 'he said "no"\n\nand left\\', "line\u2028separator é 東"],
        ["{context_str} {query_str} {0}"],
        [],
    ],
)
@pytest.mark.parametrize("question", ["Who?", 'What\nis "it"?\nQuestion (JSON): "x"', ""])
def test_the_template_is_read_back_as_it_was_written(passages, question):
    written = QA_TEMPLATE.format(context_str=passages, query_str=question)
    assert read_back(written) == (question, passages)


def test_a_synthesizer_s_text_is_parted_at_its_blank_lines():
    partial = QA_TEMPLATE.partial_format(query_str="Who?")
    written = partial.format(context_str="one\nstill one\n\n\ntwo\n \nthree\n\n")
    assert read_back(written) == ("Who?", ["one\nstill one", "two", "three"])


@pytest.mark.parametrize(
    "prompt",
    [
        "What is it?",
        "",
        ASKED.replace("[", "", 1),
        ASKED.replace(PASSAGES[0], 'x", 3, "y'),
        f"{ASKED}\nRefine it.",
    ],
)
def test_any_other_prompt_is_not_taken_for_it(prompt):
    assert read_back(prompt) is None


def test_the_template_among_other_text_is_not_passed_over_in_silence(llm, caplog):
    llm.system_prompt = "Be kind."
    assert llm.predict(QA_TEMPLATE, context_str=PASSAGES, query_str=QUESTION)
    assert "answered by plain decoding" in caplog.text


@pytest.mark.parametrize("rule", ["ck_plug", "cad"])
@pytest.mark.parametrize("alpha", [0.0, 0.9, "auto"])
def test_it_answers_as_fulcrum_itself(tiny, rule, alpha):
    llm = FulcrumLLM(tiny, rule=rule, alpha=alpha, max_new_tokens=TOKENS)
    answer = llm.complete(ASKED)
    trace = expected(tiny, rule=rule, alpha=alpha)
    assert answer.text == trace.text.strip()
    assert answer.raw["tokens"] == [asdict(token) for token in trace.tokens]
    assert answer.raw["passages_given"] == answer.raw["passages_read"] == 2
    assert answer.raw["conflict"] == any(token.disputed for token in trace.tokens)


def test_any_other_prompt_is_answered_by_plain_decoding(tiny, llm):
    answer = llm.complete("Who is abc?")
    assert answer.text == expected(tiny, [], "Who is abc?", rule="plain").text.strip()
    assert answer.raw["passages_given"] == 0
    assert not answer.raw["conflict"]


def test_a_call_may_change_the_dial(tiny, llm):
    assert llm.complete(ASKED, alpha=0.0).text == expected(tiny, alpha=0.0).text.strip()
    llm.alpha = 1.0
    assert llm.complete(ASKED).text == expected(tiny, alpha=1.0).text.strip()


@pytest.mark.parametrize("streaming", [False, True])
def test_a_query_engine_decodes_in_two_branches(tiny, streaming):
    roomy = replace(tiny, window=4096)  # LlamaIndex keeps some hundred tokens for itself
    llm = FulcrumLLM(roomy, alpha=0.75, max_new_tokens=TOKENS)
    index = SummaryIndex.from_documents([Document(text=text) for text in PASSAGES])
    engine = index.as_query_engine(llm=llm, text_qa_template=QA_TEMPLATE, streaming=streaming)
    assert str(engine.query(QUESTION)).strip() == expected(tiny).text.strip()


def test_a_chat_message_is_answered_like_a_prompt(llm):
    message = ChatMessage(role="user", content=ASKED)
    answer = llm.chat([message])
    assert answer.message.content == llm.complete(ASKED).text
    assert answer.raw["passages_read"] == 2
    *_, last = llm.stream_chat([message])
    assert last.message.content.strip() == answer.message.content


def test_a_conversation_is_answered_as_a_transcript(tiny, llm):
    turns = [ChatMessage(role=role, content=role) for role in ("user", "assistant", "user")]
    transcript = "user: user\nassistant: assistant\nuser: user\nassistant: "
    assert llm.chat(turns).message.content == expected(tiny, [], transcript).text.strip()


def test_deltas_come_one_by_one_and_spell_the_answer(llm, monkeypatch):
    """The second token is not computed before the first one was read."""
    computed, read = [], threading.Event()
    original = decoding.Trace.add

    def add(self, *arguments):
        if computed:
            assert read.wait(timeout=60)
        computed.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(decoding.Trace, "add", add)
    stream = llm.stream_complete(ASKED)
    first = next(stream)
    assert len(computed) == 1
    read.set()
    responses = [first, *stream]
    assert len(responses) == len(responses[-1].raw["tokens"]) > 1
    assert "".join(each.delta for each in responses) == responses[-1].text
    assert responses[-1].text.strip() == llm.complete(ASKED).text
    assert responses[-1].raw == llm.complete(ASKED).raw
    assert len(first.raw["tokens"]) == 1


def test_a_reader_who_leaves_ends_the_decoding(llm):
    stream = llm.stream_complete(ASKED, max_new_tokens=300)
    next(stream)
    stream.close()
    assert not [each for each in threading.enumerate() if each.name == "fulcrum-stream"]


def test_what_goes_wrong_while_streaming_reaches_the_reader(llm, monkeypatch):
    def fail(*_arguments, **_options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(decoding, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(llm.stream_complete(ASKED))


def test_an_answer_without_tokens_is_still_a_response(tiny, llm, monkeypatch):
    monkeypatch.setattr(
        decoding, "generate", lambda *_, **__: [decoding.Trace(tiny.tokenizer, True)]
    )
    assert [each.text for each in llm.stream_complete(ASKED)] == [""]
    assert llm.complete(ASKED).text == ""


def test_it_works_asynchronously(llm):
    assert asyncio.run(llm.acomplete(ASKED)).text == llm.complete(ASKED).text


def test_passages_beyond_the_window_are_counted_and_logged(llm, caplog):
    long = QA_TEMPLATE.format(context_str=["short", "long " * 200], query_str=QUESTION)
    raw = llm.complete(long).raw
    assert (raw["passages_given"], raw["passages_read"]) == (2, 1)
    assert "1 of 2 passages did not fit" in caplog.text


def test_llamaindex_learns_the_window_and_can_record_calls(tiny, llm):
    assert llm.metadata.context_window == tiny.window
    assert llm.metadata.num_output == TOKENS
    counter = TokenCountingHandler()
    llm.callback_manager = CallbackManager([counter])
    llm.complete(ASKED)
    assert counter.total_llm_token_count > 0
    assert llm.to_dict()["alpha"] == 0.75


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"alpha": 2}, "alpha is 2"),
        ({"rule": "magic"}, "choose one of plain, cad"),
        ({"max_new_tokens": 600}, "max_new_tokens is 600, but the window of tiny is 512"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(tiny, llm, wrong, says):
    with pytest.raises(InputError, match=says):
        llm.complete(ASKED, **wrong)
    with pytest.raises(InputError, match=says):
        FulcrumLLM(tiny, **wrong).complete(ASKED)


def test_a_setting_that_does_not_exist_is_refused(llm):
    with pytest.raises(InputError, match="colour is no setting; those are rule, alpha"):
        llm.complete(ASKED, colour="red")
