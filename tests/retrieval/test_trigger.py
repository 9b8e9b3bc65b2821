import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from llama_index.core.bridge.pydantic import Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from foundation import trace
from foundation.errors import InputError
from retrieval.filter import KnowledgeFilter
from retrieval.index import PassageIndex, open_index
from retrieval.reservoir import Reservoir
from retrieval.trigger import ReservoirWriter, Trigger, finds_answer
from tests.retrieval.conftest import BagOfWords

RIVERS = ("Rhine", "Elbe", "Oder", "Weser")


class Judge(BaseNodePostprocessor):
    """Keeps passages that share a capitalised word with the question, and remembers its calls."""

    calls: list[tuple[str, set[str]]] = Field(default_factory=list)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        question = query_bundle.query_str if query_bundle else ""
        self.calls.append((question, {node.node_id for node in nodes}))
        names = {word.strip("?") for word in question.split() if word[0].isupper()}
        return [node for node in nodes if names & set(node.text.split())]


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
    return Reservoir(home, BagOfWords())


def asked(trigger: Trigger, question: str, *queries: str) -> tuple[list[str], dict[str, int]]:
    with trace.following() as followed:
        found = trigger.retrieve(QueryBundle(question, custom_embedding_strs=list(queries) or None))
    return [result.node_id for result in found], dict(followed.counts)


def remember(reservoir: Reservoir, index: PassageIndex, *ids: str) -> None:
    reservoir.remember(index._store.get_nodes(list(ids)))


def test_what_is_held_is_served_and_the_rest_retrieved(
    filled: PassageIndex, reservoir: Reservoir, searches: Searches
) -> None:
    remember(reservoir, filled, "Rhine-length")
    trigger = Trigger(filled, reservoir, BagOfWords(), theta=1, top_k=8)
    queries = ("Rhine Rhine length", "Elbe Elbe mouth", "Oder Oder mouth")
    found, counts = asked(trigger, "Rhine?", *queries)
    assert searches.batches == [["Elbe Elbe mouth", "Oder Oder mouth"]]
    assert {"Rhine-length", "Elbe-mouth", "Oder-mouth"} <= set(found)
    assert counts == {
        "queries_served": 1,
        "queries_sent": 2,
        "passages_reservoir": 1,
        "passages_external": 8,
    }


@pytest.mark.parametrize(
    ("tau", "theta", "served"),
    [(0.6, 2, True), (0.6, 3, False), (0.7, 1, True), (0.7, 2, False), (0.8, 1, False)],
)
def test_tau_and_theta_decide(
    filled: PassageIndex,
    reservoir: Reservoir,
    searches: Searches,
    tau: float,
    theta: int,
    served: bool,
) -> None:
    remember(reservoir, filled, "Rhine-length", "Rhine-mouth", "Elbe-length")
    cosines = [
        result.score or 0.0
        for result in reservoir.recall([BagOfWords()._vector("Rhine Rhine length")], 0.0)[0]
    ]
    assert cosines == pytest.approx([5 / 40**0.5, 4 / 40**0.5, 1 / 40**0.5])
    trigger = Trigger(filled, reservoir, BagOfWords(), tau=tau, theta=theta)
    _, counts = asked(trigger, "Rhine Rhine length")
    assert counts["queries_served"] == int(served)
    assert len(searches.batches) == int(not served)


def test_as_published_three_are_needed_without_a_judge_and_one_with(
    filled: PassageIndex, reservoir: Reservoir
) -> None:
    remember(reservoir, filled, "Rhine-length", "Rhine-mouth")
    question = "Rhine Rhine length"
    _, counts = asked(Trigger(filled, reservoir, BagOfWords()), question)
    assert counts["queries_served"] == 0
    _, counts = asked(Trigger(filled, reservoir, BagOfWords(), judge=Judge()), question)
    assert counts["queries_served"] == 1


