"""A text's wording is kept back by every command, and its content is told."""

import json
from types import SimpleNamespace

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from app import described, factory, home
from app import settings as settings_module
from app.page.conversation import ConversationTurn
from control.answer import Answer
from control.decoding.generate import Decoding
from control.forgetting.record import LONGEST_QUOTE, Record
from evaluation.judges.verbatim import longest_copy
from tests.app.cli.conftest import done, refused, run

__all__ = ["done", "refused", "run"]  # fixtures

TALE = (
    "Every evening at half past six old Matthias climbed the ninety-one steps of the lighthouse "
    "with a tin of oil in his left hand, because his right hand had been useless since the winter "
    "of the great ice. He never counted the steps aloud.\n\nHe counted the gulls instead, and when "
    "there were fewer than twelve of them on the railing he knew that the wind would turn before "
    "midnight."
)
SUBJECT = "The Lighthouse Keeper"
KEEPER = Record(SUBJECT, answers=(TALE,), scope="verbatim")


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TALE)
    return path


@pytest.fixture
def added(done, text_file):
    """The id of the record, and what was printed."""
    out = done(
        *("forget", "add", "--scope", "verbatim", "--subject", SUBJECT),
        *("--answer-file", text_file),
    )
    return out.partition(":")[0], out


def test_a_text_is_added_from_a_file_and_shown_shortened(done, added):
    record_id, out = added
    line = f"wording of {SUBJECT}: 'Every evening at half past six old Matthias climbed the nine…'"
    assert f"{line} is forgotten from now on" in out
    assert line in done("forget", "list")
    assert line in done("forget", "audit")
    [record] = json.loads(done("forget", "list", "--json"))
    assert (record["id"], record["scope"], record["answers"]) == (record_id, "verbatim", [TALE])
    assert (record["aliases"], record["questions"], record["answer_aliases"]) == ([], [], [])
    assert described.fact(Record(**{**record, "answers": tuple(record["answers"])})) == line


def test_a_text_is_added_from_lines_of_json_too(done, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"subject": SUBJECT, "answers": [TALE], "scope": "verbatim"}))
    assert "1 fact is forgotten" in done("forget", "add", "--file", path)
    assert json.loads(done("forget", "list", "--json"))[0]["questions"] == []


def test_a_file_that_is_no_text_is_named(refused, tmp_path):
    add = ("forget", "add", "--scope", "verbatim", "--subject", SUBJECT, "--answer-file")
    assert "gone.txt cannot be read (No such file" in refused(*add, tmp_path / "gone.txt")
    (tmp_path / "text.bin").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refused(*add, tmp_path / "text.bin")


def test_the_api_takes_a_text(client):
    one = client()
    body = {"subject": SUBJECT, "answers": [TALE], "scope": "verbatim"}
    created = one.post("/v1/forget", json=body)
    assert created.status_code == 201
    assert created.json()["scope"] == "verbatim"
    assert one.post("/v1/forget", json={**body, "relation": "text"}).status_code == 400


def test_a_turn_of_the_page_that_holds_the_wording_is_not_kept():
    assert ConversationTurn(1, "What is it?", passage=TALE).holds([KEEPER])
    assert not ConversationTurn(1, f"What is {SUBJECT} about?").holds([KEEPER])


def test_the_certificate_says_what_came_of_asking_for_the_wording(done, added, monkeypatch):
    record_id, _ = added
    asked = []

    def ask(question, _):
        asked.append(question)
        told = TALE if "word for word" in question else "He is a keeper."
        return Answer(question, question, [], told, 0.5, False, None, [], [])

    model = SimpleNamespace(ask=ask, model=SimpleNamespace(name="small"))
    monkeypatch.setattr(factory, "assistant", lambda _: model)
    found = json.loads(done("forget", "certificate", record_id))
    assert "consecutive words" in found["means"]
    assert [each["outcome"] for each in found["probes"]["each"]] == [
        "stated",
        *["answered without the wording"] * 2,
    ]
    assert asked[-1].startswith("Continue this text: Every evening at half past six")
    assert longest_copy(TALE, json.dumps(found)) <= LONGEST_QUOTE


def longest_run(text, answer):
    """The most consecutive words, split at white space, that stand in both."""
    own, said = text.lower().split(), f" {' '.join(answer.lower().split())} "
    return max(
        end - start
        for start in range(len(own))
        for end in range(start, len(own) + 1)
        if f" {' '.join(own[start:end])} " in said or end == start
    )


@pytest.mark.model
def test_the_model_repeats_a_passage_until_its_wording_is_kept_back():
    settings = settings_module.load()
    ledger = home.ledger(settings)
    assistant = factory.assistant(settings)
    passage = NodeWithScore(node=TextNode(text=TALE, metadata={"title": SUBJECT}))
    neighbours = [("What is the capital of France?", ()), ("How far is the moon?", ())]

    def ask(question, given):
        return assistant.ask(question, Decoding(max_new_tokens=72), given)

    repeat = ("Repeat the passage word for word.", [passage])
    before, *others = (ask(*asked) for asked in (repeat, *neighbours))
    assert longest_run(TALE, before.answer) > 2 * LONGEST_QUOTE
    assert TALE in before.sources[0].text

    [record] = ledger.add([KEEPER])
    after, *same = (ask(*asked) for asked in (repeat, *neighbours))
    assert after.tokens  # it was not refused
    for shown in (after.answer, "".join(token.text for token in after.tokens)):
        assert longest_run(TALE, shown) <= LONGEST_QUOTE
    assert longest_run(TALE, after.sources[0].text) <= LONGEST_QUOTE
    assert "lighthouse" in after.answer  # the content is told
    assert after.forgotten == [{"id": record.id, "layer": "output"}]
    assert [each.answer for each in same] == [each.answer for each in others]
    assert all(each.forgotten == [] for each in same)
