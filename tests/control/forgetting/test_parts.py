from control.forgetting.parts import parts

TABLE = (
    "Returns are free.\n\ncountry: France; address: 12 rue des Lilas\ncountry: Spain; city: Toledo"
)


def split(text):
    found = [text[start:end] for start, end in parts(text)]
    assert "".join(found) == text
    return [part.strip() for part in found if part.strip()]


def test_each_row_of_a_table_is_one_part_although_the_next_begins_with_a_small_letter():
    assert split(TABLE) == [
        "Returns are free.",
        "country: France; address: 12 rue des Lilas",
        "country: Spain; city: Toledo",
    ]


def test_a_row_is_not_cut_at_its_semicolons_or_full_stops():
    rows = ["id: 1; note: Closed. Ask Ann; since: 2019", "id: 2; note: Open; since: 2020"]
    assert split("\n".join(rows)) == rows


def test_the_items_of_a_list_in_one_line_are_parts():
    assert split("Peru: Lima; Chile: Santiago; Norway: Oslo") == [
        "Peru: Lima;",
        "Chile: Santiago;",
        "Norway: Oslo",
    ]


def test_wrapped_prose_stays_together():
    assert split("The ferry carries cars and\npassengers. It is old.") == [
        "The ferry carries cars and\npassengers.",
        "It is old.",
    ]
