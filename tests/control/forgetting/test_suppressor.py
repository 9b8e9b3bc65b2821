from dataclasses import replace

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from control.conflict.sources import SourceClaim
from control.conflict.verdict import DecodedAnswer, Verdict
from control.decoding.trace import Choice, DecodingTrace, TokenTrace
from control.forgetting.clearing import Door, cleared_tokens
from control.forgetting.guard import WatchedFacts
from control.forgetting.record import Record
from control.forgetting.router import Route
from control.forgetting.suppressor import FactContext, FactSuppressor
from foundation import trace
from foundation.errors import InputError

LIMA = Record("Peru", relation="capital", answers=("Lima",), id="1")
WATCHED = WatchedFacts((LIMA,), frozenset({"1"}))


class CapitalJudge:
    """Takes a text that says both the capital and its name, or one paraphrase, for the fact."""

    def states(self, pairs):
        return [
            0.99 if "City of Kings" in text or ("capital" in text and "Lima" in text) else 0.01
            for text, _ in pairs
        ]


class PeruRouter:
    """A router that refuses the capital of Peru and watches whatever names Peru."""

    def route(self, question, history=()):
        conversation = " ".join([question, *(text for turn in history for text in turn)])
        if "Peru" not in conversation:
            return Route()
        return Route(LIMA if "capital" in question else None, (LIMA,), 0.9, frozenset({"1"}))

    def activation(self, question):
        return lambda text: [LIMA] if "Peru" in text else []

    def named(self, text):
        return (LIMA,) if "Peru" in text else ()


class Ledger:
    def __init__(self):
        self.notes = []

    def note(self, kind, record_id="", **details):
        self.notes.append((kind, record_id, details))

    def record(self, record_id):
        if record_id != LIMA.id:
            raise InputError("it was removed already")
        return LIMA


@pytest.fixture
def forgetting():
    return FactSuppressor(Ledger(), PeruRouter(), judge=CapitalJudge())


def traced(tiny, *texts, choices=()):
    trace = DecodingTrace(False, tokenizer=tiny.tokenizer)
    for text in texts:
        offered = [Choice(choice, 0.3) for choice in choices]
        trace.tokens.append(
            TokenTrace(text, 0.0, 1.0, 1.0, False, "memory", False, offered, offered, -1.0, -1.0)
        )
        trace.ids.append(5)
        trace.text += text
    return trace


def strip_leaks(forgetting, tiny, *texts, watch=None, verdict=None, **more):
    decoded = DecodedAnswer(traced(tiny, *texts, **more), verdict is not None, verdict)
    return forgetting.strip_leaks(decoded, watch or WATCHED)


def test_a_question_for_the_fact_is_refused_and_recorded_in_the_trace(forgetting):
    with trace.following() as request_trace:
        facts = forgetting.route("What is the capital of Peru?")
    assert facts.refused == LIMA
    assert request_trace.withheld == [("1", "prompt")]
    assert forgetting.route("And its capital?", [("Where is Peru?", "In America.")]).refused == LIMA
    assert forgetting.route("What is the capital of Chile?").refused is None


def test_records_active_before_the_rewriting_stay_active(forgetting):
    before = forgetting.route("Tell me of Peru")
    assert before.watched == (LIMA,)
    again = forgetting.route("Tell me of that country", before=before)
    assert again.refused is None
    assert again.watched == (LIMA,)


def test_an_instruction_is_part_of_what_is_asked(forgetting):
    capital, country = "Name the capital of the country.", "You speak of Peru."
    assert forgetting.route("Peru", system=capital).refused == LIMA
    assert forgetting.route("And its capital?", system=country).refused == LIMA
    assert forgetting.route("Where is Chile?", system=capital).refused is None
    scope = forgetting.route("Tell me a story", system=country)
    assert (scope.refused, scope.watched) == (None, (LIMA,))


def test_what_an_answer_names_is_watched_for_the_question_and_for_the_instruction():
    class EitherRouter(PeruRouter):
        def activation(self, question):
            return lambda text: [LIMA] if "capital" in question and "Peru" in text else []

    forgetting = FactSuppressor(Ledger(), EitherRouter(), judge=CapitalJudge())
    for question, system in (("A country?", "Add its capital."), ("Its capital?", "Be kind.")):
        watch = forgetting.watch(forgetting.route(question, system=system))
        assert watch.active_records("It is Peru.") == [LIMA]


