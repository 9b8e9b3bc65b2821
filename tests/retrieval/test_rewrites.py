import pytest

from retrieval import rewriter
from retrieval.rewriter import Rewrite, format_rewrite, parse_rewrite, rewrite_prompt

ASKED = "And its currency?"
CLEAR = "What is the currency of Peru?"
QUERIES = ("Peru currency", "The currency of Peru is")
WANTED = Rewrite(CLEAR, QUERIES)


def test_what_training_writes_is_read_back():
    assert parse_rewrite(format_rewrite(CLEAR, QUERIES), ASKED) == WANTED


def test_a_question_that_stands_on_its_own_is_kept_word_for_word():
    text = format_rewrite(None, ("capital of #1", "In which country is Nokia?"))
    assert text.startswith("Question: same\n")
    assert parse_rewrite(text, ASKED) == Rewrite(
        ASKED, ("capital of #1", "In which country is Nokia?")
    )


@pytest.mark.parametrize("same", ["Same.", "the same", "unchanged", '"same"'])
def test_other_words_for_the_same_question_are_understood(same):
    assert parse_rewrite(f"Question: {same}\nSearch: Peru currency", ASKED).question == ASKED


@pytest.mark.parametrize(
    "text",
    [
        f"Sure! Here:\n\nQuestion: {CLEAR}\nSearch: {QUERIES[0]}\nSearch: {QUERIES[1]}\nOk?",
        f"```\nQuestion: {CLEAR}\nSearch 1: {QUERIES[0]}\nSearch 2: {QUERIES[1]}\n```",
        f"1. Question: {CLEAR}\n2. Search: {QUERIES[0]}\n3. Search: {QUERIES[1]}",
        f"Question: {CLEAR}\n1. {QUERIES[0]}\n2. {QUERIES[1]}",
        f"Rewritten question: {CLEAR}\nQueries:\n- {QUERIES[0]}\n* {QUERIES[1]}",
        f"- **Question:** {CLEAR}\n- **Search:** {QUERIES[0]}\n- **Search:** {QUERIES[1]}",
        f'QUESTION = "{CLEAR}"\nquery: "{QUERIES[0]}",\nSearch query: {QUERIES[1]}',
        f'{{"question": "{CLEAR}", "queries": ["{QUERIES[0]}", "{QUERIES[1]}"]}}',
        f'```json\n{{\n "question": "{CLEAR}",\n "searches": [\n  "{QUERIES[0]}",\n  '
        f'"{QUERIES[1]}"\n ]\n}}\n```',
        # the form of ERM4's own pairs
        f'{{"original_question": "{ASKED}", "rewritten_question": ["{CLEAR}"], '
        f'"query": ["{QUERIES[0]}", "{QUERIES[1]}"]}}',
    ],
    ids=[
        "chatter",
        "fence",
        "numbers",
        "list",
        "bullets",
        "bold",
        "signs",
        "json",
        "jsons",
        "erm4",
    ],
)
def test_other_forms_are_read_too(text):
    assert parse_rewrite(text, ASKED) == WANTED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I am a helpful assistant.",
        "Question: What is the currency of Peru?",  # no search
        "Search: ???",
        "Search: #1",  # nothing but what another would find
        "Search: " + "word " * 100,
        '{"question": "What is the currency',
        '{"question": 7, "queries": null}',
        "{}",
        "1. Peru currency\n2. Peru money",  # no field: it may be a list of anything
    ],
)
def test_in_nonsense_no_rewrite_is_found(text):
    assert parse_rewrite(text, ASKED) is None


def test_searches_are_few_and_different():
    text = "\n".join(f"Search: {word}" for word in ("one", "one", "two", "three", "four", "five"))
    assert parse_rewrite(text, ASKED).queries == ("one", "two", "three", "four")


def test_the_request_holds_the_end_of_the_conversation_on_one_line_each():
    history = [(f"Question {n}?", f"Answer {n}.\n\nIt is long.") for n in range(5)]
    text = rewrite_prompt("And  its\ncapital?", [*history, ("Who?", "x" * 1000)])
    assert "Question 2?" not in text
    assert "Q: Question 3?\nA: Answer 3. It is long.\n" in text
    assert "x" * rewriter.LONGEST_TURN in text
    assert "x" * (rewriter.LONGEST_TURN + 1) not in text
    assert text.endswith("\nAsked: And its capital?\n")


def test_without_a_conversation_the_request_is_the_question_alone():
    assert rewrite_prompt("Who wrote Emma?", []) == "Asked: Who wrote Emma?\n"


def test_a_model_that_was_not_trained_is_shown_the_form_by_examples_that_can_be_read():
    text = rewriter.few_shot_prompt(ASKED, [("Where is Peru?", "In South America.")])
    assert text.startswith(rewriter.INSTRUCTIONS)
    assert text.endswith(rewrite_prompt(ASKED, [("Where is Peru?", "In South America.")]))
    for past, asked, example in rewriter.EXAMPLES:
        assert rewrite_prompt(asked, past) + example in text
        assert parse_rewrite(example, asked) is not None
