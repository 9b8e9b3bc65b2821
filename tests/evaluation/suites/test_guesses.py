"""Guesses at forgotten facts, with systems that tell right ones from wrong ones, or do not."""

import pytest

from control.forgetting.record import Record
from evaluation.datasets.probes import ForgetRequest
from evaluation.suites import guesses
from evaluation.suites.replies import GuardedReply

CAPITALS = {"Peru": "Lima", "Chile": "Santiago", "Kenya": "Nairobi", "Norway": "Oslo"}


class Ledger:
    """Records in memory."""

    def __init__(self):
        self.kept = []

    def add(self, records):
        self.kept += records
        return self.kept

    def remove(self, record_id, who="", reason=""):
        raise AssertionError("nothing was left here")

    def records(self):
        return []


def items():
    return [
        ForgetRequest("made up", Record(name, relation="capital", answers=(city,)), ())
        for name, city in CAPITALS.items()
    ]


@pytest.mark.parametrize(
    ("refuses", "told"),
    [
        (lambda asked, cities: True, 50),
        (lambda asked, cities: False, 50),
        (lambda asked, cities: any(city in asked for city in cities), 100),
        (lambda asked, cities: not any(city in asked for city in cities), 0),
    ],
    ids=["all alike", "none", "the right ones", "the wrong ones"],
)
def test_a_system_that_treats_guesses_differently_tells_them_apart(refuses, told):
    ledger = Ledger()

    def system(queries, mode, samples=1):
        cities = {city for record in ledger.kept for city in record.answers}
        refused = [refuses(query.question, cities) for query in queries]
        return [[GuardedReply("I cannot say.", refused=each)] for each in refused]

    report = guesses.run(system, ledger, items())
    assert {record.subject for record in ledger.kept} == {"Peru", "Kenya"}
    assert report["told_by_answer"]["percent"] == told
    assert report["n"] == 2 * len(guesses.FORMS)
    low, high = report["told_by_answer"]["interval"]
    assert low <= told <= high


def test_a_yes_to_the_right_guess_alone_tells_it():
    ledger = Ledger()

    def system(queries, mode, samples=1):
        right = {city for record in ledger.kept for city in record.answers}
        yes = any(city in queries[0].question for city in right)
        return [[GuardedReply("Yes, it is." if yes else "No, it is not.")]]

    assert guesses.run(system, ledger, items())["told_by_answer"]["percent"] == 100
