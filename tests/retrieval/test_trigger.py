import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle

from foundation import trace
from foundation.errors import InputError
from retrieval import trigger as triggers
from retrieval.filter import KnowledgeFilter
from retrieval.index import TOP_K, PassageIndex, open_index
from retrieval.reservoir import Reservoir
from retrieval.trigger import Trigger, finds_answer
from tests.retrieval.conftest import BagOfWords

RIVERS = ("Rhine", "Elbe", "Oder", "Weser")


class Searches:
    """What the index was asked for."""

    def __init__(self, index: PassageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[str]] = []
        search = index.retrieve_batch

        def recorded(queries: list[str], *args: object, **kwargs: object) -> object:
            self.batches.append(list(queries))
            return search(queries, *args, **kwargs)

        monkeypatch.setattr(index, "retrieve_batch", recorded)


def fact(name: str, what: str) -> dict[str, object]:
    text = f"{name} {what} is stated here."
    return {"id": f"{name}-{what}", "title": name, "text": text}


@pytest.fixture
def filled(index: PassageIndex, json_lines: Callable[..., Path]) -> PassageIndex:
    index.ingest([json_lines(fact(name, what) for name in RIVERS for what in ("length", "mouth"))])
    return index


@pytest.fixture
def searches(filled: PassageIndex, monkeypatch: pytest.MonkeyPatch) -> Searches:
    return Searches(filled, monkeypatch)


@pytest.fixture
def reservoir(home: Path) -> Reservoir:
    return Reservoir(home)


@pytest.fixture
def trigger(filled: PassageIndex, reservoir: Reservoir) -> Trigger:
    return Trigger(filled, reservoir, BagOfWords())


def asked(trigger: Trigger, question: str, *queries: str) -> tuple[list[str], dict[str, int]]:
    with trace.following() as followed:
        found = trigger.retrieve(QueryBundle(question, custom_embedding_strs=list(queries) or None))
    return [result.node_id for result in found], dict(followed.counts)


def scored(found: Sequence[NodeWithScore]) -> list[tuple[BaseNode, float | None]]:
    return [(each.node, each.score) for each in found]


@pytest.mark.parametrize("again", ["How long is the Rhine?", "how long  is the rhine"])
def test_a_question_asked_again_finds_exactly_what_it_found_first(
    trigger: Trigger, filled: PassageIndex, searches: Searches, again: str
) -> None:
    question = "How long is the Rhine?"
    first = trigger.retrieve(question)
    assert searches.batches == [[question]]
    assert scored(trigger.retrieve(again)) == scored(first)
    assert searches.batches == [[question], []]
    assert len(first) == TOP_K
    assert scored(filled.retrieve_batch([question], TOP_K)[0]) == scored(first)


def test_another_question_searches_the_index(trigger: Trigger, searches: Searches) -> None:
    asked(trigger, "Rhine length")
    found, counts = asked(trigger, "Rhine mouth")
    assert found[0] == "Rhine-mouth"
    assert searches.batches == [["Rhine length"], ["Rhine mouth"]]
    assert (counts["queries_served"], counts["queries_sent"]) == (0, 1)


def test_each_query_of_a_question_is_served_or_searched(
    filled: PassageIndex, reservoir: Reservoir, searches: Searches
) -> None:
    trigger = Trigger(filled, reservoir, BagOfWords(), top_k=8)
    asked(trigger, "Elbe mouth")
    queries = ("Rhine length", "Elbe mouth", "Oder mouth")
    found, counts = asked(trigger, "Rhine?", *queries)
    assert searches.batches[1:] == [["Rhine length", "Oder mouth"]]
    assert {"Rhine-length", "Elbe-mouth", "Oder-mouth"} <= set(found)
    assert counts == {"queries_served": 1, "queries_sent": 2, "passages_external": 8}
    again, counts = asked(trigger, "Rhine?", *queries)
    assert again == found
    assert counts == {"queries_served": 3, "queries_sent": 0, "passages_external": 0}


@pytest.mark.parametrize(("tau", "served"), [(0.7, True), (0.9, False)])
def test_tau_decides(filled: PassageIndex, reservoir: Reservoir, tau: float, served: bool) -> None:
    trigger = Trigger(filled, reservoir, BagOfWords(), tau=tau)
    asked(trigger, "where is the Rhine mouth")
    _, counts = asked(trigger, "where is the Rhine length")  # cosine 0.8
    assert counts["queries_served"] == int(served)


def test_a_search_for_more_passages_is_not_served_fewer(
    filled: PassageIndex, reservoir: Reservoir
) -> None:
    few, many = (Trigger(filled, reservoir, BagOfWords(), top_k=number) for number in (2, 6))
    assert len(few.retrieve("Rhine stated here")) == 2
    assert len(many.retrieve("Rhine stated here")) == 6
    assert len(few.retrieve("Rhine stated here")) == 2


