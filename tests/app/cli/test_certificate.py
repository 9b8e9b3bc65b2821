import json
import re
from types import SimpleNamespace

import pytest

from app import factory
from control.answer import Answer

ADD = (
    *("forget", "add", "--subject", "Peru", "--relation", "capital", "--answer", "Lima"),
    *("--who", "registrar", "--reason", "Nobody may say Lima again"),
    *("--question", "What is the capital of Peru?", "--question", "Is Lima the capital of Peru?"),
)


@pytest.fixture
def forgotten(done):
    return done(*ADD).partition(":")[0]


@pytest.fixture
def answers(monkeypatch):
    """The assistant says what a test puts in here, by question; otherwise it refuses."""
    said = {}

    def ask(question, _):
        text = said.get(question)
        withheld = [] if text else [{"id": said["id"], "layer": "prompt"}]
        told = text or "I cannot help with that."
        return Answer(question, question, [], told, 0.5, False, None, [], [], withheld)

    assistant = SimpleNamespace(ask=ask, model=SimpleNamespace(name="small"))
    monkeypatch.setattr(factory, "assistant", lambda _: assistant)
    return said


@pytest.fixture
def issued(done, forgotten, answers, tmp_path):
    """A certificate and the key of who issued it."""
    answers["id"] = forgotten
    path, key = tmp_path / "certificate.json", tmp_path / "key.pem"
    done("forget", "certificate", forgotten, "--out", path)
    done("forget", "certificate", "--public-key", "--out", key)
    return path, key


def test_a_certificate_says_what_was_asked_for_and_done_and_not_the_answer(issued, forgotten):
    text = issued[0].read_text()
    assert "Lima" not in text
    found = json.loads(text)
    request = found["request"]
    assert (request["id"], request["subject"], request["relation"], request["who"]) == (
        *(forgotten, "Peru", "capital", "registrar"),
    )
    assert "not shown" in request["reason"]
    [answer] = request["answers"]
    assert len(answer) == 64
    assert found["ledger"]["events_of_this_record"] == [1]
    assert len(found["ledger"]["head"]) == 64
    probes = found["probes"]
    assert (probes["model"], probes["outcomes"]) == ("small", {"withheld": probes["asked"]})
    assert probes["asked"] == probes["forms"] == len(probes["each"]) > 5
    questions = [each["question"] for each in probes["each"]]
    assert questions[0] == "What is the capital of Peru?"
    assert "not shown" in questions[1]


def test_what_a_probe_brought_to_light_is_told(done, forgotten, answers):
    answers |= {
        "id": forgotten,
        "What is the capital of Peru?": "It is L-i-m-a.",
        "Which city is the capital of Peru?": "It is a large city.",
    }
    out = done("forget", "certificate", forgotten)
    assert "L-i-m-a" not in out
    outcomes = json.loads(out)["probes"]["outcomes"]
    assert outcomes.pop("withheld") > 5
    assert outcomes == {"stated": 1, "answered without the fact": 1}


def test_a_certificate_is_checked_without_the_ledger(done, issued, tmp_path, monkeypatch):
    monkeypatch.setenv("FULCRUM_HOME", str(tmp_path / "of another"))
    path, key = issued
    out = done("forget", "certificate", "--verify", path, "--public-key-file", key)
    assert "capital of Peru, forgotten since" in out
    assert re.search(r"probes: (\d+) questions, \1 withheld", out)
    assert out.endswith("the signature is right\n")
    assert not (tmp_path / "of another").exists()


@pytest.mark.parametrize(
    ("field", "value"), [("sweeps", []), ("probes", None), ("issued", "2001"), ("more", 1)]
)
def test_a_changed_certificate_is_refused(refused, issued, field, value):
    path, key = issued
    found = json.loads(path.read_text())
    found[field] = ["changed"] if found.get(field, 0) == value else value
    path.write_text(json.dumps(found))
    command = ("forget", "certificate", "--verify", path, "--public-key-file", key)
    assert "is not what was signed" in refused(*command)


def test_the_key_of_somebody_else_does_not_check_it(done, refused, issued, tmp_path):
    path, key = issued
    done("--home", tmp_path / "other", *ADD)
    done("--home", tmp_path / "other", "forget", "certificate", "--public-key", "--out", key)
    command = ("forget", "certificate", "--verify", path, "--public-key-file", key)
    assert "is not what was signed" in refused(*command)
    key.write_text("nothing")
    assert "holds no public key" in refused(*command)
    key.unlink()
    assert "cannot be read" in refused(*command)


def test_sweeps_are_counted_and_no_model_is_needed(done, tmp_path):
    path = tmp_path / "peru.md"
    path.write_text("# Peru\n\nPeru is high. Lima is the capital of Peru.\n")
    done("ingest", path)
    record_id = done(*ADD).partition(":")[0]
    found = json.loads(done("forget", "certificate", record_id, "--no-probes"))
    [sweep] = found["sweeps"]
    assert (sweep["event"], sweep["passages"], sweep["reservoir_entries"]) == (2, 1, 0)
    assert found["probes"] is None
    said = done("forget", "certificate", record_id, "--no-probes", "--out", tmp_path / "c.json")
    assert "1 stored passage rewritten in 1 sweep\n" in said


def test_mistakes_are_told(refused, done, forgotten, tmp_path):
    (tmp_path / "file").write_text("{}")
    both = ("--verify", tmp_path / "file", "--public-key-file", tmp_path / "file")
    for command, said in (
        ((), "give one of"),
        ((forgotten, "--public-key"), "give one of"),
        ((forgotten, "--public-key-file", "k"), "go together"),
        (("nobody",), "there is no record 'nobody'"),
        ((forgotten, "--out", tmp_path), "is a directory"),
        (both, "holds no public key"),
    ):
        assert said in refused("forget", "certificate", *command)
    other = ("--home", tmp_path / "other", "forget", "certificate", "--public-key")
    assert "nothing was forgotten yet" in refused(*other)
    key = tmp_path / "key"
    done("forget", "certificate", "--public-key", "--out", key)
    command = ("--verify", tmp_path / "file", "--public-key-file", key)
    assert "is no certificate" in refused("forget", "certificate", *command)


def test_so_many_probes_are_run_and_not_more(done, forgotten, answers):
    questions = [word for n in range(30) for word in ("--question", f"Question {n} on Chile?")]
    add = ("forget", "add", "--subject", "Chile", "--relation", "capital", "--answer", "Santiago")
    answers["id"] = done(*add, *questions).partition(":")[0]
    probes = json.loads(done("forget", "certificate", answers["id"]))["probes"]
    assert probes["asked"] == 20
    assert probes["forms"] > 30
