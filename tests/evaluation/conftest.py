"""What the tests of the evaluations share."""

import json

import pytest

from control import prompts
from control.decoding import generate
from control.decoding.generate import Decoding
from evaluation.suites.dial import MAX_NEW_TOKENS

ITEM = {
    "question": "What is it?",
    "context": "It is the other one.",
    "context_answers": ["other"],
    "memory_answers": ["one"],
    "true_context": "It is one.",
}


@pytest.fixture
def data(tmp_path):
    """Write conflicts to a file, each the changes to one about nothing."""
    path = tmp_path / "conflicts.jsonl"

    def write(*changes):
        lines = (json.dumps(ITEM | change) + "\n" for change in changes)
        path.write_text("".join(lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def babble(tiny):
    """What the tiny model says closed-book: an item with that for an answer is one it "knows"."""

    def said(question):
        prompt = prompts.build(tiny, question, [], tiny.room(MAX_NEW_TOKENS))
        how = Decoding(rule="plain", max_new_tokens=MAX_NEW_TOKENS)
        return generate.generate(tiny, [prompt], how)[0].text.strip()

    return said