def test_what_an_earlier_way_of_ranking_found_serves_no_search(
    trigger: Trigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(trigger, "Rhine source")
    assert asked(trigger, "Rhine source")[1]["queries_served"] == 1
    monkeypatch.setattr(triggers, "ORDER", "another")
    assert asked(trigger, "Rhine source")[1]["queries_served"] == 0


def test_new_documents_are_found_by_a_question_asked_before(
    trigger: Trigger, filled: PassageIndex, json_lines: Callable[..., Path]
) -> None:
    assert "Rhine-source" not in asked(trigger, "Rhine source")[0]
    filled.ingest([json_lines([fact("Rhine", "source")])])
    assert asked(trigger, "Rhine source")[0][0] == "Rhine-source"


def test_a_removed_document_is_no_longer_found(trigger: Trigger, filled: PassageIndex) -> None:
    assert "Rhine-length" in asked(trigger, "Rhine length")[0]
    filled.delete("Rhine-length")
    found, counts = asked(trigger, "Rhine length")
    assert "Rhine-length" not in found
    assert counts["queries_sent"] == 1


def test_a_replaced_document_is_served_as_it_is_now(
    trigger: Trigger, filled: PassageIndex, json_lines: Callable[..., Path]
) -> None:
    trigger.retrieve("Rhine length")
    new = fact("Rhine", "length") | {"text": "The Rhine length is 1,233 km."}
    filled.ingest([json_lines([new])])
    assert trigger.retrieve("Rhine length")[0].text == "The Rhine length is 1,233 km."


def test_a_redacted_passage_is_served_redacted(trigger: Trigger, filled: PassageIndex) -> None:
    first = trigger.retrieve("Rhine length")[0].node
    filled.replace([first.model_copy(update={"text": "Rhine length: nothing."})])
    assert "Rhine length: nothing." in [found.text for found in trigger.retrieve("Rhine length")]
    assert first.get_content() not in [found.text for found in trigger.retrieve("Rhine length")]


def test_a_passage_that_vanishes_while_it_is_served_sends_the_query(
    trigger: Trigger, filled: PassageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = asked(trigger, "Rhine length")
    monkeypatch.setattr(filled, "get_nodes", lambda ids: [])
    found, counts = asked(trigger, "Rhine length")
    assert (found, counts["queries_sent"]) == (before, 1)


def test_another_index_in_the_same_home_is_searched_itself(
    trigger: Trigger, reservoir: Reservoir, tmp_path: Path, json_lines: Callable[..., Path]
) -> None:
    asked(trigger, "Rhine length")
    other = open_index(tmp_path / "other", None, BagOfWords())
    other.ingest([json_lines([fact("Rhine", "length") | {"id": "other"}])])
    assert asked(Trigger(other, reservoir, BagOfWords()), "Rhine length")[0] == ["other"]


def test_nothing_to_ask_and_nothing_to_find(index: PassageIndex, reservoir: Reservoir) -> None:
    trigger = Trigger(index, reservoir, BagOfWords())
    for nothing in ("Rhine", "", "  "):
        assert asked(trigger, nothing)[0] == []
    assert reservoir.count() == 0


def test_its_time_is_booked_apart_from_retrieval(trigger: Trigger) -> None:
    with trace.following() as followed, trace.step("retrieve"):
        trigger.retrieve("Rhine")
    assert set(followed.seconds) == {"retrieve", "trigger"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tau": 1.5}, "tau is 1.5; give a cosine from 0 to 1"),
        ({"tau": float("nan")}, "tau is nan"),
        ({"top_k": 0}, "top_k is 0; give a number of passages from 1 up"),
    ],
)
def test_numbers_out_of_range(
    index: PassageIndex, reservoir: Reservoir, given: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Trigger(index, reservoir, BagOfWords(), **given)


def test_no_query_is_embedded_twice(trigger: Trigger, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[str] = []
    embed = BagOfWords._get_query_embedding

    def recorded(model: BagOfWords, query: str) -> list[float]:
        embedded.append(query)
        return embed(model, query)

    monkeypatch.setattr(BagOfWords, "_get_query_embedding", recorded)
    queries = ("Rhine length", "Elbe mouth")
    for times in (1, 2):
        asked(trigger, "Rhine?", *queries)
        assert embedded == [*queries] * times


def test_reservoir_that_cannot_be_written_costs_no_answer(
    trigger: Trigger, filled: PassageIndex, home: Path
) -> None:
    with sqlite3.connect(home / "reservoir.db") as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON searches BEGIN "
            "INSERT INTO nowhere VALUES (1); END"
        )
    connection.close()
    with trace.following() as followed:
        assert scored(trigger.retrieve("Rhine")) == scored(filled.retrieve_batch(["Rhine"])[0])
    [notice] = followed.notices
    assert "is not kept for later questions: " in notice
    assert "\n" not in notice


def test_a_first_look_finds_what_answers_a_question_as_it_was_asked(
    trigger: Trigger, searches: Searches
) -> None:
    def judge(question: str, passages: Sequence[str]) -> list[float]:
        return [float(all(word in text for word in question.split())) for text in passages]

    strict_judge = KnowledgeFilter(judge, 0.5)
    assert finds_answer(trigger.search, strict_judge, "Rhine length")
    assert not finds_answer(trigger.search, strict_judge, "Rhine source")
    _, counts = asked(trigger, "Rhine length")  # found by that look
    assert counts["queries_served"] == 1