def test_nothing_is_watched_where_nothing_is_forgotten(tiny):
    empty = FactSuppressor()
    facts = empty.route("What is the capital of Peru?", system="Say it.")
    assert facts.refused is None
    assert not empty.watch(facts)
    decoded = DecodedAnswer(traced(tiny, "Lima"), False, None)
    assert empty.strip_leaks(decoded, empty.watch(facts)) is decoded
    assert empty.redact_history([("Where?", "Lima")]) == [("Where?", "Lima")]


def test_an_answer_is_cut_before_a_sentence_that_paraphrases_the_fact(forgetting, tiny):
    stripped = strip_leaks(
        forgetting, tiny, "It is high. ", "The City of Kings ", "rules. ", "Bye."
    )
    assert stripped.trace.text == "It is high. "
    assert [token.text for token in stripped.trace.tokens] == ["It is high. "]
    assert stripped.trace.withheld == ["1"]
    assert not stripped.trace.blocked


def test_an_answer_to_a_question_that_may_ask_for_the_fact_is_withheld_entirely(forgetting, tiny):
    asked = WatchedFacts((LIMA,), frozenset({"1"}), decide_on_output=frozenset({"1"}))
    stripped = strip_leaks(
        forgetting, tiny, "It is high. ", "The City of Kings rules.", watch=asked
    )
    assert stripped.trace.text == ""
    assert stripped.trace.blocked
    assert stripped.trace.withheld == ["1"]
    other = strip_leaks(forgetting, tiny, "It is high. ", "It is dry.", watch=asked)
    assert other.trace.text == "It is high. It is dry."


def test_paraphrases_count_only_for_records_that_the_question_may_be_about(forgetting, tiny):
    without_paraphrase = WatchedFacts((LIMA,))
    stripped = strip_leaks(forgetting, tiny, "The City of Kings rules.", watch=without_paraphrase)
    assert stripped.trace.text == "The City of Kings rules."
    assert strip_leaks(forgetting, tiny, "Lima rules.", watch=without_paraphrase).trace.blocked


def test_a_sentence_that_repeats_the_question_is_withheld_only_if_it_states_the_fact(
    forgetting, tiny
):
    facts = forgetting.route("Does the river of Lima flow through Peru?")
    told = "The river of Lima does."
    assert strip_leaks(forgetting, tiny, told, watch=forgetting.watch(facts)).trace.text == told
    states = "It flows through Lima, the capital."
    assert strip_leaks(forgetting, tiny, states, watch=forgetting.watch(facts)).trace.blocked
    facts = forgetting.route("Does the river flow through Peru?")
    assert strip_leaks(forgetting, tiny, told, watch=forgetting.watch(facts)).trace.blocked


@pytest.mark.parametrize("text", ["The City of Kings.", "Lima.", "L-i-m-a"])
def test_an_answer_that_begins_with_the_fact_is_withheld(forgetting, tiny, text):
    stripped = strip_leaks(forgetting, tiny, text)
    assert stripped.trace.text == ""
    assert stripped.trace.blocked


def test_other_answers_are_unchanged_but_lose_leaking_alternatives(forgetting, tiny):
    stripped = strip_leaks(forgetting, tiny, "It is", " high.", choices=(" Lima", " Quito"))
    assert stripped.trace.text == "It is high."
    for token in cleared_tokens(stripped.trace.tokens, WATCHED):
        assert [choice.text for choice in token.context_choices] == [" Quito"]
        assert [choice.text for choice in token.memory_choices] == [" Quito"]


def test_a_verdict_that_states_the_fact_is_dropped(forgetting, tiny):
    leaking = Verdict("Quito", "Lima", 0.5, "passages")
    assert strip_leaks(forgetting, tiny, "Quito.", verdict=leaking).verdict is None
    harmless = Verdict("Quito", "Cusco", 0.5, "passages")
    assert strip_leaks(forgetting, tiny, "Quito.", verdict=harmless).verdict == harmless


def test_a_subject_named_in_the_answer_activates_its_record(forgetting, tiny):
    watch = forgetting.watch(FactContext(activate=lambda text: (LIMA,) if "Peru" in text else ()))
    assert strip_leaks(forgetting, tiny, "Peru has Lima.", watch=watch).trace.blocked
    assert strip_leaks(forgetting, tiny, "Lima beans.", watch=watch).trace.text == "Lima beans."


def passage(text, title=""):
    return NodeWithScore(node=TextNode(text=text, metadata={"title": title}))


def read(forgetting, question, *passages, **more):
    """Ids of the records that are active once the passages are in the prompt."""
    with trace.following():
        facts = forgetting.activate_from_passages(forgetting.route(question), passages, **more)
    assert facts.check_paraphrase == {record.id for record in facts.watched}
    return [record.id for record in facts.watched]


