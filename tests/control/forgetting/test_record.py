from dataclasses import replace

import pytest

from control.forgetting.record import (
    LONGEST_TEXT,
    LONGEST_WORDING,
    MOST_TEXTS,
    Record,
    checked,
    shown,
)
from foundation.errors import InputError

PERU = Record("Peru", ("Perú",), "capital", ("What is the capital?",), ("Lima",), ("La Lima",))
JANE = Record("Jane Roe", scope="subject")
TALE = Record("A tale", answers=("It was a dark night and the rain fell down.",), scope="verbatim")


def test_a_record_that_can_be_enforced_stays_as_it_is():
    assert checked(PERU) is PERU
    assert checked(JANE) is JANE
    assert checked(TALE) is TALE
    assert PERU.names == ("Peru", "Perú")
    assert PERU.spans == ("Lima", "La Lima")


@pytest.mark.parametrize("text", ["", " ", "\t\n", "?!", "\u200b"])
@pytest.mark.parametrize("field", ["aliases", "questions", "answers", "answer_aliases"])
def test_a_text_without_words_is_refused(field, text):
    with pytest.raises(InputError, match="only spaces or punctuation"):
        checked(replace(PERU, **{field: (*getattr(PERU, field), text)}))


@pytest.mark.parametrize("word", ["the", "A", " The ", "is", "thé"])
def test_a_common_word_is_refused_with_the_reason(word):
    with pytest.raises(InputError, match="would suppress all answers"):
        checked(replace(PERU, answers=(word,)))
    with pytest.raises(InputError, match="would suppress all answers"):
        checked(replace(PERU, subject=word))


@pytest.mark.parametrize("field", ["subject", "relation", "reason", "who"])
def test_a_long_text_is_refused_and_not_repeated(field):
    with pytest.raises(InputError, match=rf"{field} has 10,000,000 characters") as caught:
        checked(replace(PERU, **{field: "x" * 10_000_000}))
    assert len(str(caught.value)) < 200
    assert checked(replace(PERU, **{field: "x" * LONGEST_TEXT}))


def test_too_many_texts_are_refused():
    many = tuple(f"Town {number}" for number in range(MOST_TEXTS + 1))
    with pytest.raises(InputError, match="201 answers in one record; the limit is 200"):
        checked(replace(PERU, answers=many, answer_aliases=()))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answers": ()}, "no answer"),
        ({"relation": " ", "questions": ()}, "neither relation nor question"),
        ({"scope": "subject"}, "leave out the answer"),
        ({"scope": "subject", "answers": ()}, "leave out the answer"),
        ({"scope": "all"}, "scope is 'all'"),
        ({"reason": "broken \udcff"}, "reason holds bytes that are no text"),
        ({"answers": ("Lima \ud800",)}, "answer holds bytes that are no text"),
    ],
)
def test_contradictory_fields_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        checked(replace(PERU, **changed))


def test_a_whole_chapter_may_be_kept_back_word_by_word_and_nothing_else_be_so_long():
    chapter = "word " * (LONGEST_WORDING // len("word "))
    assert checked(replace(TALE, answers=(chapter,)))
    with pytest.raises(InputError, match="100,001 characters, the limit is 100,000; split it"):
        checked(replace(TALE, answers=(f"{chapter}x",)))
    with pytest.raises(InputError, match="100,000 characters, the limit is 2,000"):
        checked(replace(TALE, subject=chapter))
    with pytest.raises(InputError, match="100,000 characters, the limit is 2,000"):
        checked(replace(PERU, answers=(chapter,)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answers": ()}, "needs the text"),
        ({"answers": ("It was a dark night and rain fell.",)}, "has 8 words, and 8 consecutive"),
        ({"relation": "text"}, "leave out relation and question"),
        ({"questions": ("What does it say?",)}, "leave out relation and question"),
    ],
)
def test_a_wording_is_a_text_and_answers_no_question(changed, message):
    with pytest.raises(InputError, match=message):
        checked(replace(TALE, **changed))


def test_a_text_is_shown_in_one_short_line():
    assert shown("a\n b") == "'a b'"
    assert shown("x" * 100) == f"'{'x' * 60}…'"
