import asyncio
import threading
from dataclasses import asdict, replace

import pytest
from llama_index.core import Document, SummaryIndex
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import ChatMessage

from app import factory
from control import prompts
from control.conflict import calibration as calibrations
from control.conflict import dial
from control.conflict.dial import DecodedAnswer
from control.decoding.generate import Decoding
from control.decoding.trace import Trace
from control.forgetting.ledger import open_ledger
from control.forgetting.questions import with_questions
from control.forgetting.record import Record
from control.forgetting.suppressor import REFUSALS
from control.llama_index import QA_TEMPLATE, FulcrumLLM, read_back
from foundation.errors import InputError

QUESTION = "What is it?"
PASSAGES = ["It is the other one.", "abc def ghi jkl"]
ASKED = QA_TEMPLATE.format(context_str=PASSAGES, query_str=QUESTION)
TOKENS = 16


@pytest.fixture(scope="module")
def calibration(always):
    """One by which memory wins every conflict from alpha 0.75 on."""
    return always(1, known=[0.4] * 4)


@pytest.fixture
def llm(tiny, calibration):
    return FulcrumLLM(tiny, alpha=0.75, max_new_tokens=TOKENS, calibration=calibration)


@pytest.fixture
def expected(tiny, calibration):
    """What Fulcrum itself answers."""

    def expected(passages=PASSAGES, question=QUESTION, **how):
        how = Decoding(**({"alpha": 0.75, "max_new_tokens": TOKENS} | how))
        built = prompts.build(tiny.tokenizer, question, passages, tiny.window - TOKENS)
        [decoded] = dial.answer(tiny, [built], how, calibration)
        return decoded

    return expected


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


def test_a_synthesizer_s_text_is_split_at_blank_lines():
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
def test_any_other_prompt_is_not_parsed_as_the_template(prompt):
    assert read_back(prompt) is None


def test_the_template_among_other_text_is_logged(llm, caplog):
    llm.system_prompt = "Be kind."
    assert llm.predict(QA_TEMPLATE, context_str=PASSAGES, query_str=QUESTION)
    assert "answered by plain decoding" in caplog.text


@pytest.mark.parametrize("rule", ["fulcrum", "ck_plug", "cad"])
@pytest.mark.parametrize("alpha", [0.0, 0.9, "auto"])
def test_it_answers_as_fulcrum_itself(tiny, calibration, expected, rule, alpha):
    llm = FulcrumLLM(tiny, rule, alpha, max_new_tokens=TOKENS, calibration=calibration)
    answer, decoded = llm.complete(ASKED), expected(rule=rule, alpha=alpha)
    assert answer.text == decoded.trace.text.strip()
    assert answer.raw["tokens"] == [asdict(token) for token in decoded.trace.tokens]
    assert answer.raw["passages_given"] == answer.raw["passages_read"] == 2
    assert answer.raw["conflict"] == decoded.conflict
    assert answer.raw["verdict"] == (asdict(decoded.verdict) if rule == "fulcrum" else None)


def test_any_other_prompt_is_answered_by_plain_decoding(llm, expected):
    answer = llm.complete("Who is abc?")
    assert answer.text == expected([], "Who is abc?", rule="plain").trace.text.strip()
    assert answer.raw["passages_given"] == 0
    assert not answer.raw["conflict"]
    assert answer.raw["verdict"] is None


def test_a_call_may_change_the_dial(llm, expected):
    zero, half, one = (expected(alpha=alpha).trace.text.strip() for alpha in (0.0, 0.5, 1.0))
    assert len({zero, half, one}) == 3
    assert llm.complete(ASKED, alpha=0.0).text == zero
    llm.alpha = 1.0
    assert llm.complete(ASKED).text == one
    assert llm.complete(ASKED, alpha=0.5).text == half


def test_a_reliance_sets_the_dial_and_a_call_s_alpha_overrides_it(tiny, calibration, expected):
    llm = FulcrumLLM(tiny, max_new_tokens=TOKENS, reliance=1.0, calibration=calibration)
    half, one = (expected(alpha=alpha).trace.text.strip() for alpha in (0.5, 1.0))
    assert llm.complete(ASKED).text == one
    assert llm.complete(ASKED, alpha=0.5).text == half
    assert llm.complete(ASKED, alpha=0.5, reliance=0.9).text == one
    assert llm.to_dict()["reliance"] == 1.0


@pytest.mark.parametrize("streaming", [False, True])
def test_a_query_engine_decodes_in_two_branches(tiny, calibration, expected, streaming):
    roomy = replace(tiny, window=4096)  # LlamaIndex keeps some hundred tokens for itself
    llm = FulcrumLLM(roomy, alpha=0.75, max_new_tokens=TOKENS, calibration=calibration)
    index = SummaryIndex.from_documents([Document(text=text) for text in PASSAGES])
    engine = index.as_query_engine(llm=llm, text_qa_template=QA_TEMPLATE, streaming=streaming)
    assert str(engine.query(QUESTION)).strip() == expected().trace.text.strip()


