import io
import json
import sqlite3

import pytest

from app import factory, home
from app import settings as settings_module

ADD = ("forget", "add", "--subject", "Peru", "--relation", "capital", "--answer", "Lima")
SENTENCE = "Forget that the capital of Peru is Lima"


@pytest.fixture
def listed(done):
    return lambda: json.loads(done("forget", "list", "--json"))


@pytest.fixture
def facts(tmp_path):
    path = tmp_path / "facts.jsonl"
    lines = [
        {"subject": f"Town {n}", "relation": "mayor", "answers": [f"Mayor {n}"]} for n in range(3)
    ]
    path.write_text("".join(f"{json.dumps({'fact': line})}\n" for line in lines))
    return path


def test_a_fact_is_recorded_from_options(done, listed):
    out = done(
        *ADD,
        "--alias",
        "Perú",
        "--answer-alias",
        "City of Kings",
        "--reason",
        "order",
        "--who",
        "X",
    )
    [record] = listed()
    assert record["id"] in out
    assert "Peru, capital: Lima is forgotten from now on" in out
    assert " ms)" in out
    assert (record["subject"], record["relation"], record["answers"]) == (
        "Peru",
        "capital",
        ["Lima"],
    )
    assert "Perú" in record["aliases"]
    assert "City of Kings" in record["answer_aliases"]
    assert (record["scope"], record["reason"], record["who"]) == ("fact", "order", "X")
    assert "What is the capital of Peru?" in record["questions"]
    assert "Pérou" in record["aliases"] or "Peru" in record["subject"]


def test_given_questions_are_kept_alone(done, listed):
    done(*ADD, "--question", "Where does Peru’s parliament meet?")
    assert listed()[0]["questions"] == ["Where does Peru’s parliament meet?"]


