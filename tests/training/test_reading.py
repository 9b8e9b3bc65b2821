import random

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
