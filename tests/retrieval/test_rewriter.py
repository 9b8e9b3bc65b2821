from typing import Any

import pytest
from llama_index.core.base.llms.types import CompletionResponse, LLMMetadata
from llama_index.core.llms.custom import CustomLLM

from foundation import trace
from foundation.trace import RequestTrace
from retrieval.rewriter import (
    INSTRUCTIONS,
    UNUSABLE,
    ConditionalRewriter,
    QueryRewriter,
    format_rewrite,
    rewrite_prompt,
)

PERU = [("What does Peru live from?", "It lives from copper and gold.")]


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
    wrote = format_rewrite(None, ("Who wrote Emma?", "one", "two", "three", "four"))
    bundle, _ = rewritten("Who wrote Emma?", wrote)
    assert bundle.embedding_strs == ["Who wrote Emma?", "one", "two", "three"]


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
    ],
    ids=["chatter", "empty", "broken", "invented", "exchanged", "lost"],
)
def test_on_nonsense_the_question_itself_is_searched_and_the_user_is_told(question, wrote, history):
    bundle, notices = rewritten(question, wrote, history)
    assert bundle.query_str == question
    assert bundle.embedding_strs == [question]
    assert notices == [UNUSABLE]


def test_a_slip_in_a_name_may_be_mended():
    wrote = format_rewrite("What is the capital of Azerbaijan?", ("Azerbaijan capital",))
    bundle, notices = rewritten("what is the capital of Azerbajan", wrote)
    assert bundle.query_str == "What is the capital of Azerbaijan?"
    assert notices == []


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
        ("Who wrote Emma?", ()),
    )
    assert [bundle.embedding_strs for bundle in bundles] == [
        ["What is the currency of Peru?", "Peru currency"],
        ["???"],
        ["Who wrote Emma?"],
    ]
    assert [way.notices for way in trails] == [[], [], [UNUSABLE]]
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
