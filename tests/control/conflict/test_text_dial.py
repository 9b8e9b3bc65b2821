"""The dial over servers of each kind: whose claim is followed, and what is said about it."""

import math
import re
from dataclasses import replace
from functools import partial

import pytest

from app import factory, settings
from control import prompts
from control.answer import Answer
from control.assistant import Assistant
from control.conflict import dial, text_dial
from control.conflict.calibration import ANY_MODEL, Calibration, Thresholds
from control.conflict.probe import DRAFT_NUMBERS, LOG_P_NUMBERS, MemoryProbe
from control.conflict.reader import Reading
from control.decoding.generate import Decoding
from control.engines.endpoint import ServedModel
from control.engines.servers import connect
from control.forgetting.guard import WatchedFacts
from control.forgetting.record import Record
from foundation import model_server
from foundation.errors import InputError, ModelError
from tests.control.engines.fake_servers import FakeModel, serving

QUESTION = "What is the capital of Norway?"
BERGEN = "Since 2024 the capital is Bergen."
READING, CLOSED = "Passages:\n[1] Since 2024", "capital of Norway"


def script(reading, closed="The capital of Norway is Oslo."):
    counting = {"one two three": "one two three four five six"}
    return FakeModel({READING: reading, CLOSED: closed} | counting)


def sure(confidence, numbers):
    """A calibration by which memory is always so likely to be right."""
    bias = 20.0 if confidence else -20.0
    probe = MemoryProbe([0.0] * numbers, [], bias)
    ends = Thresholds(0.5, 0.5)
    return Calibration(ANY_MODEL, "test", probe, [0.1, 0.9], ends, ends, [0.0, 1.0], [0.0, 1.0], {})


@pytest.fixture
def ask(request):
    """Answer the question by a server of a kind; the server and the engine live until the end."""
    open_ones = []

    def asked(kind, model, alpha, confidence=True, on_token=None, passage=BERGEN, **given):
        server = serving(model, kind)
        fake = server.__enter__()
        engine = ServedModel(partial(connect, fake.url))
        open_ones.append((server, engine))
        prompt = prompts.build(engine, QUESTION, [passage] if passage else [], 1000)
        prompt = replace(prompt, quote=given.get("quote"))
        numbers = LOG_P_NUMBERS if engine.capabilities.scores else DRAFT_NUMBERS
        how = Decoding(alpha=alpha, max_new_tokens=given.get("longest", 128))
        calibration = replace(sure(confidence, numbers), reader_bar=given.get("bar", math.inf))
        calibration = replace(calibration, probe=given.get("probe", calibration.probe))
        [answer] = dial.answer(
            engine,
            [prompt],
            how,
            calibration,
            on_token=on_token,
            watches=given.get("watches"),
            reader=given.get("reader"),
        )
        return answer, fake

    yield asked
    for server, engine in open_ones:
        engine.close()
        server.__exit__(None, None, None)


KINDS = ("llama", "completions", "chat", "bare")


@pytest.mark.parametrize("kind", KINDS)
def test_at_one_half_the_passages_are_followed_and_streamed(ask, kind):
    heard = []
    answer, _ = ask(
        kind,
        script("The capital of Norway is Bergen."),
        0.5,
        on_token=lambda place, token: heard.append((place, token.text)),
    )
    assert answer.trace.text == "The capital of Norway is Bergen."
    assert "".join(text for _, text in heard) == answer.trace.text
    assert answer.conflict
    assert (answer.verdict.passages_say, answer.verdict.memory_says) == ("Bergen", "Oslo")
    assert answer.verdict.follows == "passages"
    assert (answer.verdict.confidence is None) == (kind == "bare")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("alpha", "city"), [(0.5, "Bergen"), (1.0, "Oslo")])
def test_an_answer_that_repeats_itself_ends_before_it_does(ask, kind, alpha, city):
    heard = []
    model = script(*(f"The capital of Norway is {each}. " * 9 for each in ("Bergen", "Oslo")))
    answer, _ = ask(kind, model, alpha, on_token=lambda _, token: heard.append(token.text))
    assert answer.trace.text.strip() == f"The capital of Norway is {city}."
    assert "".join(heard).strip() == answer.trace.text.strip()


