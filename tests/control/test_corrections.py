"""Corrections over a real ledger; the reader and the embedding are made up."""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding

from app.factory import fact_classifier
from control.corrections import LONGEST, Correction, Corrections, checked, is_question
from control.forgetting.ledger import open_ledger
from control.forgetting.record import Record
from control.forgetting.redaction import Redactor
from foundation import trace
from foundation.errors import InputError
from foundation.text import normalise

REFUND = "The refund window is 30 days"
SHORTER = "The refund window is 14 days"
PARKING = "Visitors park behind the mill"
LIMA = Record(
    "Peru", relation="capital", questions=("What is the capital of Peru?",), answers=("Lima",)
)


@dataclass(frozen=True)
class Found:
    answer: str = ""
    start: int = 0
    answers: float = 0.0


def answering(corrections, question):
    """The corrections that answer a question, in order."""
    pinned = {each.id: each for each in corrections.all()}
    return [pinned[node.node_id.split(":")[1]] for node in corrections.nodes_for(question)]


class WordReader:
    """Answers a question with the first words of a text that it does not hold, if it shares two."""

    def __init__(self):
        self.asked = []
        self.before = lambda: None

    def read(self, asked):
        self.before()
        self.asked += asked
        return [self._read(*pair) for pair in asked]

    def _read(self, question, text):
        known = set(normalise(question).split())
        shared = [word for word in text.split() if normalise(word) in known - {"the", "is"}]
        new = [word for word in text.split() if normalise(word) not in known]
        if len(shared) < 2 or not new:
            return Found(answers=0.1)
        return Found(new[0], text.index(new[0]), 0.985 + len(shared) / 10_000)


@dataclass
class GivenJudge:
    """Says of every question how likely it asks for what a statement says."""

    likely: float = 0.5

    def asks(self, pairs):
        return [self.likely] * len(pairs)


class WordEmbedding(BaseEmbedding):
    """Texts that share words are near."""

    def _get_text_embedding(self, text):
        vector = np.full(64, 0.01)
        for word in set(normalise(text).split()) - {"the", "is"}:
            vector[sum(word.encode()) % 64] += 1.0
        return vector.tolist()

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request):
    return None if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def ledger(home, url):
    return open_ledger(home, url)


@pytest.fixture
def reader():
    return WordReader()


@pytest.fixture
def judge():
    return GivenJudge()


@pytest.fixture
def corrections(ledger, reader, judge):
    return opened(ledger, reader, judge)


def opened(ledger, reader=None, judge=None):
    """The corrections of a ledger, as another process would open it."""
    redactor = Redactor(ledger, fact_classifier())
    return Corrections(
        ledger, WordEmbedding(), reader or WordReader(), judge or GivenJudge(), redactor
    )


def pin(corrections, statement=REFUND, replaces=(), **fields):
    return corrections.add(Correction(statement, **fields), replaces)


def statements(corrections):
    return [each.statement for each in corrections.all()]


def test_a_correction_is_seen_by_every_process_and_in_the_audit(corrections, ledger, home, url):
    given = Correction(REFUND, "board meeting, 3 May 2025", "Ann", "refunds")
    pinned = corrections.add(given)
    assert pinned.new
    assert replace(pinned.correction, id="", time="") == given
    other = opened(open_ledger(home, url))
    assert other.all() == [pinned.correction]
    [event] = ledger.events()
    assert (event.kind, event.record_id) == ("corrected", pinned.correction.id)
    assert event.details["statement"] == REFUND
    assert ledger.verify() is None
    assert ledger.records() == []


def test_what_is_pinned_is_encrypted(corrections, home):
    pin(corrections, "Ms Oduya leads the archive")
    stored = b"".join(path.read_bytes() for path in home.glob("ledger.db*"))
    assert b"Oduya" not in stored


def test_a_change_past_the_ledger_is_found(corrections, ledger):
    import sqlalchemy

    pin(corrections)
    with ledger._database.writing() as connection:
        connection.execute(sqlalchemy.text("UPDATE ledger_events SET record_id = 'x'"))
    assert "event 1 (corrected" in ledger.verify()


