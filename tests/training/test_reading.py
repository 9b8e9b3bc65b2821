import random

import pytest

from foundation.text import holds
from training import reading


def test_the_answer_of_a_table_is_the_cell_asked_for_in_whatever_order_its_rows_stand():
    draw = random.Random(0)  # noqa: S311 - a reproducible choice, nothing secret
    for table in reading.tables(held_out=True):
        asked = {each["question"]: each for each in table["questions"]}
        answered = [one for one in reading.of_table(table, draw) if one.answer]
        assert {one.question for one in answered} == set(asked)
        for one in answered:
            each = asked[one.question]
            cells = table["rows"][each["row"]]
            name, cell = table["header"][each["column"]], cells[each["column"]]
            assert one.text[one.start :].startswith(cell)
            before = one.text[: one.start]
            assert before.endswith(f"{name}: " if name else " ") or not before
            first = next(text for text in cells if text)
            assert first in one.text[before.rfind("\n") + 1 :].partition("\n")[0]


def test_what_a_table_leaves_open_has_no_answer():
    draw = random.Random(0)  # noqa: S311 - a reproducible choice, nothing secret
    for table in reading.tables():
        examples = reading.of_table(table, draw)
        assert all(not one.answer for one in examples if one.question in table["unanswered"])


def test_a_text_about_several_things_is_not_read_for_another_one():
    draw = random.Random(0)  # noqa: S311 - a reproducible choice, nothing secret
    record = {
        "title": "Offices",
        "text": "Ines Hart leads Leeds. Tom Dow stays in York.",
        "questions": [
            {"question": "Who is in charge of York?", "answer": "Tom Dow"},
            {"question": "Who leads Leeds?", "answer": "Ines Hart"},
        ],
        "unanswered": ["Who leads Hull?"],
    }
    for example in [one for _ in range(20) for one in reading.by_thing(record, draw)]:
        about = "York" if "York" in example.question else "Leeds"
        assert bool(example.answer) == (about in example.text)
        assert example.answer in example.text


def test_with_another_name_a_question_is_left_open():
    draw = random.Random(0)  # noqa: S311 - a reproducible choice, nothing secret
    records = reading.parallel(held_out=True)
    asked = {each["question"] for record in records for each in record["questions"]}
    examples = reading.renamed(records, draw)
    assert len(examples) > len(records)
    for example in examples:
        assert example.question not in asked
        names = reading.NAME.findall(example.question)
        assert not all(holds(example.text, [name]) for name in names)


def test_every_answer_of_the_texts_about_several_things_stands_there_once():
    learned, held_out = reading.parallel(), reading.parallel(held_out=True)
    assert len(held_out) == len([*learned, *held_out]) / reading.DEVELOPMENT
    for record in [*learned, *held_out]:
        for each in record["questions"]:
            assert record["text"].count(each["answer"]) == 1


def searched(*passages, answers=("8 MB", "8 megabytes"), evidence="A cache holds 8 MB by default."):
    return reading.SearchedQuestion("How large is the cache?", answers, (evidence,), passages)


def test_of_what_a_search_finds_the_place_of_the_evidence_answers_and_no_other_that_has_its_words():
    whole = "Files of 8 MB are large. A cache holds 8 MB by default. It can be cleared."
    asked = searched(
        ("Caches", whole),
        ("Logs", "A log holds 8 MB at most."),
        ("Mail", "A letter has a stamp. It is sent."),
    )
    found = reading.of_searches([asked])
    answered = {one.text: one.text[one.start :][: len(one.answer)] for one in found if one.answer}
    assert answered == {
        f"Caches: {whole}": "8 MB",
        "Caches: A cache holds 8 MB by default.": "8 MB",
    }
    [whole_example] = [one for one in found if one.text == f"Caches: {whole}"]
    assert whole_example.start == len("Caches: ") + whole.index("8 MB by")
    assert not any("Logs" in one.text for one in found)  # it holds the words, elsewhere
    assert not any("8 MB" in one.text for one in found if not one.answer)
    assert any(one.text.startswith("Mail") for one in found if not one.answer)


def test_a_passage_whose_text_begins_with_its_title_answers_where_it_does_alone_too():
    asked = searched(("Caches", "Caches\n\nA cache holds 8 MB by default. It can be cleared."))
    answered = [one for one in reading.of_searches([asked]) if one.answer]
    assert len(answered) == 2
    assert all(one.text[one.start :].startswith(one.answer) for one in answered)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("--no-name", "With name, and --no-name, it is shown or not. It is short."),
        ("-1", "Of 1 or more, -1 means without a limit. It is rare."),
        ("H", "h copies the buffer, H appends it to the other. Both are short."),
        ("`/tmp/`", "It lies in `/tmp/` of the machine, tmp for short. It is cleared."),
    ],
)
def test_an_answer_over_documents_is_taught_with_its_signs_and_in_its_case(answer, text):
    asked = searched(("Options", text), answers=(answer,), evidence=text.split(". ")[0])
    answered = [one for one in reading.of_searches([asked]) if one.answer]
    assert {one.text[one.start :][: len(one.answer)] for one in answered} == {answer}


def test_what_leaves_a_question_open_answers_nothing_and_an_explanation_is_left_out():
    long = "because " + "very " * 12 + "much is read"
    explained = searched(("Caches", f"It is large {long}."), answers=(long,), evidence=long)
    left_open = searched(
        ("Caches", "It can be cleared."), answers=(), evidence="It can be cleared."
    )
    assert reading.of_searches([explained]) == []
    assert {one.answer for one in reading.of_searches([left_open])} == {""}
