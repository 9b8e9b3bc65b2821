import subprocess
import sys
from pathlib import Path

import pytest

from control.conflict.spans import read_span
from control.conflict.values import compare, group, normalised

SAME = [
    ("When was it opened?", "12 March 2019", "2019-03-12"),
    ("When was it opened?", "le 12 mars 2019", "March 12th, 2019"),
    ("When was it opened?", "12.03.2019", "12. März 2019"),
    ("When was it opened?", "12/03/2019", "12 March 2019"),
    ("When does it open?", "5 pm", "17:00"),
    ("How long is it?", "1.5 km", "1500 metres"),
    ("How long is it?", "1,5 km", "1.5 Kilometer"),
    ("How long is the notice?", "two weeks", "14 Tage"),
    ("How tall is she?", "6 feet 2 inches", "188 cm"),
    ("How hot is it?", "0 °C", "32 °F"),
    ("How many boats are there?", "two dozen", "24"),
    ("How many boats are there?", "24 boats", "24"),
    ("How much is it?", "€3.2m", "3.2 million euros"),
    ("How much is it?", "1.250,00 €", "€1,250"),
    ("Who runs it?", "Dr. Anna Weiss", "Anna Weiss"),
    ("Who runs it?", "Weiss, Anna", "ANNA WEISS"),
    ("Who decided?", "WHO", "World Health Organization"),
    ("Where is it?", "the USA", "United States"),
    ("How do you get there?", "by ferry", "ferries"),
    ("Which river is it?", "the Elbe", "the Elbe river"),
    ("Which king was it?", "Henry VIII", "Henry the Eighth"),
    ("Does it run daily?", "yes", "it does"),
    ("Is it allowed?", "no", "it is not allowed"),
    ("Is it safe?", "unsafe", "no"),
    ("What is the symbol of gold?", "the symbol Au", "Au"),
    ("Which band played?", "The Who", "Who"),
    ("Where is it?", "US", "USA"),
    ("When was it opened?", "nineteen eighty-three", "1983"),
    ("When was it opened?", "nineteen oh-five", "1905"),
    ("When was it opened?", "May nineteen eighty-three", "May 1983"),
    ("When does it open?", "half past six", "6:30"),
    ("When does it open?", "a quarter to nine", "8:45"),
    ("When does it open?", "ten to eight", "7:50"),
    ("When does it open?", "halb sieben", "6:30"),
    ("When does it open?", "half past six in the evening", "18:30"),
    ("How much is it?", "35 cents", "€0.35"),
    ("How much is it?", "35 Cent", "0,35 EUR"),
    ("How much is it?", "50p", "50 pence"),
    ("How much is it?", "20 centavos", "0.20 pesos"),
    ("How much is it?", "5 pounds 20 pence", "£5.20"),
    ("How heavy is it?", "two kilos", "2 kg"),
    ("How heavy is it?", "2 kgs", "2 kg"),
    ("How long is it?", "An hour and a half", "90 minutes"),
    ("How long is it?", "une heure et demie", "1.5 hours"),
    ("How long is it?", "an hour and 30 minutes", "90 minutes"),
    ("How many boats are there?", "half a dozen", "6"),
    ("How many boats are there?", "nought", "nil"),
    ("How often does it run?", "Twice a week", "2 times per week"),
    ("How often does it run?", "once daily", "1 time per day"),
]
COMPATIBLE = [
    ("When was it opened?", "1987", "3 March 1987"),
    ("When was it opened?", "the 1980s", "1987"),
    ("How many are there?", "two", "at least two"),
    ("How many live there?", "3.2 million", "3,214,000"),
    ("How long is it?", "2 to 4 hours", "three hours"),
    ("How much is it?", "12", "12 EUR"),
    ("Where is it?", "Oslo", "Oslo, Norway"),
    ("Where is it?", "Oslo", "Norway"),
    ("Who runs it?", "Weiss", "Anna Weiss"),
    ("Who runs it?", "A. Weiss", "Anna Weiss"),
    ("How do you get there?", "a ferry", "a car ferry"),
    ("Which colours has it?", "red, green and blue", "blue and red"),
    ("Is it allowed?", "yes", "yes, in summer"),
    ("When does it open?", "half past six", "18:30"),
    ("How many boats are there?", "five to ten", "7"),
    ("Who runs it?", "Will", "Will Smith"),
]
CONTRADICTORY = [
    ("When was it opened?", "March 1987", "3 May 1987"),
    ("How long is the notice?", "14 days", "30 days"),
    ("How many are there?", "at least two", "one"),
    ("How much is it?", "12 EUR", "12 USD"),
    ("How much is it?", "30 EUR per month", "30 EUR per year"),
    ("How cold is it?", "-4 °C", "4 °C"),
    ("How strong is it?", "5 MW", "5 mW"),
    ("Who runs it?", "Anna Weiss", "Anne Weiss-Keller"),
    ("Which queen was it?", "Elizabeth I", "Elizabeth II"),
    ("Where is it?", "Oslo", "Bergen"),
    ("Where is it?", "Paris, France", "Paris, Texas"),
    ("Which body is it?", "WTO", "WHO"),
    ("Which version is it?", "3.11.2", "3.11.4"),
    ("What do they get?", "a bonus", "no bonus"),
    ("Is it allowed?", "yes", "no"),
    ("Can members vote?", "they can", "they can't"),
    ("Is it safe?", "unsafe", "yes"),
    ("What is the symbol of gold?", "Gd", "Au"),
    ("Which band played?", "Who", "Queen"),
    ("Which band played?", "The The", "The Who"),
    ("Which department runs it?", "IT", "HR"),
    ("Which month is it?", "May", "June"),
    ("Which river is it?", "the Nil", "0"),
    ("When was it opened?", "nineteen eighty-three", "1984"),
    ("When does it open?", "half past six", "6:20"),
    ("When does it open?", "quarter past nine", "8:45"),
    ("How much is it?", "35 cents", "€35"),
    ("How much is it?", "35 cents", "£0.35"),
    ("How much is it?", "3 EUR", "3 EUR 20 cents"),
    ("How long is it?", "an hour and a half", "30 minutes"),
    ("How often does it run?", "twice a week", "twice a month"),
]


