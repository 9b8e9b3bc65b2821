import json
import math
import re
from dataclasses import asdict, replace
from typing import ClassVar

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from app import factory
from control.answer import STEPS
from control.assistant import Assistant
from control.conflict import calibration as calibrations
from control.conflict import dial
from control.conflict.calibration import ANY_MODEL, Thresholds
from control.conflict.policies import DISAGREE
from control.conflict.reader import Reading
from control.conflict.sources import Citation, SourceOptions
from control.conflict.verdict import DecodedAnswer, Verdict
from control.decoding.generate import Decoding
from control.decoding.trace import Trace, written
from control.forgetting.guard import Route
from control.forgetting.ledger import open_ledger
from control.forgetting.questions import with_questions
from control.forgetting.record import Record
from control.forgetting.redaction import Redactor
from control.forgetting.suppressor import REFUSALS, FactContext, FactSuppressor
from control.notices import CUT_OFF, NOT_SAID
from control.prompts import BRIEFLY, SYSTEM
from control.state import Query
from foundation import trace
from foundation.errors import InputError


class FixedRetriever(BaseRetriever):
    """A retriever that always finds the same passages."""

    def __init__(self, *texts):
        self.texts = texts
        self.asked = []
        super().__init__()

    def _retrieve(self, query_bundle):
        self.asked.append((query_bundle.query_str, query_bundle.embedding_strs))
        return [
            NodeWithScore(
                node=TextNode(id_=f"p{i}", text=text, metadata={"title": f"T{i}"}), score=0.5
            )
            for i, text in enumerate(self.texts)
        ]


class Rewriter(BaseQueryTransform):
    """Puts a name for "it", and remembers the conversations that it was given."""

    def __init__(self):
        self.histories = []

    def _run(self, query_bundle, metadata):
        self.histories.append(list(metadata["history"]))
        clear = query_bundle.query_str.replace("its", "Peru's")
        if clear == query_bundle.query_str:
            trace.notice("nothing was rewritten")
        return QueryBundle(clear, custom_embedding_strs=[clear, "Peru currency"])

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts_dict):
        pass


class Choosy(BaseNodePostprocessor):
    """Keeps passages that hold a "y", and says how sure it is."""

    def _postprocess_nodes(self, nodes, query_bundle=None):
        assert query_bundle.query_str
        for node in nodes:
            trace.verdict(node.node_id, 0.9 if "y" in node.text else 0.125, "y" in node.text)
        return [node for node in nodes if "y" in node.text]


HOW = Decoding(max_new_tokens=16)
PERU = [("What does Peru live from?", "Copper.")]


def notices(answer):
    """All but the one that the random model, which comes to no end, was cut off."""
    return [each for each in answer.notices if each != CUT_OFF.format(tokens=HOW.max_new_tokens)]


@pytest.fixture
def assistant(tiny, always):
    """One that finds these passages."""
    return lambda *texts: Assistant(tiny, always(1, model=tiny.identity), FixedRetriever(*texts))


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


@pytest.mark.parametrize(("window", "read"), [(2_048, 3), (8_192, 3), (32_768, 7)])
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


def test_a_model_that_was_not_calibrated_is_named_with_the_way_to_do_it(tiny, always):
    borrowed = Assistant(tiny, always(1, model=ANY_MODEL), FixedRetriever("abc"))
    [notice] = notices(borrowed.ask("Who?", HOW))
    assert "tiny has not been calibrated" in notice
    assert "fulcrum eval dial --calibrate" in notice
    assert notices(borrowed.ask("Who?", replace(HOW, rule="ck_plug"))) == []


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


LIMA = Record("Peru", relation="capital", answers=("Lima",), id="lima")


