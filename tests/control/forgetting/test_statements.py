"""Whether a sentence can state a fact, by its words."""

from dataclasses import replace

import pytest

from control.forgetting.aliases import with_aliases
from control.forgetting.record import Record
from control.forgetting.statements import prepare_statement

LUXEMBOURG = Record(
    "Luxembourg",
    relation="official language",
    questions=("What is an official language of Luxembourg?",),
    answers=("French",),
)


def test_a_long_answer_is_recognised_by_its_key_words():
    long = "She taught two generations of coastal writers to mend nets and verses."
    long_answer = prepare_statement(replace(LUXEMBOURG, answers=(long,)))
    assert long_answer.has_key_words("Her writers of the coastal towns mend nets, and verses too.")
    assert not long_answer.has_key_words("She taught.")


LIMA = Record(
    "Peru", relation="capital", questions=("What is the capital of Peru?",), answers=("Lima",)
)
GOLF = Record("Seve Ballesteros", relation="birth country", answers=("Spain",))
RHINE = with_aliases(Record("Ann Bee", relation="home", answers=("The Netherlands",)))
HAMLET = Record(
    "Hamlet", relation="author", questions=("Who wrote Hamlet?",), answers=("William Shakespeare",)
)


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (LIMA, "Peru is governed from its capital."),
        (LIMA, "La capitale du Pérou, c'est elle."),
        (GOLF, "Seve Ballesteros was a Spanish golfer."),
        (RHINE, "Ann Bee is Dutch."),
        (HAMLET, "Shakespeare gave us Hamlet."),
        (HAMLET, "Hamlet was written around 1600."),
    ],
)
def test_a_sentence_with_a_word_of_the_fact_can_state_it(record, sentence):
    assert prepare_statement(record).possible(sentence)


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (LIMA, "Peru exports copper."),
        (LIMA, "In Peru there are many llamas."),
        (GOLF, "Seve Ballesteros won the Open in 1979."),
        (HAMLET, "Hamlet is a prince."),
        (HAMLET, ""),
    ],
)
def test_a_sentence_without_one_cannot(record, sentence):
    assert not prepare_statement(record).possible(sentence)
