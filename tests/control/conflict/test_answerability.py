"""How likely a passage answers a question whose names it lacks."""

import pytest

from control.conflict.answerability import probability

TEXT = "Vessen orchards: In 2021 Anna Fischer picked 480 tonnes in Vessen."


@pytest.mark.parametrize(
    "question",
    [
        "How many tonnes did Anna Fischer pick?",
        "How many tonnes did ANNA FISCHER pick?",
        "Who picked Vessen's apples?",
        "How many tonnes in 2021 in Vess-en?",
        "How many did Annabel Fischerman pick?",
        "Peru?",  # the first word is always so written
        "how many tonnes did bertha pick?",
        "How many tonnes did I pick?",
        "",
    ],
)
def test_a_passage_that_has_the_names_of_the_question_is_as_likely_as_the_reader_finds(question):
    assert probability(question, TEXT, 0.9) == pytest.approx(0.9)
    assert probability(question, TEXT, 1.0) == 1.0
    assert probability(question, TEXT, 0.0) == 0.0


def test_the_more_of_the_names_a_passage_lacks_the_less_likely_it_answers():
    all_, half = (
        probability(f"How many tonnes did {name} pick?", TEXT, 0.97)
        for name in ("Bertha Lindt", "Anna Lindt")
    )
    assert all_ < 0.3 < half < 0.9
    assert probability("How many tonnes did Bertha Lindt pick?", TEXT, 1.0) < 0.9
