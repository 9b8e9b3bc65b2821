import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from retrieval.search import fuse


def ranking(**scores: float) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(id_=name), score=score) for name, score in scores.items()]


def names(found: list[NodeWithScore]) -> list[str]:
    return [result.node_id for result in found]


def test_a_passage_of_both_rankings_beats_the_first_of_one() -> None:
    found = fuse([ranking(a=0.9, b=0.8, c=0.1), ranking(d=0.2, b=0.8)], 10)
    assert names(found) == ["b", "a", "d", "c"]


def test_order_is_that_of_the_published_sums() -> None:
    first, second = ranking(a=0.0, b=0.0, c=0.0), ranking(c=0.0, a=0.0, d=0.0)
    sums = {"a": 1 / 61 + 1 / 62, "b": 1 / 62, "c": 1 / 63 + 1 / 61, "d": 1 / 63}
    assert names(fuse([first, second], 4)) == sorted(sums, key=lambda name: -sums[name])


def test_each_keeps_its_highest_score() -> None:
    found = fuse([ranking(a=0.5, b=0.7), ranking(b=0.6, a=0.4)], 2)
    assert {result.node_id: result.score for result in found} == {"a": 0.5, "b": 0.7}


def test_ties_fall_by_score_and_then_by_place() -> None:
    assert names(fuse([ranking(a=0.1), ranking(b=0.9), ranking(c=0.1)], 3)) == ["b", "a", "c"]


@pytest.mark.parametrize("rankings", [[], [[]], [[], []]])
def test_nothing_gives_nothing(rankings: list[list[NodeWithScore]]) -> None:
    assert fuse(rankings, 5) == []


def test_one_ranking_is_kept_and_cut() -> None:
    assert names(fuse([ranking(a=0.9, b=0.8, c=0.7)], 2)) == ["a", "b"]
