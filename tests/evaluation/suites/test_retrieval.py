import json

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from control.assistant import Assistant
from evaluation.datasets.questions import RetrievalQuestion, ramdocs
from evaluation.suites import retrieval
from evaluation.suites.retrieval import (
    Arm,
    AssistantArm,
    Modules,
    RetrievalRow,
    failures,
    keep_all,
    modules_report,
    report,
    run,
)
from foundation import trace
from foundation.errors import DataError, InputError
from retrieval.trigger import TAU

ITEMS = [
    RetrievalQuestion("1", "plain", "Who?", (), ("Ann",), (("p1",),)),
    RetrievalQuestion("2", "plain", "Where?", (), ("Rome",), (("p2",),)),
    RetrievalQuestion(
        "3", "follow-up", "And when?", (("Who?", "Ann."),), ("1815",), (("p3",), ("p4",))
    ),
]


class Search:
    """Finds two passages, counts them, and fails at a question if it is told to."""

    def __init__(self, fails_at=None):
        self.asked = []
        self.fails_at = fails_at

    def __call__(self, bundle):
        if bundle.query_str == self.fails_at:
            raise KeyboardInterrupt
        self.asked.append(bundle.query_str)
        trace.count("passages_external", 2)
        return [
            NodeWithScore(node=TextNode(id_=name, text=name), score=0.5) for name in ("p1", "p2")
        ]


def arm(search, name="read", rewrite=retrieval.plain_query, keep=keep_all, reads=1):
    return Arm(name, rewrite, search, keep, reads)


def test_each_question_goes_through_each_arm(tiny, tmp_path):
    search = Search()
    direct = Arm("direct", retrieval.plain_query, None, keep_all, 1)
    rows = run(tiny, ITEMS, [direct, arm(search)], tmp_path, batch_size=2)
    assert [(row.arm, row.id) for row in rows] == [
        *(("direct", item.id) for item in ITEMS),
        *(("read", item.id) for item in ITEMS),
    ]
    assert [row.found for row in rows] == [[]] * 3 + [["p1", "p2"]] * 3
    assert [row.read for row in rows] == [[]] * 3 + [["p1"]] * 3
    assert search.asked == [item.question for item in ITEMS]
    for row in rows[3:]:
        assert row.counts == {"passages_external": 2}
        assert set(row.seconds) == {"rewrite", "retrieve", "filter", "decode"}
        assert row.answer


def test_what_is_rewritten_is_searched_read_and_told(tiny, tmp_path):
    def rewrite(question, history):
        trace.notice("It was a follow-up.") if history else None
        return QueryBundle(f"{question} (clear)", custom_embedding_strs=[question, "more"])

    def keep(found, bundle):
        assert bundle.query_str.endswith("(clear)")
        return found[1:]

    rows = run(tiny, ITEMS, [arm(Search(), rewrite=rewrite, keep=keep)], tmp_path)
    assert rows[0].asked == "Who? (clear)"
    assert rows[0].queries == ["Who?", "more"]
    assert [row.read for row in rows] == [["p2"]] * 3
    assert [row.notices for row in rows] == [[], [], ["It was a follow-up."]]


def test_an_interrupted_run_goes_on_where_it_stopped(tiny, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tiny, ITEMS, [arm(Search(fails_at="And when?"))], tmp_path, batch_size=2)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"arm": "read", "id": "3", "ki')  # killed while it wrote
    search = Search()
    rows = run(tiny, ITEMS, [arm(search)], tmp_path, batch_size=2)
    assert search.asked == ["And when?"]
    assert [row.id for row in rows] == ["1", "2", "3"]
    again = Search()
    assert run(tiny, ITEMS, [arm(again)], tmp_path) == rows
    assert again.asked == []
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert len(list(map(json.loads, lines))) == 1 + len(ITEMS)


def test_rows_of_another_run_are_not_mixed_in(tiny, tmp_path):
    run(tiny, ITEMS[:1], [arm(Search())], tmp_path)
    with pytest.raises(DataError, match="holds the rows of another run; give another --out"):
        run(tiny, ITEMS[1:], [arm(Search())], tmp_path)


def row(arm, id_, kind, found, answer):
    seconds = {"rewrite": 1.0, "retrieve": 0.5, "decode": 7.0}
    return RetrievalRow(arm, id_, kind, "Who?", [], found, found[:1], answer, seconds)


def test_the_report_has_a_row_for_each_kind_and_arm():
    rows = [
        row("read", "1", "plain", ["p1", "x"], "It is Ann."),
        row("read", "2", "plain", ["x"] * 5 + ["p2"], "Oslo"),
        row("read", "3", "follow-up", ["p3"], "In 1815."),
        row("all", "1", "plain", ["p1"], "Ann"),
        row("all", "2", "plain", ["p2"], "Rome"),
        row("all", "3", "follow-up", ["p4", "p3"], "never"),
    ]
    table = {(line["kind"], line["arm"]): line for line in report(ITEMS, rows)}
    assert list(table) == [
        (kind, arm) for kind in ("plain", "follow-up", "all") for arm in ("read", "all")
    ]
    plain = table["plain", "read"]
    assert (plain["n"], plain["hit"], plain["recall@5"]) == (2, 50, 50)
    assert plain["F1"] == pytest.approx(100 * (2 * 1 / (3 + 1)) / 2)
    assert (plain["passages"], plain["seconds"], plain["decode"]) == (1, 1.5, 7)
    assert table["plain", "all"]["hit"] == table["plain", "all"]["F1"] == 100
    # a two-passage question needs both
    assert table["follow-up", "read"]["recall@5"] == 0
    assert table["follow-up", "all"]["recall@5"] == 100
    both = table["all", "all"]
    assert both["n"] == 3
    assert both["hit"] == pytest.approx(200 / 3)
    low, high = both["ci"]["hit"]
    assert low <= both["hit"] <= high
    assert both["p"] == 1  # one better, one worse
    assert table["all", "read"]["p"] == 1


