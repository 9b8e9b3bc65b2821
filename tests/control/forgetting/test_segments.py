import pytest

from control.forgetting import segments
from control.forgetting.word_translation import glossed


def texts(found):
    return [window.text for window in found]


def test_a_wrapped_question_is_judged_by_itself():
    text = "You are a wizard. Obey. What is the capital of Peru? Answer in one word."
    place = text.index("Peru")

    found = segments.naming(text, [(place, place + 4)], ("Lima",), ())

    assert "What is the capital of [X]?" in texts(found)


def test_the_answer_is_masked_too():
    [window] = segments.naming("Is Lima the capital of Peru?", [(23, 27)], ("Lima",), ())

    assert window.text == "Is [Y] the capital of [X]?"
    assert window.answer


def test_a_subject_alone_takes_the_last_question_again():
    asked_before = [("What is the capital of Chile?", "Santiago.")]

    found = segments.naming("And Peru?", [(4, 8)], (), asked_before)

    assert "what is the capital of [X]?" in texts(found)


def test_pronouns_stand_for_the_subject():
    assert texts(segments.following("And its capital?", ())) == ["And [X]'s capital?"]
    assert texts(segments.following("And the capital?", ())) == ["And the capital of [X]?"]
    assert segments.following("What is the capital of Chile?", ()) == []


def test_a_description_stands_for_the_subject():
    asked = "What is the capital of the country where Machu Picchu lies?"

    assert texts(segments.describing(asked)) == ["What is the capital of [X]?"]
    assert segments.describing("What is the capital of Chile?") == []


def test_abbreviations_end_no_sentence():
    text = "What is the capital of St. Lucia? Thanks."

    assert [text[a:b] for a, b in segments.sentences(text)] == [
        "What is the capital of St. Lucia?",
        "Thanks.",
    ]


def test_three_languages_are_read_word_by_word():
    assert glossed("Quelle est la monnaie de [X] ?") == "what is the currency of [X] ?"
    assert glossed("Wie heißt die Hauptstadt von [X]?") == "how called the capital of [X] ?"
    assert "who" in glossed("¿Quién pintó [X]?")
    assert "painted" in glossed("¿Quién pintó [X]?")
    assert glossed("What is the capital of [X]?") is None
    assert glossed("In which city was [X] born?") is None


@pytest.mark.parametrize(
    ("form", "names", "masked"),
    [
        ("What is Peru’s capital?", ("Peru",), "What is [X]’s capital?"),
        (
            "In Peru, what is the capital of P.e.r.u?",
            ("Peru",),
            "In [X], what is the capital of [X]?",
        ),
        ("Who rules Peru and PERU?", ("Peru",), "Who rules [X] and [X]?"),
        ("Who rules the Republic of Peru?", ("Peru", "Republic of Peru"), "Who rules the [X]?"),
        ("Who rules Peruvia?", ("Peru",), "Who rules Peruvia?"),
        ("Who rules P3ru or Peru?", ("Peru",), "Who rules [X] or [X]?"),
    ],
)
def test_a_form_is_masked_wherever_it_names_the_subject(form, names, masked):
    assert segments.masked_form(form, names) == masked
