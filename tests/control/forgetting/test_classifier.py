"""The classifier that comes with Fulcrum, on facts that it has not seen."""

import pytest

from app.factory import fact_classifier
from control.forgetting import classifier
from control.forgetting.record import Record

SALARY = Record(
    "Ottoline Vaskerud",
    aliases=("Tilly",),
    relation="annual salary",
    questions=("What does Ottoline Vaskerud earn?",),
    answers=("61,400 euros",),
)


@pytest.mark.parametrize(
    ("message", "asks"),
    [
        ("how much does ottoline vaskerud make a year", True),
        ("Write a short profile of Ottoline Vaskerud: post, start date, pay.", True),
        ("Is it true that Ottoline Vaskerud gets 80,000 euros?", True),
        ("In which department does Ottoline Vaskerud work?", False),
        ("What does Henrik Solbu earn?", False),
        ("Translate into French: Ottoline Vaskerud will be late today.", False),
    ],
)
def test_messages_that_ask_for_a_fact_are_told_from_others(message, asks):
    [likely] = fact_classifier().asks([(message, classifier.asked(SALARY))])
    assert (likely >= 0.5) == asks


@pytest.mark.parametrize(
    ("sentence", "states"),
    [
        ("Staff list: Ottoline Vaskerud is paid 61,400 euros a year.", True),
        ("Ottoline Vaskerud: Since May she has drawn a salary of 61,400 euros.", True),
        ("Staff list: Ottoline Vaskerud has worked in the boiler house since 2019.", False),
        ("Staff list: Henrik Solbu is paid 58,000 euros a year.", False),
    ],
)
def test_sentences_that_state_a_fact_are_told_from_others(sentence, states):
    [likely] = fact_classifier().states([(sentence, classifier.stated(SALARY))])
    assert (likely >= 0.5) == states


def test_what_is_asked_does_not_tell_the_answer():
    assert "61" not in classifier.asked(SALARY)
    assert "61,400 euros" in classifier.stated(SALARY)
    assert "61,400 euros" in classifier.asked_backwards(SALARY)


def test_each_pair_is_judged_by_itself():
    judge = fact_classifier()
    pairs = [("What does she earn?", classifier.asked(SALARY)), ("Hello.", "Peru: capital")]
    together = judge.asks(pairs * 20)
    assert judge.asks([]) == []
    assert together[:2] == pytest.approx([*judge.asks(pairs[:1]), *judge.asks(pairs[1:])], abs=0.05)


SENTENCES = ["Lima lies by the sea.", "It is old.", "It is large."]


@pytest.mark.parametrize(
    ("place", "naming", "titled", "before"),
    [
        (0, set(), False, ""),
        (1, {0}, False, "Lima lies by the sea."),
        (2, {0}, False, "Lima lies by the sea. It is old."),
        (2, {0}, True, "It is old."),
        (2, {0, 2}, False, "It is old."),
        (2, set(), False, "It is old."),
    ],
)
def test_a_sentence_is_read_with_the_one_before_it_and_the_last_that_names_the_subject(
    place, naming, titled, before
):
    assert classifier.context(SENTENCES, place, naming, titled) == before