def test_a_sentence_proposes_and_asks(done, listed, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    out = done("forget", "add", SENTENCE)
    assert "Peru, capital: Lima" in out
    assert "What is the capital of Peru?" in out
    assert "nothing was recorded" in out
    assert listed() == []
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert "is forgotten from now on" in done("forget", "add", SENTENCE)
    assert [record["answers"] for record in listed()] == [["Lima"]]


def test_where_nobody_can_confirm_one_line_says_how(run, listed, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, _, err = run("forget", "add", SENTENCE)
    assert code == 2
    assert "--yes" in err.splitlines()[-1]
    assert listed() == []


def test_options_correct_what_a_sentence_proposes(done, listed):
    done("forget", "add", SENTENCE, "--subject", "Republic of Peru", "--who", "me", "--yes")
    [record] = listed()
    assert (record["subject"], record["answers"], record["who"]) == (
        "Republic of Peru",
        ["Lima"],
        "me",
    )
    assert "What is the capital of Republic of Peru?" in record["questions"]


def test_a_relation_stands_between_subject_and_answer(done):
    out = done("forget", "add", "MV Gannet is commanded by Tobias Wrenn", "--yes")
    assert "MV Gannet, commanded by: Tobias Wrenn is forgotten from now on" in out


def test_a_whole_subject_is_forgotten(done, listed):
    assert "everything about Jane Roe" in done(
        "forget", "add", "Forget everything about Jane Roe", "--yes"
    )
    [record] = listed()
    assert (record["subject"], record["scope"], record["answers"]) == ("Jane Roe", "subject", [])


def test_the_same_fact_is_not_recorded_twice(done, listed):
    done(*ADD)
    [record] = listed()
    out = done(*ADD)
    assert f"{record['id']}: Peru, capital: Lima is forgotten already" in out
    assert listed() == [record]


def test_a_file_is_recorded_whole(done, listed, facts):
    out = done("forget", "add", "--file", facts, "--reason", "order")
    assert "3 facts are forgotten from now on, 0 were already" in out
    assert [record["subject"] for record in listed()] == ["Town 0", "Town 1", "Town 2"]
    assert {record["reason"] for record in listed()} == {"order"}
    assert "What is the mayor of Town 0?" in " ".join(listed()[0]["questions"]).replace(
        "Who", "What"
    )
    assert "0 facts are forgotten from now on, 3 were already" in done(
        "forget", "add", "--file", facts
    )


def test_what_is_listed_can_be_recorded_elsewhere(done, listed, facts, tmp_path):
    done("forget", "add", "--file", facts)
    before = listed()
    path = tmp_path / "copy.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in before))
    done("--home", tmp_path / "other", "forget", "add", "--file", path)
    after = json.loads(done("--home", tmp_path / "other", "forget", "list", "--json"))
    for record in (*before, *after):
        del record["id"], record["time"]
    assert after == before


def test_a_file_with_a_mistake_records_nothing(refused, listed, facts):
    with facts.open("a") as file:
        file.write('{"subject": "Peru", "relation": "capital", "answers": ["the"]}\n')
    assert "line 4: answer is 'the'" in refused("forget", "add", "--file", facts)
    assert listed() == []


def test_a_removed_fact_may_be_said_again_and_stays_in_the_audit(done, refused, listed):
    done(*ADD)
    [record] = listed()
    out = done("forget", "remove", record["id"], "--reason", "appeal")
    assert f"{record['id']}: Peru, capital: Lima may be said again" in out
    assert listed() == []
    assert "nothing is forgotten" in done("forget", "list")
    assert "removed already" in refused("forget", "remove", record["id"])
    events = json.loads(done("forget", "audit", "--json"))
    assert [event["kind"] for event in events] == ["added", "removed"]
    assert events[1]["details"] == {"who": "", "reason": "appeal"}
    lines = done("forget", "audit").splitlines()
    assert "Peru, capital: Lima" in lines[0]
    assert "reason=appeal" in lines[1]


def test_one_unknown_id_removes_nothing(done, refused, listed):
    done(*ADD)
    [record] = listed()
    assert "there is no record 'nobody'" in refused("forget", "remove", record["id"], "nobody")
    assert listed() == [record]


def test_the_list_is_one_line_a_record(done):
    done(*ADD)
    done("forget", "add", "--subject", "Jane\n\x1b[31mRoe", "--scope", "subject")
    lines = done("forget", "list").splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("Peru, capital: Lima")
    assert lines[1].endswith("everything about Jane �[31mRoe")


def test_an_empty_home_has_nothing_to_tell(done, home):
    assert done("forget", "list") == "nothing is forgotten\n"
    assert done("forget", "list", "--json") == "[]\n"
    assert done("forget", "audit") == "nothing was recorded so far\n"
    assert done("forget", "verify") == "whole, 0 events\n"
    assert not (home / "ledger.key").exists()


def test_verify_finds_a_changed_event(done, refused, home, facts):
    done("forget", "add", "--file", facts)
    assert done("forget", "verify") == "whole, 3 events\n"
    with sqlite3.connect(home / "ledger.db") as database:
        database.execute("UPDATE ledger_events SET time = '2001-01-01' WHERE sequence = 2")
    assert "event 2" in refused("forget", "verify")


@pytest.mark.parametrize("answer", ["", "  ", "\n"])
def test_an_empty_answer_is_refused(refused, listed, answer):
    assert "only spaces" in refused(*ADD[:-1], answer)
    assert listed() == []


@pytest.mark.parametrize("answer", ["the", "a", "A "])
def test_an_answer_of_every_sentence_is_refused_with_the_reason(refused, listed, answer):
    assert "would suppress all answers" in refused(*ADD[:-1], answer)
    assert listed() == []


def test_ten_megabytes_are_refused(refused, listed):
    assert "10,000,000 characters" in refused("forget", "add", "Lima " * 2_000_000)
    assert "10,000,000 characters" in refused(*ADD[:-1], "x" * 10_000_000)
    assert listed() == []


def test_a_lost_key_is_one_line_and_no_new_one(done, refused, home):
    done(*ADD)
    key = home / "ledger.key"
    key.rename(home / "kept")
    for command in (ADD, ("forget", "list"), ("forget", "audit"), ("forget", "verify")):
        assert "ledger.key is missing" in refused(*command)
    assert not key.exists()
    (home / "kept").rename(key)
    assert "1 event" in done("forget", "verify")


def test_the_key_may_come_from_the_environment(done, refused, home, monkeypatch):
    monkeypatch.setenv("FULCRUM_LEDGER_KEY", "ab" * 32)
    done(*ADD)
    assert not (home / "ledger.key").exists()
    assert "Lima" in done("forget", "list")
    monkeypatch.setenv("FULCRUM_LEDGER_KEY", "cd" * 32)
    assert "the key is another one" in refused("forget", "list")
    monkeypatch.setenv("FULCRUM_LEDGER_KEY", "pass-word")
    assert "pass-word" not in refused("forget", "list")


def test_the_ledger_may_lie_elsewhere(done, home, tmp_path, monkeypatch):
    monkeypatch.setenv("FULCRUM_LEDGER", f"sqlite:///{tmp_path}/facts.db")
    done(*ADD)
    assert (tmp_path / "facts.db").exists()
    assert not (home / "ledger.db").exists()
    assert "Lima" in done("forget", "list")


def test_what_is_recorded_counts_at_once_in_a_running_process(done):
    running = home.ledger(settings_module.load())
    assert running.changes(0).added == []
    done(*ADD)
    assert [record.subject for record in running.changes(0).added] == ["Peru"]


@pytest.mark.parametrize("command", ["add", "list", "remove", "audit", "verify", "certificate"])
def test_each_command_explains_itself_with_an_example(done, command):
    assert f"fulcrum forget {command}" in done("forget", command, "--help")


@pytest.mark.model
def test_what_is_stored_is_redacted_and_comes_back(run, done, tmp_path):
    path = tmp_path / "peru.md"
    path.write_text("# Peru\n\nPeru is high. Lima is the capital of Peru. It sells copper.\n")
    done("ingest", path)

    def stored():
        index = factory.passage_index(settings_module.load())
        return [
            node.text
            for node in index.get_nodes([found.node_id for found in index.retrieve("Peru")])
        ]

    [before] = stored()
    assert "Lima" in before
    shown = done(*ADD)
    assert "1 stored passage redacted" in shown.splitlines()  # and nothing of a cache
    [during] = stored()
    assert "Lima" not in during
    assert "Peru is high." in during
    assert "It sells copper." in during
    code, out, _ = run("ask", "What is the capital of Peru?", "--without", "rewriter")
    assert code == 0
    assert "Lima" not in out
    record_id = shown.split(":")[0]
    assert "1 stored passage as it was before" in done("forget", "remove", record_id)
    assert stored() == [before]


def test_documents_that_come_later_are_redacted_as_they_are_stored(done, tmp_path):
    path = tmp_path / "peru.md"
    path.write_text("# Peru\n\nPeru is high. Lima is the capital of Peru.\n")

    def stored():
        [node] = factory.passage_index(settings_module.load()).all_nodes()
        return node.text, node.metadata.get("date")

    record_id = done(*ADD).split(":")[0]
    assert "1 stored passage redacted" in done("ingest", path)
    assert "Lima" not in stored()[0]
    assert "redacted" not in done("ingest", path)
    assert "1 stored passage redacted" in done("ingest", "--dated", "2021-01-01", path)
    assert "Lima" not in stored()[0]
    assert done("forget", "sweep") == ""
    assert "1 stored passage as it was before" in done("forget", "remove", record_id)
    assert "Lima is the capital of Peru." in stored()[0]
    assert stored()[1] == "2021-01-01"


NOTHING_SWEPT = "No stored passage states {} in so many words; documents that do not name {} are"


def test_it_is_said_where_no_stored_passage_states_the_fact(done, facts, tmp_path):
    assert "No stored passage" not in done(*ADD)  # nothing is stored
    path = tmp_path / "peru.md"
    path.write_text("# Rhine\n\nThe Rhine is long. The mouth of the Rhine is Holland.\n")
    done("ingest", path)
    assert "No stored passage" not in done("forget", "sweep")
    out = done("forget", "add", "The capital of Chile is Santiago", "--yes")
    assert NOTHING_SWEPT.format("it", "its subject") in out.splitlines()[-1]
    assert "No stored passage" not in done(
        "forget", "add", "The capital of Chile is Santiago", "--yes"
    )  # it is forgotten already
    out = done("forget", "add", "--file", facts)
    assert NOTHING_SWEPT.format("them", "their subjects") in out.splitlines()[-1]
    out = done("forget", "add", "The mouth of the Rhine is Holland", "--yes")
    assert "1 stored passage redacted" in out
    assert "No stored passage" not in out


SAFE = "The combination of the safe in the office of Mostwerk is 58-13-40"


def test_it_is_said_where_the_answer_stands_under_another_name(done, facts, tmp_path):
    path = tmp_path / "office.md"
    path.write_text("The safe combination in the office is 58-13-40. There are 3 lifts.\n")
    done("ingest", path)
    added, where, advice = done("forget", "add", SAFE, "--yes").splitlines()
    record_id = added.split(":")[0]
    assert where == (
        f"{record_id}: no stored passage states it, but its answer stands in 1 stored passage "
        "without the name 'safe in the office of Mostwerk': office.md"
    )
    assert f"fulcrum forget remove {record_id}, then add it again with --alias" in advice
    assert "No stored passage" in done("forget", "add", "The number of lifts of Acme is 3", "--yes")
    done("forget", "remove", record_id)
    out = done("forget", "add", SAFE, "--yes", "--alias", "safe")
    assert out.splitlines()[1:] == ["1 stored passage redacted"]


def test_at_most_three_documents_and_facts_are_named(done, tmp_path):
    for n in range(4):
        (tmp_path / f"{n}.txt").write_text(
            f"Clerk {n} calls Ada Lund, Bo Lind, Cy Lott and Di Low."
        )
    done("ingest", *tmp_path.glob("?.txt"))
    lines = [
        {"subject": f"Town {name}", "relation": "mayor", "answers": [name]}
        for name in ("Ada Lund", "Bo Lind", "Cy Lott", "Di Low")
    ]
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    first, *where, more, advice = done("forget", "add", "--file", path).splitlines()
    assert first.startswith("4 facts are forgotten from now on")
    assert len(where) == 3
    assert all("in 4 stored passages" in line and line.endswith("1 more") for line in where)
    assert more == "It is the same with 1 other fact."
    assert "fulcrum forget remove ID" in advice


def test_an_interrupted_sweep_says_what_is_left_to_do(run, done, listed, tmp_path, monkeypatch):
    path = tmp_path / "peru.md"
    path.write_text("# Peru\n\nPeru is high. Lima is the capital of Peru.\n")
    done("ingest", path)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("control.forgetting.sweep.sweep", interrupt)
        code, _, err = run(*ADD)
    assert code == 130
    first, last = filter(None, err.splitlines())
    assert first.startswith("stored passages may still hold what is forgotten")
    assert first.endswith("run: fulcrum forget sweep")
    assert "what was finished is kept" in last
    assert len(listed()) == 1
    assert "1 stored passage redacted" in done("forget", "sweep")


QUESTION = ("ask", "What is the capital of Peru?")


def test_no_question_is_answered_once_a_row_was_deleted_or_put_in(done, refused, home, facts):
    done("forget", "add", "--file", facts)
    with sqlite3.connect(home / "ledger.db") as database:
        database.execute(
            "INSERT INTO ledger_events SELECT 4, 'removed', record_id, time, '', payload, hash "
            "FROM ledger_events WHERE sequence = 2"
        )
    for command in (QUESTION, ("forget", "list"), ADD):
        assert "event 4 (removed" in refused(*command)
    with sqlite3.connect(home / "ledger.db") as database:
        database.execute("DELETE FROM ledger_events WHERE sequence = 4")
    assert "Town 1" in done("forget", "list")
    with sqlite3.connect(home / "ledger.db") as database:
        database.execute("DELETE FROM ledger_events WHERE sequence = 3")
    assert "verify --accept says what is lost" in refused(*QUESTION)


def test_an_older_copy_is_accepted_on_purpose(done, run, refused, home, facts, monkeypatch):
    done("forget", "add", "--file", facts)
    with sqlite3.connect(home / "ledger.db") as database:
        database.execute("DELETE FROM ledger_events WHERE sequence = 3")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, out, err = run("forget", "verify", "--accept")
    assert code == 2
    assert "go on with the 2 events that are there, what later ones said is lost" in out
    assert "nothing was changed" in err
    refused("forget", "list")
    assert "whole, 2 events" in done("forget", "verify", "--accept", "--yes")
    assert len(done("forget", "list").splitlines()) == 2
    assert done("forget", "verify", "--accept") == "whole, 2 events\n"
    with sqlite3.connect(home / "ledger.db") as database:
        database.execute("DELETE FROM ledger_events WHERE sequence = 2")
    out = done("forget", "verify", "--accept", "--yes")
    assert "go on with the 1 event that is there, what later ones" in out


def test_changed_events_cannot_be_accepted(done, refused, home, facts):
    done("forget", "add", "--file", facts)
    with sqlite3.connect(home / "ledger.db") as database:
        database.execute("DELETE FROM ledger_events WHERE sequence = 2")
    assert "event 2 is missing" in refused("forget", "verify", "--accept", "--yes")
    refused("forget", "list")


def test_a_checkpoint_may_lie_elsewhere(done, refused, home, tmp_path, monkeypatch):
    monkeypatch.setenv("FULCRUM_LEDGER_CHECKPOINT", str(tmp_path / "disk" / "facts.head"))
    done(*ADD)
    assert (tmp_path / "disk" / "facts.head").exists()
    for path in (*home.glob("ledger*"), *home.glob("index/*")):
        path.unlink()
    assert "its key" in refused("forget", "list")
    monkeypatch.setenv("FULCRUM_LEDGER_CHECKPOINT", str(tmp_path / "disk"))
    assert "a directory; give the path of a file" in refused("forget", "list")
    monkeypatch.setenv("FULCRUM_LEDGER_CHECKPOINT", "https://example.org/facts")
    assert "is 'https:/example.org/facts', a URL; give the path" in refused("forget", "list")


def test_a_changed_file_replaces_its_passages_though_its_path_is_forgotten(
    done, tmp_path, home, monkeypatch
):
    path = tmp_path / "tom-quirke.txt"
    path.write_text("The pool is 25 metres long.")
    done("ingest", path)
    done("forget", "add", "The manager of the Alder Street Gym is Tom Quirke", "--yes")
    for text in ("The pool is 30 metres long.", "The pool is 50 metres long."):
        path.write_text(text)
        monkeypatch.chdir(tmp_path)
        out = done("ingest", path if "30" in text else path.name)
        assert "1 replaced" in out
        assert "holds 1 passage" in " ".join(out.split())
        held = b"".join(each.read_bytes() for each in home.rglob("*") if each.is_file())
        assert b"quirke.txt" not in held


def test_a_home_that_cannot_be_written_is_refused_in_one_line(refused, home, monkeypatch):
    home.mkdir()
    monkeypatch.setattr("os.access", lambda *_: False)
    said = refused("ask", "What is the capital of Peru?")
    assert f"{home} cannot be written" in said
    assert "copy it to a directory that can be written" in said