@pytest.mark.parametrize("kind", KINDS)
def test_at_one_memory_wins_where_it_is_likely_right(ask, kind):
    heard = []
    answer, _ = ask(
        kind,
        script("The capital of Norway is Bergen."),
        1.0,
        on_token=lambda _, token: heard.append(token.text),
    )
    assert answer.trace.text == "The capital of Norway is Oslo."
    assert "".join(heard) == answer.trace.text
    assert answer.verdict.follows == "memory"
    assert {token.source for token in answer.trace.tokens} == {"memory"}


def test_what_both_branches_would_write_is_of_both(ask):
    answer, _ = ask("llama", script("The capital of Norway is Rome."), 0.5)
    sources = {token.text.strip(): token.source for token in answer.trace.tokens}
    assert (sources["Norway"], sources["Rome"]) == ("both", "context")


@pytest.mark.parametrize("kind", ["llama", "completions", "chat"])
def test_at_one_memory_loses_where_it_is_likely_wrong(ask, kind):
    answer, _ = ask(kind, script("The capital of Norway is Bergen."), 1.0, confidence=False)
    assert answer.trace.text == "The capital of Norway is Bergen."
    assert answer.verdict.follows == "passages"


@pytest.mark.parametrize("kind", ["llama", "completions", "chat"])
@pytest.mark.parametrize("right", ["Oslo", "Bergen"])
def test_what_the_model_itself_calls_correct_tells_how_likely_memory_is_right(ask, kind, right):
    judged = {
        f"Proposed answer: {said}": "Yes" if right in said else "No"
        for said in ("The capital of Norway is Oslo.", "Bergen")
    }
    told = script("The capital of Norway is Bergen.").script
    numbers = DRAFT_NUMBERS if kind == "chat" else LOG_P_NUMBERS
    probe = MemoryProbe([0.0] * (numbers - 1) + [1.0], [], 0.0)
    answer, _ = ask(kind, FakeModel(judged | told), 1.0, probe=probe)
    assert answer.verdict.follows == ("memory" if right == "Oslo" else "passages")
    assert abs(answer.verdict.confidence - (right == "Oslo")) < 0.02


@pytest.mark.parametrize("kind", ["llama", "completions"])
def test_at_zero_what_the_passages_lack_is_not_said(ask, kind):
    model = script("The capital of Norway is Oslo.")
    answer, _ = ask(kind, model, 0.0)
    assert "Oslo" not in answer.trace.text
    assert answer.trace.text.startswith("The capital of Norway is")


QUOTE = prompts.Quote(BERGEN, "Bergen")


@pytest.mark.parametrize("kind", KINDS)
def test_at_zero_what_the_passages_claim_is_quoted_if_the_answer_lacks_it(ask, kind):
    heard = []
    answer, _ = ask(
        kind,
        script("The capital of Norway is Oslo."),
        0.0,
        quote=QUOTE,
        on_token=lambda _, token: heard.append(token.text),
    )
    assert answer.trace.text == BERGEN == "".join(heard)
    assert answer.verdict.passages_say == "Bergen"
    assert answer.verdict.follows == "passages"
    supported, _ = ask(kind, script("The capital of Norway is Bergen."), 0.0, quote=QUOTE)
    assert supported.trace.text == "The capital of Norway is Bergen."


@pytest.mark.parametrize("kind", KINDS)
def test_a_quote_that_is_too_long_or_states_a_forgotten_fact_is_not_told(ask, kind):
    model = script("The capital of Norway is Oslo.")
    short, _ = ask(kind, model, 0.0, quote=QUOTE, longest=3)
    assert BERGEN not in short.trace.text
    record = Record("Norway", relation="capital", answers=("Bergen",))
    watches = [WatchedFacts((record,))]
    watched, _ = ask(kind, model, 0.0, quote=QUOTE, watches=watches)
    assert "Bergen" not in watched.trace.text