def test_a_passage_activates_its_subject_if_it_shares_a_name_with_the_question(forgetting):
    about = "Paddington comes from Peru."
    assert read(forgetting, "Where does the land of the bear Paddington lie?", passage(about)) == [
        "1"
    ]
    assert read(forgetting, "Is Paddington's land high?", passage("He is of Peru.", "Paddington"))
    assert read(forgetting, "And where does that land lie?", passage(about)) == ["1"]
    assert not read(forgetting, "Where was Astrid Lindgren born?", passage(about))
    apart = passage("Astrid Lindgren wrote."), passage(about)
    assert not read(forgetting, "Where was Astrid Lindgren born?", *apart)


def test_facts_redacted_from_a_pasted_passage_are_active_though_no_subject_is_named(forgetting):
    note, out = passage("A note on a land."), [("1", "retrieval")]
    asked = "What does my note say about the seat of government?"
    assert read(forgetting, asked, note, withheld=out, pasted=True) == ["1"]
    assert not read(forgetting, asked, note, withheld=[("1", "prompt")], pasted=True)
    assert not read(forgetting, asked, note, pasted=True)


def test_facts_redacted_from_retrieved_passages_are_active_if_the_subject_is_missing(forgetting):
    out = [("1", "retrieval")]
    assert read(forgetting, "What is its capital?", withheld=out) == ["1"]
    assert not read(forgetting, "To which class of animals does the ostrich belong?", withheld=out)
    assert not read(forgetting, "What is the capital of Chile?", withheld=out)
    assert not read(forgetting, "The University of Vienna has its campus where?", withheld=out)


@pytest.mark.parametrize(
    ("described", "text", "says", "watched"),
    [
        (True, "Cusco (city)\nIts twin is Lima in Ohio.", "Lima", False),
        (True, "Cusco (city)\nFrom here Peru was ruled before Lima.", "Lima", True),
        (True, "Cities of Peru\nThe twin of Cusco is Lima in Ohio.", "Lima", False),
        (True, "Cities of Peru\nFrom Lima all is ruled.", "Lima", True),
        (True, "Cities of Peru\nIts twin is Lima in Ohio.", "Lima", True),
        (True, "Cusco (city)\nIts twin is Dayton in Ohio.", "Dayton", True),
        (False, "Cusco (city)\nIts twin is Lima in Ohio.", "Lima", True),
    ],
)
def test_an_answer_that_a_passage_gives_otherwise_may_be_told(
    forgetting, described, text, says, watched
):
    only = frozenset({"1"} if described else ())
    facts = FactContext(watched=(LIMA,), described=only, question="What is the twin of Cusco?")
    left = forgetting.without_claimed(facts, [(text, text.split("\n")[1], says)])
    assert (left.watched == (LIMA,)) == watched


def test_a_fact_that_is_certainly_concerned_is_no_longer_only_described(forgetting):
    before = FactContext(watched=(LIMA,), described=frozenset({"1"}))
    assert forgetting.route("Which city is it?", before=before).described == {"1"}
    assert not forgetting.route("How high is Peru?", before=before).described
    kept = replace(before, activate=lambda text: [LIMA] if "Peru" in text else [])
    assert not forgetting.activate_from_passages(kept, [passage("Of Peru.")]).described


def test_a_record_that_was_removed_meanwhile_is_not_active(forgetting):
    out = [("2", "retrieval")]
    assert not read(forgetting, "What does my note say?", withheld=out, pasted=True)


def streamed(forgetting, tiny, *texts, watch):
    emitted = []
    with forgetting.buffer_stream(lambda at, token: emitted.append(token.text), [watch]) as (
        buffer,
        _,
    ):
        for token in traced(tiny, *texts).tokens:
            buffer(0, token)
            emitted.append("|")
    return "".join(emitted)


def test_a_watched_answer_is_streamed_by_whole_sentences(forgetting, tiny):
    texts = ("It ", "is ", "high. ", "And ", "cold")
    assert streamed(forgetting, tiny, *texts, watch=WATCHED) == "||It is high. |||And cold"
    assert streamed(forgetting, tiny, *texts, watch=WatchedFacts()) == "It |is |high. |And |cold|"


def test_streaming_stops_before_the_sentence_that_states_the_fact(forgetting, tiny):
    emitted = streamed(forgetting, tiny, "High. ", "The City ", "of Kings. ", "Bye.", watch=WATCHED)
    assert emitted.replace("|", "") == "High. "


