from dataclasses import replace

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from control.conflict.dial import DecodedAnswer, Verdict
from control.decoding.trace import Choice, TokenTrace, Trace
from control.forgetting.guard import WatchedFacts
from control.forgetting.normalize import find
from control.forgetting.record import Record
from control.forgetting.router import Route
from control.forgetting.suppressor import FactContext, FactSuppressor
from foundation import trace as trail
from foundation.errors import InputError

LIMA = Record("Peru", relation="capital", answers=("Lima",), id="1")
WATCHED = WatchedFacts((LIMA,), frozenset({"1"}))


class Words:
    """A redactor that knows spans, and one way to say them in other words."""

    def states(self, text, record):
        return bool(find(text, record.spans)) or "City of Kings" in text


class Asked:
    """A router that refuses the capital of Peru, and arms whatever names Peru."""

    def route(self, question, history=()):
        said = " ".join([question, *(text for turn in history for text in turn)])
        if "Peru" not in said:
            return Route()
        return Route(LIMA if "capital" in question else None, (LIMA,), 0.9, frozenset({"1"}))

    def watching(self, question):
        return lambda text: [LIMA] if "Peru" in text else []


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
    return FactSuppressor(Ledger(), Asked(), Words())


def traced(tiny, *texts, choices=()):
    trace = Trace(tiny.tokenizer, has_passages=False)
    for text in texts:
        offered = [Choice(choice, 0.3) for choice in choices]
        trace.tokens.append(
            TokenTrace(text, 0.0, 1.0, 1.0, False, "memory", False, offered, offered, -1.0, -1.0)
        )
        trace.ids.append(5)
        trace.text += text
    return trace


def strip_leaks(forgetting, tiny, *texts, watch=None, verdict=None, **more):
    settled = DecodedAnswer(traced(tiny, *texts, **more), verdict is not None, verdict)
    return forgetting.strip_leaks(settled, watch or WATCHED)


def test_a_question_in_scope_is_refused_and_booked(forgetting):
    with trail.following() as way:
        scope = forgetting.route("What is the capital of Peru?")
    assert scope.refused == LIMA
    assert way.withheld == [("1", "prompt")]
    assert forgetting.route("And its capital?", [("Where is Peru?", "In America.")]).refused == LIMA
    assert forgetting.route("What is the capital of Chile?").refused is None


def test_what_was_in_play_before_the_rewriting_stays_in_play(forgetting):
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
    class Either(Asked):
        def watching(self, question):
            return lambda text: [LIMA] if "capital" in question and "Peru" in text else []

    forgetting = FactSuppressor(Ledger(), Either(), Words())
    for question, system in (("A country?", "Add its capital."), ("Its capital?", "Be kind.")):
        watch = forgetting.watch(forgetting.route(question, system=system))
        assert watch.in_play("It is Peru.") == [LIMA]


def test_nothing_is_watched_where_nothing_is_forgotten(tiny):
    empty = FactSuppressor()
    scope = empty.route("What is the capital of Peru?", system="Say it.")
    assert scope.refused is None
    assert not empty.watch(scope)
    settled = DecodedAnswer(traced(tiny, "Lima"), False, None)
    assert empty.strip_leaks(settled, empty.watch(scope)) is settled
    assert empty.said([("Where?", "Lima")]) == [("Where?", "Lima")]


def test_an_answer_ends_before_the_sentence_that_says_it_in_other_words(forgetting, tiny):
    said = strip_leaks(forgetting, tiny, "It is high. ", "The City of Kings ", "rules. ", "Bye.")
    assert said.trace.text == "It is high. "
    assert [token.text for token in said.trace.tokens] == ["It is high. "]
    assert said.trace.withheld == ["1"]
    assert not said.trace.blocked


