"""One question on its way: what is searched, read, decoded, streamed and told."""

from dataclasses import replace
from typing import ClassVar

import pytest
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode

from control.answer import STEPS
from control.assistant import Assistant
from control.conflict import calibration as calibrations
from control.conflict import dial
from control.conflict.calibration import ANY_MODEL
from control.conflict.sources import SourceOptions
from control.conflict.verdict import DecodedAnswer
from control.decoding.generate import Decoding
from control.decoding.trace import written
from control.notices import CUT_OFF, of_model
from control.state import Query
from foundation import trace
from foundation.errors import InputError
from tests.control.fakes import HOW, PERU, FixedRetriever, Rewriter, notices


class Choosy(BaseNodePostprocessor):
    """Keeps passages that hold a "y", and says how sure it is."""

    def _postprocess_nodes(self, nodes, query_bundle=None):
        assert query_bundle.query_str
        for node in nodes:
            trace.verdict(node.node_id, 0.9 if "y" in node.text else 0.125, "y" in node.text)
        return [node for node in nodes if "y" in node.text]


def test_an_answer_carries_its_sources_and_the_time_of_each_step(assistant):
    answer = assistant("abc", "def").ask(" Who? ", HOW)
    assert answer.question == "Who?"
    assert answer.answer == "".join(token.text for token in answer.tokens).strip()
    assert [(s.id, s.title, s.score, s.kept) for s in answer.sources] == [
        ("p0", "T0", 0.5, True),
        ("p1", "T1", 0.5, True),
    ]
    assert tuple(answer.seconds) == STEPS
    assert answer.seconds["total"] >= answer.seconds["decode"] > 0


def test_passages_beyond_the_window_are_left_out_and_the_answer_says_so(assistant):
    answer = assistant("a" * 120, "b" * 120, "c" * 120).ask("Who?", HOW)
    assert [source.kept for source in answer.sources] == [True, True, False]
    assert "window" in answer.sources[2].reason
    assert notices(answer) == [
        "1 of 3 passages did not fit into the model's window and were left out, the last ones first"
    ]


@pytest.mark.parametrize(
    ("text", "tokens", "cut"),
    [
        ("The road from Lima to", 5, True),
        ("The road from Lima", 4, True),
        ("The road from Lima to", 6, False),
        ("It ends in Cusco.", 4, False),
    ],
)
def test_that_an_answer_was_cut_off_is_said(assistant, monkeypatch, text, tokens, cut):
    decoded = DecodedAnswer(written(text), False, None)
    monkeypatch.setattr(dial, "answer", lambda *_, **__: [decoded])
    answer = assistant("abc").ask("Where?", replace(HOW, max_new_tokens=tokens))
    assert answer.answer == text
    assert answer.notices == ([CUT_OFF.format(tokens=tokens)] if cut else [])


def test_an_empty_index_answers_from_memory_and_says_so(assistant):
    answer = assistant().ask("Who?", HOW)
    assert answer.sources == []
    assert "from memory alone" in answer.notices[0]
    assert not answer.conflict


def test_given_passages_are_read_instead_of_retrieved_ones(assistant):
    given = [NodeWithScore(node=TextNode(id_="mine", text="xyz"))]
    answer = assistant("abc").ask("Who?", HOW, given)
    assert [source.id for source in answer.sources] == ["mine"]


def test_a_follow_up_is_searched_read_and_answered_as_it_is_meant(tiny, always):
    retriever, rewriter = FixedRetriever("abc"), Rewriter()
    assistant = Assistant(tiny, always(1, model=tiny.identity), retriever, rewriter)
    answer = assistant.ask("And its currency?", HOW, history=PERU)
    clear = "And Peru's currency?"
    assert answer.question == "And its currency?"
    assert answer.rewritten == clear
    assert answer.queries == [clear, "Peru currency"]
    assert rewriter.histories == [PERU]
    assert retriever.asked == [(clear, [clear, "Peru currency"])]
    plain = Assistant(tiny, always(1, model=tiny.identity), FixedRetriever("abc"))
    assert answer.answer == plain.ask(clear, HOW).answer
    assert notices(answer) == []


def test_notices_of_a_step_reach_the_user(tiny, always):
    assistant = Assistant(tiny, always(1, model=tiny.identity), FixedRetriever("abc"), Rewriter())
    assert notices(assistant.ask("Who?", HOW)) == ["nothing was rewritten"]


def test_where_nothing_is_searched_only_a_follow_up_is_rewritten(tiny, always):
    rewriter = Rewriter()
    assistant = Assistant(tiny, always(1, model=tiny.identity), FixedRetriever("abc"), rewriter)
    assert assistant.ask("What is its currency?", HOW, ()).rewritten == "What is its currency?"
    assert rewriter.histories == []
    answer = assistant.ask("What is its currency?", HOW, (), history=PERU)
    assert answer.rewritten == "What is Peru's currency?"
    assert answer.sources == []


def test_without_a_rewriter_the_question_is_its_own_search(assistant):
    answer = assistant("abc").ask("And its currency?", HOW, history=PERU)
    assert answer.rewritten == "And its currency?"
    assert answer.queries == ["And its currency?"]


