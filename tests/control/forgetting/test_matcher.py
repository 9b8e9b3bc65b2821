"""The answers of records in texts: in part, misspelled, and in other notations."""

import pytest

from control.forgetting.matcher import answer_phrases, find_answers
from control.forgetting.record import Record


def given(answer, text, subject="Hamlet"):
    return bool(find_answers(text, Record(subject, relation="author", answers=(answer,))))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("William Shakespeare", "It was written by Shakespeare."),
        ("William Shakespeare", "It was written by William Shakespear"),
        ("Leonardo da Vinci", "the artist da Vinci"),
        ("Leonardo da Vinci", "Leonardo da."),
        ("Canberra", "the bush capital, C*nberra"),
        ("Canberra", "Canberr"),
        ("120 metres", "It is 394 feet high."),
        ("120 metres", "0.12 km"),
        ("120 metres", "It is 120."),
        ("85,000 euros", "She earns €85k a year."),
        ("85,000 euros", "eighty-five thousand euros"),
        ("3 March 1987", "| Roe | 03/03/87 |"),
        ("3 March 1987", "on the third of March 1987"),
    ],
)
def test_an_answer_is_found_in_part_and_in_other_notations(answer, text):
    assert given(answer, text)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("William Shakespeare", "William was a playwright."),
        ("Mexico City", "It is a large city."),
        ("Lima", "There is no limit."),
        ("Canberra", "It lies in Canada."),
        ("120 metres", "It is 121 m high."),
        ("120 metres", "between 100 and 150 m"),
        ("120 metres", "120 people came."),
        ("85,000 euros", "86,000 euros"),
        ("3 March 1987", "on 4 March 1987"),
        ("3 March 1987", "in March 1987"),
        ("3 March 1987", "in 1987"),
    ],
)
def test_another_value_is_not_the_answer(answer, text):
    assert not given(answer, text)


def test_the_name_of_the_subject_is_no_part_of_the_answer():
    assert not given("Ann Merrow", "Merrow Hall is old.", subject="Merrow Hall")


def test_of_a_value_and_of_a_long_answer_no_phrase_is_searched_for():
    for answer in ("120 metres", "She taught two generations of coastal writers to sail"):
        assert answer_phrases(Record("Roe", relation="height", answers=(answer,))) == []
    assert "lima" in answer_phrases(Record("Peru", relation="capital", answers=("Lima",)))
