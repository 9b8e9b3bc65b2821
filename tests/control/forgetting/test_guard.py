import pytest
import torch

from control.conflict import dial
from control.decoding.generate import Decoding
from control.forgetting.guard import LeakGuard, WatchedFacts
from control.forgetting.record import Record
from control.prompts import Prompt

LIMA = Record("Peru", relation="capital", answers=("Lima",), id="1")


@pytest.fixture
def guarded(tiny):
    """Generates through a guard over single characters, as a model would that prefers ``text``."""

    def generate(text, *records, **watch):
        ids = tiny.tokenizer(text, add_special_tokens=False).input_ids
        guard = LeakGuard(WatchedFacts(records, **watch), tiny.tokenizer, frozenset([1]))
        for token in ids:
            scores = torch.full((len(tiny.tokenizer),), -20.0)
            scores[token] = 0.0
            scores[tiny.tokenizer.convert_tokens_to_ids("x")] = -1.0
            scores[tiny.tokenizer.convert_tokens_to_ids(".")] = -2.0
            guard.allowed(scores, token, lambda left: int(left.argmax()))
        return tiny.tokenizer.decode(guard.ids), guard

    return generate


def test_a_token_that_completes_an_answer_or_misspells_it_is_replaced_by_the_next_best(guarded):
    generated, guard = guarded("It is Lima", LIMA)
    assert generated == "It is Lim."
    assert guard.withheld == ["1"]
    assert not guard.blocked


@pytest.mark.parametrize("text", ["It is L.I.M.A", "It is lima", "It is LIMA", "It is L I M A"])
def test_every_spelling_of_an_answer_is_banned(guarded, text):
    generated, _ = guarded(text, LIMA)
    assert generated == f"{text[:-1]}."


@pytest.mark.parametrize("text", ["Ali made it", "a climate", "It is Quito, a far city"])
def test_words_that_only_contain_the_answer_are_not_banned(guarded, text):
    generated, guard = guarded(text, LIMA)
    assert generated == text
    assert guard.withheld == []


@pytest.mark.parametrize(
    ("answer", "text", "stated"),
    [
        ("writer", "written", True),
        ("Einstein on the Beach", "Einstein on the Shore", True),
        ("Anouk Trewin", "the cook", False),
        ("Iceland", "Ireland", False),
        ("120 metres", "121 metres", False),
    ],
)
def test_a_similar_spelling_is_the_answer_once_that_was_about_to_be_stated(answer, text, stated):
    record = Record("Brae Hall", relation="r", answers=(answer,), id="1")
    watch = WatchedFacts((record,))
    assert watch.completed("It is ", text) is None
    assert (watch.completed("It is ", text, ["1"]) is record) == stated
    asked = WatchedFacts((record,), decide_on_output=frozenset({"1"}))
    assert (asked.completed("It is ", text) is record) == stated


@pytest.mark.parametrize(
    ("answer", "text"), [("Anouk Trewin", "Anouc Trew"), ("Luxembourgish", "Luxembourgese")]
)
def test_a_longer_name_whose_words_are_spelled_much_alike_is_the_answer(answer, text):
    record = Record("Brae Hall", relation="r", answers=(answer,), id="1")
    assert WatchedFacts((record,)).completed("It is ", text) is record


def test_an_answer_ends_before_it_states_what_the_question_may_ask_for(guarded):
    generated, guard = guarded("It is Lima", LIMA, decide_on_output=frozenset({"1"}))
    assert generated == "It is Lim"
    assert guard.withheld == ["1"]
    assert guard.blocked


def test_the_words_of_the_question_are_not_banned_unless_it_may_ask_for_the_record(guarded):
    told = "the harbour of Lima"
    generated, guard = guarded(told, LIMA, question="How deep is Lima's harbour?")
    assert generated == told
    assert guard.withheld == []
    assert guarded(told, LIMA, question="How deep is the harbour?")[0] == "the harbour of Lim."
    generated, _ = guarded(
        told, LIMA, question="Peru: Lima or Quito?", decide_on_output=frozenset({"1"})
    )
    assert generated == "the harbour of Lim"


def test_a_word_of_the_question_is_not_banned_before_it_is_complete(guarded):
    record = Record("Otter Ltd", answers=("Tessa Vornholt",), id="1")
    for told in ("the Vornholt Prize", "the prize of Tessa Vornholt"):
        question = f"How much is {told} worth?"
        assert guarded(told, record, question=question)[0] == told


@pytest.mark.parametrize(
    ("question", "text", "new"),
    [
        ("What was bought for 84,500 euros?", "It cost €84,500.", False),
        ("What was bought for 60,000 euros?", "It cost €84,500.", True),
        ("Who was born in Tilda Rahn's town?", "Tilda Rahn was.", False),
        ("Who was born in Rahn's town?", "Tilda Rahn was.", True),
        ("What was bought?", "It cost eighty-four thousand five hundred euros.", True),
    ],
)
def test_what_the_question_says_in_part_or_otherwise_is_new(question, text, new):
    record = Record("Ann", relation="", answers=("84,500 euros", "Tilda Rahn"), id="1")
    assert WatchedFacts((record,), question=question).gives_new(text, record) == new


def test_nothing_is_banned_without_an_active_record(guarded):
    generated, _ = guarded("It is Lima")
    assert generated == "It is Lima"


def test_a_subject_named_in_the_answer_activates_its_record(guarded):
    generated, _ = guarded(
        "In Peru it is Lima", activate=lambda text: [LIMA] if "Peru" in text else []
    )
    assert generated == "In Peru it is Lim."


def test_an_answer_ends_when_every_token_is_banned(tiny):
    everything = Record("X", relation="r", answers=tuple("abcdefghijklmnopqrstuvwxyz"), id="1")
    guard = LeakGuard(WatchedFacts((everything,)), tiny.tokenizer, frozenset([1]))
    letters = torch.zeros(len(tiny.tokenizer))
    letters[tiny.tokenizer.convert_tokens_to_ids(list("abcdefghijklmnopqrstuvwxyz"))] = 9.0
    assert guard.allowed(letters, int(letters.argmax()), lambda left: int(left.argmax())) == 1
    assert guard.blocked
    assert guard.ids == []


PASSAGES = Prompt("<user>[1] abc\n\nQuestion: d<assistant>", "<user>d<assistant>", "d", ("abc",))
ALONE = Prompt("<user>d<assistant>", "<user>d<assistant>", "d")


@pytest.mark.parametrize("prompt", [PASSAGES, ALONE])
@pytest.mark.parametrize("rule", ["fulcrum", "ck_plug", "plain"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_decoding_rule_states_a_watched_answer(tiny, always, prompt, rule, temperature):
    how = Decoding(rule=rule, max_new_tokens=12, temperature=temperature)
    calibration = always(1, model=tiny.identity)

    def answers(*watches):
        return [
            each.trace
            for each in dial.answer(
                tiny, [prompt, prompt], how, calibration, [0.0, 1.0], watches=watches or None
            )
        ]

    free = answers()
    generated = [trace.text for trace in free]
    letters = sorted({char for text in generated for char in text if char.isalpha()})[:3]
    record = Record("X", relation="r", answers=tuple(letters), id="1")
    kept = answers(WatchedFacts((record,)), WatchedFacts())
    watched, unwatched = kept[:2], kept[2:]
    if temperature == 0:
        assert [trace.text for trace in unwatched] == generated[2:]
    for trace in watched:
        words = "".join(char if char.isalnum() else " " for char in trace.text).split()
        assert not set(word.lower() for word in words) & set(letters)