def test_nothing_is_left_of_an_answer_to_what_may_ask_for_it(forgetting, tiny):
    asked = WatchedFacts((LIMA,), frozenset({"1"}), decide_on_output=frozenset({"1"}))
    said = strip_leaks(forgetting, tiny, "It is high. ", "The City of Kings rules.", watch=asked)
    assert said.trace.text == ""
    assert said.trace.blocked
    assert said.trace.withheld == ["1"]
    other = strip_leaks(forgetting, tiny, "It is high. ", "It is dry.", watch=asked)
    assert other.trace.text == "It is high. It is dry."


def test_in_other_words_only_what_the_question_may_be_about_is_taken_back(forgetting, tiny):
    loosely = WatchedFacts((LIMA,))
    said = strip_leaks(forgetting, tiny, "The City of Kings rules.", watch=loosely)
    assert said.trace.text == "The City of Kings rules."
    assert strip_leaks(forgetting, tiny, "Lima rules.", watch=loosely).trace.blocked


@pytest.mark.parametrize("text", ["The City of Kings.", "Lima.", "L-i-m-a"])
def test_nothing_is_left_of_an_answer_that_begins_with_it(forgetting, tiny, text):
    said = strip_leaks(forgetting, tiny, text)
    assert said.trace.text == ""
    assert said.trace.blocked


def test_other_answers_stay_as_they_are_without_what_the_branches_would_have_said(forgetting, tiny):
    said = strip_leaks(forgetting, tiny, "It is", " high.", choices=(" Lima", " Quito"))
    assert said.trace.text == "It is high."
    for token in said.trace.tokens:
        assert [choice.text for choice in token.context_choices] == [" Quito"]
        assert [choice.text for choice in token.memory_choices] == [" Quito"]


def test_a_verdict_that_says_it_is_dropped(forgetting, tiny):
    telling = Verdict("Quito", "Lima", 0.5, "passages")
    assert strip_leaks(forgetting, tiny, "Quito.", verdict=telling).verdict is None
    harmless = Verdict("Quito", "Cusco", 0.5, "passages")
    assert strip_leaks(forgetting, tiny, "Quito.", verdict=harmless).verdict == harmless


def test_a_subject_that_the_answer_brings_up_counts(forgetting, tiny):
    brought = forgetting.watch(FactContext(brings=lambda text: (LIMA,) if "Peru" in text else ()))
    assert strip_leaks(forgetting, tiny, "Peru has Lima.", watch=brought).trace.blocked
    assert strip_leaks(forgetting, tiny, "Lima beans.", watch=brought).trace.text == "Lima beans."


def passage(text, title=""):
    return NodeWithScore(node=TextNode(text=text, metadata={"title": title}))


def read(forgetting, question, *passages, **more):
    """Ids of the records that are in play once the passages are read."""
    with trail.following():
        scope = forgetting.reading(forgetting.route(question), passages, **more)
    assert scope.check_paraphrase == {record.id for record in scope.watched}
    return [record.id for record in scope.watched]


def test_a_passage_brings_its_subject_up_where_it_also_names_what_is_asked(forgetting):
    about = "Paddington comes from Peru."
    assert read(forgetting, "Where does the land of the bear Paddington lie?", passage(about)) == [
        "1"
    ]
    assert read(forgetting, "Is Paddington's land high?", passage("He is of Peru.", "Paddington"))
    assert read(forgetting, "And where does that land lie?", passage(about)) == ["1"]
    assert not read(forgetting, "Where was Astrid Lindgren born?", passage(about))
    apart = passage("Astrid Lindgren wrote."), passage(about)
    assert not read(forgetting, "Where was Astrid Lindgren born?", *apart)


def test_what_was_taken_out_of_a_passage_is_in_play_though_nobody_is_named(forgetting):
    note, out = passage("A note on a land."), [("1", "retrieval")]
    asked = "What does my note say about the seat of government?"
    assert read(forgetting, asked, note, withheld=out, pasted=True) == ["1"]
    assert not read(forgetting, asked, note, withheld=[("1", "prompt")], pasted=True)
    assert not read(forgetting, asked, note, pasted=True)


