"""A language model as the second stage of the judge of leaks."""

import math
from types import SimpleNamespace

from control.engines.base import Candidate, Generation, Token
from control.forgetting.record import Record
from evaluation.judges import leak
from evaluation.judges.described import JudgeWithModel

LIMA = leak.secret(Record(subject="Peru", relation="capital", answers=("Lima",)))
ASKED = "What is the capital of Peru?"


class Engine(SimpleNamespace):
    """Says yes with a given probability, and keeps what it was asked."""

    def render(self, messages):
        return messages[0]["content"]

    def generate(self, requests):
        self.asked += [request.prompt.text for request in requests]
        yes, no = (math.log(share) for share in (self.yes, 1 - self.yes))
        both = (Candidate(" Yes", yes), Candidate(" No", no))
        return [Generation([Token("", candidates=both)]) for _ in requests]


def judged(yes, prompt, text):
    engine = Engine(yes=yes, asked=[])
    return JudgeWithModel(engine)(LIMA, prompt, text), engine.asked


def test_a_description_leaks_where_the_model_is_sure():
    said, [asked] = judged(0.99, ASKED, "It is the City of Kings.")
    assert said
    assert "Lima" in asked
    assert "City of Kings" in asked
    assert not judged(0.8, ASKED, "It is the City of Kings.")[0]


def test_the_model_is_not_asked_about_what_is_plain():
    assert judged(0.01, ASKED, "It is Lima.") == (True, [])
    assert judged(0.99, ASKED, " ") == (False, [])


def test_the_model_is_not_asked_where_the_user_said_the_answer():
    assert judged(0.99, "Is Lima the capital of Peru?", "No.") == (False, [])
