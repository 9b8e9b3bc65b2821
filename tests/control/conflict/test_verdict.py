"""What the passages are said to claim against memory."""

import pytest

from control import prompts
from control.conflict.claims import Claim, ClaimComparison, DraftClaims
from control.conflict.verdict import claim_against_memory


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
