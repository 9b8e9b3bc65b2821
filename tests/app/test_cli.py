import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from app import cli, factory
from app import settings as settings_module
from control.assistant import MOST_CHARACTERS
from control.conflict.calibration import SHIPPED
from evaluation.bench import index as bench_index

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


def found(question="What is the capital of Peru?"):
    """The best passage of the index of this home."""
    return factory.passage_index(settings_module.load()).retrieve(question)[0]


@pytest.mark.model
def test_ingest_then_ask_shows_the_answer_and_its_source(capsys, notes):
    code, out, _ = run(capsys, "ingest", notes)
    assert code == 0
    assert "1 document in 1 passage added" in out
    code, out, _ = run(capsys, "ask", "What is the capital of Peru?", "--alpha", "1")
    assert code == 0
    assert "Lima" in out
    assert "[1]" in out
    assert "Peru" in out


@pytest.mark.model
def test_json_is_the_object_of_the_contract(capsys, notes):
    asked = ["ask", "What is the capital of Peru?", "--context", notes, "--json"]
    code, out, _ = run(capsys, *asked)
    answer = json.loads(out)
    assert code == 0
    assert {
        "question", "rewritten", "queries", "answer", "alpha", "conflict", "verdict", "tokens",
        "sources", "forgotten", "seconds",
    } <= answer.keys()  # fmt: skip
    assert answer["alpha"] == 0.5
    assert "Nairobi" in answer["answer"]
    assert answer["conflict"] is True
    assert answer["verdict"].keys() == {"passages_say", "memory_says", "confidence", "follows"}
    assert answer["verdict"]["follows"] == "passages"
    assert {
        "text", "confidence_gain", "entropy_context", "entropy_memory", "mixed", "source",
    } <= answer["tokens"][0].keys()  # fmt: skip
    assert {token["source"] for token in answer["tokens"]} <= {"context", "memory", "both"}
    assert answer["sources"][0].keys() == {
        "id", "title", "score", "kept", "reason", "text", "answers", "page", "heading",
        "date", "replaces", "file",
    }  # fmt: skip
    assert answer["seconds"].keys() == {
        "route", "rewrite", "trigger", "retrieve", "filter", "redact", "claims", "decode", "cite",
        "total",
    }  # fmt: skip


@pytest.mark.model
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


@pytest.mark.parametrize(("alpha", "whom"), [("0.5", "passages"), ("1", "model's memory")])
@pytest.mark.model
def test_a_conflict_is_told_in_one_sentence(capsys, notes, alpha, whom):
    asked = ["ask", "What is the capital of Peru?", "--context", notes, "--alpha", alpha]
    code, out, _ = run(capsys, *asked)
    assert code == 0
    assert re.search(
        r'The passages say "Nairobi", the model remembers "Lima" with confidence [01]\.\d\d; '
        f"the answer follows the {whom}\\.",
        " ".join(out.split()),
    )


@pytest.mark.model
def test_more_reliance_turns_the_dial_further_to_memory(capsys, notes):
    asked = ["ask", "What is the capital of Peru?", "--context", notes, "--json", "--reliance"]
    little, much = (json.loads(run(capsys, *asked, share)[1]) for share in ("0", "0.9"))
    assert 0 <= little["alpha"] < much["alpha"] <= 1
    assert "Nairobi" in little["answer"]
    assert "Lima" in much["answer"]


@pytest.mark.model
def test_what_is_not_trusted_loses_against_memory(capsys, notes):
    for trust, says in (("0", "Lima"), ("1", "Nairobi")):
        assert run(capsys, "ingest", "--trust", trust, notes)[0] == 0
        code, out, _ = run(capsys, "ask", "What is the capital of Peru?", "--json")
        assert code == 0
        assert says in json.loads(out)["answer"]


@pytest.mark.model
def test_closed_book_reads_nothing(capsys):
    code, out, _ = run(capsys, "ask", "What is the capital of Peru?", "--closed-book", "--json")
    answer = json.loads(out)
    assert code == 0
    assert "Lima" in answer["answer"]
    assert answer["sources"] == []
    assert {token["source"] for token in answer["tokens"]} == {"memory"}


def other_models(text):
    return json.dumps(json.loads(text) | {"model": "0123456789abcdef", "name": "Another-1B"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_models, "was measured on Another-1B ("),
        (lambda text: text[:-1000], "no calibration that can be used"),
        (lambda _: "[]", "no calibration that can be used"),
        (lambda _: '{"model": "any"}', "no calibration that can be used"),
    ],
)
@pytest.mark.parametrize("command", [["ask", "Who?"], ["eval", "dial", "--limit", "1", "--out"]])
@pytest.mark.model
def test_a_calibration_that_does_not_fit_is_named(capsys, tmp_path, command, change, says):
    path = tmp_path / "calibration.json"
    path.write_text(change((SHIPPED / "default.json").read_text(encoding="utf-8")), "utf-8")
    target = [tmp_path / "out"] if command[-1] == "--out" else []
    code, out, err = run(capsys, "--calibration", path, *command, *target)
    assert code == 2
    assert out == ""
    assert err.startswith(f"fulcrum: {path}: {says}")
    assert "fulcrum eval dial --calibrate --out DIR" in err
    assert err.count("\n") == 1