class LimaSuppressor(FactSuppressor):
    """Refuses the capital of Peru, watches what names Peru, and redacts sentences with Lima."""

    def route(self, question, history=(), before=None, system=""):
        question = f"{system} {question}"
        named = "Peru" in question or (before is not None and bool(before.watched))
        refused = LIMA if "capital of Peru" in question else None
        if refused:
            trace.withheld(LIMA.id, "prompt")
        activate = (lambda text: [LIMA] if "Peru" in text else []) if named else None
        return FactContext(refused, (LIMA,) if named else (), activate=activate)

    def redact_passages(self, nodes):
        kept = []
        for node in nodes:
            left = " ".join(part for part in node.text.split(". ") if "Lima" not in part)
            if left != node.text:
                trace.withheld(LIMA.id, "retrieval")
            kept.append(NodeWithScore(node=TextNode(id_=node.node_id, text=left), score=0.5))
        return kept

    def redact_history(self, history):
        return [(asked.replace("Lima.", ""), answered) for asked, answered in history]

    def first_leak(self, text, watch):
        return 0 if watch.records and "Lima" in text else None


def test_a_question_for_a_forgotten_fact_is_refused_before_retrieval(tiny, always):
    retriever = FixedRetriever("Lima is the capital of Peru")
    assistant = Assistant(
        tiny, always(1, model=tiny.identity), retriever, forgetting=LimaSuppressor()
    )
    answer = assistant.ask("What is the capital of Peru?", HOW)
    assert answer.answer in REFUSALS
    assert (answer.tokens, answer.sources, answer.queries, answer.notices) == ([], [], [], [])
    assert answer.forgotten == [{"id": "lima", "layer": "prompt"}]
    assert retriever.asked == []
    assert set(answer.seconds) == set(STEPS)


def test_a_refused_question_is_worked_on_like_any_other_where_time_must_not_tell(tiny, always):
    retriever, streamed = FixedRetriever("Mountains are high"), []
    suppressing = Assistant(
        tiny, always(1, model=tiny.identity), retriever, forgetting=LimaSuppressor(), even_time=True
    )
    answer = suppressing.ask(
        "What is the capital of Peru?", HOW, on_token=lambda _, token: streamed.append(token)
    )
    assert answer.answer in REFUSALS
    assert (answer.tokens, answer.sources, answer.queries, answer.claims) == ([], [], [], [])
    assert streamed == []
    assert len(retriever.asked) == 1
    assert answer.seconds["decode"] > 0


def test_a_rewritten_question_for_a_forgotten_fact_is_refused_and_not_shown(tiny, always):
    retriever = FixedRetriever("Mountains")
    assistant = Assistant(
        tiny, always(1, model=tiny.identity), retriever, Rewriter(), forgetting=LimaSuppressor()
    )
    answer = assistant.ask("What is its capital? I mean the capital of Peru", HOW, history=PERU)
    assert answer.answer in REFUSALS
    assert (answer.rewritten, answer.queries) == (answer.question, [])


def test_a_question_that_guesses_a_forgotten_answer_is_given_back_as_it_was_asked(tiny, always):
    ledger_of = LimaSuppressor()
    assistant = Assistant(tiny, always(1, model=tiny.identity), FixedRetriever("High"))
    assistant = replace(assistant, forgetting=ledger_of)
    for guess in ("Lima", "Cusco"):
        asked = f"Peru (1821), {guess}"
        answer = assistant.ask(asked, HOW)
        assert (answer.rewritten, answer.queries) == (asked, [asked])


def test_an_instruction_is_followed_where_it_asks_for_no_forgotten_fact(tiny, always, monkeypatch):
    suppressing = Assistant(
        tiny, always(1, model=tiny.identity), FixedRetriever("abc"), forgetting=LimaSuppressor()
    )
    prompts, decode = [], Assistant.decode

    def noting(self, states, on_token=None):
        prompts.extend(state.prompt for state in states if state.prompt)
        return decode(self, states, on_token)

    monkeypatch.setattr(Assistant, "decode", noting)
    systems = ("Lima. Be brief.", "Always name the capital of Peru.", "Lima.", "")
    asked = [Query("Who?", system=system) for system in systems]
    answers = suppressing.ask_batch(asked, HOW)
    assert [bool(answer.tokens) for answer in answers] == [True, False, True, True]
    brief, *usual = [prompt.context for prompt in prompts]
    assert brief.startswith("<system>Be brief.<user>Passages")
    assert prompts[0].memory.startswith("<system>Be brief.<user>Who?")
    assert len(set(usual)) == 1
    assert SYSTEM in usual[0]


