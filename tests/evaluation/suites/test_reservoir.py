import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from evaluation.suites import reservoir as suite
from evaluation.suites import retrieval
from evaluation.suites.retrieval import Modules, keep_all
from foundation import trace
from retrieval.trigger import TAU

OUTSIDE = 3  # passages that a search brings from outside


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(suite, "FILLING", 2)
    monkeypatch.setattr(suite, "FOLLOWING", 4)
    monkeypatch.setattr(suite, "TAUS", (0.5,))


def test_the_later_questions_ask_again_and_in_other_words():
    first, again, reworded = suite.build_questions("test").values()
    assert [item.question for item in again] == [item.question for item in first]
    assert [item.evidence for item in reworded] == [
        item.evidence for item in first for _ in range(2)
    ]
    asked = [item.question.lower() for item in (*first, *reworded)]
    assert len(set(asked)) == 6
    assert len({item.id for item in (*first, *again, *reworded)}) == 8


def test_the_report_counts_what_came_from_outside_each_time(tiny, tmp_path):
    def search(bundle, outside=OUTSIDE):
        trace.count("passages_external", outside)
        return [NodeWithScore(node=TextNode(id_="p", text="p"), score=0.5)]

    def with_reservoir(folder, tau):
        remembered = set()

        def triggered(bundle):
            # Each reservoir begins empty, and serves the same question, or any if tau is low.
            serves = bundle.query_str in remembered or (tau < TAU and bool(remembered))
            remembered.add(bundle.query_str)
            return search(bundle, 0 if serves else OUTSIDE)

        return retrieval.plain_query, triggered

    plain = retrieval.plain_query
    modules = Modules(plain, search, keep_all, with_reservoir, reads=1, ask=lambda *_: [])
    report = suite.reservoir_report(tiny, modules, suite.build_questions("test"), tmp_path)
    assert report["n"] == 8
    rows = {(row["arm"], row["asked"]): row for row in report["tables"]["reservoir"]}
    external = {name: row["external passages"] for name, row in rows.items()}
    assert external == {
        ("without", "first"): OUTSIDE,
        ("without", "again"): OUTSIDE,
        ("without", "in other words"): OUTSIDE,
        (f"tau {TAU}", "first"): OUTSIDE,
        (f"tau {TAU}", "again"): 0,
        (f"tau {TAU}", "in other words"): OUTSIDE,
        ("tau 0.5", "first"): OUTSIDE / 2,
        ("tau 0.5", "again"): 0,
        ("tau 0.5", "in other words"): 0,
    }
    for row in rows.values():
        assert row["with answer"] > row["seconds"] > 0
        assert row["found"] == row["read"] == 0  # "p" answers none of them