def test_paraphrases_are_answered_and_neighbours_left_alone(corrections):
    pinned = pin(corrections).correction
    pin(corrections, PARKING)
    assert answering(corrections, "How long is the refund window?") == [pinned]
    assert answering(corrections, "Our window for a refund?") == [pinned]
    assert answering(corrections, "Who cleans the window?") == []
    assert answering(corrections, "What is the capital of Peru?") == []


def test_a_question_about_something_else_is_left_alone_though_the_statement_has_words_for_it(
    corrections, judge
):
    pinned = pin(corrections).correction
    judge.likely = 1e-9
    assert answering(corrections, "How long is the refund window?") == []
    judge.likely = 1 - 1e-9
    assert answering(corrections, "How long is the refund window?") == [pinned]


def test_a_question_about_another_name_is_left_alone_unless_statement_or_scope_has_it(corrections):
    harbour = pin(corrections, "The mooring at Skelby costs 42 pounds").correction
    assert answering(corrections, "What does the mooring at Skelby costs?") == [harbour]
    assert answering(corrections, "What does the mooring at Drover costs?") == []
    quay = pin(corrections, "The mooring at our quay costs 28 pounds", scope="Drover").correction
    assert answering(corrections, "What does the mooring at Drover costs?") == [quay]


def test_the_reader_is_asked_only_about_statements_that_are_near(corrections, reader):
    pin(corrections)
    pin(corrections, PARKING)
    reader.asked.clear()
    answering(corrections, "How long is the refund window?")
    assert [text for _, text in reader.asked] == [f"Correction: {REFUND}"]


def test_nothing_is_read_or_embedded_without_corrections(ledger):
    unused = Corrections(ledger, None, None, None, redactor=object())
    assert unused.nodes_for("How long?") == []


def test_the_assistant_gets_passages_with_source_day_and_trust(corrections):
    pinned = pin(corrections, source="board meeting").correction
    pin(corrections, PARKING)
    [node] = corrections.nodes_for("How long is the refund window?")
    assert (node.node_id, node.text) == (f"correction:{pinned.id}", REFUND)
    assert node.metadata == {"title": "board meeting", "date": pinned.time[:10], "trust": 1.0}
    assert node.score > 0.5
    [node] = corrections.nodes_for("Where do visitors park?")
    assert node.metadata["title"] == "Correction"


def test_a_withdrawn_correction_is_not_used_and_stays_in_the_audit(corrections, ledger, home, url):
    other = opened(open_ledger(home, url))
    pinned = pin(corrections).correction
    assert answering(other, "How long is the refund window?") == [pinned]
    assert corrections.withdraw(pinned.id, "Ann", "wrong") == pinned
    assert answering(other, "How long is the refund window?") == []
    kinds = [event.kind for event in ledger.events()]
    assert kinds == ["corrected", "correction withdrawn"]
    assert ledger.events()[1].details == {"who": "Ann", "reason": "wrong"}
    assert ledger.verify() is None
    with pytest.raises(InputError, match="was withdrawn already, at 2"):
        corrections.withdraw(pinned.id)
    assert pin(corrections).new


def test_an_unknown_id_is_named(corrections, ledger):
    [record] = ledger.add([LIMA])
    for unknown in ("abc", record.id):
        with pytest.raises(InputError, match=f"there is no correction '{unknown}'; list them"):
            corrections.withdraw(unknown)
    with pytest.raises(InputError, match="no record"):
        ledger.remove(pin(corrections).correction.id)


def test_the_same_statement_is_there_already(corrections, ledger):
    first = pin(corrections)
    again = pin(corrections, "  the refund window  is 30 days. ")
    assert (again.new, again.correction) == (False, first.correction)
    assert ledger.version() == 1


def test_signs_make_another_statement(corrections):
    pin(corrections, "Store it at 5 °C")
    assert pin(corrections, "Store it at -5 °C").new


def test_the_later_of_two_that_answer_comes_first(corrections):
    first = pin(corrections).correction
    second = pin(corrections, SHORTER).correction
    assert answering(corrections, "How long is the refund window?") == [second, first]