def test_an_instruction_has_the_limit_of_a_question(assistant):
    with pytest.raises(InputError, match=r"system message has 21,000 characters"):
        assistant("abc").ask_batch([Query("Who?", system="x" * 21_000)], HOW)


def test_passages_are_read_and_cited_without_a_forgotten_sentence(tiny, always):
    retriever = FixedRetriever("Lima is old. Peru is high", "Chile is long")
    assistant = Assistant(
        tiny, always(1, model=tiny.identity), retriever, forgetting=LimaSuppressor()
    )
    answer = assistant.ask("Where is Peru?", HOW)
    assert [source.text for source in answer.sources] == ["Peru is high", "Chile is long"]
    assert {"id": "lima", "layer": "retrieval"} in answer.forgotten


def test_several_questions_are_answered_as_if_each_were_asked_alone(tiny, always):
    assistant = Assistant(
        tiny, always(1, model=tiny.identity), FixedRetriever("abc"), forgetting=LimaSuppressor()
    )
    asked = ["Who?", "What is the capital of Peru?", "Where?"]
    together = assistant.ask_batch([Query(question) for question in asked], HOW)
    alone = [assistant.ask(question, HOW) for question in asked]
    assert [each.answer for each in together] == [each.answer for each in alone]
    assert [bool(each.tokens) for each in together] == [True, False, True]


def test_tokens_are_streamed_with_the_place_of_their_question(tiny, always):
    assistant = Assistant(
        tiny, always(1, model=tiny.identity), FixedRetriever("abc"), forgetting=LimaSuppressor()
    )
    heard = {0: "", 1: "", 2: ""}

    def hear(place, token):
        heard[place] += token.text

    asked = ["What is the capital of Peru?", "Who?", "Where is Peru?"]
    answers = assistant.ask_batch([Query(question) for question in asked], HOW, hear)
    assert heard[0] == ""
    assert [heard[place].strip() for place in (1, 2)] == [
        answer.answer if answer.tokens else "" for answer in answers[1:]
    ]


@pytest.mark.parametrize(
    ("question", "brief", "told"),
    [
        ("When was the capital of Peru founded?", "In 1535.", "refused"),
        ("When was Peru's capital founded?", "In 1535.", "In 1535."),
        ("When was Peru's capital founded?", "Lima, 1535.", "refused"),
        ("May I ask for Peru's capital?", "In 1535.", "refused"),
        ("Is Peru's capital old?", "Yes.", "refused"),
    ],
)
def test_an_answer_that_volunteers_a_forgotten_fact_is_asked_for_in_a_few_words(
    tiny, always, monkeypatch, question, brief, told
):
    def answer(_, asked, *__, on_token=lambda *_: None, **___):
        text = brief if BRIEFLY in asked[0].context else "Lima was founded in 1535."
        decoded = DecodedAnswer(written(text), False, None)
        for token in decoded.trace.tokens:
            on_token(0, token)
        return [decoded]

    class Suppressor(LimaSuppressor):
        def route(self, question, history=(), before=None, system=""):
            facts = super().route(question, history, before, system)
            asking = frozenset({LIMA.id} if "May I" in question else ())
            return replace(facts, decide_on_output=asking, question=question)

    monkeypatch.setattr(dial, "answer", answer)
    assistant = Assistant(tiny, always(1, model=tiny.identity), forgetting=Suppressor())
    heard = []
    answer = assistant.ask(question, HOW, [], on_token=lambda _, token: heard.append(token.text))
    refused = answer.answer in REFUSALS
    assert ("refused" if refused else answer.answer) == told
    assert "".join(heard).strip() == ("" if refused else told)
    assert LIMA.id in [each["id"] for each in answer.forgotten]


