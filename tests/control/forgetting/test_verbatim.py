"""A text's wording is kept back, whatever the question, and its content may be told."""

import codecs
from dataclasses import replace

import pytest
import torch
from llama_index.core.schema import NodeWithScore, TextNode

from control.conflict.sources import SourceClaim
from control.conflict.verdict import DecodedAnswer
from control.decoding.trace import Choice, TokenTrace, written
from control.forgetting.clearing import Door, cleared_tokens
from control.forgetting.fact_index import FactIndex
from control.forgetting.guard import LeakGuard, WatchedFacts
from control.forgetting.ledger import Changes, Ledger
from control.forgetting.record import Record
from control.forgetting.redaction import Redactor
from control.forgetting.suppressor import FactContext, FactSuppressor
from control.forgetting.verbatim import VerbatimIndex

TALE = (
    "Every evening at half past six old Matthias climbed the steps of the lighthouse with a tin of "
    "oil in his left hand, because his right hand had been useless since the winter of the great "
    "ice. He never counted the steps aloud. He counted the gulls instead, and when there were "
    "fewer than twelve of them on the railing he knew that the wind would turn before midnight."
)
OTHER = (
    "Nobody in the harbour could say who had painted the door of the ferry office green, and the "
    "ferryman himself, when he was asked, only shook his head and pointed at the sea."
)
KEEPER = Record("The Lighthouse Keeper", answers=(TALE,), scope="verbatim", id="1")
FERRY = Record("The Ferry", answers=(OTHER,), scope="verbatim", id="2")


def words(count, start=0, text=TALE):
    return " ".join(text.split()[start : start + count])


def every_ninth_word_replaced(text):
    return " ".join("indeed" if at % 9 == 8 else word for at, word in enumerate(text.split()))


@pytest.fixture
def index():
    return VerbatimIndex([KEEPER, FERRY])


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.db", bytes(32))


@pytest.fixture
def keeper(ledger):
    [record] = ledger.add([replace(KEEPER, id="")])
    return record


@pytest.fixture
def redactor(ledger):
    return Redactor(ledger, judge=None)  # asked nothing: no fact is forgotten


@pytest.fixture
def forgetting(ledger, redactor):
    return FactSuppressor(ledger, redactor=redactor)


@pytest.mark.parametrize("start", [0, 7, 30])
def test_eight_words_may_be_told_and_nine_may_not(index, start):
    assert index.find(f"It says: {words(8, start)} something else.") == []
    text = f"It says: {words(9, start)} something else."
    [(first, last, record)] = index.find(text)
    assert text[first:last] == words(9, start).rstrip(".,")
    assert record == KEEPER


@pytest.mark.parametrize(
    "disguise",
    [
        str.upper,
        lambda text: text.replace(" ", "\n"),
        lambda text: text.replace(" ", ", "),
        lambda text: text.replace(" ", " **") + "**",
        lambda text: text.replace("a", "\u0430").replace("e", "\u0435"),  # Cyrillic
        lambda text: text.replace("e", "é"),
        lambda text: text.replace("a", "\u200ba"),
        lambda text: text.replace("climbed", "cl1mbed").replace("old", "0ld"),
        lambda text: text.replace("climbed", "clim-\nbed"),
        lambda text: text.replace("Matthias", "M-a-t-t-h-i-a-s"),
    ],
)
def test_disguises_do_not_help(index, disguise):
    assert [found[2] for found in index.find(disguise(words(12)))] == [KEEPER]


@pytest.mark.parametrize(
    "encode",
    [lambda text: codecs.encode(text, "rot13"), lambda text: text[::-1], lambda text: text],
)
def test_an_encoded_copy_is_one_too(index, encode):
    assert index.repeated(encode(words(20))) == [KEEPER]
    assert index.repeated(encode("He carries the oil up the steps, and counts gulls.")) == []


def test_a_copy_with_every_ninth_word_replaced_is_one_too(index):
    text = every_ninth_word_replaced(TALE)
    assert index.find(text)
    # Two quotations of eight words are none, nor several that are far apart.
    assert index.find(words(17, text=text)) == []
    apart = " and then something else altogether happens that is nowhere in that text, namely: "
    assert index.find(apart.join(words(8, start) for start in range(0, 48, 9))) == []


def test_content_in_other_words_is_no_copy(index):
    assert index.find("Matthias carried oil up the lighthouse each evening at half past six.") == []


def test_a_text_that_was_removed_is_told_again_and_others_are_not(index):
    index.remove("1")
    index.remove("1")
    assert index.find(TALE) == []
    assert [record for *_, record in index.find(OTHER)] == [FERRY]
    index.remove("2")
    assert not index


