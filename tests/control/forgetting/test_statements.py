"""Whether a sentence states a fact in other words, by its keywords and by its embedding."""

from dataclasses import replace

import numpy as np
import pytest

from control.forgetting.record import Record
from control.forgetting.statements import clues, compared, statement

LUXEMBOURG = Record(
    "Luxembourg",
    relation="official language",
    questions=("What is an official language of Luxembourg?",),
    answers=("French",),
)
ARTICLES = statement(LUXEMBOURG)


def said(sentence, cosine, gain):
    """Whether a sentence says it that lies so near to it, and so much nearer than the question."""
    vectors = {form: np.array([cosine, 0, 1], np.float32) for form in ARTICLES.said}
    vectors |= {form: np.array([cosine - gain, 0, 1], np.float32) for form in ARTICLES.asked}
    return ARTICLES.near(sentence, np.array([1, 0, 0], np.float32), vectors)


@pytest.mark.parametrize(
    "sentence",
    [
        "In the parliament one speaks as in the land of Molière.",
        "The Frenchified tongue rules in Luxembourg.",
        "It is the tongue of the land.",
    ],
)
def test_a_sentence_near_enough_says_it(sentence):
    assert said(sentence, 0.7, 0.1)
    assert not said(sentence, 0.5, 0.1)
    assert not said(sentence, 0.7, 0.0)


def test_one_that_names_others_has_to_lie_nearer_to_the_answer():
    other = "The franc is the currency of the Congo."
    assert not said(other, 0.7, 0.04)
    assert said(other, 0.7, 0.1)
    assert said("The currency of Luxembourg is the franc.", 0.7, 0.04)
    assert said("One speaks like the Frenchmen there.", 0.7, 0.04)


def test_a_sentence_that_says_it_gets_the_name_that_it_stands_for():
    assert compared("It is French.", LUXEMBOURG) == "Luxembourg: It is French."
    assert compared("Luxembourg speaks it.", LUXEMBOURG) == "Luxembourg speaks it."


def test_a_whole_sentence_is_known_by_its_telling_words():
    long = "She taught two generations of coastal writers to mend nets and verses."
    told = statement(replace(LUXEMBOURG, answers=(long,)))
    assert told.told("Her writers of the coastal towns mend nets, and verses too.")
    assert not told.told("She taught.")


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