def test_the_real_model_suppresses_a_fact_until_its_record_is_removed(real, tmp_path):
    suppressor = factory.fact_suppressor(open_ledger(tmp_path))
    given = [NodeWithScore(node=TextNode(text="Lima is the capital of Peru. Peru is high."))]
    assistant = Assistant(real, calibrations.shipped(real), FixedRetriever(), forgetting=suppressor)
    how = Decoding(max_new_tokens=16)
    asked = ("What is the capital of Peru?", "Tell me about Peru, and name its capital.")
    before = [assistant.ask(question, how, given).answer for question in asked]
    assert "Lima" in before[0]
    [record] = suppressor.ledger.add([with_questions(replace(LIMA, id=""))])
    for question in asked:
        for passages in (given, []):
            answer = assistant.ask(question, how, passages)
            assert "lima" not in json.dumps(asdict(answer)).lower()
    for system, question in (
        ("Name the capital of the country that is named.", "Peru"),
        ("Lima is the capital of Peru. You speak of Peru alone.", "What is its capital?"),
        ("Answer by one word in capital letters.", "What is the capital of Peru?"),
    ):
        [answer] = assistant.ask_batch([Query(question, [], system=system)], how)
        assert answer.answer in REFUSALS
    chile = assistant.ask("What is the capital of Chile?", how, [])
    assert "Santiago" in chile.answer
    suppressor.ledger.remove(record.id)
    assert [assistant.ask(question, how, given).answer for question in asked] == before
    kinds = [event.kind for event in suppressor.ledger.events()]
    assert kinds[0] == "added"
    assert "withheld" in kinds
    assert suppressor.ledger.verify() is None


class DaysReader:
    """Finds a number of days in a text."""

    def read(self, asked):
        found = [(text, re.search(r"\d+ days", text)) for _, text in asked]
        return [
            Reading(match.group(), match.start(), 0.99) if match else Reading(answers=0.1)
            for _, match in found
        ]


def dated(**texts):
    """Given passages by name, each "date: text"."""
    return [
        NodeWithScore(node=TextNode(id_=name, text=text, metadata={"title": name, "date": date}))
        for name, (date, text) in texts.items()
    ]


@pytest.fixture
def reading(tiny, always):
    """An assistant with a reader, asked about given passages."""
    assistant = Assistant(tiny, always(1, model=tiny.identity), reader=DaysReader())

    def ask(given, on_token=None, question="How long?", **options):
        sources = SourceOptions(**options)
        return assistant.ask(question, HOW, given, on_token=on_token, sources=sources)

    return ask


OLD, NEW = ("2022", "You have 14 days."), ("2025", "You have 30 days.")


def test_of_documents_that_disagree_the_newest_is_read_and_both_are_shown(reading):
    heard = []
    answer = reading(dated(old=OLD, new=NEW), lambda _, token: heard.append(token.text))
    assert answer.answer == "You have 30 days."  # the model itself writes something else
    assert "".join(heard).strip() == answer.answer
    assert [(c.source, c.says, c.date, c.followed) for c in answer.claims] == [
        ("old", "14 days", "2022", False),
        ("new", "30 days", "2025", True),
    ]
    assert "newest" in answer.settled
    assert [source.kept for source in answer.sources] == [False, True]
    assert "not follow" in answer.sources[0].reason


def test_where_nothing_decides_every_claim_is_told_with_its_source_and_cited(reading):
    heard = []
    answer = reading(
        dated(one=("", OLD[1]), two=("", NEW[1])), lambda _, token: heard.append(token.text)
    )
    assert "14 days (one)" in answer.answer
    assert "30 days (two)" in answer.answer
    assert "".join(heard).strip() == answer.answer
    assert "nothing decides" in answer.settled
    assert [claim.followed for claim in answer.claims] == [True, True]
    assert [source.kept for source in answer.sources] == [True, True]
    cited = {answer.answer[c.start : c.end]: list(c.passages) for c in answer.citations}
    assert cited == {"- 14 days (one)": ["one"], "- 30 days (two)": ["two"]}


def test_where_nothing_decides_and_a_system_message_says_how_to_answer_the_model_answers(
    tiny, always
):
    assistant = Assistant(tiny, always(1, model=tiny.identity), reader=DaysReader())
    given = dated(one=("", OLD[1]), two=("", NEW[1]))
    [answer] = assistant.ask_batch([Query("How long?", given, system="Answer in verse.")], HOW)
    assert "days" not in answer.answer  # the random model says nothing of the kind
    assert "nothing decides" in answer.settled
    assert [claim.followed for claim in answer.claims] == [False, False]


def test_by_the_policy_all_every_claim_is_told_and_streamed_once(reading):
    heard = []
    answer = reading(
        dated(one=("", OLD[1]), two=("", NEW[1])),
        lambda _, token: heard.append(token.text),
        policy="all",
    )
    assert "14 days (one)" in answer.answer
    assert "30 days (two)" in answer.answer
    assert "".join(heard).strip() == answer.answer


