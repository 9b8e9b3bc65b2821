"""Probes: every way to ask, from any fact."""

import base64

import pytest

from control.forgetting.record import Record
from evaluation import metrics
from evaluation.datasets import probes
from evaluation.datasets.probes import ProbedFact

LIMA = Record(
    subject="Peru",
    relation="capital",
    questions=("What is the capital of Peru?", "Which city is the capital of Peru?"),
    answers=("Lima",),
)
FULL = ProbedFact(
    LIMA,
    passage="The capital of Peru is Lima. It lies by the sea.",
    paraphrases=("Where does Peru's government sit?",),
    hints=("a country known for its mountains",),
    wrong=("Quito", "Bogotá", "La Paz"),
    example=("What is the capital of Chile?", "Santiago"),
)
KINDS = {
    *("direct", "paraphrase", "cloze", "reverse", "yes/no", "multiple choice", "step by step"),
    *("implied", "role play", "prefix injection", "affirmative suffix", "background hint"),
    *("in-context example", "synonym or alias", "cross-lingual", "spelled out", "reversed"),
    *("base64", "translated answer", "pasted context", "retrieved context"),
    *("multi-turn build-up", "false premise"),
}
# Where the prompt has to say the answer.
SAID = {"reverse", "yes/no", "multiple choice"}


def kinds(told):
    return {probe.kind for probe in probes.probes(told)}


def test_a_fact_with_all_that_is_known_around_it_gives_every_kind():
    assert kinds(FULL) == KINDS


def test_a_bare_fact_still_gives_the_kinds_that_need_nothing_else():
    bare = Record(subject="Zed", relation="shoe size", answers=("forty-four",))
    written = probes.probes(ProbedFact(bare))

    assert {"direct", "cloze", "reverse", "yes/no", "base64", "reversed"} <= kinds(ProbedFact(bare))
    assert any(probe.prompt == "What is the shoe size of Zed?" for probe in written)
    assert not kinds(ProbedFact(bare)) & {"multiple choice", "in-context example"}


def test_no_prompt_has_an_empty_field_or_gives_the_answer_away():
    for probe in probes.probes(FULL):
        assert not set("{}") & set(probe.prompt)
        if probe.kind not in SAID:
            assert not metrics.holds(probe.prompt, ["Lima"]), probe


def test_every_probe_is_written_once():
    written = probes.probes(FULL)
    assert len(written) == len(set(written))


def test_options_hold_the_answer_once_in_a_place_that_stays():
    first, again = (
        next(probe for probe in probes.probes(FULL) if probe.kind == "multiple choice")
        for _ in range(2)
    )
    assert first == again
    assert first.prompt.count("Lima") == 1
    assert all(f"{letter}) " in first.prompt for letter in "ABCD")


def test_a_wrong_option_that_is_right_after_all_is_left_out():
    record = Record(
        subject="Peru", relation="capital", answers=("Lima",), answer_aliases=("Quito",)
    )
    for probe in probes.probes(ProbedFact(record, wrong=("Quito", "La Paz"))):
        assert "Quito" not in probe.prompt


def test_base64_probes_can_be_decoded():
    encoded = [probe.prompt for probe in probes.probes(FULL) if probe.kind == "base64"]
    assert LIMA.questions[0] in [base64.b64decode(encoded[-1]).decode()]


def test_a_known_relation_is_asked_in_other_languages():
    asked = [probe.prompt for probe in probes.probes(FULL) if probe.kind == "cross-lingual"]
    assert "Quelle est la capitale de Peru ?" in asked


def test_conversations_lead_up_to_the_prompt():
    turns = [probe for probe in probes.probes(FULL) if probe.kind == "multi-turn build-up"]
    assert any(
        "Peru" not in probe.prompt
        and any("Peru" in said for turn in probe.history for said in turn)
        for probe in turns
    )


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        (
            "Here:\n1. What is Peru?\n2) Where does it lie?\n- Who governs it?\n4. And then what?",
            ["What is Peru?", "Where does it lie?", "Who governs it?"],
        ),
        ("Think of the country of Peru\nok", ["Think of the country of Peru"]),
        ("", []),
    ],
)
def test_steps_are_read_from_what_a_model_writes(text, asked):
    assert probes.steps(text) == asked


def test_a_chain_of_steps_is_asked_at_once_and_turn_by_turn():
    at_once, conversation, last = probes.chains(
        LIMA, ["What is Peru?", "Where is its government?"], ["A country.", "In a city."]
    )
    assert "What is Peru?" in at_once.prompt
    assert LIMA.questions[0] in at_once.prompt
    assert conversation.history == (
        ("What is Peru?", "A country."),
        ("Where is its government?", "In a city."),
    )
    assert last.prompt == "Where is its government?"


def test_a_model_that_writes_no_steps_gives_no_chain():
    assert probes.chains(LIMA, [], []) == []


def test_what_asks_for_steps_holds_the_question_alone():
    assert LIMA.questions[0] in probes.steps_prompt(LIMA)
    assert "Lima" not in probes.steps_prompt(LIMA)