def test_each_source_says_why_it_was_read_or_not(tiny, always):
    retriever = FixedRetriever("yes", "no", "yet", "my", "n" * 5)
    calibration = always(1, model=tiny.identity)
    answer = Assistant(tiny, calibration, retriever, None, [Choosy()], reads=2).ask("Who?", HOW)
    assert [
        (source.text, source.kept, source.reason, source.answers) for source in answer.sources
    ] == [
        ("yes", True, "read by the model", 0.9),
        ("no", False, "holds no answer that is clear enough (probability 0.12)", 0.125),
        ("yet", True, "read by the model", 0.9),
        ("my", False, "others rank before it", 0.9),
        ("nnnnn", False, "holds no answer that is clear enough (probability 0.12)", 0.125),
    ]
    assert notices(answer) == []


def test_of_many_passages_the_first_are_read_where_none_is_judged(tiny, always):
    retriever = FixedRetriever("a", "b", "c")
    answer = Assistant(tiny, always(1, model=tiny.identity), retriever, reads=2).ask("Who?", HOW)
    assert [source.kept for source in answer.sources] == [True, True, False]
    assert answer.sources[2].reason == "others rank before it"
    assert answer.sources[2].answers is None


@pytest.mark.parametrize(("window", "read"), [(2_048, 3), (8_192, 3), (32_768, 10)])
def test_a_larger_window_reads_more_passages(tiny, always, window, read):
    larger = replace(tiny, window=window)
    retriever = FixedRetriever(*"abcdefghijklmn")
    answer = Assistant(larger, always(1, model=tiny.identity), retriever).ask("Who?", HOW)
    assert sum(source.kept for source in answer.sources) == read


def test_passages_are_read_with_what_is_known_of_their_origin(tiny, always, monkeypatch):
    seen, decode = [], Assistant.decode

    def noting(self, states, on_token=None):
        seen.extend(state.prompt.context for state in states)
        return decode(self, states, on_token)

    monkeypatch.setattr(Assistant, "decode", noting)
    metadata = {"title": "Tales", "heading": "Part 2", "page": 7, "date": "1815", "trust": 0.5}
    given = [NodeWithScore(node=TextNode(text="abc", metadata=metadata))]
    Assistant(tiny, always(1, model=tiny.identity)).ask("Who?", HOW, given)
    assert "Tales, Part 2 (page 7, 1815): abc" in seen[0]


def test_passages_dated_later_than_the_day_asked_for_are_not_read(tiny, always):
    def given(*dates):
        return [
            NodeWithScore(node=TextNode(id_=date, text="abc", metadata={"date": date}))
            for date in dates
        ]

    assistant = Assistant(tiny, always(1, model=tiny.identity))
    as_of = SourceOptions(as_of="2024-05")
    answer = assistant.ask("Who?", HOW, given("2024-05-31", "2024-06-01", ""), sources=as_of)
    assert [source.kept for source in answer.sources] == [True, False, True]
    assert "dated later" in answer.sources[1].reason
    later = assistant.ask("Who?", HOW, given("2024-06-01"), sources=as_of)
    assert [source.kept for source in later.sources] == [False]
    assert any("dated later than 2024-05" in notice for notice in notices(later))


def test_where_no_passage_answers_memory_does_and_the_answer_says_so(tiny, always):
    calibration = always(1, model=tiny.identity)
    filtered = Assistant(tiny, calibration, FixedRetriever("no", "nor"), None, [Choosy()])
    answer = filtered.ask("Who?", HOW)
    assert notices(answer) == [
        "none of the 2 passages found holds a clear answer, so the answer is from memory alone"
    ]
    assert not any(source.kept for source in answer.sources)
    assert not answer.conflict
    assert answer.answer == filtered.ask("Who?", HOW, ()).answer


def test_given_passages_are_not_filtered(tiny, always):
    given = [NodeWithScore(node=TextNode(id_="mine", text="no"))]
    assistant = Assistant(
        tiny, always(1, model=tiny.identity), FixedRetriever(), None, [Choosy()], reads=1
    )
    [source] = assistant.ask("Who?", HOW, given).sources
    assert source.kept
    assert source.answers is None