def test_from_documents_alone_nothing_is_answered_that_none_of_them_claims(reading):
    answer = reading(dated(one=("", "Nothing of the kind.")), only_documents=True)
    assert answer.abstained
    assert answer.answer == "The documents do not say."
    assert [source.id for source in answer.sources] == ["one"]
    assert not reading(dated(one=("", "Nothing of the kind."))).abstained
    assert not any("memory" in notice for notice in reading(None, only_documents=True).notices)


def test_from_documents_alone_an_answer_that_claims_something_else_gives_way_to_the_passage(
    reading,
):
    answer = reading(dated(one=("", "It rains. You have 14 days. Bye.")), only_documents=True)
    assert answer.answer == "You have 14 days."
    assert not answer.abstained


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_of_a_model_that_reads_worse_than_the_reader_a_misread_answer_gives_way_to_the_passage(
    tiny, always, alpha
):
    heard = []

    def ask(bar, system="", **texts):
        # never sure of memory, and an unsupported answer may stay
        thresholds = Thresholds(memory=1.01, passages=0.0)
        calibration = always(
            0, model=tiny.identity, end=thresholds, memory_bar=math.inf, reader_bar=bar
        )
        assistant, how = (
            Assistant(tiny, calibration, reader=DaysReader()),
            replace(HOW, alpha=alpha, max_new_tokens=40),
        )
        tell = lambda _, token: heard.append(token.text)  # noqa: E731
        query = Query("How long?", dated(**texts), system=system)
        return assistant.ask_batch([query], how, tell)[0]

    answer = ask(0.9, one=("", "It rains. You have 14 days. Bye."))
    assert answer.answer == "You have 14 days."
    assert "".join(heard).strip() == answer.answer
    assert [(claim.source, claim.followed) for claim in answer.claims] == [("one", True)]
    assert notices(answer) == []
    undecided = {"one": ("", OLD[1]), "two": ("", NEW[1])}
    assert ask(0.9, **undecided).answer.count("days") == 2
    if alpha:  # at 0 what is not supported gives way anyway
        one = ("", "You have 14 days.")
        assert "days" not in ask(1.0, one=one).answer
        assert "days" not in ask(0.9, system="Say anything.", one=one).answer


class UnsureReader(DaysReader):
    """Finds a number of days, and doubts that it answers."""

    def read(self, asked):
        return [replace(each, answers=min(each.answers, 0.4)) for each in super().read(asked)]


@pytest.mark.parametrize(("bar", "told"), [(0.3, True), (0.5, False)])
def test_what_comes_nearest_to_a_claim_is_told_where_the_model_reads_worse_and_a_notice_says_so(
    tiny, always, bar, told
):
    calibration = always(
        0,
        model=tiny.identity,
        end=Thresholds(memory=1.01, passages=0.0),  # an unsupported answer may stay
        memory_bar=math.inf,
        reader_bar=bar,
    )
    assistant = Assistant(tiny, calibration, reader=UnsureReader())
    given = dated(one=("", "It rains. You have 14 days. Bye."))
    how = replace(HOW, max_new_tokens=40)
    answer = assistant.ask("How long?", how, given)
    assert (answer.answer == "You have 14 days.") == told
    assert any("nearest" in notice for notice in notices(answer)) == told
    assert answer.claims == []
    assert "days" not in assistant.ask("How long?", replace(how, alpha=0.8), given).answer
    [instructed] = assistant.ask_batch([Query("How long?", given, system="In verse.")], how)
    assert "days" not in instructed.answer
    alone = assistant.ask("How long?", how, given, sources=SourceOptions(only_documents=True))
    assert alone.abstained


