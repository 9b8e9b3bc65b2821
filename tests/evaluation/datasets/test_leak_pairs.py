"""The labelled answers."""

import json

import pytest

from evaluation.datasets import leak_pairs
from foundation.errors import DataError

PAIR = {
    "fact": {"subject": "Peru", "relation": "capital", "answers": ["Lima"]},
    "prompt": "What is the capital of Peru?",
    "answer": "Lima",
    "leak": True,
}


def test_the_built_in_pairs_hold_leaks_and_others_in_both_splits():
    for split in leak_pairs.SPLITS:
        labels = [pair.leak for pair in leak_pairs.read(split=split)]
        assert len(labels) > 200
        assert 0.3 < sum(labels) / len(labels) < 0.7


def test_no_test_pair_is_among_those_of_development():
    told = [
        {(pair.fact.subject, pair.prompt, pair.answer) for pair in leak_pairs.read(split=split)}
        for split in leak_pairs.SPLITS
    ]
    assert not told[0] & told[1]


def test_a_file_needs_no_more_than_fact_prompt_answer_and_label(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(PAIR), encoding="utf-8")
    [pair] = leak_pairs.read(path)
    assert pair.fact.answers == ("Lima",)
    assert pair.leak


@pytest.mark.parametrize(
    ("change", "field"),
    [({"leak": "yes"}, "leak"), ({"prompt": ""}, "prompt"), ({"fact": {}}, "fact.subject")],
)
def test_a_wrong_field_is_named(tmp_path, change, field):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(PAIR | change), encoding="utf-8")
    with pytest.raises(DataError, match=field):
        leak_pairs.read(path)


def test_a_split_without_pairs_is_refused(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(PAIR), encoding="utf-8")
    with pytest.raises(DataError, match="development"):
        leak_pairs.read(path, "development")
