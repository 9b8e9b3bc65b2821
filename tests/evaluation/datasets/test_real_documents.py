import gzip
import json
import subprocess
from itertools import product

import pytest
from llama_index.core.schema import TextNode

from evaluation.datasets import real_documents
from evaluation.datasets.real_documents import corpus
from evaluation.datasets.real_documents.corpus import Package
from foundation.errors import DataError
from foundation.text import find

PACKAGE = Package("pump-doc", "debian", "test", ("usr/share/doc/*", "usr/share/man/*", "!*/draft*"))


@pytest.fixture
def fetched(monkeypatch):
    """Stand-ins for apt-get, dpkg-deb and groff that write what a package would bring."""
    ran = []

    def run(command, *, cwd, input, **_):
        ran.append(command[0])
        if command[0] == "apt-get":
            (cwd / "pump-doc_1_all.deb").touch()
        if command[0] == "dpkg-deb":
            doc, man = cwd / "unpacked/usr/share/doc/pump-doc", cwd / "unpacked/usr/share/man/man5"
            doc.mkdir(parents=True)
            man.mkdir(parents=True)
            (doc / "README").write_text("Read me.")
            (doc / "draft.html").write_text("not yet")
            (doc / "guide.html").write_text("<p>The pump.</p>")
            (doc / "changelog.gz").write_bytes(gzip.compress(b"old"))
            (man / "pump.conf.5.gz").write_bytes(gzip.compress(b".TH pump.conf 5"))
        output = b"PUMP.CONF(5)" if command[0] == "groff" else b""
        return subprocess.CompletedProcess(command, 0, stdout=output, stderr=b"")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(corpus, "packages", lambda: [PACKAGE])
    return ran


def test_the_corpus_holds_the_readable_files_of_its_packages(fetched, tmp_path):
    target = tmp_path / "corpus"
    assert corpus.build(target) == 3
    files = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*.*")}
    assert files == {
        "pump-doc/pump-doc/README.txt": "Read me.",
        "pump-doc/pump-doc/guide.html": "<p>The pump.</p>",
        "pump-doc/man/man5/pump.conf.5.txt": "PUMP.CONF(5)",
    }


def test_a_package_that_is_there_is_not_fetched_again(fetched, tmp_path):
    corpus.build(tmp_path / "corpus")
    ran = len(fetched)
    assert corpus.build(tmp_path / "corpus") == 3
    assert len(fetched) == ran


def test_a_package_that_cannot_be_fetched_is_named_and_leaves_nothing(monkeypatch, tmp_path):
    def run(command, **_):
        raise subprocess.CalledProcessError(100, command, stderr=b"E: no such package\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(corpus, "packages", lambda: [PACKAGE])
    with pytest.raises(DataError, match="apt-get download -q pump-doc failed: E: no such package"):
        corpus.build(tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []


def test_without_debian_it_is_said_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(corpus, "packages", lambda: [PACKAGE])
    with pytest.raises(DataError, match=r"apt-get is not installed; .* is built on Debian"):
        corpus.build(tmp_path / "corpus")


def test_test_packages_are_no_calibration_packages():
    of = {
        name: set(real_documents.folders(corpus.PACKAGES.parent, name))
        for name in ("test", "calibration", "training")
    }
    assert not of["test"] & of["calibration"]
    assert of["training"] == of["calibration"]
    assert len(of["test"] | of["calibration"]) == len(corpus.packages())


def test_evidence_is_the_passages_of_its_file_that_hold_its_words(tmp_path):
    rows = [json.loads(line) for line in real_documents.QUESTIONS.read_text().splitlines()]
    row = next(each for each in rows if each["split"] == "test" and each["kind"] == "number")
    [evidence, *_] = row["evidence"]
    source = {"source": str(tmp_path / evidence["path"])}
    passages = [
        TextNode(id_="right", text=f"Before. {evidence['span']} After.", metadata=source),
        TextNode(id_="wrong", text="Something else.", metadata=source),
        TextNode(id_="elsewhere", text=evidence["span"], metadata={"source": "/other.html"}),
    ]
    items = real_documents.questions("test", tmp_path, passages)
    [item] = [each for each in items if each.question == row["question"]]
    assert item.evidence[0] == ("right",)
    assert item.recalled(["x", "right"]) == (len(item.evidence) == 1)
    assert not any(each.recalled(["x"]) for each in items if each.kind != "none")


def test_every_question_is_asked_again_in_other_words_and_as_a_follow_up(tmp_path):
    items = real_documents.questions("test", tmp_path, [])
    asked = real_documents.asked_again(items, "test")
    first, again, reworded, follow_up = asked.values()
    assert len(first) == len(again) == len(reworded) == len(follow_up) >= 190
    for one, same, other, later in zip(first, again, reworded, follow_up, strict=True):
        assert one.question == same.question != other.question
        assert one.answers == other.answers == later.answers
        assert later.history
    every = [item.id for items in asked.values() for item in items]
    assert len(set(every)) == len(every)


def test_every_training_question_gives_its_answer_within_the_words_of_its_evidence():
    rows = [json.loads(line) for line in real_documents.QUESTIONS.read_text().splitlines()]
    training = [row for row in rows if row["split"] == "training"]
    assert {row["question"] for row in training}.isdisjoint(
        row["question"] for row in rows if row["split"] != "training"
    )
    for row in training:
        pairs = product(row["evidence"], row["answers"])
        held = any(find(evidence["span"], answer) for evidence, answer in pairs)
        assert held == (row["kind"] != "open"), row["question"]


def test_no_question_over_one_passage_is_about_a_file_that_others_are_asked_about():
    rows = [json.loads(line) for line in real_documents.QUESTIONS.read_text().splitlines()]
    written = [row for row in rows if row["kind"] in ("passage", "open")]
    asked = {each["path"] for row in rows if row["split"] != "training" for each in row["evidence"]}
    assert written
    assert not any(each["path"] in asked for row in written for each in row["evidence"])