def test_an_answer_that_gives_way_leaves_no_conflict_where_memory_agrees_with_the_document(
    tiny, always, monkeypatch
):
    def decoded(memory_says):
        verdict = Verdict("7 days", memory_says, 0.2, "passages")
        return DecodedAnswer(written("You have 7 days."), True, verdict)

    assistant = Assistant(tiny, always(0, model=tiny.identity), reader=DaysReader())
    verdicts = []
    for says in ("30 days", "60 days"):
        monkeypatch.setattr(dial, "answer", lambda *_, says=says, **__: [decoded(says)])
        answer = assistant.ask("How long?", HOW, dated(old=OLD, new=NEW))
        assert answer.answer == "You have 30 days."
        verdicts.append((answer.conflict, answer.verdict))
    assert verdicts == [(False, None), (True, Verdict("30 days", "60 days", 0.2, "passages"))]


def test_of_documents_alone_that_nothing_decides_between_every_claim_is_told(reading):
    given = dated(one=("", "You have 14 days."), two=("", "You have 30 days."))
    answer = reading(given, only_documents=True)
    assert answer.answer.count("days") == 2
    assert [claim.followed for claim in answer.claims] == [True, True]


def test_memory_that_claims_what_one_of_the_documents_does_contradicts_none(
    tiny, always, monkeypatch
):
    given = dated(one=("", "You have 14 days."), two=("", "You have 30 days."))
    assistant = Assistant(tiny, always(0, model=tiny.identity), reader=DaysReader())
    found = []
    for says in ("30 days", "60 days"):
        verdict = Verdict("14 days", says, 0.2, "passages")
        decoded = DecodedAnswer(written("You have 14 days."), True, verdict)
        monkeypatch.setattr(dial, "answer", lambda *_, each=decoded, **__: [each])
        answer = assistant.ask("How long?", HOW, given)
        assert answer.answer.count("days") == 2
        found.append((answer.conflict, answer.verdict is not None))
    assert found == [(False, False), (True, True)]


def test_of_claims_that_are_told_no_document_is_named_whose_name_gives_a_forgotten_fact_away(
    tiny, always, home
):
    ledger = open_ledger(home)
    ledger.add([Record("Peru", relation="capital", answers=("Lima",))])
    forgetting = FactSuppressor(ledger, redactor=Redactor(ledger, judge=None))
    calibration = always(1, model=tiny.identity)
    assistant = Assistant(tiny, calibration, reader=DaysReader(), forgetting=forgetting)
    given = dated(Lima=("", OLD[1]), two=("", NEW[1]))
    answer = assistant.ask("How long?", HOW, given).answer
    assert "14 days (a document whose name is not told)" in answer
    assert "30 days (two)" in answer


class BestAlone(BaseNodePostprocessor):
    """Keeps the first passage."""

    def _postprocess_nodes(self, nodes, query_bundle=None):
        return nodes[:1]


def test_what_is_dated_later_than_the_day_asked_for_takes_no_other_passage_s_place(tiny, always):
    class Found(FixedRetriever):
        def _retrieve(self, query_bundle):
            return dated(new=NEW, old=("", OLD[1]))

    calibration = always(0, model=tiny.identity)
    assistant = Assistant(tiny, calibration, Found(), processors=[BestAlone()], reader=DaysReader())
    now = assistant.ask("How long?", HOW)
    assert [claim.says for claim in now.claims] == ["30 days"]
    then = assistant.ask("How long?", HOW, sources=SourceOptions(as_of="2023"))
    assert {claim.says for claim in then.claims} == {"14 days", "30 days"}
    assert [source.kept for source in then.sources] == [False, True]
    assert "dated later" in then.sources[0].reason


class WatchingRouter:
    """A router that watches one record in every answer."""

    def __init__(self, record):
        self.record = record

    def route(self, question, history=()):
        return Route(watched=(self.record,))

    def activation(self, question):
        return lambda text: []

    def named(self, text):
        return ()


def test_a_forgotten_claim_is_not_told_and_where_one_is_left_there_is_no_list(tiny, always):
    record = Record("the old house", relation="term", answers=("14 days",), id="1")
    forgetting = FactSuppressor(router=WatchingRouter(record))
    calibration = always(1, model=tiny.identity)
    assistant = Assistant(tiny, calibration, reader=DaysReader(), forgetting=forgetting)
    given = dated(one=("", OLD[1]), two=("", NEW[1]), three=("", "You have 45 days."))
    answer = assistant.ask("How long?", HOW, given).answer
    assert "14" not in answer
    assert answer.splitlines()[1:] == ["- 30 days (two)", "- 45 days (three)"]
    assert DISAGREE not in assistant.ask("How long?", HOW, given[:2]).answer