def test_a_chat_message_is_answered_like_a_prompt(llm):
    message = ChatMessage(role="user", content=ASKED)
    answer = llm.chat([message])
    assert answer.message.content == llm.complete(ASKED).text
    assert answer.raw["passages_read"] == 2
    *_, last = llm.stream_chat([message])
    assert last.message.content.strip() == answer.message.content


def test_a_conversation_is_answered_as_a_transcript(llm, expected):
    turns = [ChatMessage(role=role, content=role) for role in ("user", "assistant", "user")]
    transcript = "user: user\nassistant: assistant\nuser: user\nassistant: "
    alone = expected([], transcript.strip()).trace.text.strip()
    assert llm.chat(turns).message.content == alone


@pytest.mark.parametrize("rule", ["fulcrum", "ck_plug"])
def test_deltas_come_one_by_one_and_spell_the_answer(llm, monkeypatch, rule):
    """The second token is not handed over before the first one was read."""
    computed, read = [], threading.Event()
    original = Trace.add

    def add(self, *arguments):
        if computed:
            assert read.wait(timeout=60)
        computed.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(Trace, "add", add)
    llm.rule = rule
    stream = llm.stream_complete(ASKED)
    first = next(stream)
    assert len(computed) == 1
    read.set()
    *responses, last = [first, *stream]
    assert len(responses) == len(last.raw["tokens"]) > 1
    assert "".join(each.delta for each in [*responses, last]) == last.text
    assert last.text.strip() == llm.complete(ASKED).text
    assert last.raw == llm.complete(ASKED).raw
    assert len(first.raw["tokens"]) == 1
    assert {each.raw["conflict"] for each in responses} == {None}


def test_closing_the_stream_ends_the_decoding(llm):
    stream = llm.stream_complete(ASKED, max_new_tokens=300)
    next(stream)
    stream.close()
    assert not [each for each in threading.enumerate() if each.name == "fulcrum-stream"]


def test_an_error_while_streaming_is_raised_to_the_reader(llm, monkeypatch):
    def fail(*_arguments, **_options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(dial, "answer", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(llm.stream_complete(ASKED))


def test_an_answer_without_tokens_is_still_a_response(tiny, llm, monkeypatch):
    empty = DecodedAnswer(Trace(tiny.tokenizer, True), conflict=False, verdict=None)
    monkeypatch.setattr(dial, "answer", lambda *_, **__: [empty])
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
        ({"rule": "magic"}, "choose one of fulcrum, plain, cad"),
        ({"reliance": 2}, "reliance is 2"),
        ({"reliance": 0.5, "rule": "cad"}, "measured for rule fulcrum"),
        ({"max_new_tokens": 600}, "max_new_tokens is 600, but the window of tiny is 512"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(tiny, llm, calibration, wrong, says):
    with pytest.raises(InputError, match=says):
        llm.complete(ASKED, **wrong)
    with pytest.raises(InputError, match=says):
        FulcrumLLM(tiny, **wrong, calibration=calibration).complete(ASKED)


def test_a_setting_that_does_not_exist_is_refused(llm):
    with pytest.raises(InputError, match="colour is no setting; those are rule, alpha"):
        llm.complete(ASKED, colour="red")


def test_a_forgotten_fact_is_refused_and_reported_at_the_end(real, tmp_path):
    suppressor = factory.fact_suppressor(open_ledger(tmp_path))
    [kept] = suppressor.ledger.add(
        [with_questions(Record("Peru", relation="capital", answers=("Lima",)))]
    )
    llm = FulcrumLLM(real, max_new_tokens=16, forgetting=suppressor)
    passages = ["Lima is the capital of Peru.", "Peru is high and long."]
    asked = QA_TEMPLATE.format(context_str=passages, query_str="What is the capital of Peru?")
    *_, streamed = llm.stream_complete(asked)
    for answer in (llm.complete(asked), llm.complete("What is the capital of Peru?"), streamed):
        assert answer.text in REFUSALS
        assert answer.raw["tokens"] == []
        assert {each["id"] for each in answer.raw["forgotten"]} == {kept.id}
    high = QA_TEMPLATE.format(context_str=passages, query_str="What is Peru like?")
    assert "lima" not in str(llm.complete(high)).lower()
    suppressor.ledger.remove(kept.id)
    assert "Lima" in llm.complete(asked).text


def test_without_a_calibration_it_takes_the_one_that_is_shipped(real):
    asked = QA_TEMPLATE.format(
        context_str=["Quito is the capital of Peru."], query_str="What is the capital of Peru?"
    )
    how = {"alpha": 1.0, "max_new_tokens": 16}
    own = FulcrumLLM(real, **how, calibration=calibrations.shipped(real))
    assert FulcrumLLM(real, **how).complete(asked).raw == own.complete(asked).raw
