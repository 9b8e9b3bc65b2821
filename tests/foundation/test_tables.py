from foundation.tables import cells, find_rows


def test_rows_are_lines_side_by_side_that_begin_with_the_same_column():
    text = "Two tables.\na: 1; b: 2\na: 3; b: 4\n\nNote: this; and: that\nz: 5; y: 6\nz: 7; y: 8"
    assert [text[start:end] for start, end in find_rows(text)] == [
        "a: 1; b: 2",
        "a: 3; b: 4",
        "z: 5; y: 6",
        "z: 7; y: 8",
    ]


def test_the_first_row_may_follow_a_title_on_its_line():
    text = "Staff: 2026: Name: Anna; Room: 3\nName: Boris; Room: 1"
    assert [text[start:end] for start, end in find_rows(text)] == [
        "Name: Anna; Room: 3",
        "Name: Boris; Room: 1",
    ]


def test_a_row_of_three_cells_is_one_without_another_beside_it():
    rows = "Traps 2022: Trap: Wether Cross; Bait: honeyed ale; Moths: 2,051\nIt is emptied daily."
    assert [rows[start:end] for start, end in find_rows(rows)] == [
        "Trap: Wether Cross; Bait: honeyed ale; Moths: 2,051"
    ]
    assert find_rows("Note: see this; and: that") == []
    prose = (
        "Vole: lives in the reeds at the water, where it builds nests of grass and sleeps by day"
    )
    assert find_rows(f"{prose}; food: seeds; young: four to six") == []


def test_a_cell_knows_its_column_and_place():
    text = "Orders\nDue: 3:15; Note: see https://example.org/a\nDue: 4:00; Note: none"
    (start, end), _ = find_rows(text)
    found = cells(text, start, end)
    assert [(cell.column, cell.value) for cell in found] == [
        ("Due", "3:15"),
        ("Note", "see https://example.org/a"),
    ]
    assert [text[cell.start : cell.end] for cell in found] == [cell.value for cell in found]


def test_prose_has_no_rows():
    assert find_rows("The firm has two plants: one in Lorn; one in Marn.\nThe firm is old.") == []