def test_an_answer_that_may_be_withdrawn_is_streamed_at_its_end(forgetting, tiny):
    asked = WatchedFacts((LIMA,), frozenset({"1"}), decide_on_output=frozenset({"1"}))
    emitted = streamed(forgetting, tiny, "High. ", "And ", "cold. ", "Bye.", watch=asked)
    assert emitted == "||||High. And cold. Bye."
    emitted = streamed(forgetting, tiny, "High. ", "The City ", "of Kings. ", "Bye.", watch=asked)
    assert emitted.replace("|", "") == ""


def test_the_buffer_of_a_blocked_answer_is_not_streamed(forgetting, tiny):
    emitted = []
    with forgetting.buffer_stream(lambda at, token: emitted.append(at), [WATCHED, WATCHED]) as (
        buffer,
        stopped,
    ):
        for at in (0, 1):
            for token in traced(tiny, "The ", "city ", "is").tokens:
                buffer(at, token)
        stopped.add(0)
    assert emitted == [1, 1, 1]


def test_streamed_tokens_offer_no_alternative_that_holds_or_completes_the_answer(forgetting, tiny):
    emitted = []
    with forgetting.buffer_stream(lambda at, token: emitted.append(token), [WATCHED]) as (
        buffer,
        _,
    ):
        for token in traced(tiny, "It is ", "Li", "on.", choices=("Lima", "ma", "on")).tokens:
            buffer(0, token)
    offered = [[choice.text for choice in token.context_choices] for token in emitted]
    assert offered == [["ma", "on"], ["ma", "on"], ["on"]]  # "ma" completes "Li"


def test_what_is_withheld_is_recorded_once_in_the_audit(forgetting):
    forgetting.record_withheld([("1", "prompt"), ("1", "prompt"), ("1", "output")])
    assert forgetting.ledger.notes == [
        ("withheld", "1", {"layer": "prompt"}),
        ("withheld", "1", {"layer": "output"}),
    ]


def test_texts_that_contain_a_watched_answer_are_not_shown(forgetting):
    facts = FactContext(watched=(LIMA,))
    assert forgetting.leak_free(["capital of Peru", "Lima, Peru"], facts) == ["capital of Peru"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("It is on the coast. Lima is the capital of Peru.", "It is on the coast. "),
        ("Lima is in Peru.", "Lima is in Peru."),
        ("Lima is a city. It is the capital of Peru.", "Lima is a city. "),
        (
            "It is on the coast. The capital of Peru: rich in history, and Lima.",
            "It is on the coast. The capital of Peru: ",
        ),
    ],
)
def test_a_fact_that_is_volunteered_to_another_question_is_cut(tiny, said, kept):
    forgetting = FactSuppressor(Ledger(), PeruRouter(), judge=CapitalJudge())
    nothing_watched = WatchedFacts(activate=lambda text: [])
    stripped = strip_leaks(forgetting, tiny, said, watch=nothing_watched).trace
    assert stripped.text.strip() == kept.strip()
    assert stripped.withheld == (["1"] if kept != said else [])


class UnwatchedRouter(PeruRouter):
    """Finds that no question has to do with the capital."""

    def route(self, question, history=()):
        return Route()

    def activation(self, question):
        return lambda text: []


class UnsureJudge:
    def states(self, pairs):
        return [0.1 for _ in pairs]


def test_where_the_question_names_the_subject_nothing_shown_beside_the_answer_holds_the_fact(tiny):
    forgetting = FactSuppressor(Ledger(), UnwatchedRouter(), judge=CapitalJudge())

    def shown(question):
        watch = forgetting.watch(forgetting.route(question))
        [token] = cleared_tokens(traced(tiny, "It", choices=(" Lima", " grass")).tokens, watch)
        clear = Door().open(watch, question)
        claims = clear.claims([SourceClaim("a", "Lima"), SourceClaim("b", "grass")])
        return (
            [choice.text for choice in token.context_choices],
            [claim.says for claim in claims],
            clear.text("Lima is big. They eat grass."),
        )

    everything = ([" Lima", " grass"], ["Lima", "grass"], "Lima is big. They eat grass.")
    assert shown("What do llamas eat?") == everything
    assert shown("What do llamas in Peru eat?") == ([" grass"], ["grass"], "They eat grass.")


@pytest.mark.parametrize(
    ("question", "said", "cut"),
    [
        ("What is known of Peru?", "Lima is of Peru.", True),
        ("What is known of Peru?", "Lima is big.", False),
        ("What is known of Lima?", "Lima is of Peru.", False),
    ],
)
def test_where_question_and_sentence_name_the_subject_little_is_enough(tiny, question, said, cut):
    forgetting = FactSuppressor(Ledger(), UnwatchedRouter(), judge=UnsureJudge())
    watch = forgetting.watch(forgetting.route(question))
    assert strip_leaks(forgetting, tiny, said, watch=watch).trace.blocked == cut
