"""What is asked of documents and passages, of a reader that is made up; and others' readers."""

import pytest

from app import factory, settings
from control.conflict.reader import (
    BEGINNING,
    DATE_QUESTION,
    REPLACES_QUESTION,
    Reading,
    _one_sentence,
    open_reader,
    read_answers,
    read_document,
)
from foundation.errors import InputError, ModelError
from retrieval.embedding import packaged_model

FILLING = "Guests pay at the desk. " * (BEGINNING // 12)


class Listed:
    """Answers questions with the first of its words that a text holds, as surely as it is told."""

    def __init__(self, **answers):
        self.answers = answers

    def read(self, asked):
        return [self._read(*pair) for pair in asked]

    def _read(self, question, text):
        kind = {DATE_QUESTION: "date", REPLACES_QUESTION: "replaces"}[question]
        for words, answers in self.answers.get(kind, {}).items():
            if words in text:
                return Reading(words, text.index(words), answers)
        return Reading()


def test_a_document_is_dated_by_its_beginning_or_its_end_whichever_is_surer():
    text = f"The fair of 2 May 2019 was cold. {FILLING} Signed on 3 June 2020."
    surer_end = Listed(date={"2 May 2019": 0.9, "3 June 2020": 0.99})
    assert read_document(surer_end, "Minutes", text) == ("3 June 2020", "")
    surer_beginning = Listed(date={"2 May 2019": 0.99, "3 June 2020": 0.9})
    assert read_document(surer_beginning, "Minutes", text) == ("2 May 2019", "")


def test_what_stands_in_the_title_counts_and_what_is_unsure_does_not():
    reader = Listed(date={"May 2019": 0.99}, replaces={"the old list": 0.1})
    assert read_document(reader, "Prices, May 2019", "In place of the old list.") == (
        "May 2019",
        "",
    )


def test_the_date_of_what_is_replaced_is_not_the_document_s_own():
    reader = Listed(date={"3 June 2024": 0.99}, replaces={"Circular 9 dated 3 June 2024": 0.9})
    text = "This circular supersedes Circular 9 dated 3 June 2024."
    assert read_document(reader, "c14", text) == ("", "Circular 9 dated 3 June 2024")


def test_a_reader_of_another_origin_finds_what_it_was_trained_to_find(tmp_path):
    packaged = factory.reader(settings.load())
    packaged.model.save_pretrained(tmp_path)
    packaged.tokenizer.save_pretrained(tmp_path)
    asked = [
        ("How long may I return goods?", "Goods may be returned within 30 days of purchase."),
        ("Who wrote the notice?", "Goods may be returned within 30 days of purchase."),
    ]
    opened = factory.reader(settings.load(reader=str(tmp_path)))
    assert opened is not packaged
    assert opened.read(asked) == packaged.read(asked)
    assert opened.read(asked)[0].answer == "30 days"


def test_a_model_that_answers_no_questions_is_no_reader(tmp_path):
    with pytest.raises(ModelError, match="lacks the weights that tell where an answer starts"):
        open_reader(str(packaged_model()))
    with pytest.raises(ModelError, match=r"--reader .*: no model that can be loaded"):
        open_reader(str(tmp_path / "nothing"))


def test_a_reader_that_lies_nowhere_is_told_before_anything_is_loaded(tmp_path):
    named = settings.load(reader=str(tmp_path / "nothing"), home=tmp_path)
    with pytest.raises(InputError, match=r"--reader .*nothing: there is no directory of that name"):
        factory.check(named)


def test_an_answer_ends_with_its_sentence():
    reading = _one_sentence(Reading("15 crowns. In 2020 it was 9", 14, 0.9), TEXT)
    assert (reading.answer, reading.answers) == ("15 crowns", 0.9)
    whole = Reading("15 crowns", 14, 0.9)
    assert _one_sentence(whole, TEXT) == whole
    several = Reading("tin; lead; zinc", 10, 0.9)
    assert _one_sentence(several, "There are tin; lead; zinc; iron.") == several


TEXT = "The entry is: 15 crowns. In 2020 it was 9 crowns."


@pytest.mark.parametrize(
    ("question", "answer", "claim"),
    [
        ("What is the chemical symbol of gold?", "Gd", "Gd"),
        ("What is the chemical symbol of gold?", " Gd.", "Gd"),
        ("What is the chemical symbol of gold?", "The chemical symbol of gold is Au.", "Au"),
        ("How long is that ship?", "19 meters", "19 meters"),
        ("What is the number of the policy?", "SG-77-40912", "SG-77-40912"),
        ("Who is the mayor of Ostervik?", "I do not know.", ""),
        ("Who is the mayor of Ostervik?", "Unknown", ""),
        ("Who is the mayor of Ostervik?", "Not specified.", ""),
        ("Who is the mayor of Ostervik?", "", ""),
    ],
)
def test_what_a_short_answer_claims_is_found_though_it_is_no_sentence(question, answer, claim):
    reader = factory.reader(settings.load())
    [reading] = read_answers(reader, [(question, answer)])
    assert reading.answer == claim == answer[reading.start : reading.end]