def test_replacing_withdraws_in_the_same_transaction(corrections, ledger):
    first = pin(corrections).correction
    second = pin(corrections, SHORTER, [first.id], who="Ann")
    assert second.replaced == (first,)
    assert statements(corrections) == [SHORTER]
    _, withdrawn, corrected = ledger.events()
    assert (withdrawn.kind, withdrawn.record_id) == ("correction withdrawn", first.id)
    assert withdrawn.details == {"who": "Ann", "replaced_by": second.correction.id}
    assert withdrawn.time == corrected.time
    with pytest.raises(InputError, match="was withdrawn already"):
        pin(corrections, PARKING, [first.id])
    assert statements(corrections) == [SHORTER]


def test_what_is_replaced_meanwhile_is_not_replaced_again(corrections, ledger, home, url):
    first = pin(corrections).correction
    other = opened(open_ledger(home, url))
    judge = corrections.forgotten

    def meanwhile(correction):
        corrections.forgotten = judge
        pin(other, SHORTER, [first.id])
        return judge(correction)

    corrections.forgotten = meanwhile
    with pytest.raises(InputError, match="was withdrawn already"):
        pin(corrections, PARKING, [first.id])
    assert statements(corrections) == [SHORTER]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("", "the statement is empty"),
        (" \n ", "the statement is empty"),
        ("…", "the statement is empty"),
        ("x" * (LONGEST + 1), "the statement has 1,001 characters, the limit is 1,000"),
        ("How long is the refund window?", "is a question"),
        ("how many days is the refund window", "is a question"),
        ("ما هي المدة؟", "is a question"),
        ("Open on Sundays?!", "is a question"),
        ("half \ud800", "bytes that are no text"),
    ],
)
def test_what_is_no_statement_is_refused(corrections, ledger, statement, said):
    with pytest.raises(InputError, match=said):
        pin(corrections, statement)
    assert ledger.version() == 0


def test_the_longest_statement_is_taken():
    assert checked(Correction("x" * LONGEST)).statement == "x" * LONGEST


def test_a_statement_may_begin_as_a_question_does():
    for statement in ("When the shop is closed, ring the bell.", "What we sell is paper."):
        assert not is_question(statement)


@pytest.mark.parametrize(
    "given",
    [
        Correction("Lima is the capital of Peru"),
        Correction("Its capital is Lima", scope="Peru"),
        Correction(REFUND, source="The capital of Peru is Lima"),
        Correction(REFUND, who="The capital of Peru is Lima"),
    ],
)
def test_what_is_forgotten_is_not_taken(corrections, ledger, given):
    [record] = ledger.add([LIMA])
    with pytest.raises(InputError) as refused:
        corrections.add(given)
    assert "Lima" not in str(refused.value)
    assert "Peru" not in str(refused.value)
    assert corrections.all() == []
    noted = ledger.events()[-1]
    assert (noted.kind, noted.record_id) == ("withheld", record.id)


def test_what_is_forgotten_later_is_not_used_until_it_may_be_said_again(corrections, ledger):
    pinned = pin(corrections, "Lima is the capital of Peru").correction
    question = "Which town is Peru capital?"
    assert answering(corrections, question) == [pinned]
    [record] = ledger.add([LIMA])
    with trace.following() as seen:
        assert corrections.nodes_for(question) == []
    assert seen.withheld == [(record.id, "correction")]
    assert corrections.forgotten(pinned) == (record.id,)
    ledger.remove(record.id)
    assert answering(corrections, question) == [pinned]


def test_an_event_cannot_be_noted_as_a_correction(ledger):
    for kind in ("corrected", "correction withdrawn"):
        with pytest.raises(InputError, match="cannot be noted"):
            ledger.note(kind)


def test_the_packaged_encoders_find_paraphrases_and_leave_neighbours_alone(home):
    """The shares are in docs/corrections.md; every second correction is asked about."""
    from app import factory, settings

    cases = tomllib.loads(Path(__file__).with_name("corrections.toml").read_text("utf-8"))
    pinned = factory.corrections(settings.load(), open_ledger(home))
    half = cases["correction"][::2]
    by_statement = {pin(pinned, each["statement"]).correction: each for each in half}
    found, taken = [], []
    for correction, case in by_statement.items():
        found += [correction in answering(pinned, each) for each in case["asks"]]
        taken += [correction in answering(pinned, each) for each in case["neighbours"]]
    assert sum(found) >= 0.85 * len(found)
    assert sum(taken) <= 0.1 * len(taken)
