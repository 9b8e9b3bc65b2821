"""What the passages are said to claim against memory."""

import math

import pytest

from control import prompts
from control.conflict.calibration import ANY_MODEL, Calibration, Thresholds
from control.conflict.claims import Claim, ClaimComparison, DraftClaims
from control.conflict.probe import MemoryProbe
from control.conflict.verdict import UNRELATED, choose, claim_against_memory, is_plain_rag


@pytest.mark.parametrize(
    ("quoted", "confidence", "says"),
    [
        ("not indoors", 0.9, ""),
        ("not indoors", 0.3, "on the terrace"),
        ("yes", 0.9, "on the terrace"),
    ],
)
def test_nothing_where_what_the_passages_surely_claim_does_not_contradict_memory(
    quoted, confidence, says
):
    question = "Are dogs allowed indoors?"
    text = "Dogs are welcome on the terrace, but not indoors."
    quote = prompts.Quote(text, quoted, confidence)
    prompt = prompts.Prompt("", "", question, (text,), quote=quote)
    found = ClaimComparison(
        claim=Claim(0, 1, "not allowed", 1.0),
        passages_claim=Claim(0, 1, "on the terrace", 1.0),
        supported=True,
        remembered_claim=Claim(0, 1, "not allowed", 1.0),
    )
    assert claim_against_memory(DraftClaims(found=found), prompt) == says


@pytest.mark.parametrize(
    ("alpha", "answers", "likely", "chosen"),
    [
        (0.5, UNRELATED / 2, -0.1, "memory"),
        ("auto", UNRELATED / 2, -0.1, "memory"),
        (0.25, UNRELATED / 2, -0.1, "plain"),
        (0.5, UNRELATED / 2, -0.9, "plain"),
        (0.5, 2 * UNRELATED, -0.1, "plain"),
        (0.5, None, -0.1, "plain"),
    ],
)
def test_memory_answers_what_it_remembers_where_nothing_that_was_found_is_about_the_question(
    alpha, answers, likely, chosen
):
    ends = Thresholds(0.9, -math.inf)
    calibration = Calibration(
        ANY_MODEL, "test", MemoryProbe([], [], 0.0), [0.1], ends, ends, [0.5], [0.5], {}, -0.5
    )
    letter = "Our letter of 6 October is about the kiln."
    prompt = prompts.Prompt("", "", "What is the capital of Italy?", (letter,), answers=answers)
    stated = Claim(0, 1, "Rome", 1.0, likely)
    dated = Claim(0, 1, "6 October", 1.0)
    found = ClaimComparison(
        claim=stated, passages_claim=dated, supported=True, remembered_claim=stated
    )
    assert choose(DraftClaims(found=found), prompt, 0.3, alpha, calibration) == chosen
    related = answers is None or answers >= UNRELATED
    assert claim_against_memory(DraftClaims(found=found), prompt) == "6 October" * related
    assert is_plain_rag(prompt, 0.5, calibration) == related