def test_what_was_taken_out_of_passages_found_counts_where_they_tell_who_is_meant(forgetting):
    out = [("1", "retrieval")]
    assert read(forgetting, "What is its capital?", withheld=out) == ["1"]
    assert not read(forgetting, "To which class of animals does the ostrich belong?", withheld=out)
    assert not read(forgetting, "What is the capital of Chile?", withheld=out)
    assert not read(forgetting, "The University of Vienna has its campus where?", withheld=out)


def test_a_record_that_was_removed_meanwhile_is_not_in_play(forgetting):
    out = [("2", "retrieval")]
    assert not read(forgetting, "What does my note say?", withheld=out, pasted=True)


def test_a_question_about_somebody_named_brings_nobody_else_into_play(forgetting):
    class Likening(Asked):
        def route(self, question, history=()):
            return Route(None, (LIMA,), 0.3, frozenset({"1"}))

    likened = replace(forgetting, router=Likening())
    assert not likened.route("What is the country of birth of Astrid Lindgren?").watched
    assert likened.route("What is the country of birth of Peru?").watched == (LIMA,)
    assert likened.route("What is the capital of Perru?").watched == (LIMA,)
    before = [("Tell me of Peru", "Gladly.")]
    assert likened.route("What is the seat of Astrid Lindgren?", before).watched == (LIMA,)
    assert likened.route("Who is the ruler of the land of Paddington?").watched == (LIMA,)
    assert likened.route("What is the birthplace of Paddington's friend?").watched == (LIMA,)
    assert likened.route("What is the birthplace of Don Quixote's author?").watched == (LIMA,)
    assert likened.route("What is the birthplace of the Paddington author?").watched == (LIMA,)


def told(forgetting, tiny, *texts, watch):
    heard = []
    with forgetting.buffer_stream(lambda at, token: heard.append(token.text), [watch]) as (tell, _):
        for token in traced(tiny, *texts).tokens:
            tell(0, token)
            heard.append("|")
    return "".join(heard)


def test_a_watched_answer_is_streamed_by_whole_sentences(forgetting, tiny):
    texts = ("It ", "is ", "high. ", "And ", "cold")
    assert told(forgetting, tiny, *texts, watch=WATCHED) == "||It is high. |||And cold"
    assert told(forgetting, tiny, *texts, watch=WatchedFacts()) == "It |is |high. |And |cold|"


def test_nothing_is_streamed_from_the_sentence_on_that_says_it(forgetting, tiny):
    heard = told(forgetting, tiny, "High. ", "The City ", "of Kings. ", "Bye.", watch=WATCHED)
    assert heard.replace("|", "") == "High. "


def test_an_answer_that_may_be_taken_back_is_told_at_its_end(forgetting, tiny):
    asked = WatchedFacts((LIMA,), frozenset({"1"}), decide_on_output=frozenset({"1"}))
    heard = told(forgetting, tiny, "High. ", "And ", "cold. ", "Bye.", watch=asked)
    assert heard == "||||High. And cold. Bye."
    heard = told(forgetting, tiny, "High. ", "The City ", "of Kings. ", "Bye.", watch=asked)
    assert heard.replace("|", "") == ""


def test_the_rest_of_an_answer_that_ended_with_nothing_to_say_is_not_told(forgetting, tiny):
    heard = []
    with forgetting.buffer_stream(lambda at, token: heard.append(at), [WATCHED, WATCHED]) as (
        tell,
        lost,
    ):
        for at in (0, 1):
            for token in traced(tiny, "The ", "city ", "is").tokens:
                tell(at, token)
        lost.add(0)
    assert heard == [1, 1, 1]


def test_what_is_kept_back_is_noted_once(forgetting):
    forgetting.note([("1", "prompt"), ("1", "prompt"), ("1", "output")])
    assert forgetting.ledger.notes == [
        ("withheld", "1", {"layer": "prompt"}),
        ("withheld", "1", {"layer": "output"}),
    ]


def test_texts_that_spell_it_are_not_shown(forgetting):
    scope = FactContext(watched=(LIMA,))
    assert forgetting.sayable(["capital of Peru", "Lima, Peru"], scope) == ["capital of Peru"]
