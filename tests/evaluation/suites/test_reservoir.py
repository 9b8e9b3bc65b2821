import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from evaluation.suites import reservoir as sparing
from evaluation.suites import retrieval
from evaluation.suites.retrieval import Modules, keep_all
from foundation import trace

OUTSIDE = 3  # passages that a search brings from outside


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(sparing, "FILLING", 2)
    monkeypatch.setattr(sparing, "FOLLOWING", 4)
    monkeypatch.setattr(sparing, "TAUS", (0.5,))
    monkeypatch.setattr(sparing, "THETAS", (1, 2))


def test_the_later_questions_ask_for_the_same_facts_in_other_words():
    filling, following = sparing.build_questions("test")
    assert len(filling) == 2
    assert [item.evidence for item in following] == [
        item.evidence for item in filling for _ in range(2)
    ]
    asked = [item.question.lower() for item in (*filling, *following)]
    assert len(set(asked)) == 6


def test_the_report_counts_what_came_from_outside_for_the_later_questions(tiny, tmp_path):
    def search(bundle, outside=OUTSIDE):
        trace.count("passages_external", outside)
        return [NodeWithScore(node=TextNode(id_="p", text="p"), score=0.5)]

    def with_reservoir(folder, tau, theta, _looks):
        remembers = set()

        def sparingly(bundle):
            # Each reservoir begins empty, and serves all once something is in it.
            found = search(bundle, 0 if remembers else OUTSIDE)
            remembers.add(bundle.query_str)
            return found

        return retrieval.plain_query, sparingly, keep_all

    modules = Modules(retrieval.plain_query, search, keep_all, with_reservoir, reads=1)
    report = sparing.reservoir_report(tiny, modules, tmp_path)
    assert report["n"] == 4
    without, with_reservoir = report["tables"]["reservoir"]
    assert (without["arm"], without["external passages"]) == ("without", OUTSIDE)
    assert (with_reservoir["arm"], with_reservoir["external passages"]) == ("reservoir", 0)
    assert [row["arm"] for row in report["tables"]["curve"]] == [
        "tau 0.5, theta 1",
        "tau 0.5, theta 2",
    ]
    for row in (without, with_reservoir):
        assert row["with answer"] > row["seconds"] > 0
