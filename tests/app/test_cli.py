import json
import re
import subprocess
import sys

import pytest

from app import cli

PASSAGE = (
    "The seat of government of Peru is Nairobi, where the parliament meets and most ministries "
    "have their offices. Nairobi is the capital of Peru."
)


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "peru.md"
    path.write_text(f"# Peru\n\n{PASSAGE}\n", encoding="utf-8")
    return path


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_ingest_then_ask_shows_the_answer_and_its_source(capsys, notes):
    code, out, _ = run(capsys, "ingest", notes)
    assert code == 0
    assert "1 documents in 1 passages added" in out
    code, out, _ = run(capsys, "ask", "What is the capital of Peru?", "--alpha", "1")
    assert code == 0
    assert "Lima" in out
    assert "[1]" in out
    assert "Peru" in out


def test_json_is_the_object_of_the_contract(capsys, notes):
    asked = ["ask", "What is the capital of Peru?", "--context", notes, "--json"]
    code, out, _ = run(capsys, *asked)
    answer = json.loads(out)
    assert code == 0
    assert {
        "question", "rewritten", "queries", "answer", "alpha", "conflict", "tokens", "sources",
        "forgotten", "seconds",
    } <= answer.keys()  # fmt: skip
    assert answer["alpha"] == 0.5
    assert "Nairobi" in answer["answer"]
    assert answer["conflict"] is True
    assert {
        "text", "confidence_gain", "entropy_context", "entropy_memory", "mixed", "source",
    } <= answer["tokens"][0].keys()  # fmt: skip
    assert {token["source"] for token in answer["tokens"]} <= {"context", "memory", "both"}
    assert answer["sources"][0].keys() == {"id", "title", "score", "kept", "reason", "text"}
    assert answer["seconds"].keys() == {
        "route", "rewrite", "trigger", "retrieve", "filter", "redact", "decode", "total",
    }  # fmt: skip


def test_adaptive_alpha_is_accepted(capsys, notes):
    code, out, _ = run(
        capsys,
        "ask",
        "What is the capital of Peru?",
        "--context",
        notes,
        "--alpha",
        "auto",
        "--json",
    )
    assert code == 0
    assert json.loads(out)["alpha"] == "auto"


def test_closed_book_reads_nothing(capsys):
    code, out, _ = run(capsys, "ask", "What is the capital of Peru?", "--closed-book", "--json")
    answer = json.loads(out)
    assert code == 0
    assert "Lima" in answer["answer"]
    assert answer["sources"] == []
    assert {token["source"] for token in answer["tokens"]} == {"memory"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ask", ""], "question is empty"),
        (["ask", "x" * 100_000], "100,000 characters"),
        (["ask", "Who?", "--alpha", "1.1"], "alpha is 1.1"),
        (["ask", "Who?", "--alpha", "-1"], "alpha is -1.0"),
        (["ask", "Who?", "--alpha", "half"], "--alpha half: not a number"),
        (["ask", "Who?", "--alpha", "nan"], "alpha is nan"),
        (["ask", "Who?", "--rule", "magic"], "choose one of"),
        (["ask", "Who?", "--context", "absent.txt"], "absent.txt does not exist"),
        (["ask", "Who?", "--context", "absent.txt", "--closed-book"], "contradict"),
        (["ask", "Who?", "--top-k", "0"], "top_k is 0"),
        (["ask"], "Missing argument"),
        (["--model", "absent.gguf", "ask", "Who?"], "absent.gguf: no such file"),
        (["--adapter", "absent", "ask", "Who?"], "--adapter absent"),
        (["--index", "mysql://x", "ask", "Who?"], "--index mysql://x is not supported"),
        (["ingest", "absent.txt"], "absent.txt does not exist"),
        (["eval", "dial", "--data", "absent.jsonl", "--out", "r"], "absent.jsonl: cannot be read"),
        (["nonsense"], "No such command"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert says in err
    assert err.startswith("fulcrum: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(("content", "says"), [(b"", "empty"), (bytes(range(256)) * 4, "binary")])
def test_a_file_that_cannot_be_read_leaves_the_index_as_it_was(capsys, notes, content, says):
    run(capsys, "ingest", notes)
    broken = notes.with_name("broken.txt")
    broken.write_bytes(content)
    code, _, err = run(capsys, "ingest", broken)
    assert code == 2
    assert says in err
    _, out, _ = run(capsys, "ingest", notes)
    assert "1 already there" in out
    assert "holds 1 passages" in out


def test_a_damaged_index_is_named_and_left_alone(notes, home):
    command = [sys.executable, "-m", "app.cli"]
    subprocess.run([*command, "ingest", notes], check=True, capture_output=True)
    database = home / "index" / "passages.db"
    database.write_bytes(b"not a database" * 100)
    asked = subprocess.run(
        [*command, "ask", "What is the capital of Peru?"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 2
    assert asked.stderr.startswith(f"fulcrum: {database} is damaged")
    assert asked.stderr.count("\n") == 1
    assert database.read_bytes() == b"not a database" * 100


def test_context_beyond_the_window_is_dropped_and_the_answer_says_so(capsys, tmp_path):
    long = tmp_path / "long.txt"
    sentences = [f"Fact number {n} says that item {n} weighs {n} kilograms. " for n in range(4000)]
    long.write_text("".join(sentences), encoding="utf-8")
    code, out, _ = run(
        capsys, "ask", "How heavy is item 3?", "--context", long, "--json", "--max-new-tokens", "8"
    )
    answer = json.loads(out)
    kept = [source["kept"] for source in answer["sources"]]
    assert code == 0
    assert kept == sorted(kept, reverse=True)
    assert not kept[-1]
    assert "did not fit" in answer["notices"][0]


@pytest.mark.parametrize(
    "command", [[], ["ask"], ["ingest"], ["eval", "dial"], ["bench", "decoding"]]
)
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert "Example:" in out
    assert re.search(r"^ +fulcrum \w", out, re.MULTILINE)