def test_a_passage_that_two_texts_share_stays_kept_back_with_either(index):
    index.add(replace(KEEPER, id="3", subject="Second edition"))
    index.remove("1")
    assert {record.id for *_, record in index.find(TALE)} == {"3"}


def test_a_copied_run_is_cut_and_the_rest_stays(index):
    text = f"A reviewer writes: {words(20)}. I liked it."
    assert index.cut(text) == "A reviewer writes: …. I liked it."
    assert index.cut("I liked it.") == "I liked it."


def test_a_token_that_completes_nine_words_is_not_chosen(index, tiny):
    """Whatever the question: nothing but the wording is watched."""
    ids = tiny.tokenizer(words(9), add_special_tokens=False).input_ids
    guard = LeakGuard(WatchedFacts(wording=index), tiny.tokenizer, frozenset({1}))
    x = tiny.tokenizer("x", add_special_tokens=False).input_ids[0]
    scores = torch.zeros(len(tiny.tokenizer))
    told = [guard.allowed(scores, token, lambda _: x) for token in ids]
    assert tiny.tokenizer.decode(told) == f"{words(9)[:-1]}x"
    assert (guard.withheld, guard.blocked) == (["1"], False)


def test_alternatives_to_a_token_do_not_complete_it_either(index):
    watch = WatchedFacts(wording=index)
    *_, last = words(9).split()
    choices = [Choice(f" {last}", 0.6), Choice(" ladder", 0.3)]
    token = TokenTrace(" a", 0.0, 1.0, 1.0, False, "memory", False, choices, choices, -1.0, -1.0)
    [cleared] = cleared_tokens([token], watch, before=words(8))
    assert [choice.text for choice in cleared.context_choices] == [" ladder"]


def test_a_record_is_watched_from_the_next_question_on(ledger, forgetting, keeper):
    watch = forgetting.watch(FactContext())
    assert watch
    assert watch.completed(words(8), f" {words(1, 8)}") == keeper
    ledger.remove(keeper.id)
    assert not forgetting.watch(FactContext())


def test_an_answer_that_copies_is_cut_before_the_sentence_that_does(forgetting, keeper):
    watch = forgetting.watch(FactContext())
    answer = DecodedAnswer(written(f"It is a tale. {every_ninth_word_replaced(TALE)}"), False, None)
    told = forgetting.strip_leaks(answer, watch)
    assert told.trace.text.strip() == "It is a tale."
    assert told.trace.withheld == [keeper.id]
    assert not told.trace.blocked


def test_an_answer_ended_by_a_server_without_bans_is_told_as_far_as_it_goes(forgetting, keeper):
    watch = forgetting.watch(FactContext())
    trace = replace(written(words(8)), blocked=True, withheld=[keeper.id])
    told = forgetting.released(DecodedAnswer(trace, False, None), watch)
    assert (told.trace.text, told.trace.blocked) == (words(8), False)
    fact = replace(trace, withheld=[keeper.id, "a fact"])
    assert forgetting.released(DecodedAnswer(fact, False, None), watch).trace.blocked


def test_the_prompt_keeps_the_passage_and_what_is_shown_does_not(redactor, forgetting, keeper):
    node = TextNode(text=f"{TALE} It was written in 1921.", metadata={"title": "A keeper"})
    [kept] = forgetting.redact_passages([NodeWithScore(node=node)])
    assert kept.text == node.text
    assert forgetting.redact_history([("What does it say?", TALE)])[0][1] == TALE
    clear = Door(redactor).open()
    assert clear.text(node.text, "A keeper") == "…. It was written in 1921."
    assert clear.line(f"{words(12)}.txt cannot be read") == "….txt cannot be read"
    assert clear.name(words(12)) == ""
    assert clear.name("The Lighthouse Keeper") == "The Lighthouse Keeper"
    assert (
        clear.text("The Lighthouse Keeper is by nobody.") == "The Lighthouse Keeper is by nobody."
    )
    long, short = SourceClaim("a", f"namely {words(12)}"), SourceClaim("b", "the gulls")
    assert [claim.says for claim in clear.claims([long, short])] == ["namely …", "the gulls"]


def test_no_question_is_matched_with_it():
    index = FactIndex(embed=None)  # nothing of it is embedded either
    index.apply(Changes(1, [KEEPER]))
    assert index.records == {}
    assert not index.subjects.find("Who is The Lighthouse Keeper?")
