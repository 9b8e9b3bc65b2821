"""Many names, each found, with typos too, and gone when removed."""

import pytest

from control.forgetting.names import NameMatcher


@pytest.fixture
def names():
    held = NameMatcher()
    held.add("poet", ["Emily Dickinson", "E. Dickinson"])
    held.add("country", ["Peru", "Pérou"])
    held.add("island", ["Iceland", "Republic of Iceland"])
    return held


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("emily dickinson's house", "poet"),
        ("by E. Dickinson", "poet"),
        ("Emily Dickenson", "poet"),
        ("Emily Dikinson", "poet"),
        ("Emliy Dickinson", "poet"),
        ("Perus Hauptstadt", "country"),
        ("P-e-r-u", "country"),
        ("la capitale du PEROU", "country"),
        ("Icelnad", "island"),
        ("the Republic of Iceland", "island"),
    ],
)
def test_a_name_is_found(names, text, key):
    found = names.find(text)
    assert set(found) == {key}
    [(start, end), *_] = found[key]
    assert 0 <= start < end <= len(text)


@pytest.mark.parametrize("text", ["", "Dickinson", "peruse", "Perv", "islands", "Emily Bronte"])
def test_other_words_do_not_match(names, text):
    assert names.find(text) == {}


def test_a_correct_word_is_not_a_typo_of_a_name(names):
    assert names.find("Ireland") == {}
    assert names.find("the Solomon Islands") == {}
    assert set(names.find("Icelland")) == {"island"}
    careful = NameMatcher(correct={"icelland"})
    careful.add("island", ["Iceland"])
    assert careful.find("Icelland") == {}
    assert names.find("Icelnad", typos=False) == {}


def test_a_removed_name_no_longer_matches_but_others_do(names):
    names.add("other", ["Emily Dickinson", "Emily Post"])
    names.remove("poet")
    names.remove("poet")
    assert set(names.find("Emily Dickenson and Emily Post")) == {"other"}
    names.remove("other")
    assert names.find("Emily Dickinson, Emily Dickenson") == {}
    assert set(names.find("Peru and Iceland")) == {"country", "island"}


def test_names_added_again_replace_the_old_ones(names):
    names.add("country", ["Chile"])
    assert names.find("Peru") == {}
    assert set(names.find("Chile")) == {"country"}
    assert len(names) == 3


def test_nothing_is_left_when_all_are_removed(names):
    for key in ("poet", "country", "island"):
        names.remove(key)
    fresh = NameMatcher()
    assert vars(names) == vars(fresh)