def test_what_the_judge_refuses_does_not_count(
    filled: PassageIndex, reservoir: Reservoir, searches: Searches
) -> None:
    remember(reservoir, filled, "Rhine-length", "Elbe-length")
    judge = Judge()
    trigger = Trigger(filled, reservoir, BagOfWords(), judge=judge, tau=0.3)
    queries = ("Rhine Rhine length", "Elbe Elbe length", "Rhine Elbe length")
    found, counts = asked(trigger, "How long is the Elbe?", *queries)
    assert judge.calls == [("How long is the Elbe?", {"Rhine-length", "Elbe-length"})]
    assert searches.batches == [["Rhine Rhine length"]]
    assert (counts["queries_served"], counts["passages_reservoir"]) == (2, 1)
    assert found[0] == "Elbe-length"


def test_served_passages_are_real_ones_with_cosines(
    filled: PassageIndex, reservoir: Reservoir
) -> None:
    remember(reservoir, filled, "Rhine-length")
    trigger = Trigger(filled, reservoir, BagOfWords(), theta=1)
    [served] = trigger.retrieve("Rhine length is stated here. Rhine")
    [[retrieved]] = filled.retrieve_batch(["Rhine length is stated here. Rhine"], top_k=1)
    assert served.node == retrieved.node
    assert served.score == pytest.approx(1.0)


def test_top_k_limits_the_passages(filled: PassageIndex, reservoir: Reservoir) -> None:
    ids = [f"{name}-{what}" for name in RIVERS for what in ("length", "mouth")]
    remember(reservoir, filled, *ids)
    trigger = Trigger(filled, reservoir, BagOfWords(), tau=0.1, theta=4, top_k=2)
    found, counts = asked(trigger, "stated here")
    assert (len(found), counts["queries_served"]) == (2, 1)


def test_nothing_to_ask_and_nothing_to_find(index: PassageIndex, reservoir: Reservoir) -> None:
    trigger = Trigger(index, reservoir, BagOfWords(), judge=Judge())
    assert asked(trigger, "Rhine")[0] == []
    for nothing in ("", "  "):
        found, counts = asked(trigger, nothing)
        assert found == []
        assert set(counts.values()) == {0}


def test_held_passages_answer_without_an_index(
    filled: PassageIndex, reservoir: Reservoir, tmp_path: Path
) -> None:
    remember(reservoir, filled, "Rhine-length")
    empty = open_index(tmp_path / "other", None, BagOfWords())
    trigger = Trigger(empty, reservoir, BagOfWords(), theta=1)
    assert asked(trigger, "Rhine Rhine length")[0] == ["Rhine-length"]
    assert asked(trigger, "Elbe Elbe length")[0] == []


def test_empty_reservoir_judges_nothing(filled: PassageIndex, reservoir: Reservoir) -> None:
    judge = Judge()
    found, counts = asked(Trigger(filled, reservoir, BagOfWords(), judge=judge), "Oder Oder mouth")
    assert found[0] == "Oder-mouth"
    assert (judge.calls, counts["queries_sent"]) == ([], 1)


