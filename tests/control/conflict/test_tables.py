import json

import pytest

from app import factory
from app.settings import Settings
from control.conflict.tables import CELL_FEATURES, FILE, cell_lines, load_weights
from foundation.errors import ModelError

STAFF = """Staff 2026: Staff 2026
Name: Anna Klein; Role: bookkeeper; Salary: 52,400; Office: 3.14
Name: Boris Marek; Role: driver; Salary: 38,900; Office: 1.02
Name: Cora Dietz; Role: lab lead; Salary: 72,650; Office: 2.20
Name: Dag Holm; Role: driver; Salary: 39,700; Office: 1.03"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return factory.reader(Settings(home=tmp_path_factory.mktemp("home")))


@pytest.mark.parametrize(
    ("question", "cell"),
    [
        ("What is the salary of Cora Dietz?", "72,650"),
        ("Which office does Anna Klein have?", "3.14"),
        ("Who has office 1.03?", "Dag Holm"),
        ("What is the role of Dag Holm?", "driver"),
        ("Which employee has a salary of 72650?", "Cora Dietz"),
        ("Which employee has a salary of 72,650?", "Cora Dietz"),
    ],
)
def test_the_cell_that_answers_is_found_in_its_own_row(reader, question, cell):
    [reading] = reader.read([(question, STAFF)])
    assert reading.answer == cell
    row = next(row for row in STAFF.split("\n") if cell in row and _named(question, row))
    assert STAFF[reading.start : reading.end] == cell
    assert STAFF.index(row) <= reading.start < STAFF.index(row) + len(row)


def _named(question, row):
    plain = question.replace(",", "")
    return any(part.split(": ")[1].replace(",", "") in plain for part in row.split("; "))


@pytest.mark.parametrize(
    "question",
    [
        "What is the salary of Emil Roth?",  # no such row
        "When was Dag Holm born?",  # no such column
        "What is the capital of Peru?",
    ],
)
def test_what_no_cell_answers_is_not_answered(reader, question):
    assert reader.read([(question, STAFF)])[0].answer == ""


def test_a_cell_that_was_taken_out_is_no_answer_and_no_other_takes_its_place(reader):
    [reading] = reader.read([("What is the salary of Cora Dietz?", STAFF.replace("72,650", "…"))])
    assert reading.answer == ""


def test_what_the_text_beside_a_table_answers_is_found_there(reader):
    text = f"The staff meets in the canteen on Fridays at noon.\n\n{STAFF}"
    [reading] = reader.read([("Where does the staff meet?", text)])
    assert reading.answer.endswith("canteen")


def test_weights_of_other_features_are_told_with_the_command_that_fits_them(tmp_path):
    (tmp_path / FILE).write_text(json.dumps({"cell": {CELL_FEATURES[0]: 1.0}, "no answer": {}}))
    with pytest.raises(ModelError, match="fulcrum train tables"):
        load_weights(tmp_path)
    assert load_weights(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("question", "row", "says", "lines"),
    [
        (
            "What is the salary of Cora Dietz?",
            3,
            "72,650",
            ["Cora Dietz: Salary 72,650", "Name: Cora Dietz; Salary: 72,650"],
        ),
        (
            "Who has office 1.03?",
            4,
            "Dag Holm",
            ["Office 1.03: Name Dag Holm", "Name: Dag Holm; Office: 1.03"],
        ),
        ("What is the salary of Cora Dietz?", 3, "her salary", []),  # no cell of the row
    ],
)
def test_a_cell_is_told_after_what_names_its_row(question, row, says, lines):
    assert cell_lines(question, STAFF, STAFF.split("\n")[row], says) == lines


def test_of_cells_with_one_value_the_one_whose_column_the_question_names_is_told_or_none():
    row = "Ticket: Day; Adult: 5; Child: 5"
    assert cell_lines("What does a child pay?", row, row, "5")[0] == "Day: Child 5"
    assert cell_lines("What does it cost?", row, row, "5") == []


def test_a_row_is_known_after_the_title_of_its_document_and_as_a_part_of_it():
    text = "Staff: Rank: 1; Name: Ann Lee; Points: 40\nRank: 2; Name: Bo Ruiz; Points: 38"
    for told in (text.splitlines()[0], "Points: 40"):
        [line, _] = cell_lines("How many points has Ann Lee?", text, told, "40")
        assert line == "Name Ann Lee: Points 40"
    for told in ("40", "Ann Lee has 40 points.", "Points: 41", ""):
        assert cell_lines("How many points has Ann Lee?", text, told, "40") == []
