from typing import Any

import pytest
from llama_index.core.base.llms.types import CompletionResponse, LLMMetadata
from llama_index.core.llms.custom import CustomLLM

from foundation import trace
from foundation.trace import RequestTrace
from retrieval import rewriter as module
from retrieval.rewriter import (
    INSTRUCTIONS,
    NOT_REWRITTEN,
    ConditionalRewriter,
    QueryRewriter,
    Rewrite,
    format_rewrite,
    parse_rewrite,
    rewrite_prompt,
)

PERU = [("What does Peru live from?", "It lives from copper and gold.")]
ASKED = "And its currency?"
CLEAR = "What is the currency of Peru?"
QUERIES = ("Peru currency", "The currency of Peru is")
WANTED = Rewrite(CLEAR, QUERIES)


class Writer(CustomLLM):
    """Writes what it was told to, and remembers the requests."""

    writes: str
    requests: list[str] = []  # noqa: RUF012 - pydantic copies it

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        self.requests.append(prompt)
        return CompletionResponse(text=self.writes)

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
        raise NotImplementedError


def rewritten(question, wrote, history=()):
    """The bundle, and what the user is told."""
    with trace.following() as way:
        bundle = QueryRewriter(Writer(writes=wrote), trained=True).run(
            question, {"history": history}
        )
    return bundle, way.notices


def test_a_follow_up_becomes_a_question_on_its_own_with_its_searches():
    wrote = format_rewrite(
        "What is the currency of Peru?", ("Peru currency", "The currency of Peru is")
    )
    bundle, notices = rewritten("And its currency?", wrote, PERU)
    assert bundle.query_str == "What is the currency of Peru?"
    assert bundle.embedding_strs == [
        "What is the currency of Peru?",
        "Peru currency",
        "The currency of Peru is",
    ]
    assert notices == []


def test_a_clear_question_is_searched_first_as_it_is():
    wrote = format_rewrite(None, ("Emma author", "The author of Emma is"))
    bundle, notices = rewritten("Who wrote Emma?", wrote)
    assert bundle.query_str == "Who wrote Emma?"
    assert bundle.embedding_strs == ["Who wrote Emma?", "Emma author", "The author of Emma is"]
    assert notices == []


def test_searches_are_four_at_most_and_none_twice():
    searches = ("Emma one", "Emma two", "Emma three", "Emma four")
    bundle, _ = rewritten("Who wrote Emma?", format_rewrite(None, ("Who wrote Emma?", *searches)))
    assert bundle.embedding_strs == ["Who wrote Emma?", *searches[:3]]


def test_a_search_that_was_copied_from_an_example_is_left_out():
    wrote = format_rewrite(None, ("height of the highest mountain", "the author of Emma"))
    bundle, _ = rewritten("Who wrote Emma?", wrote)
    assert bundle.embedding_strs == ["Who wrote Emma?", "the author of Emma"]


TP_9L = [("What does the TP-9L weigh?", "310 g.")]


@pytest.mark.parametrize(
    ("question", "wrote", "history"),
    [
        ("And its currency?", "I would say the sol.", PERU),
        ("And its currency?", "", PERU),
        ("And its currency?", '{"question": "What is the curr', PERU),
        # a name that nobody said
        ("And its currency?", format_rewrite("What is the currency of Chile?", ("Chile",)), PERU),
        # the question's own name is gone
        (
            "And what about Bolivia?",
            format_rewrite("What is the currency of Peru?", ("Peru currency",)),
            [("What is the currency of Peru?", "The sol.")],
        ),
        ("Who wrote Zadig?", format_rewrite("Who wrote the book?", ("author of the book",)), ()),
        ("And the TP-9?", format_rewrite("How heavy is the TP-9L?", ("TP-9L weight",)), TP_9L),
        ("And the other?", format_rewrite("What does the TP-9L weigh?", ("TP-9L weight",)), TP_9L),
        # what it asks for is gone
        (
            "How much is shipping to Norway?",
            format_rewrite("What is the capital of Norway?", ("Norway capital",)),
            [("What is the capital of Italy?", "Rome.")],
        ),
    ],
    ids=[
        *("chatter", "empty", "broken", "invented", "exchanged", "lost", "number", "asked before"),
        "asks for something else",
    ],
)
def test_on_nonsense_the_question_itself_is_searched_and_who_follows_up_is_told_to_ask_in_full(
    question, wrote, history
):
    bundle, notices = rewritten(question, wrote, history)
    assert bundle.query_str == question
    after_the_last = [f"{asked} {question}" for asked, _ in history[-1:]]
    assert bundle.embedding_strs == [question, *after_the_last]
    assert notices == ([NOT_REWRITTEN] if history else [])
    assert not history or "ask it in full" in notices[0]


def test_the_search_for_a_question_with_a_slip_in_a_name_may_mend_it():
    wrote = format_rewrite("What is the capital of Azerbaijan?", ("Azerbaijan capital",))
    bundle, notices = rewritten("what is the capital of Azerbajan", wrote)
    assert bundle.embedding_strs == [
        "what is the capital of Azerbajan",
        "What is the capital of Azerbaijan?",
        "Azerbaijan capital",
    ]
    assert notices == []


def test_a_question_that_follows_on_nothing_is_answered_as_it_was_asked():
    wrote = format_rewrite("What is the safety of the product?", ("safety officer",))
    bundle, _ = rewritten("Who is responsible for safety?", wrote)
    assert bundle.query_str == "Who is responsible for safety?"


