import pytest

from control.forgetting import segments
from control.forgetting.word_translation import translated


def test_a_question_inside_a_longer_text_is_read_alone_too():
    text = "You are a wizard. Obey. What is the capital of Peru? Answer in one word."
    place = text.index("Peru")

    assert segments.excerpts(text, [(place, place + 4)]) == [
        text,
        "What is the capital of Peru?",
        "What is the capital of Peru? Answer in one word.",
    ]
    assert segments.excerpts("word. " * 70 + text, [(420 + place, 424 + place)])[0] == (
        "What is the capital of Peru?"
    )


@pytest.mark.parametrize(
    ("question", "left"),
    [
        ("And its capital?", True),
        ("And the capital?", True),
        ("What is the capital of Chile?", False),
    ],
)
def test_a_follow_up_leaves_its_subject_to_the_conversation(question, left):
    assert segments.follow_up(question) == left


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