@pytest.mark.parametrize(
    ("expected", "question", "a", "b"),
    [
        (expected, *pair)
        for expected, pairs in (
            ("same", SAME),
            ("compatible", COMPATIBLE),
            ("contradictory", CONTRADICTORY),
        )
        for pair in pairs
    ],
)
def test_two_spans_relate_in_either_order(expected, question, a, b):
    assert compare(question, a, b) == expected
    assert compare(question, b, a) == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("on the 12th of March, 2019", "on 2019-03-12"),
        ("12 March 2019 in Oslo", "2019-03-12 in Oslo"),
        ("two dozen boats", "24 boats"),
        ("1,500 metres", "1500 m"),
        ("one hour", "1 hour"),
        ("12 euros", "12 EUR"),
        ("35 cents", "35 cents"),
        ("at half past six", "at 6:30"),
        ("five to ten kilometres", "5\N{EN DASH}10 km"),
        ("Dr. Anna Weiss", "Dr. Anna Weiss"),
        ("04/05/2019", "04/05/2019"),  # of May or of April
    ],
)
def test_a_span_is_shown_with_iso_dates_and_digits(text, shown):
    assert normalised("", text) == shown


def test_claims_that_agree_share_a_group_and_contradictory_ones_never_do():
    texts = ["3 March 1987", "12 May 1987", "1987", "1987-03-03", "1990"]
    assert group("When was it opened?", texts) == [0, 1, 0, 0, 2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "🚢",
        "東京",
        "1/0",
        "x" * 10_000,
        "9" * 400,
        "99999999999999999999 years",
        "\ud800",
        "between 5 and",
        "12 12 12",
        "31 February 2019",
        "5 **2",
        "O'",
        "-",
        "half a a",
        "3 1/2 and a half hours",
        "1,234,567 and a half",
        "'76",
    ],
)
def test_any_text_is_read(text):
    assert compare("How many?", text, text) == "same"
    assert compare("How many?", text, "12 km") in ("compatible", "contradictory")
    assert isinstance(normalised("", text), str)
    assert group("", [text, "12 km", text])[0] == 0


def test_what_reads_values_is_imported_only_for_the_first_span():
    program = (
        "import sys; import control.conflict.values; "
        "print({'babel', 'dateparser', 'pint', 'simplemma'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


def test_most_of_the_development_pairs_are_told_apart():
    lines = Path(__file__).with_name("value_pairs.txt").read_text("utf-8").splitlines()
    pairs = [line.split("|") for line in lines if not line.startswith("#")]
    right = sum(compare(question, a, b) == expected for question, a, b, expected in pairs)
    assert right / len(pairs) > 0.9


@pytest.mark.parametrize(
    "text",
    [
        *("from 3-4 to 5 km", "3-4–7 m", "1 3-4 - 5 metres", "000.000.000.000 m", "0,000,000.000"),
        *("1.000.000.00 euros", "1,2,3 m", "1.2.3.4 km", "12.34.567 kg", "9'99'999 m", "1/0 m"),
    ],
)
def test_what_is_no_usual_number_is_read_without_failing(text):
    assert compare("How far is it?", text, "5 km") in ("same", "compatible", "contradictory")


@pytest.mark.parametrize(
    ("text", "dates", "quantities"),
    [
        ("In a day one may climb 350 metres.", [], ["1 day", "1", "350 m"]),
        ("Up to 20 may be lent.", [], ["20"]),
        ("It rained on 3 may at noon.", ["--05-03"], []),
        ("It rained on 3 May.", ["--05-03"], []),
        ("Fifty-eight villages are supplied.", [], ["58"]),
        ("It is 1500 mm deep.", [], ["1500 mm"]),
        ("In 1850 Watt was dead.", ["1850"], []),
    ],
)
def test_verbs_are_neither_months_nor_units_and_what_has_a_unit_is_no_year(text, dates, quantities):
    span = read_span(text, years=True, versions=False)
    assert [str(date[0]) for date in span.dates] == dates
    assert [quantity.shown for quantity in span.quantities] == quantities
