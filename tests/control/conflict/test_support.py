"""Which passages support a sentence, by the packaged encoder."""

import pytest

from app import factory

STAFF = """Staff 2026
Name: Anna Klein; Role: bookkeeper; Salary: 52,400; Office: 3.14
Name: Boris Marek; Role: driver; Salary: 38,900; Office: 1.02
Name: Cora Dietz; Role: lab lead; Salary: 72,650; Office: 2.20"""
PROSE = "The depot in Lorn was opened in 1998. It has room for forty buses."


def cited(answer):
    citations = factory.support().cite(answer, [("staff", STAFF), ("depot", PROSE)])
    return [list(each.passages) for each in citations]


@pytest.mark.parametrize(
    ("answer", "passages"),
    [
        ("The salary of Cora Dietz is 72,650.", [["staff"]]),
        ("Cora Dietz earns 72,650 euros.", [["staff"]]),
        ("The salary of Cora Dietz is 52,400.", [[]]),  # another row's
        ("The office of Boris Marek is 2.20.", [[]]),
        ("The salary of Fritz Lang is 72,650.", [[]]),  # no such row
        ("The depot was opened in 1998. The lab lead is Cora Dietz.", [["depot"], ["staff"]]),
        ("The depot was opened in 1989.", [[]]),
        ("Name: Cora Dietz; Role: lab lead; Salary: 72,650; Office: 2.20", [["staff"]]),
    ],
)
def test_a_sentence_is_cited_by_the_passage_or_the_row_that_states_it(answer, passages):
    assert cited(answer) == passages


def test_a_passage_without_words_supports_nothing():
    [citation] = factory.support().cite("The depot was opened in 1998.", [("empty", "")])
    assert citation.passages == ()


TEXT = """Codes of the press
Code: 7; Meaning: The disk is full
Code: 8; Meaning: The lid is open

Nobody says that the lid is always open. The fee is 5.20 crowns, or 5 with a pass."""


@pytest.mark.parametrize(
    ("answer", "quoted"),
    [
        ("code: 7; meaning: the disk is full", True),
        ("\u201cThe fee is 5.20 crowns.\u201d", True),
        ("The lid is always open.", False),  # nobody says so
        ("The fee is 5.", False),
        ("The fee is 5:20 crowns.", False),
    ],
)
def test_a_sentence_that_stands_word_for_word_in_a_passage_is_cited_whatever_the_encoder_tells(
    monkeypatch, answer, quoted
):
    support = factory.support()
    monkeypatch.setattr(support, "probabilities", lambda pairs: [0.0] * len(pairs))
    [citation] = support.cite(answer, [("staff", STAFF), ("codes", TEXT)])
    assert list(citation.passages) == (["codes"] if quoted else [])


NOTES = """The pond was dug on 3 May 1911. One may skate there from December on.
Elias Thorn keeps the keys, and at first 30 members were allowed. It is 1,500 mm deep.
The gate is locked at 9:30 pm."""


@pytest.mark.parametrize(
    ("said", "supported"),
    [
        ("The pond dates from 1911, and one can skate on it.", True),
        ("First of all, the keys are with Mr Elias Thorn.", True),
        ("Its depth is 1500 mm.", True),
        ("The gate closes at 21:30.", True),
        ("The gate closes at 21:45.", False),
        ("Its depth is 1500 m.", False),
        ("It was dug on 4 May 1911.", False),
        ("The pond was dug in 1813.", False),
        ("Mr Jonas Thorn keeps the keys.", False),
        ("At first forty members were allowed.", False),
    ],
)
def test_what_lacks_a_date_a_number_or_a_name_does_not_support_it(monkeypatch, said, supported):
    support = factory.support()
    monkeypatch.setattr(support, "probabilities", lambda pairs: [1.0] * len(pairs))
    [citation] = support.cite(said, [("notes", f"The pond: {NOTES}")])
    assert bool(citation.passages) is supported