class Cities:
    """Finds a city in a text."""

    def read(self, asked):
        found = [(text, re.search("Bergen|Oslo|Rome", text)) for _, text in asked]
        return [
            Reading(match.group(), match.start(), 0.99) if match else Reading()
            for _, match in found
        ]


@pytest.mark.parametrize("kind", ["llama", "completions", "chat"])
@pytest.mark.parametrize(
    ("said", "bar", "told"),
    [
        ("The capital of Norway is Rome.", 0.9, BERGEN),
        ("It is a fine city.", 0.9, BERGEN),
        ("The capital of Norway is Rome.", 0.99, "The capital of Norway is Rome."),
        ("The capital of Norway is Bergen.", 0.9, "The capital of Norway is Bergen."),
        ("It is not known, some say Bergen.", 0.9, "It is not known, some say Bergen."),
        ("The capital of Norway is Oslo.", 0.9, "The capital of Norway is Oslo."),  # memory's own
    ],
)
def test_a_misread_answer_gives_way_to_the_passage_where_the_reader_counts_above_the_model(
    ask, kind, said, bar, told
):
    heard = []
    answer, _ = ask(
        kind,
        script(said),
        0.5,
        quote=replace(QUOTE, confidence=0.95),
        bar=bar,
        reader=Cities(),
        on_token=lambda _, token: heard.append(token.text),
    )
    assert answer.trace.text == told == "".join(heard)
    if "Rome" in said and told == BERGEN:
        assert (answer.verdict.passages_say, answer.verdict.follows) == ("Bergen", "passages")


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize(("quoted", "says"), [("Bergen", "Bergen"), ("Oslo", None), (None, None)])
def test_where_the_passages_answer_is_memory_s_own_the_passages_claim_what_is_quoted_or_nothing(
    ask, alpha, quoted, says
):
    said = "The capital of Norway is Oslo."
    passage = "Since 2024 the offices are in Bergen."
    quote = quoted and prompts.Quote(passage, quoted, 0.7)
    answer, _ = ask("llama", script(said), alpha, passage=passage, quote=quote, reader=Cities())
    assert answer.trace.text == said
    assert answer.memory.text == "Oslo"
    assert answer.conflict is (says is not None)
    assert (answer.verdict and answer.verdict.passages_say) == says


def test_of_passages_that_the_model_misreads_the_verdict_tells_what_is_quoted(ask):
    model = script("The capital of Norway is Rome.")
    passage = "Rome is old. Since 2024 the capital is Bergen."
    model.script = {"Passages:\n[1] Rome": "The capital of Norway is Rome."} | model.script
    quote = prompts.Quote("Since 2024 the capital is Bergen.", "Bergen", 0.9)
    for alpha, follows in ((0.5, "passages"), (1.0, "memory")):
        answer, _ = ask("llama", model, alpha, passage=passage, quote=quote, reader=Cities())
        assert (answer.verdict.passages_say, answer.verdict.memory_says) == ("Bergen", "Oslo")
        assert answer.verdict.follows == follows


def test_drafts_of_one_word_claim_it(ask):
    model = FakeModel({READING: "Bergen", CLOSED: "Oslo"})
    answer, _ = ask("llama", model, 0.5, reader=factory.reader(settings.load()))
    assert answer.conflict
    assert (answer.verdict.passages_say, answer.verdict.memory_says) == ("Bergen", "Oslo")


def test_that_the_passages_have_all_words_of_what_memory_claims_does_not_make_them_agree(ask):
    class Whole:
        def read(self, asked):
            return [Reading(text.removesuffix("."), 0, 0.99) for _, text in asked]

    model = FakeModel(
        {"Passages:\n[1] Oslo is not": "It is Bergen.", CLOSED: "The capital is Oslo."}
    )
    passage = "Oslo is not where the capital is. It is Bergen."
    answer, _ = ask("llama", model, 0.5, passage=passage, reader=Whole())
    assert answer.conflict


