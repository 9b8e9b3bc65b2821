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


QUESTION = "How many days do customers of Brindle & Oake have to send goods back?"
OWN = "Refunds: You have 45 days from the day on which the parcel came."
NAMING = (
    "About us: Brindle & Oake makes lamps in Harrowgate. Refunds are for our shop in Harrowgate."
)


def test_a_name_that_a_document_beside_gives_holds_for_one_that_does_not_say_whose_it_is():
    assert probability(QUESTION, OWN, 0.4) < 0.1
    assert probability(QUESTION, OWN, 0.4, [OWN, NAMING]) > 0.6
    assert probability(QUESTION, OWN, 0.4, [OWN, "Hours: Open from nine."]) < 0.1


@pytest.mark.parametrize(
    ("text", "inherits"),
    [
        ("Refunds: Marlow & Sons takes goods back for 30 days.", False),
        ("Refunds: Questions go to Anna Fischer. You have 30 days.", False),
        ("Refunds And Returns: You have 30 days. Refunds and returns are free.", True),
        ("Refunds: You have 30 days in Harrowgate.", True),
        ("Refunds: " + "You have 30 days. " * 12 + "Thank Anna Fischer for it.", True),
    ],
)
def test_a_document_that_begins_with_another_name_has_not_the_same_owner(text, inherits):
    alone, beside = probability(QUESTION, text, 0.4), probability(QUESTION, text, 0.4, [NAMING])
    assert (beside > 0.6) == inherits
    assert inherits or beside == alone
