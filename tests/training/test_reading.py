import random

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
