"""What the tests of the evaluations share."""

import json
from dataclasses import replace

import pytest

from control import calibration as calibrations
from control import decoding, prompts
from control.belief import Probe
from control.calibration import ANY_MODEL, Bars
from control.decoding import Decoding
from evaluation.answers import MAX_NEW_TOKENS

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
        prompt = prompts.build(tiny.tokenizer, question, [], tiny.room(MAX_NEW_TOKENS))
        how = Decoding(rule="plain", max_new_tokens=MAX_NEW_TOKENS)
        return decoding.generate(tiny, [prompt], how)[0].text.strip()

    return said


@pytest.fixture(scope="session")
def always():
    """Calibrations that are equally sure of memory in every conflict: 1, 0, or undecided 0.5."""
    shipped = calibrations.load(calibrations.SHIPPED / "any.json")

    def calibration(confidence):
        weights = [0.0] * len(shipped.probe.numbers)
        return replace(
            shipped,
            model=ANY_MODEL,
            probe=Probe(weights, [], 40 * (confidence - 0.5)),
            end=Bars(memory=0.3, passages=0.1),
            auto=Bars(memory=0.5, passages=0.2),
            alphas=[0.0, 0.25, 0.5, 0.75, 1.0],
            ratios=[0.0, 0.1, 0.2, 0.6, 0.9],
        )

    return calibration
