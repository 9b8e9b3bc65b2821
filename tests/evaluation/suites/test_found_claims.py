from functools import partial

from llama_index.core.schema import NodeWithScore, TextNode

from control.conflict import passage_claims
from control.conflict.passage_claims import LEAST_ALONE, LEAST_ANSWERS
from control.conflict.reader import Reading
from evaluation.datasets.questions import RetrievalQuestion
from evaluation.suites import found_claims
from evaluation.suites.retrieval import Modules

UNSURE = (LEAST_ANSWERS + LEAST_ALONE) / 2
TEXTS = {"p1": "It is Ann.", "p2": "It is Bob.", "p3": "It rains."}
SURE = {"Ann": 0.99, "Bob": UNSURE}


class Reader:
    """Finds Ann surely and Bob less so, whatever is asked."""

    def read(self, asked):
        return [self._read(text) for _, text in asked]

    def _read(self, text):
        for name, answers in SURE.items():
            if name in text:
                return Reading(name, text.index(name), answers)
        return Reading()


def asking(name, *found, answers=(), evidence=()):
    return RetrievalQuestion(name, "fact", " ".join(found), (), answers, evidence)


def measured(*items):
    def search(query):
        return [
            NodeWithScore(node=TextNode(id_=name, text=TEXTS[name]))
            for name in query.query_str.split()
        ]

    modules = Modules(None, search, lambda found, _: found, None, 3, None)
    report = found_claims.report(partial(passage_claims.read, Reader()), modules, items)
    assert report["n"] == len(items)
    return {row["answered from"]: row for row in report["tables"]["claims"] if row["kind"] == "all"}


def test_the_surest_claim_of_what_is_found_is_right_or_wrong_or_made_where_none_answers():
    rows = measured(
        asking("1", "p2", "p1", answers=("Ann",), evidence=(("p1",),)),
        asking("2", "p2", answers=("Carla",), evidence=(("p9",),)),
        asking("3", "p3", answers=("Dora",), evidence=(("p3",),)),
        asking("4", "p1", answers=("Ann",), evidence=(("p1",),)),
        asking("5", "p2"),
        asking("6", "p3"),
    )
    beside, alone = rows["beside memory"], rows["only documents"]
    assert (beside["n"], beside["n without an answer"], beside["evidence read"]) == (4, 2, 75.0)
    told = ("right", "wrong", "claimed, none answers")
    assert [beside[name] for name in told] == [50.0, 25.0, 50.0]
    assert [alone[name] for name in told] == [50.0, 0.0, 0.0]  # it is not sure enough of Bob


def test_questions_that_all_have_answers_leave_none_open():
    row = measured(asking("1", "p1", answers=("Ann",), evidence=(("p1",),)))["beside memory"]
    assert (row["right"], row["n without an answer"]) == (100, 0)
    assert row["claimed, none answers"] is None