@pytest.mark.model
def test_a_file_of_which_a_part_cannot_be_read_is_not_said_to_be_skipped(capsys, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.md").write_text("---\ntitle: a: b\n---\nThe Rhine is long.", encoding="utf-8")
    line = json.dumps({"text": "The Elbe is cold.", "date": "soon"})
    (folder / "b.jsonl").write_text(line, encoding="utf-8")
    (folder / "c.txt").touch()
    code, out, err = run(capsys, "ingest", folder)
    assert code == 0
    assert out.startswith("2 documents in 2 passages added")
    assert " 1 skipped;" in " ".join(out.split())
    skipped, header, date = err.splitlines()
    assert skipped.startswith(f"skipped: {folder / 'c.txt'} is empty")
    assert header.startswith(f"note: {folder / 'a.md'}: the front matter is not valid YAML")
    assert date.startswith(f"note: {folder / 'b.jsonl'}: the date 'soon'")


@pytest.mark.model
def test_many_files_skipped_alike_are_one_line(capsys, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "peru.md").write_text(PASSAGE, encoding="utf-8")
    (folder / "other.pdf").write_text("no PDF", encoding="utf-8")
    for n in range(500):
        (folder / f"empty{n:03}.txt").touch()
    code, out, err = run(capsys, "ingest", folder)
    assert code == 0
    assert "501 skipped" in " ".join(out.split())
    first, second = err.splitlines()
    assert first.startswith(f"skipped: {folder / 'empty000.txt'} is empty")
    assert first.endswith("(and 499 more files likewise)")
    assert second.startswith(f"skipped: {folder / 'other.pdf'} is not a readable PDF")
    asked = ["ask", "Who?", "--context", folder, "--max-new-tokens", "1"]
    code, _, err = run(capsys, *asked)
    assert code == 0
    assert err.splitlines()[:2] == [first, second]


def test_trust_is_kept_with_the_passage(capsys, notes):
    code, _, _ = run(capsys, "ingest", "--trust", "0.9", notes)
    assert code == 0
    assert found().node.metadata["trust"] == 0.9


def test_other_trust_replaces_the_document(capsys, notes):
    run(capsys, "ingest", "--trust", "0.9", notes)
    before = found().node_id
    _, out, _ = run(capsys, "ingest", "--trust", "0.1", notes)
    assert "1 replaced" in out
    assert "holds 1 passage" in " ".join(out.split())
    assert (found().node_id, found().node.metadata["trust"]) == (before, 0.1)


def test_another_date_replaces_the_document(capsys, notes):
    run(capsys, "ingest", "--dated", "2024-01", notes)
    _, out, _ = run(capsys, "ingest", "--dated", "2025-03-01", notes)
    assert "1 replaced" in out
    assert found().node.metadata["date"] == "2025-03-01"


def test_a_wrong_date_is_refused_in_one_line(capsys, notes):
    code, _, err = run(capsys, "ingest", "--dated", "1.3.2025", notes)
    assert code == 2
    assert "--dated '1.3.2025' is not a date; give YYYY-MM-DD" in " ".join(err.split())


def test_a_line_says_itself_how_far_it_is_trusted(capsys, tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"text": PASSAGE, "trust": 0.2}), encoding="utf-8")
    assert run(capsys, "ingest", "--trust", "0.9", path)[0] == 0
    assert found().node.metadata["trust"] == 0.2


def test_a_line_with_trust_that_is_no_number_is_refused(capsys, tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"text": PASSAGE, "trust": "high"}), encoding="utf-8")
    code, _, err = run(capsys, "ingest", path)
    assert code == 2
    assert err.startswith(f"fulcrum: {path}")
    assert 'line 1: the field "trust" is "high"' in err
    assert err.count("\n") == 1
    assert factory.passage_index(settings_module.load()).count() == 0


@pytest.mark.model
def test_the_dial_is_measured_and_the_report_written(capsys, tmp_path):
    target = tmp_path / "results"
    measured = ["eval", "dial", "--split", "test", "--limit", "2", "--rule", "cad", "--alpha", "1"]
    code, out, _ = run(capsys, *measured, "--out", target)
    assert code == 0
    assert "of 2 facts" in out
    report = json.loads((target / "report.json").read_text(encoding="utf-8"))
    assert (report["n"], report["split"]) == (2, "test")
    assert [row["alpha"] for row in report["known"]] == ["closed-book", "plain", 1.0]
    assert "<svg" in (target / "report.html").read_text(encoding="utf-8")


