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