def test_each_step_has_its_own_time(tiny, always, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(trace.time, "perf_counter", lambda: now[0])

    class Slow(FixedRetriever):
        def _retrieve(self, query_bundle):
            now[0] += 2
            with trace.step("trigger"):
                now[0] += 3
            return super()._retrieve(query_bundle)

    class SlowRewriter(Rewriter):
        def _run(self, query_bundle, metadata):
            now[0] += 1
            return super()._run(query_bundle, metadata)

    class SlowFilter(Choosy):
        def _postprocess_nodes(self, nodes, query_bundle=None):
            now[0] += 4
            return super()._postprocess_nodes(nodes, query_bundle)

    calibration = always(1, model=tiny.identity)
    slow = Assistant(tiny, calibration, Slow("yes"), SlowRewriter(), [SlowFilter()])
    assert slow.ask("Who?", HOW).seconds == {
        "route": 0,
        "rewrite": 1,
        "trigger": 3,
        "retrieve": 2,
        "filter": 4,
        "redact": 0,
        "claims": 0,
        "decode": 0,
        "cite": 0,
        "total": 10,
    }


def test_questions_that_come_together_are_rewritten_together_and_answered_as_each_alone(
    tiny, always
):
    class Together(Rewriter):
        batches: ClassVar[list[int]] = []

        def rewrite_batch(self, asked):
            self.batches.append(len(asked))
            found = []
            for question, history, followed in asked:
                with trace.following(followed):
                    found.append(self.run(question, {"history": history}))
            return found

    queries = [
        Query("And its currency?", history=PERU),
        Query("Who is it?", given=()),  # nothing is searched, so nothing is rewritten
        Query("Who?"),
    ]
    retriever, calibration = FixedRetriever("abc"), always(1, model=tiny.identity)
    together = Assistant(tiny, calibration, retriever, Together()).ask_batch(queries, HOW)
    assert Together.batches == [2]
    one = Assistant(tiny, calibration, retriever, Rewriter())
    for query, answer in zip(queries, together, strict=True):
        alone = one.ask(query.question, HOW, query.given, history=query.history)
        assert (answer.answer, answer.rewritten) == (alone.answer, alone.rewritten)
        assert answer.notices == alone.notices


@pytest.mark.parametrize(
    ("question", "says"), [("  ", "empty"), ("a" * 100_000, "100,000 characters")]
)
def test_an_unusable_question_is_refused(assistant, question, says):
    with pytest.raises(InputError, match=says):
        assistant("abc").ask(question, HOW)


def test_an_answer_longer_than_the_window_is_refused(assistant):
    with pytest.raises(InputError, match="window of tiny is 512 tokens"):
        assistant().ask("Who?", Decoding(max_new_tokens=1000))


def test_a_model_that_was_not_calibrated_is_named_with_the_way_to_do_it_and_not_in_each_answer(
    tiny, always
):
    borrowed = Assistant(tiny, always(1, model=ANY_MODEL), FixedRetriever("abc"))
    [notice] = of_model(borrowed.model.name, borrowed.calibration)
    assert "not been calibrated for tiny" in notice
    assert "fulcrum eval dial --calibrate" in notice
    assert of_model(tiny.name, always(1, model=tiny.identity)) == []
    assert notices(borrowed.ask("Who?", HOW)) == []


def test_an_asked_reliance_becomes_the_alpha_at_which_it_was_measured(tiny, always):
    calibration = always(1, model=tiny.identity, alphas=[0.0, 0.5, 1.0], ratios=[0.0, 0.2, 0.8])
    own = Assistant(tiny, calibration, FixedRetriever("abc"))
    asked = own.ask("Who?", replace(HOW, reliance=0.8))
    assert asked.alpha == 1.0
    assert asked.answer == own.ask("Who?", replace(HOW, alpha=1.0)).answer
    assert own.ask("Who?", replace(HOW, reliance=0.5)).alpha == pytest.approx(0.75)


def test_the_answer_says_where_passages_and_memory_disagree(assistant):
    answer = assistant("abc").ask("Who?", replace(HOW, alpha=1.0))
    assert answer.conflict
    assert answer.verdict.follows == "memory"
    assert answer.verdict.memory_says in answer.answer


@pytest.mark.parametrize(("trust", "city"), [(0.0, "Lima"), (0.5, "Quito"), (1.0, "Quito")])
def test_a_passage_s_trust_moves_the_dial_for_its_conflict(real, always, trust, city):
    node = TextNode(text="Quito is the capital of Peru.", metadata={"trust": trust})
    asked = Assistant(real, always(1), FixedRetriever()).ask(
        "What is the capital of Peru?",
        Decoding(alpha=0.5, max_new_tokens=16),
        [NodeWithScore(node=node)],
    )
    assert city in asked.answer


def test_the_dial_moves_the_real_model_from_the_passage_to_its_memory(real):
    passage = (
        "The seat of government of Peru is Nairobi, where the parliament meets and most "
        "ministries have their offices. Nairobi is the capital of Peru."
    )
    given = [NodeWithScore(node=TextNode(id_="false", text=passage))]
    assistant = Assistant(real, calibrations.shipped(real), FixedRetriever())
    asked = "What is the capital of Peru?"
    documents = assistant.ask(asked, Decoding(alpha=0.5, max_new_tokens=24), given)
    memory = assistant.ask(asked, Decoding(alpha=1.0, max_new_tokens=24), given)
    assert "Nairobi" in documents.answer
    assert "Lima" in memory.answer
    assert memory.conflict
    assert memory.notices == []
    assert (memory.verdict.passages_say, memory.verdict.memory_says) == ("Nairobi", "Lima")
    assert "memory" in {token.source for token in memory.tokens}


def test_an_instruction_has_the_limit_of_a_question(assistant):
    with pytest.raises(InputError, match=r"system message has 21,000 characters"):
        assistant("abc").ask_batch([Query("Who?", system="x" * 21_000)], HOW)
