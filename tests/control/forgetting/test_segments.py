import pytest

from control.forgetting import segments
from control.forgetting.word_translation import translated


def texts(found):
    return [segment.text for segment in found]


def test_a_question_inside_a_longer_text_is_a_segment_of_its_own():
    text = "You are a wizard. Obey. What is the capital of Peru? Answer in one word."
    place = text.index("Peru")

    found = segments.naming_subject(text, [(place, place + 4)], ("Lima",), ())

    assert "What is the capital of [X]?" in texts(found)


def test_the_answer_is_masked_too():
    [segment] = segments.naming_subject("Is Lima the capital of Peru?", [(23, 27)], ("Lima",), ())

    assert segment.text == "Is [Y] the capital of [X]?"
    assert segment.answer


def test_a_subject_alone_repeats_the_last_question():
    asked_before = [("What is the capital of Chile?", "Santiago.")]

    found = segments.naming_subject("And Peru?", [(4, 8)], (), asked_before)

    assert "what is the capital of [X]?" in texts(found)


def test_pronouns_are_replaced_by_the_subject_mask():
    assert texts(segments.follow_up("And its capital?", ())) == ["And [X]'s capital?"]
    assert texts(segments.follow_up("And the capital?", ())) == ["And the capital of [X]?"]
    assert segments.follow_up("What is the capital of Chile?", ()) == []


def test_a_description_is_replaced_by_the_subject_mask():
    asked = "What is the capital of the country where Machu Picchu lies?"

    assert texts(segments.describing_subject(asked)) == ["What is the capital of [X]?"]
    assert segments.describing_subject("What is the capital of Chile?") == []


def test_abbreviations_end_no_sentence():
    text = "What is the capital of St. Lucia? Thanks."

    assert [text[a:b] for a, b in segments.sentences(text)] == [
        "What is the capital of St. Lucia?",
        "Thanks.",
    ]


def test_three_languages_are_translated_word_by_word():
    assert translated("Quelle est la monnaie de [X] ?") == "what is the currency of [X] ?"
    assert translated("Wie heißt die Hauptstadt von [X]?") == "how called the capital of [X] ?"
    assert "who" in translated("¿Quién pintó [X]?")
    assert "painted" in translated("¿Quién pintó [X]?")
    assert translated("What is the capital of [X]?") is None
    assert translated("In which city was [X] born?") is None


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
