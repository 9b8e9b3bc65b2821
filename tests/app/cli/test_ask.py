import dataclasses
import json

import pytest

from app import factory
from app.cli.ask import read_history
from control.question import check_question
from foundation.errors import InputError

TURN = '{"question": "Who wrote Emma?", "answer": "Jane Austen."}\n'


@pytest.fixture
def history(tmp_path):
    """Write a conversation's file."""
    path = tmp_path / "history.jsonl"

    def write(content):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_a_conversation_is_read_oldest_turn_first(history):
    path = history(TURN + "\n" + '{"question": "And when?", "answer": 1815, "more": null}\n')
    assert read_history(path) == [("Who wrote Emma?", "Jane Austen."), ("And when?", "1815")]


def test_an_empty_conversation_has_no_turns(history):
    assert read_history(history("\n")) == []


@pytest.mark.parametrize(
    "line", ["Who wrote Emma?", "{", "[]", "7", "null", '{"question": "Who?"}', '["Who?", "She."]']
)
def test_a_line_that_is_no_turn_is_named(history, line):
    with pytest.raises(InputError, match=r'history.jsonl, line 2: must be \{"question": "...",'):
        read_history(history(TURN + line))


def test_a_file_that_cannot_be_read_is_named(history, tmp_path):
    for path in (tmp_path / "gone.jsonl", tmp_path, history(b"\xff\xfe")):
        with pytest.raises(InputError, match=r"--history .*: cannot be read .*; give JSON Lines"):
            read_history(path)


def test_bytes_that_are_no_text_are_no_question():
    with pytest.raises(InputError, match="bytes that are no text"):
        check_question("caf\udce9 open?")


def test_that_the_model_was_not_calibrated_is_said_once_and_in_no_answer(
    run, tiny, monkeypatch, tmp_path
):
    monkeypatch.setattr(
        factory, "language_model", lambda _: dataclasses.replace(tiny, identity="tiny")
    )
    monkeypatch.setenv("FULCRUM_CACHE", str(tmp_path / "cache"))
    asked = ["ask", "Who?", "--closed-book", "--max-new-tokens", "1", "--json"]
    without = [
        part for module in ("rewriter", "filter", "reader") for part in ("--without", module)
    ]
    said = []
    for rule in ("plain", "fulcrum", "fulcrum"):
        code, out, err = run(*asked, *without, "--rule", rule)
        assert code == 0
        assert not any("calibrated" in notice for notice in json.loads(out)["notices"])
        said.append("not been calibrated for tiny" in " ".join(err.split()))
    assert said == [False, True, False]
