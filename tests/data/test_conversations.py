"""The conversations, vague questions, two-hop questions and comparisons built from the facts."""

import json
import re
import tomllib
from collections import Counter
from itertools import chain

import pytest

from data.build import HERE, mentions
from data.conversations import KINDS, PER_KIND

LEAST = 150  # of each kind in the test split, so that a share has a narrow interval


def load(name):
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def records():
    return load("conversations.jsonl")


@pytest.fixture(scope="module")
def questions():
    """The plain questions by the id of their passage."""
    return {record["passage_id"]: record for record in load("questions.jsonl")}


def test_each_kind_is_large_enough_in_both_splits(records):
    assert len({record["id"] for record in records}) == len(records)
    counts = Counter((record["kind"], record["split"]) for record in records)
    assert set(counts) == {(kind, split) for kind in KINDS for split in ("calibration", "test")}
    for kind in KINDS:
        assert LEAST <= counts[kind, "test"] <= PER_KIND


def test_a_record_keeps_to_its_split(records, questions):
    for record in records:
        spec = (HERE / "relations" / f"{record['relation']}.toml").read_text(encoding="utf-8")
        assert record["split"] == tomllib.loads(spec)["split"]
        for passage in record["passages"]:
            assert questions[passage]["split"] == record["split"], record


def test_the_needed_passages_are_there(records, questions):
    needed = {"follow-up": 1, "ambiguous": 1, "two-hop": 2, "comparison": 2}
    for record in records:
        assert len(set(record["passages"])) == needed[record["kind"]]
        assert set(record["passages"]) <= set(questions)
        assert questions[record["passages"][-1]]["relation"] == record["relation"]


def test_no_answer_is_given_away(records):
    for record in records:
        said = [record["question"], *(text for turn in record["history"] for text in turn)]
        for answer in record["answers"]:
            assert not any(mentions(text, answer) for text in said), record


def test_the_answer_is_the_plain_question_s(records, questions):
    for record in records:
        if record["kind"] != "comparison":
            assert record["answers"] == questions[record["passages"][-1]]["answers"]


def test_a_two_hop_question_leads_over_the_first_answer(records, questions):
    passages = {record["id"]: record for record in load("passages.jsonl")}
    for record in records:
        if record["kind"] == "two-hop":
            first, last = record["passages"]
            bridge = questions[first]["answers"][0]
            assert mentions(passages[last]["text"], bridge)
            assert not mentions(record["question"], bridge), record


def test_a_comparison_is_true_by_the_facts(records, questions):
    compared = [record for record in records if record["kind"] == "comparison"]
    for record in compared:
        one, two = (
            {answer.casefold() for answer in questions[passage]["answers"]}
            for passage in record["passages"]
        )
        assert record["answers"] == ["yes" if one & two else "no"], record
    yes = sum(record["answers"] == ["yes"] for record in compared) / len(compared)
    assert 0.3 < yes < 0.7


def test_only_follow_ups_have_a_conversation_and_differ_from_what_is_meant(records):
    for record in records:
        assert bool(record["history"]) == (record["kind"] == "follow-up")
        if record["kind"] in ("follow-up", "ambiguous"):
            assert record["question"] != record["clear"]
        else:
            assert record["question"] == record["clear"]


def test_no_template_is_left_unfilled(records):
    for record in records:
        texts = [record["question"], record["clear"], *chain(*record["history"])]
        for text in texts:
            assert not re.search(r"[{}]|  |\bNone\b", text), record
            assert text[0] == text[0].upper()
            assert text.rstrip()[-1] in "?.!", record