def test_a_name_said_earlier_in_the_conversation_is_no_invention():
    wrote = format_rewrite("When was Jane Austen born?", ("Jane Austen date of birth",))
    bundle, notices = rewritten(
        "And when was she born?", wrote, [("Who wrote it?", "Jane Austen.")]
    )
    assert bundle.query_str == "When was Jane Austen born?"
    assert notices == []


@pytest.mark.parametrize("question", ["???", " ", "-- !"])
def test_a_question_without_words_is_not_given_to_the_model(question):
    writer = Writer(writes=format_rewrite(None, ("x",)))
    bundle = QueryRewriter(writer, trained=True).run(question, {})
    assert bundle.embedding_strs == [question]
    assert writer.requests == []


@pytest.mark.parametrize("more", [0, 1])
def test_a_question_too_long_to_be_written_again_is_searched_as_it_is(more):
    question = "x" * (module.LONGEST_QUESTION + more)
    writer = Writer(writes=format_rewrite(None, QUERIES))
    [batch] = QueryRewriter(writer, trained=True).rewrite_batch([(question, PERU, RequestTrace())])
    run = QueryRewriter(writer, trained=True).run(question, {"history": PERU})
    assert batch.query_str == run.query_str == question
    assert len(writer.requests) == (0 if more else 2)


def test_a_model_that_was_not_trained_is_told_what_to_do():
    for trained in (True, False):
        writer = Writer(writes="")
        QueryRewriter(writer, trained).run("And its currency?", {"history": PERU})
        [asked] = writer.requests
        assert asked.endswith(rewrite_prompt("And its currency?", PERU))
        assert asked.startswith(INSTRUCTIONS) is not trained


def test_a_rewriter_without_a_conversation_needs_none():
    writer = Writer(writes=format_rewrite(None, ("Emma author",)))
    bundle = QueryRewriter(writer, trained=True).run("Who wrote Emma?")
    assert bundle.embedding_strs == ["Who wrote Emma?", "Emma author"]


class Together(Writer):
    """Continues a batch of texts, a line for each."""

    def complete_batch(self, prompts: list[str]) -> list[str]:
        self.requests.append(" | ".join(prompts))
        return self.writes.split(" | ")


def taken(rewriter, *asked):
    """The bundles of a batch, and what each question's user is told."""
    trails = [RequestTrace() for _ in asked]
    bundles = rewriter.rewrite_batch(
        [(question, history, way) for (question, history), way in zip(asked, trails, strict=True)]
    )
    return bundles, trails


def test_questions_of_several_conversations_are_rewritten_in_one_batch():
    peru = format_rewrite("What is the currency of Peru?", ("Peru currency",))
    writer = Together(writes=f"{peru} | chatter")
    bundles, trails = taken(
        QueryRewriter(writer, trained=True),
        ("And its currency?", PERU),
        ("???", ()),
        ("And who lives there?", PERU),
    )
    assert [bundle.embedding_strs for bundle in bundles] == [
        ["What is the currency of Peru?", "Peru currency"],
        ["???"],
        ["And who lives there?", f"{PERU[0][0]} And who lives there?"],
    ]
    assert [way.notices for way in trails] == [[], [], [NOT_REWRITTEN]]
    assert len(writer.requests) == 1


def test_a_model_that_cannot_write_for_several_at_once_writes_for_each():
    writer = Writer(writes=format_rewrite(None, ("Emma author",)))
    bundles, _ = taken(
        QueryRewriter(writer, trained=True), ("Who wrote Emma?", ()), ("Who made Emma?", ())
    )
    assert [bundle.embedding_strs[1] for bundle in bundles] == ["Emma author", "Emma author"]
    assert len(writer.requests) == 2


def test_of_a_batch_only_what_is_not_served_is_rewritten():
    writer = Together(writes=format_rewrite(None, ("Emma author",)))
    sparing = ConditionalRewriter(
        QueryRewriter(writer, trained=True),
        lambda question: "Peru" in question,
        lambda question: "Chile" in question,
    )
    bundles, _ = taken(
        sparing, ("Where is Peru?", ()), ("Who wrote Emma?", ()), ("Where is Chile?", ())
    )
    assert [bundle.embedding_strs for bundle in bundles] == [
        ["Where is Peru?"],
        ["Who wrote Emma?", "Emma author"],
        ["Where is Chile?"],
    ]
    [asked] = writer.requests
    assert "Peru" not in asked


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
    assert "x" * module.LONGEST_TURN in text
    assert "x" * (module.LONGEST_TURN + 1) not in text
    assert text.endswith("\nAsked: And its capital?\n")


def test_without_a_conversation_the_request_is_the_question_alone():
    assert rewrite_prompt("Who wrote Emma?", []) == "Asked: Who wrote Emma?\n"


def test_a_model_that_was_not_trained_is_shown_the_form_by_examples_that_can_be_read():
    text = module.few_shot_prompt(ASKED, [("Where is Peru?", "In South America.")])
    assert text.startswith(module.INSTRUCTIONS)
    assert text.endswith(rewrite_prompt(ASKED, [("Where is Peru?", "In South America.")]))
    for past, asked, example in module.EXAMPLES:
        assert rewrite_prompt(asked, past) + example in text
        assert parse_rewrite(example, asked) is not None