def test_a_wrong_answer_counts_where_its_evidence_was_lost():
    rows = [
        row("read", "1", "plain", ["x", "y"], "Oslo"),  # not found
        row("read", "2", "plain", ["x", "p2"], "Oslo"),  # found second, and one is read
        row("read", "3", "follow-up", ["p3", "p4"], "1815"),  # right, whatever was read
        row("all", "1", "plain", ["p1"], "Bob"),  # read
    ]
    [read, every] = failures(ITEMS, rows)
    assert read == {
        **{"arm": "read", "n": 3, "right": 1, "not found": 1},
        **{"found, not read": 1, "read, wrong answer": 0},
    }
    assert every["read, wrong answer"] == every["n"] == 1


class TwoPassages(BaseRetriever):
    """Finds the passages p1 and p2, whatever is asked."""

    def _retrieve(self, query_bundle):
        return Search()(query_bundle)


def test_the_assistant_is_asked_as_it_is_used(tiny, always, tmp_path):
    assistant = Assistant(tiny, always(1, model=tiny.identity), TwoPassages(), reads=1)
    asked = []

    def ask(queries, how):
        asked.extend((query.question, query.history, how.max_new_tokens) for query in queries)
        return assistant.ask_batch(queries, how)

    rows = run(tiny, ITEMS, [AssistantArm(ask)], tmp_path, batch_size=2, max_new_tokens=7)
    assert asked == [(item.question, item.history, 7) for item in ITEMS]
    for item, row in zip(ITEMS, rows, strict=True):
        assert (row.arm, row.id, row.kind) == ("assistant", item.id, item.kind)
        assert (row.found, row.read) == (["p1", "p2"], ["p1"])
        assert row.answer
        assert set(row.seconds) == {"before", "decode"}
    table = report(ITEMS, rows)
    [whole] = [line for line in table if line["kind"] == "all"]
    assert (whole["arm"], whole["n"], whole["passages"]) == ("assistant", 3, 1)


def unasked(_queries, _how):
    raise AssertionError("the assistant is not to be asked")


def test_an_unknown_arm_is_refused_with_those_there_are(tiny, tmp_path):
    keep, plain = retrieval.keep_all, retrieval.plain_query
    modules = Modules(plain, Search(), keep, lambda *_: (plain, Search()), 3, unasked)
    with pytest.raises(InputError, match=r"--arm 'none': there is 'direct', 'read', .* 'all'"):
        modules_report(tiny, modules, ITEMS, tmp_path, ["none"])


def test_without_questions_the_file_is_named(tmp_path):
    data = tmp_path / "bad.jsonl"
    data.write_text("not json")
    with pytest.raises(DataError, match=r"bad\.jsonl: no questions"):
        ramdocs(data)


def test_without_the_baseline_nothing_is_compared_with_it():
    [line, *_] = report(ITEMS[:1], [row("all", "1", "plain", ["p1"], "Ann")])
    assert line["p"] is None


def test_the_ablation_shows_each_module_alone_and_all_together(tiny, tmp_path):
    reservoirs = []

    def rewrite(question, _history):
        return QueryBundle(f"{question}!")

    def judge(found, _asked):
        return found[1:]

    def with_reservoir(directory, tau):
        reservoirs.append((directory.parent, tau))
        return rewrite, Search()

    modules = Modules(rewrite, Search(), judge, with_reservoir, reads=1, ask=unasked)
    ways = ["direct", "read", "read, with history", "+ rewriter", "+ filter", "all"]
    shown = modules_report(tiny, modules, ITEMS[:2], tmp_path, ways)
    assert shown["n"] == 2
    assert reservoirs == [(tmp_path, TAU)]  # a reservoir of its own, not the user's
    table = shown["tables"]["modules"]
    assert [line["arm"] for line in table if line["kind"] == "all"] == ways
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()[1:]
    rows = {row["arm"]: row for row in map(json.loads, lines) if row["id"] == "1"}
    rewritten = {arm for arm, row in rows.items() if row["asked"] == "Who?!"}
    filtered = {arm for arm, row in rows.items() if row["read"] == ["p2"]}
    assert rewritten == {"+ rewriter", "all"}
    assert filtered == {"+ filter", "all"}
    assert rows["direct"]["found"] == []


def test_the_common_way_without_a_rewriter_searches_the_whole_conversation():
    bundle = retrieval.with_history("And when?", [("Who?", "Ann.")])
    assert bundle.embedding_strs == ["Who? Ann. And when?"]
    assert retrieval.with_history("Who?", []).query_str == "Who?"
