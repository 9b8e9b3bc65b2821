"""The commands that train and that measure the preference, as a person types them."""

import json

import pytest

from app import cli


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.model
def test_training_leaves_an_adapter_that_answers_and_is_measured(capsys, tmp_path):
    run_directory = tmp_path / "run"
    code, out, _ = run(capsys, "train", "knowpo", "--smoke", "--out", run_directory)
    assert code == 0
    adapter = run_directory / "adapter"
    assert "--adapter" in out
    assert "R_Ad" in (adapter / "README.md").read_text(encoding="utf-8")
    asked = ["ask", "What is the capital of Peru?", "--closed-book", "--json"]
    code, out, _ = run(capsys, "--adapter", adapter, *asked)
    assert code == 0
    assert "Lima" in json.loads(out)["answer"]

    target = tmp_path / "report"
    measured = ["eval", "preference", "--limit", "40", "--known", "4", "--unknown", "2"]
    named = ["--trained", f"sft={run_directory / 'sft'}", "--trained", f"dpo={adapter}"]
    code, out, _ = run(capsys, *measured, *named, "--no-dial", "--out", target)
    assert code == 0
    report = json.loads((target / "report.json").read_text(encoding="utf-8"))
    rows = report["tables"]["preference"]
    assert [row["system"] for row in rows] == ["base", "prompt only", "sft", "dpo"]
    assert report["n_known"] == 4
    assert rows[0]["closed-book"] > 0
    assert (target / "report.html").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--ratio", "ignorance=1"], "the kinds are"),
        (["--ratio", "ignorance, relevant=-1"], "number of at least 0"),
        (["--data", "{folder}/missing.json"], "missing.json"),
        (["--data", "{folder}/mute.jsonl"], "none of its 2 questions has an answer"),
    ],
)
def test_what_cannot_be_trained_from_is_told_in_one_line(capsys, tmp_path, given, told):
    line = {"question": "Who?", "answers": ["Ann"], "passage": "Nobody is named here."}
    (tmp_path / "mute.jsonl").write_text(f"{json.dumps(line)}\n" * 2, encoding="utf-8")
    given = [text.format(folder=tmp_path) for text in given]
    code, _, err = run(capsys, "train", "knowpo", *given, "--out", tmp_path / "run")
    assert code == 2
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--trained", "dpo"], "give a name and a directory"),
        (["--trained", "a={folder}", "--trained", "a={folder}"], "the same name"),
        pytest.param(
            ["--trained", "a={folder}"], "holds no adapter_config.json", marks=pytest.mark.model
        ),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(capsys, tmp_path, given, told):
    given = [text.format(folder=tmp_path) for text in given]
    code, _, err = run(
        capsys, "eval", "preference", "--limit", "20", *given, "--out", tmp_path / "report"
    )
    assert code == 2
    assert told in err
    assert err.count("\n") == 1