@pytest.mark.model
def test_a_rule_is_tuned_for_the_model_and_compared_as_it_was_tuned(capsys, tmp_path):
    measured = ["eval", "dial", "--rule", "cocoa", "--limit", "6"]
    code, out, _ = run(capsys, *measured, "--tune", "--out", tmp_path / "tuned")
    assert code == 0
    assert "chosen, n = 6" in out
    tuned = json.loads((tmp_path / "tuned" / "report.json").read_text(encoding="utf-8"))
    assert (tuned["split"], tuned["n_known"] + tuned["n_unknown"]) == ("calibration", 6)
    kept = json.loads((tmp_path / "tuned" / "tuned.json").read_text(encoding="utf-8"))
    code, out, _ = run(
        capsys, *measured, "--tuned", tmp_path / "tuned" / "tuned.json", "--out", tmp_path / "out"
    )
    assert code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert (report["split"], report["tuned"]) == ("test", "tuned.json")
    assert report["options"] == kept["rules"]
    assert f"cocoa: gamma={kept['rules']['cocoa']['gamma']:g}" in out


def test_the_index_is_measured_on_a_server(capsys, tmp_path, monkeypatch, postgres_url):
    monkeypatch.setattr(bench_index, "BASE_PASSAGES", 20)
    target = tmp_path / "results"
    measured = ["bench", "index", "--sizes", "50", "--out", target]
    code, out, _ = run(capsys, "--index", postgres_url, *measured)
    assert code == 0
    assert "PostgreSQL" in out
    [row] = json.loads((target / "report.json").read_text(encoding="utf-8"))["rows"]
    assert (row["passages"], row["found_after_deletion"]) == (50, 0)
    # What the server takes is not the client's to know.
    assert (row["memory_mb"], row["disk_mb"]) == (None, None)


@pytest.mark.model
def test_too_few_facts_for_a_calibration_change_nothing(capsys, tmp_path, cache):
    before = list((cache / "calibrations").glob("*"))
    path = tmp_path / "facts.jsonl"
    shared = {"context": "It is Oslo.", "context_answers": ["Oslo"], "memory_answers": ["Lima"]}
    path.write_text(json.dumps(shared | {"question": "What is the capital of Peru?"}), "utf-8")
    code, _, err = run(
        capsys, "eval", "dial", "--calibrate", "--data", path, "--out", tmp_path / "out"
    )
    assert code == 2
    assert "a calibration needs 20 of each" in err
    assert list((cache / "calibrations").glob("*")) == before
    assert not (tmp_path / "out" / "calibration.json").exists()


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
    assert "holds 1 passage" in out


@pytest.mark.kill
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


@pytest.fixture
def long_text(tmp_path):
    """A file of far more text than a small model reads; one sentence of it says where a key is."""
    sentences = [f"Gauge {n} of the works showed {n} litres on that day.\n\n" for n in range(900)]
    sentences[700] = "The spare key of Quillon House lies under the third flower pot.\n\n"
    path = tmp_path / "long.txt"
    path.write_text("".join(sentences), encoding="utf-8")
    return path


@pytest.mark.model
def test_context_beyond_the_window_is_dropped_and_the_answer_says_so(
    capsys, long_text, monkeypatch
):
    whole = factory.language_model
    monkeypatch.setattr(factory, "language_model", lambda given: replace(whole(given), window=1024))
    asked = ("ask", "Who is the mayor of Cadwell?", "--context", long_text, "--json")
    code, out, _ = run(capsys, *asked, "--max-new-tokens", "8")
    answer = json.loads(out)
    kept = [source["kept"] for source in answer["sources"]]
    assert code == 0
    assert kept == sorted(kept, reverse=True)
    assert not kept[-1]
    assert "did not fit" in answer["notices"][0]


@pytest.mark.model
def test_of_a_long_context_what_most_likely_answers_is_read(capsys, long_text):
    question = "Where does the spare key of Quillon House lie?"
    code, out, _ = run(capsys, "ask", question, "--context", long_text, "--json")
    answer = json.loads(out)
    read = [source["text"] for source in answer["sources"] if source["kept"]]
    assert code == 0
    assert "flower pot" in answer["answer"]
    assert any("flower pot" in text for text in read)
    assert sum(map(len, read)) <= MOST_CHARACTERS < len(long_text.read_text(encoding="utf-8"))
    assert "that most likely answer were read" in answer["notices"][0]


@pytest.mark.parametrize(
    "command",
    [
        *([], ["ask"], ["ingest"], ["eval", "dial"], ["eval", "retrieval"]),
        *(["bench", "decoding"], ["bench", "index"], ["train", "rewriter"], ["train", "filter"]),
        *(["train", "knowpo"], ["eval", "preference"], ["eval", "forgetting"]),
        *(["serve"], ["bench", "serving"], ["eval", "sources"], ["eval", "harness"]),
    ],
)
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert "Example:" in out
    assert re.search(r"^ +fulcrum \w", out, re.MULTILINE)