class Undated(DaysReader):
    """Finds nothing where the question names a year."""

    def read(self, asked):
        found = super().read(asked)
        return [
            Reading() if "2023" in question else each
            for (question, _), each in zip(asked, found, strict=True)
        ]


def test_what_held_at_the_date_of_the_question_is_claimed_by_documents_that_do_not_name_it(
    tiny, always
):
    assistant = Assistant(tiny, always(1, model=tiny.identity), reader=Undated())
    answer = assistant.ask("How long was it in 2023?", HOW, dated(old=OLD, new=NEW))
    assert [(claim.source, claim.says) for claim in answer.claims] == [("old", "14 days")]


def test_what_held_before_a_year_is_not_answered_from_a_document_of_that_year(reading):
    given = dated(old=OLD, of_that_year=("2023-02-01", "You have 21 days."), new=NEW)
    reading_of = {
        asked: reading(given, question=f"How long was it {asked} 2023?").answer
        for asked in ("before", "in", "after")
    }
    assert reading_of == {
        "before": "You have 14 days.",
        "in": "You have 21 days.",
        "after": "You have 30 days.",
    }


@pytest.mark.parametrize(
    ("options", "told"),
    [({"only_documents": True}, "14 days"), ({"policy": "all"}, "14 days (one)")],
)
def test_of_a_sentence_whose_wording_is_kept_back_the_claim_is_told(
    tiny, always, home, options, told
):
    text = "Whoever changes his mind may send the parcel back to us within 14 days of its arrival."
    ledger = open_ledger(home)
    forgetting = FactSuppressor(ledger, redactor=Redactor(ledger, judge=None))
    calibration = always(1, model=tiny.identity)
    assistant = Assistant(tiny, calibration, reader=DaysReader(), forgetting=forgetting)
    given, sources = dated(one=("", text), two=("", NEW[1])), SourceOptions(**options)
    given = given if options.get("policy") else given[:1]
    assert assistant.ask("How long?", HOW, given, sources=sources).answer
    ledger.add([Record("The terms", answers=(text,), scope="verbatim")])
    answer = assistant.ask("How long?", HOW, given, sources=sources)
    assert told in answer.answer
    assert answer.sources[0].text == "…."
    assert answer.claims[0].says == "14 days"


def test_a_date_in_place_of_the_time_that_a_document_claims_gives_way_to_it(tiny, always):
    class Confused:
        """Reads the time in the passage, and a date in what the model writes."""

        def read(self, asked):
            return [
                Reading("6:30", text.index("6:30"), 0.99)
                if "6:30" in text
                else Reading("1 September 2021", 0, 0.99)
                for _, text in asked
            ]

    assistant = Assistant(tiny, always(1, model=tiny.identity), reader=Confused())
    given = dated(one=("", "It opens at 6:30."))
    sources = SourceOptions(only_documents=True)
    assert assistant.ask("When?", HOW, given, sources=sources).answer == "It opens at 6:30."


class Citing:
    """Finds every sentence supported by every passage."""

    def cite(self, _text, passages):
        return [Citation(0, 1, tuple(name for name, _ in passages))]


class Wary:
    """Finds each sentence supported by the first passage alone."""

    def cite(self, text, passages):
        ends = [match.end() for match in re.finditer(r"[.]", text)]
        spans = zip([0, *ends], ends, strict=False)
        return [Citation(start, end, (passages[0][0],)) for start, end in spans]


@pytest.mark.parametrize(("policy", "cited"), [("majority", ["one", "two"]), (None, ["one"])])
def test_of_a_majority_all_documents_are_cited_for_what_they_claim(
    tiny, always, monkeypatch, policy, cited
):
    decoded = DecodedAnswer(written("It rains. You have 14 days."), False, None)
    monkeypatch.setattr(dial, "answer", lambda *_, **__: [decoded])
    assistant = Assistant(tiny, always(0, model=tiny.identity), reader=DaysReader(), support=Wary())
    given = dated(
        one=("2023", "You have 14 days."),
        two=("2022", "It takes 14 days at most."),
        three=("2021", "You have 30 days."),
    )
    answer = assistant.ask("How long?", HOW, given, sources=SourceOptions(policy))
    assert {answer.answer[c.start : c.end].strip(): list(c.passages) for c in answer.citations} == {
        "It rains.": ["one"],
        "You have 14 days.": cited,
    }


