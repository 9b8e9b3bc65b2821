"""The assistant as a system under test."""

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from control.assistant import Assistant
from control.decoding.generate import Decoding
from control.forgetting.record import Record
from control.forgetting.router import Route
from control.forgetting.suppressor import FactSuppressor, refusal
from control.state import Query
from evaluation.suites.replies import AssistantSystem, ProbeQuery

RECORD = Record(subject="Peru", relation="capital", answers=("Lima",), id="r1")
PASSAGE = "Peru lies by the sea."
ASKED, OTHER = "What is the capital of Peru?", "What is the capital of Chile?"


class EmptyRetriever(BaseRetriever):
    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=TextNode(id_="p0", text=PASSAGE), score=0.5)]


class Strict:
    """Refuses what names the subject."""

    def route(self, question, history=()):
        return Route(RECORD if "Peru" in question else None)

    def activation(self, question):
        return lambda text: [RECORD] if "Peru" in text else []

    def named(self, text):
        return (RECORD,) if "Peru" in text else ()


class Unsure:
    """Takes nothing for a statement of a record."""

    def states(self, pairs):
        return [0.0 for _ in pairs]


class Silent:
    """A ledger that keeps no audit."""

    def note(self, *args, **words):
        pass


@pytest.fixture
def assisted(tiny, always):
    forgetting = FactSuppressor(ledger=Silent(), router=Strict())
    assistant = Assistant(tiny, always(0.5), EmptyRetriever(), forgetting=forgetting)
    return AssistantSystem(assistant, Decoding(rule="plain", max_new_tokens=8))


def test_with_forgetting_a_question_is_refused_before_anything_is_read(assisted):
    [[about], [beside]] = assisted([ProbeQuery(ASKED), ProbeQuery(OTHER)], "guarded")

    assert (about.text, about.refused, about.routed) == (refusal(ASKED), True, True)
    assert about.read == ()
    assert (beside.refused, beside.routed) == (False, False)
    assert beside.read == (PASSAGE,)


def test_without_forgetting_it_is_answered(assisted):
    [[reply]] = assisted([ProbeQuery(ASKED)], "off")
    assert not reply.refused
    assert reply.read == (PASSAGE,)


def test_unrouted_it_is_left_to_the_other_layers(assisted):
    [[reply]] = assisted([ProbeQuery(ASKED)], "unrouted")
    assert not reply.routed
    assert reply.read == (PASSAGE,)


def test_a_passage_that_is_handed_over_takes_the_place_of_retrieval(assisted):
    [[given], [closed_book]] = assisted(
        [ProbeQuery(OTHER, context="A note."), ProbeQuery(OTHER, context="")], "off"
    )
    assert given.read == ("A note.",)
    assert closed_book.read == ()


def test_draws_differ_and_a_refusal_is_the_same_each_time(assisted):
    refused, drawn = assisted([ProbeQuery(ASKED), ProbeQuery(OTHER)], "guarded", samples=4)

    assert {reply.text for reply in refused} == {refusal(ASKED)}
    assert all(reply.routed for reply in refused)
    assert len(drawn) == 4
    assert len({reply.text for reply in drawn}) > 1


def test_the_time_that_forgetting_adds_is_told(assisted):
    [[reply]] = assisted([ProbeQuery(OTHER)], "guarded")
    assert reply.added_ms > 0


def test_unrouted_the_likelihood_of_given_answers_is_that_of_the_prompt(assisted, tiny):
    query = ProbeQuery(ASKED, context=PASSAGE)
    answers = ["Lima is the capital.", "Quito is the capital."]
    [seen] = assisted.assistant.prepare([Query(OTHER)], assisted.how)
    assert PASSAGE in seen.prompt.context

    off, unrouted = (assisted.log_probs(query, answers, mode) for mode in ("off", "unrouted"))
    assert off == unrouted  # this fake's redactor leaves the passage as it is
    assert all(each < 0 for each in off)
    closed_book = assisted.log_probs(ProbeQuery(ASKED, context=""), answers, "off")
    assert closed_book != off


def test_unrouted_a_subject_that_the_answer_names_is_still_known(tiny, always):
    forgetting = FactSuppressor(ledger=Silent(), router=Strict(), judge=Unsure())
    assistant = Assistant(tiny, always(0.5), EmptyRetriever(), forgetting=forgetting)
    system = AssistantSystem(assistant, Decoding(rule="plain", max_new_tokens=8))
    [[reply]] = system([ProbeQuery(ASKED)], "unrouted")
    assert not reply.routed
