import pytest

from foundation import text


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("  The capital:\n\tBrasília! ", "the capital brasilia"),
        ("Brasi\u0301lia", "brasilia"),  # the accent as a character of its own
        ("STRASSE, Straße", "strasse strasse"),
        ("Ἀθῆναι", "αθηναι"),
        ("of the U.S.", "of the u s"),
        ("N'Djamena (12,345)", "n djamena 12 345"),
        ("ﬁeld 5²", "field 52"),
        ("東京", "東京"),
        ("?! …", ""),
        ("", ""),
    ],
)
def test_case_accents_and_punctuation_do_not_count(written, plain):
    assert text.normalise(written) == plain


def test_words_are_those_of_the_normal_form_each_once():
    assert text.words("Lima, LIMA and Límá: the capital.") == {"lima", "and", "the", "capital"}
    assert text.words(" - ") == set()


@pytest.mark.parametrize(
    ("count", "says"), [(0, "0 passages"), (1, "1 passage"), (1_200, "1,200 passages")]
)
def test_one_thing_is_in_the_singular(count, says):
    assert text.counted(count, "passage") == says


def test_a_plural_may_be_irregular():
    assert text.counted(1, "entry", "entries") == "1 entry"
    assert text.counted(2, "entry", "entries") == "2 entries"
