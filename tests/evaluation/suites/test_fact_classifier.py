"""The report on the classifier of forgotten facts, with judges whose worth is known."""

import pytest

from evaluation.suites import fact_classifier
from training import fact_classifier as training

FACTS = 6


class Judge:
    """Takes a text that holds a word of what is stated for a statement, or says the same of all."""

    def __init__(self, always=None):
        self.always = always

    def asks(self, pairs):
        return self.states(pairs)

    def states(self, pairs):
        if self.always is not None:
            return [self.always] * len(pairs)
        return [0.99 if fact.rpartition(": ")[2] in text else 0.01 for text, fact in pairs]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    kept = {
        path: training.written(held_out=True, path=path)[:FACTS]
        for path in (training.WRITTEN, training.PLAIN)
    }
    monkeypatch.setattr(training, "written", lambda _=False, path=training.WRITTEN: kept[path])


def report(judge):
    found = fact_classifier.report(judge)
    assert found["facts"] == FACTS
    redaction, prose = found["tables"]["redaction"]
    assert (redaction["passages"], prose["passages"]) == training.TEXTS
    return {row["text"]: row["AUROC"] for row in found["tables"]["classifier"]}, redaction


def test_a_judge_that_knows_nothing_is_told_from_one_that_finds_the_answer():
    blind, untouched = report(Judge(0.0))
    assert set(blind.values()) == {0.5}
    reading, redacted = report(Judge())
    assert reading["sentences without the answer"] > 0.7
    assert redacted["answer left"] < untouched["answer left"] / 2
    _, removed = report(Judge(1.0))
    assert removed["answer left"] == 0
    assert removed["others changed"] > redacted["others changed"] > untouched["others changed"]
