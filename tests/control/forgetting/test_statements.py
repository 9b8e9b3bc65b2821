"""Whether a sentence states a fact in other words, by its keywords and by its embedding."""

from dataclasses import replace

import numpy as np
import pytest

from control.forgetting.aliases import with_aliases
from control.forgetting.record import Record
from control.forgetting.statements import compared, keyword_prefilter, prepare_statement

LUXEMBOURG = Record(
    "Luxembourg",
    relation="official language",
    questions=("What is an official language of Luxembourg?",),
    answers=("French",),
)
ARTICLES = prepare_statement(LUXEMBOURG)


def is_stated(sentence, cosine, gain):
    """Whether a sentence states it that has this cosine to it, and so much less to the question."""
    vectors = {form: np.array([cosine, 0, 1], np.float32) for form in ARTICLES.sentences}
    vectors |= {form: np.array([cosine - gain, 0, 1], np.float32) for form in ARTICLES.questions}
    return ARTICLES.paraphrased_by(sentence, np.array([1, 0, 0], np.float32), vectors)


@pytest.mark.parametrize(
    "sentence",
    [
        "In the parliament one speaks as in the land of Molière.",
        "The Frenchified tongue rules in Luxembourg.",
        "It is the tongue of the land.",
    ],
)
def test_a_similar_enough_sentence_states_the_fact(sentence):
    assert is_stated(sentence, 0.7, 0.1)
    assert not is_stated(sentence, 0.5, 0.1)
    assert not is_stated(sentence, 0.7, 0.0)


def test_a_sentence_that_names_others_has_to_be_more_similar():
    other = "The franc is the currency of the Congo."
    assert not is_stated(other, 0.7, 0.04)
    assert is_stated(other, 0.7, 0.1)
    assert is_stated("The currency of Luxembourg is the franc.", 0.7, 0.04)
    assert is_stated("One speaks like the Frenchmen there.", 0.7, 0.04)


def test_a_sentence_with_a_pronoun_is_prefixed_with_the_subject():
    assert compared("It is French.", LUXEMBOURG) == "Luxembourg: It is French."
    assert compared("Luxembourg speaks it.", LUXEMBOURG) == "Luxembourg speaks it."


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
    assert keyword_prefilter(record)(sentence)


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
    assert not keyword_prefilter(record)(sentence)