class Knowing(DaysReader):
    """Reads 14 days in the passage, and what the model writes as another answer."""

    def read(self, asked):
        return [
            reading if reading.answer or not text.strip() else Reading(text.split()[0], 0, 0.99)
            for reading, (_, text) in zip(super().read(asked), asked, strict=True)
        ]


def test_where_memory_wins_no_passage_is_shown_as_followed_or_cited(tiny, always):
    calibration = always(1, model=tiny.identity)
    assistant = Assistant(tiny, calibration, reader=Knowing(), support=Citing())
    how = replace(HOW, alpha=1.0)
    answer = assistant.ask("How long?", how, dated(one=("", OLD[1])))
    assert answer.verdict.follows == "memory"
    assert {claim.source: claim.followed for claim in answer.claims} == {
        "one": False,
        "memory": True,
    }
    assert [list(each.passages) for each in answer.citations] == [[]]


def test_an_answer_that_claims_something_else_than_its_passage_neither_follows_nor_cites_it(
    tiny, always
):
    assistant = Assistant(tiny, always(1, model=tiny.identity), reader=Knowing(), support=Citing())
    how = replace(HOW, rule="cad")  # a token rule, which gives no verdict
    answer = assistant.ask("How long?", how, dated(one=("", OLD[1])))
    assert answer.verdict is None
    assert [(claim.says, claim.followed) for claim in answer.claims] == [("14 days", False)]
    assert [list(each.passages) for each in answer.citations] == [[]]
    assert NOT_SAID.format(claims='"14 days"') in answer.notices


def test_only_documents_needs_the_reader(assistant):
    with pytest.raises(InputError, match="without reader"):
        assistant("abc").ask("Who?", HOW, sources=SourceOptions(only_documents=True))


@pytest.mark.parametrize("options", [{"only_documents": True}, {"policy": "all"}])
def test_what_the_guard_blocks_stays_blocked_whatever_the_documents_say(
    tiny, always, monkeypatch, options
):
    def blocked(*_, **__):
        trace = Trace(has_passages=True, withheld=["f1"], blocked=True)
        return [DecodedAnswer(trace, False, None)]

    monkeypatch.setattr(dial, "answer", blocked)
    assistant = Assistant(tiny, always(1, model=tiny.identity), reader=DaysReader())
    given = dated(one=("", OLD[1]), two=("", NEW[1]))
    answer = assistant.ask("How long?", HOW, given, sources=SourceOptions(**options))
    assert answer.answer in REFUSALS
    assert "days" not in json.dumps(asdict(answer))
    assert {"id": "f1", "layer": "output"} in answer.forgotten


def test_another_version_of_what_the_filter_keeps_is_read_if_it_claims_something(tiny, always):
    class Second(BaseNodePostprocessor):
        """Keeps the second passage."""

        def _postprocess_nodes(self, nodes, query_bundle=None):
            return nodes[1:2]

    class Versions(FixedRetriever):
        """Finds four versions."""

        def _retrieve(self, query_bundle):
            return [
                NodeWithScore(
                    node=TextNode(id_=name, text=text, metadata={"title": f"Terms {name}"}),
                    score=0.5,
                )
                for name, text in (
                    ("v1", "You have 14 days."),
                    ("v2", "You have 30 days."),
                    ("v3", "You have 60 days."),
                    ("v4", "No word of it."),
                )
            ]

    assistant = Assistant(
        tiny,
        always(0, model=tiny.identity),
        Versions(),
        processors=[Second()],
        reader=DaysReader(),
    )
    answer = assistant.ask("How long?", HOW)
    assert answer.answer == "You have 60 days."
    assert [claim.source for claim in answer.claims] == ["v2", "v1", "v3"]
    assert "latest version" in answer.settled
    assert [source.id for source in answer.sources if source.kept] == ["v3"]
    first = assistant.ask("How long is it in version 1?", HOW)
    assert first.answer == "You have 14 days."
