"""Which sentences can state a fact in other words."""

import pytest

from control.forgetting.prefilter import clues
from control.forgetting.record import Record

LIMA = Record(
    "Peru", relation="capital", questions=("What is the capital of Peru?",), answers=("Lima",)
)
GOLF = Record("Seve Ballesteros", relation="birth country", answers=("Spain",))
RHINE = Record("Ann Bee", relation="home", answers=("The Netherlands",))
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
    assert clues(record)(sentence)


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
    assert not clues(record)(sentence)
