import pytest
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from retrieval.search import BRIDGE_COSINE, MOST_BRIDGES, MultiQueryRetriever, combine, fuse

NOKIA = "Nokia was founded by Fredrik Idestam in Tampere. Nokia is a company of Finland."
SONY = "Sony comes from Tokyo."
HELSINKI = "Helsinki is the capital of Finland."
TWO_HOPS = "What is the capital of the country where Nokia was founded?"


class Shelf:
    """Finds by a table of queries: passages as (text, score); remembers what it was asked."""

    def __init__(self, **table):
        self.table = {key.replace("_", " "): value for key, value in table.items()}
        self.batches = []
        self.questions = set()

    def __call__(self, question, queries):
        self.questions.add(question)
        self.batches.append(list(queries))
        return [
            [
                NodeWithScore(node=TextNode(id_=text, text=text), score=score)
                for text, score in self.table.get(query, [])
            ]
            for query in queries
        ]

    @property
    def asked(self):
        return [query for batch in self.batches for query in batch]


def find(shelf, question, queries=None, top_k=10):
    """The texts found, and the searches that the bundle names afterwards."""
    bundle = QueryBundle(question, custom_embedding_strs=queries)
    found = MultiQueryRetriever(shelf, top_k).retrieve(bundle)
    return [node.text for node in found], bundle.embedding_strs


def test_queries_that_stand_alone_are_searched_in_one_batch_and_fused():
    shelf = Shelf(one=[("a", 0.9), ("b", 0.8)], two=[("b", 0.7), ("c", 0.6)])
    texts, queries = find(shelf, "Who?", ["one", "two"])
    assert texts == ["b", "a", "c"]
    assert shelf.batches == [["one", "two"]]
    assert queries == ["one", "two"]
    assert shelf.questions == {"Who?"}
    assert find(shelf, "Who?", ["one", "two"], top_k=1)[0] == ["b", "a"]  # one of each


def test_one_search_finds_as_many_as_asked_for_and_each_of_several_half_as_many():
    many = [[(f"{name}{at}", 1 - at / 100) for at in range(20)] for name in "ab"]
    shelf = Shelf(one=many[0], two=many[1])
    assert len(find(shelf, "one", top_k=20)[0]) == 20
    texts, _ = find(shelf, "one", ["one", "two"], top_k=20)
    assert texts == [f"{name}{at}" for at in range(10) for name in "ab"]


def test_a_question_without_searches_is_its_own_search():
    shelf = Shelf(one=[("a", 0.9)])
    assert find(shelf, "one") == (["a"], ["one"])


def test_a_chained_query_is_completed_by_the_name_whose_passage_is_nearest():
    shelf = Shelf(
        Nokia_country=[(NOKIA, 0.8)],
        capital_of_Fredrik_Idestam=[(SONY, 0.2)],
        capital_of_Tampere=[(NOKIA, 0.5)],
        capital_of_Finland=[(HELSINKI, 0.9)],
    )
    texts, queries = find(shelf, TWO_HOPS, ["Nokia country", "capital of #1"])
    assert set(texts) == {NOKIA, HELSINKI}
    assert queries == ["Nokia country", "capital of Finland"]
    assert not any("#" in query for query in shelf.asked)


def test_names_that_the_question_holds_already_are_not_tried():
    shelf = Shelf(Nokia_country=[(NOKIA, 0.8)])
    find(shelf, TWO_HOPS, ["Nokia country", "capital of #1"])
    assert "capital of Nokia" not in shelf.asked
    assert "capital of Finland" in shelf.asked


def test_only_the_first_names_are_tried_and_the_nearest_is_followed():
    names = ["Ada", "Bea", "Cleo", "Dora", "Edna", "Fay", "Gina", "Hope", "Ida", "Joy"]
    shelf = Shelf(who=[(", ".join(names), 0.9)])
    shelf.table |= {f"age of {name}": [(name, 0.1 * at)] for at, name in enumerate(names)}
    texts, queries = find(shelf, "How old is she?", ["who", "age of #1"])
    assert shelf.batches[1] == [f"age of {name}" for name in names[:MOST_BRIDGES]]
    assert queries == ["who", "age of Hope"]
    assert len(texts) == 2