def test_its_time_is_booked_apart_from_retrieval(
    filled: PassageIndex, reservoir: Reservoir
) -> None:
    with trace.following() as followed, trace.step("retrieve"):
        Trigger(filled, reservoir, BagOfWords()).retrieve("Rhine")
    assert set(followed.seconds) == {"retrieve", "trigger"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tau": 1.5}, "tau is 1.5; give a cosine from 0 to 1"),
        ({"tau": float("nan")}, "tau is nan"),
        ({"theta": 0}, "theta is 0; give a number of passages from 1 up"),
        ({"top_k": 0}, "top_k is 0; give a number of passages from 1 up"),
    ],
)
def test_numbers_out_of_range(
    index: PassageIndex, reservoir: Reservoir, given: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Trigger(index, reservoir, BagOfWords(), **given)


def test_what_survives_is_remembered_and_counts_when_it_serves_again(
    filled: PassageIndex, reservoir: Reservoir, searches: Searches
) -> None:
    trigger = Trigger(filled, reservoir, BagOfWords(), judge=Judge())
    keep = ReservoirWriter(reservoir)
    for question in ("Rhine Rhine length", "Rhine Rhine length again"):
        found = trigger.retrieve(question)
        assert keep.postprocess_nodes(found[:1], query_str=question) == found[:1]
    assert searches.batches == [["Rhine Rhine length"]]
    [entry] = reservoir.entries()
    assert (entry.node.node_id, entry.uses) == ("Rhine-length", 2)


def test_erased_document_is_no_longer_served(filled: PassageIndex, reservoir: Reservoir) -> None:
    remember(reservoir, filled, "Rhine-length")
    trigger = Trigger(filled, reservoir, BagOfWords(), theta=1)
    assert "Rhine-length" in asked(trigger, "Rhine Rhine length")[0]
    filled.delete("Rhine-length")
    reservoir.erase(["Rhine-length"])
    assert "Rhine-length" not in asked(trigger, "Rhine Rhine length")[0]


def test_no_query_is_embedded_twice(
    filled: PassageIndex, reservoir: Reservoir, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    embed = BagOfWords._get_query_embedding

    def recorded(model: BagOfWords, query: str) -> list[float]:
        embedded.append(query)
        return embed(model, query)

    monkeypatch.setattr(BagOfWords, "_get_query_embedding", recorded)
    trigger = Trigger(filled, reservoir, BagOfWords(), theta=1, top_k=8)
    queries = ("Rhine Rhine length", "Elbe Elbe mouth", "Oder Oder mouth")
    before, _ = asked(trigger, "Rhine?", *queries)
    assert embedded == list(queries)
    remember(reservoir, filled, "Elbe-mouth")
    after, counts = asked(trigger, "Rhine?", *queries)
    assert embedded == [*queries, *queries]
    assert (counts["queries_served"], counts["queries_sent"]) == (1, 2)
    assert {"Rhine-length", "Elbe-mouth", "Oder-mouth"} <= set(before) & set(after)


def test_reservoir_that_cannot_be_written_costs_no_answer(
    filled: PassageIndex, reservoir: Reservoir, home: Path
) -> None:
    found = filled.retrieve("Rhine")
    with sqlite3.connect(home / "reservoir.db") as connection:
        connection.execute("DROP TABLE entries")
    with trace.following() as followed:
        assert ReservoirWriter(reservoir).postprocess_nodes(found, query_str="Rhine") == found
    [notice] = followed.notices
    assert "were not kept for later ones: " in notice
    assert "\n" not in notice


def test_half_an_answer_is_held_but_does_not_serve_a_whole_question(
    filled: PassageIndex, reservoir: Reservoir
) -> None:
    remember(reservoir, filled, "Rhine-length")
    likely = 0.4
    judge = KnowledgeFilter(lambda _, passages: [likely] * len(passages), 0.2)
    trigger = Trigger(
        filled, reservoir, BagOfWords(), judge=judge, strict_judge=judge.stricter(0.5)
    )
    assert not trigger.can_serve("Rhine Rhine length")
    likely = 0.6  # what was judged is remembered, so ask otherwise
    assert trigger.can_serve("Rhine Rhine length please")
    assert "Rhine-length" in asked(trigger, "Rhine Rhine length")[0]


def test_a_first_look_finds_what_answers_a_question_as_it_was_asked(filled: PassageIndex) -> None:
    def judge(question: str, passages: Sequence[str]) -> list[float]:
        return [float(all(word in text for word in question.split())) for text in passages]

    strict_judge = KnowledgeFilter(judge, 0.5)
    assert finds_answer(filled, strict_judge, "Rhine length")
    assert not finds_answer(filled, strict_judge, "Rhine source")
