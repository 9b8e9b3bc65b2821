"""The programs of examples/ run as they stand, and show what they say they show."""

import runpy
import sys
import warnings
from pathlib import Path

import pytest

from control.decoding import rules

pytestmark = pytest.mark.model
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def printed(monkeypatch, capsys, tmp_path):
    """Run an example, from a directory that holds nothing, and return the lines that it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runpy.run_path(str(EXAMPLES / f"{name}.py"))
        return capsys.readouterr().out.splitlines()

    return run


def test_the_dial_turns_the_answer_from_the_passage_to_memory(printed):
    passages, _, _, _, memory, verdict = printed("ask_with_the_dial")
    assert "Cairo" in passages
    assert "Oslo" in memory
    assert "memory" in memory.partition("tokens from")[2]
    assert verdict.endswith("the answer follows the model's memory.")


def test_a_folder_is_ingested_and_its_passages_are_listed(printed):
    counted, answer, *sources = printed("ingest_a_folder")
    assert counted == "2 documents in 2 passages"
    assert "Solberg" in answer
    assert any(line.startswith("  read: Harbour office of Lindvik") for line in sources)


def test_a_folder_and_a_question_of_ones_own_can_be_given(printed, tmp_path):
    (tmp_path / "notes.txt").write_text("The capital of Peru is Lima.", encoding="utf-8")
    counted, answer, *_ = printed("ingest_a_folder", str(tmp_path), "What is the capital of Peru?")
    assert counted == "1 document in 1 passage"
    assert "Lima" in answer


def test_a_forgotten_fact_is_refused_then_said_again_and_the_audit_is_whole(printed):
    before, forgotten, after, *events, audit = printed("forget_a_fact")
    assert "Lima" in before
    assert "Lima" not in forgotten
    assert "Lima" in after
    assert [event.split()[1] for event in events] == ["added", "withheld", "removed"]
    assert audit == "the audit is whole"


def test_a_new_rule_is_one_function_and_one_line(printed):
    known = set(rules.RULES)
    try:
        passages, _, memory = printed("token_rule")
    finally:
        for name in rules.RULES.keys() - known:
            del rules.RULES[name]
    assert "Cairo" in passages
    assert "Oslo" in memory


def test_openais_client_turns_the_dial(printed):
    passages, followed, memory, remembered = printed("openai_client")
    assert "Cairo" in passages
    assert followed.strip() == "passages"
    assert "Oslo" in memory
    assert remembered.strip() == "memory"


def test_a_query_engine_of_llamaindex_turns_the_dial(printed):
    passages, read, memory, _ = printed("llama_index_engine")
    assert "Quito" in passages
    assert read == "  read: Quito is the capital of Peru."
    assert "Lima" in memory


def test_every_example_is_listed_and_short():
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for program in EXAMPLES.glob("*.py"):
        assert f"[{program.name}]({program.name})" in listed
        code = program.read_text(encoding="utf-8").rpartition('"""\n')[2]
        assert len([line for line in code.splitlines() if line.strip()]) <= 30, program