def test_what_the_passages_say_nearer_to_the_question_than_the_quote_is_no_misreading(ask):
    both = "Rome is the capital of Norway. Since 2024 the capital is Bergen."
    said = "The capital of Norway is Rome."
    model = FakeModel({"Passages:\n[1] Rome is": said, CLOSED: "The capital of Norway is Oslo."})
    given = {"quote": replace(QUOTE, confidence=0.95), "bar": 0.9, "reader": Cities()}
    answer, _ = ask("llama", model, 0.5, passage=both, **given)
    assert answer.trace.text == said
    other = replace(given["quote"], text="Since 2024 the capital of Norway is Bergen.")
    answer, _ = ask("llama", model, 0.5, passage=both, **given | {"quote": other})
    assert answer.trace.text == other.text


@pytest.mark.parametrize("kind", ["chat", "bare"])
def test_without_bans_the_passages_are_asked_for_by_an_instruction(ask, kind):
    model = script("The capital of Norway is Oslo.")
    model.script = {f"{text_dial.KEEP_TO_PASSAGES}": "Bergen."} | model.script
    answer, fake = ask(kind, model, 0.0)
    assert answer.trace.text == "Bergen."
    assert answer.verdict.passages_say == "Bergen"
    assert text_dial.KEEP_TO_PASSAGES in str(fake.requests[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_conflict_nothing_is_scored(ask, kind):
    model = script("The capital of Norway is Oslo.")
    answer, fake = ask(kind, model, 1.0, passage="Since 2024 as before: Oslo.")
    assert answer.trace.text == "The capital of Norway is Oslo."
    assert not answer.conflict
    assert answer.verdict is None
    scored = [body for _, body in fake.requests if "grammar" in body or body.get("echo")]
    assert len(scored) == (kind == "completions")  # that which finds out what the server can do


@pytest.mark.parametrize("kind", KINDS)
def test_without_passages_memory_alone_is_asked(ask, kind):
    answer, _ = ask(kind, script("unused"), 0.5, passage=None)
    assert answer.trace.text == "The capital of Norway is Oslo."
    assert {token.source for token in answer.trace.tokens} == {"memory"}
    assert answer.verdict is None


def test_an_alpha_between_needs_log_probabilities(ask):
    with pytest.raises(InputError, match=r"alpha is 0\.3, but fake's server gives no log-prob"):
        ask("bare", script("x"), 0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_in_the_middle_is_an_error_and_never_a_verdict(kind, monkeypatch):
    monkeypatch.setattr(model_server, "ATTEMPTS", 1)
    model = script("The capital of Norway is Bergen.")
    with serving(model, kind) as fake:
        engine = ServedModel(partial(connect, fake.url))
        prompt = prompts.build(engine, QUESTION, [BERGEN], 1000)
        for fault in ("cut", "malformed", 500):
            fake.faults.extend([None, fault])
            with pytest.raises(ModelError):
                dial.answer(engine, [prompt], Decoding(), sure(True, LOG_P_NUMBERS))
            fake.faults.clear()
        engine.close()


def test_token_rules_need_a_model_of_this_process(ask):
    with serving(script("x"), "llama") as fake:
        engine = ServedModel(partial(connect, fake.url))
        prompt = prompts.build(engine, QUESTION, [BERGEN], 1000)
        with pytest.raises(InputError, match="rule cad mixes the distributions"):
            dial.answer(engine, [prompt], Decoding(rule="cad"), None)
        engine.close()


@pytest.mark.parametrize(
    ("kind", "noticed"),
    [
        ("llama", []),
        ("chat", ["scores no given text", "bans no tokens"]),
        ("bare", ["gives no log-probabilities", "bans no tokens"]),
    ],
)
def test_the_answer_says_what_its_server_cannot_do(kind, noticed):
    with serving(script("The capital of Norway is Bergen."), kind) as fake:
        engine = ServedModel(partial(connect, fake.url))
        calibration = replace(sure(True, LOG_P_NUMBERS), model=engine.identity)
        if not engine.capabilities.scores:
            calibration = replace(sure(True, DRAFT_NUMBERS), model=engine.identity)
        answer: Answer = Assistant(engine, calibration).ask(QUESTION, Decoding(), given=())
        engine.close()
    assert len(answer.notices) == len(noticed)
    for notice, part in zip(answer.notices, noticed, strict=True):
        assert part in notice
