"""Questions, passages and claims that would give a forgotten fact away."""

import json
from dataclasses import asdict, replace

import pytest
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from app import factory
from control import faithfulness
from control.answer import STEPS
from control.assistant import Assistant
from control.conflict import calibration as calibrations
from control.conflict import dial, passage_claims
from control.conflict.policies import DISAGREE
from control.conflict.reader import Reading
from control.conflict.sources import SourceOptions
from control.conflict.verdict import DecodedAnswer
from control.decoding.generate import Decoding
from control.decoding.trace import Trace, written
from control.forgetting.guard import Route
from control.forgetting.ledger import open_ledger
from control.forgetting.questions import with_questions
from control.forgetting.record import Record
from control.forgetting.redaction import Redactor
from control.forgetting.suppressor import REFUSALS, FactContext, FactSuppressor
from control.prompts import BRIEFLY, SYSTEM
from control.state import Query, QuestionState
from foundation import trace
from tests.control.fakes import HOW, NEW, OLD, PERU, DaysReader, FixedRetriever, Rewriter, dated

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
    assert "14 days (a document without a title)" in answer
    assert "30 days (two)" in answer


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


@pytest.mark.parametrize(("left", "quoted"), [("the treasurer", True), ("…", False)])
def test_a_sentence_that_lacks_what_is_forgotten_is_not_quoted_as_the_nearest(tiny, left, quoted):
    text = f"Yusra Toll keeps the books and is {left}."
    node = NodeWithScore(node=TextNode(text=text))
    start = passage_claims.passage_text(node).index("Yusra")
    near = passage_claims.nearest([(node, Reading("Yusra Toll", start, 0.2))])
    asked = "Who has an allergy?"
    state = QuestionState(Query(asked), asked, HOW, QueryBundle(asked), nearest=near)
    quote = faithfulness.quote(state, tiny, None, FactSuppressor())
    assert (quote is not None and quote.text == text) == quoted


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
