"""Other names of the same thing."""

import pytest

from control.forgetting.aliases import other_names, with_aliases
from control.forgetting.record import MOST_TEXTS, Record, checked


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("Germany", "Deutschland"),
        ("Allemagne", "Germany"),
        ("Europe", "Europa"),
        ("Moscow", "Moskau"),
        ("Spanish", "espagnol"),
        ("Peruvian sol", "sol péruvien"),
        ("Peruvian sol", "sol"),
        ("Turkey", "Türkei"),
        ("St. Lucia", "Saint Lucia"),
        ("Trinidad and Tobago", "Trinidad & Tobago"),
        ("September 8, 1956", "8 September 1956"),
        ("8th of September, 1956", "1956-09-08"),
        ("08/09/1956", "September 8, 1956"),
        ("1956-09-08", "8 de septiembre de 1956"),
        ("seventy-nine", "79"),
        ("8", "eight"),
        ("1987", "nineteen eighty-seven"),
        ("1987", "neunzehnhundertsiebenundachtzig"),
        ("2005", "two thousand five"),
        ("Nineteen Eighty-Four", "1984"),
    ],
)
def test_other_names(name, other):
    normal = {found.lower().replace("&", "and") for found in other_names(name)}
    assert other.lower().replace("&", "and") in normal | {name.lower()}


@pytest.mark.parametrize("name", ["Emily Dickinson", "31/02/1999", "mammals", "", "84,500"])
def test_an_unknown_name_has_no_aliases(name):
    assert other_names(name) == ()


def test_names_that_differ_only_in_punctuation_are_given_once():
    assert "Perú" not in other_names("Peru")
    assert len(other_names("Peru")) == len({name.lower() for name in other_names("Peru")})


def test_a_record_gets_the_names_of_its_subject_and_answers():
    record = Record("Germany", relation="capital", answers=("Moscow",), aliases=("the Reich",))
    full = with_aliases(record)
    assert "Deutschland" in full.aliases
    assert full.aliases[0] == "the Reich"
    assert "Moskau" in full.answer_aliases
    assert "Moskau" not in full.aliases
    assert with_aliases(full) == full


def test_a_full_record_stays_within_its_limit():
    many = tuple(f"name {number}" for number in range(MOST_TEXTS - 2))
    checked(with_aliases(Record("Germany", many, "capital", answers=("Berlin",))))