def test_the_question_tells_what_its_first_half_led_to():
    shelf = Shelf(Nokia_country=[(NOKIA, 0.8)], capital_of_Finland=[(HELSINKI, 0.9)])
    bundle = QueryBundle(TWO_HOPS, custom_embedding_strs=["Nokia country", "capital of #1"])
    MultiQueryRetriever(shelf, 10).retrieve(bundle)
    assert bundle.query_str == (
        "What is the capital of the country where Nokia was founded, "
        "that is, the capital of Finland?"
    )


def test_a_name_that_no_passage_found_for_it_holds_is_not_followed():
    shelf = Shelf(Nokia_country=[(NOKIA, 0.8)], capital_of_Tampere=[(SONY, 0.9)])
    texts, queries = find(shelf, TWO_HOPS, ["Nokia country", "capital of #1"])
    assert texts == [NOKIA]
    assert queries == ["Nokia country"]


def test_a_chained_query_that_comes_near_nothing_is_not_followed():
    far = BRIDGE_COSINE - 0.01
    shelf = Shelf(
        Nokia_country=[(NOKIA, 0.8)],
        capital_of_Finland=[(HELSINKI, far)],
    )
    bundle = QueryBundle(TWO_HOPS, custom_embedding_strs=["Nokia country", "capital of #1"])
    found = MultiQueryRetriever(shelf, 10).retrieve(bundle)
    assert [node.text for node in found] == [NOKIA]
    assert bundle.embedding_strs == ["Nokia country"]
    assert bundle.query_str == TWO_HOPS  # the reader is told of no second half


def test_where_nothing_was_found_to_build_on_the_chained_query_is_left_out():
    shelf = Shelf()
    texts, queries = find(shelf, TWO_HOPS, ["Nokia country", "capital of #1"])
    assert texts == []
    assert queries == ["Nokia country"]
    assert shelf.asked == ["Nokia country"]


def test_a_question_about_a_number_one_is_searched_as_it_is():
    question = "Who sang the #1 hit of 1987?"
    shelf = Shelf()
    shelf.table[question] = [("George Michael", 0.9)]
    assert find(shelf, question) == (["George Michael"], [question])
    texts, queries = find(shelf, question, [question, "singer"])
    assert texts == ["George Michael"]
    assert queries == [question, "singer"]


def test_empty_queries_are_not_searched():
    shelf = Shelf(one=[("a", 0.9)])
    assert find(shelf, "one", ["one", " ", ""]) == (["a"], ["one"])
    assert shelf.asked == ["one"]


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


def test_what_full_text_search_finds_alone_by_far_comes_first() -> None:
    near = ranking(a=0.5, b=0.48, c=0.46, d=0.4)
    matched = ranking(rare=0.42, a=0.5, b=0.48, c=0.46)
    assert names(combine(near, matched, [17.0, 3.0, 2.9, 2.8], 4)) == ["rare", "a", "b", "c"]
    # Where all match alike, the nearest does.
    assert names(combine(near, matched, [3.1, 3.0, 2.9, 2.8], 2)) == ["a", "b"]


def test_what_neither_search_finds_best_may_be_best_of_both() -> None:
    found = combine(ranking(a=0.9, b=0.8, c=0.0), ranking(d=0.1, b=0.8), [2.0, 1.9], 3)
    assert names(found) == ["b", "d", "a"]
    assert {each.node_id: each.score for each in found} == {"a": 0.9, "b": 0.8, "d": 0.1}


@pytest.mark.parametrize("scores", [[], [0.0, 0.0]])
def test_without_matches_the_order_is_that_of_the_cosines(scores: list[float]) -> None:
    matched = ranking(**dict(zip("cb", [0.2, 0.8], strict=True))) if scores else []
    assert names(combine(ranking(a=0.9, b=0.8, c=0.2), matched, scores, 5)) == ["a", "b", "c"]
    assert combine([], [], [], 5) == []


def test_passages_of_the_same_cosine_are_told_apart_by_their_words() -> None:
    assert names(combine(ranking(a=0.7, b=0.7), ranking(b=0.7), [1.0], 5)) == ["b", "a"]
