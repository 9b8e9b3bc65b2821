"""Stored passages are redacted for good, and come back when a record is removed."""

import json
import re

import numpy as np
import pytest

from app.factory import fact_classifier
from control.forgetting.ledger import Ledger
from control.forgetting.record import Record
from control.forgetting.redaction import Redactor
from control.forgetting.sweep import MOST_DOCUMENTS, elsewhere, only_elsewhere, sweep, sweep_added
from retrieval.index import PassageIndex, open_index
from retrieval.reservoir import Reservoir
from retrieval.trigger import Trigger
from tests.retrieval.conftest import BagOfWords

PERU = Record("Peru", relation="capital", answers=("Lima",))
JANE = Record("Jane Roe", scope="subject")
SOL = Record("Peru", relation="currency", answers=("sol",))
TEXTS = {
    "peru": "Peru is in the Andes. Its capital is Lima. Its currency is the sol.",
    "facts": "The capital of Peru is Lima.",
    "beans": "Lima beans are green.",
    "chile": "Chile borders Peru. Its capital is Santiago.",
}


@pytest.fixture
def ledger(home):
    home.mkdir()
    return Ledger(home / "ledger.db", bytes(32))


@pytest.fixture
def index(home):
    return open_index(home, None, BagOfWords(dimension=1024))


@pytest.fixture
def reservoir(home):
    return Reservoir(home)


@pytest.fixture
def parties(ledger, index, reservoir, tmp_path):
    for name, text in TEXTS.items():
        (tmp_path / f"{name}.txt").write_text(text)
    index.ingest(sorted(tmp_path.glob("*.txt")))
    return ledger, index, reservoir, Redactor(ledger, fact_classifier())


def stored(index: PassageIndex) -> list[str]:
    found = index.retrieve_batch(["Peru Chile beans"], top_k=10)[0]
    return sorted(node.text for node in found)


def holding(index: PassageIndex, word: str) -> list[str]:
    return [node.text for node in index.get_nodes(index.containing([[word]]))]


def test_passages_that_state_a_record_are_redacted_and_embedded_again(parties):
    ledger, index, *_ = parties
    [record] = ledger.add([PERU])
    done = sweep(*parties)
    assert (done.records, done.passages) == (1, 2)
    assert holding(index, "lima") == ["Lima beans are green."]
    assert "Peru is in the Andes. Its currency is the sol." in stored(index)
    [event] = [event for event in ledger.events() if event.kind == "swept"]
    assert (event.record_id, event.details["passages"]) == (record.id, 2)


def test_a_record_is_swept_for_once_unless_asked_again(parties, tmp_path):
    ledger, index, *_ = parties
    ledger.add([PERU])
    sweep(*parties)
    assert sweep(*parties).records == 0
    (tmp_path / "new.txt").write_text("The capital of Peru is, again, Lima.")
    index.ingest([tmp_path / "new.txt"])
    assert sweep(*parties, again=True).passages == 1
    assert holding(index, "lima") == ["Lima beans are green."]


def test_removing_a_record_restores_its_passages(parties):
    ledger, index, *_ = parties
    before = stored(index)
    [record] = ledger.add([PERU])
    sweep(*parties)
    ledger.remove(record.id)
    assert sweep(*parties).restored == 2
    assert stored(index) == before
    assert ledger.sealed() == []


@pytest.mark.parametrize("first", [0, 1])
def test_removing_one_of_two_records_restores_only_its_passages(parties, first):
    ledger, index, *_ = parties
    before = stored(index)
    records = [*ledger.add([PERU])]
    sweep(*parties)
    records += ledger.add([SOL])
    sweep(*parties)
    assert "Peru is in the Andes." in stored(index)
    for record in (records[first], records[1 - first]):
        ledger.remove(record.id)
        sweep(*parties)
        if record is records[first]:
            left = "Its capital is Lima." if first == 0 else "Its currency is the sol."
            assert f"Peru is in the Andes. {left}" in stored(index)
    assert stored(index) == before


def test_a_document_changed_since_is_not_restored(parties, tmp_path):
    ledger, index, *_ = parties
    file = tmp_path / "facts.jsonl"
    for text in ("The seat of Peru is Lima.", "Nothing is said here."):
        file.write_text(json.dumps({"id": "doc", "title": "Doc", "text": text}))
        index.ingest([file])
        if "Lima" in text:
            [record] = ledger.add([PERU])
            sweep(*parties)
    ledger.remove(record.id)
    sweep(*parties)
    assert [node.text for node in index.get_nodes(["doc"])] == ["Nothing is said here."]


def test_a_title_that_states_a_record_leaves_the_date_and_comes_back_as_it_was(parties, tmp_path):
    ledger, index, *_ = parties
    file = tmp_path / "report.md"
    file.write_text("# Peru: the capital is Lima, the currency the sol\n\nIts coast is dry.\n")
    index.ingest([file], dated="2024-01-07")

    def found():
        [node] = [node for node in index.all_nodes() if "coast" in node.text]
        return node

    before = found()
    assert "Lima" in before.metadata["title"]
    records = []
    for record in (PERU, SOL):
        records += ledger.add([record])
        sweep(*parties)
        left = found().metadata
        assert (left["title"], left["date"]) == ("", "2024-01-07")
        assert "Lima" not in str(left | {"source": ""})
        assert sweep(*parties, again=True).passages == 0
    ledger.remove(records[0].id)
    sweep(*parties)
    assert (found().metadata["title"], found().metadata["date"]) == ("", "2024-01-07")
    ledger.remove(records[1].id)
    sweep(*parties)
    assert found().to_dict() == before.to_dict()
    assert ledger.sealed() == []


@pytest.mark.parametrize("answer", ["7 January 2024", "2024"])
def test_a_date_that_is_forgotten_goes_with_the_title_and_comes_back(parties, tmp_path, answer):
    ledger, index, *_ = parties
    file = tmp_path / "treaty.md"
    file.write_text(f"# Treaty of Brannock, signed on {answer}\n\nIts ink is blue.\n")
    index.ingest([file], dated="2024-01-07")
    [before] = [node for node in index.all_nodes() if "ink" in node.text]
    signed = Record("Treaty of Brannock", relation="when signed", answers=(answer,))
    [record] = ledger.add([signed])
    sweep(*parties)
    [left] = index.get_nodes([before.node_id])
    assert left.metadata["title"] == ""
    assert "date" not in left.metadata
    ledger.remove(record.id)
    sweep(*parties)
    [after] = index.get_nodes([before.node_id])
    assert after.to_dict() == before.to_dict()


def test_a_title_that_an_earlier_version_has_redacted_comes_back_whole(parties, tmp_path):
    ledger, index, *_ = parties
    [node] = [node for node in index.all_nodes() if node.text == TEXTS["chile"]]
    [record] = ledger.add([PERU])
    sweep(*parties)
    original = {"title": "Peru: capital Lima (2024)", "text": node.text}
    left = {"left_title": "", "left_text": "Chile borders Peru."}
    ledger.seal(record.id, node.node_id, json.dumps(original | left))
    node.metadata["title"] = ""
    node.set_content(left["left_text"])
    index.replace([node])
    ledger.remove(record.id)
    sweep(*parties)
    [after] = index.get_nodes([node.node_id])
    assert (after.metadata["title"], after.text) == tuple(original.values())


def test_no_file_of_the_home_names_who_is_forgotten(parties, tmp_path, home):
    ledger, index, *_ = parties
    folder = tmp_path / "Jane_Roe"
    folder.mkdir()
    (folder / "notes.txt").write_text("The gauges were delivered on Tuesday.")
    (folder / "JaneRoe2019.txt").write_text("The interview took place by the harbour.")
    line = {"id": "fjord", "title": "Sailing", "text": "The wind was calm.", "author": "Jane Roe"}
    (folder / "people.jsonl").write_text(json.dumps(line | {"source": "jane-roe.example"}))
    (folder / "halden.md").write_text("# Halden\n\n## Head: Jane Roe\n\nIt sells gauges.\n")
    index.ingest([folder])
    index.retrieve_batch(["gauges"])

    def found():
        nodes = {node.get_content(): node.metadata for node in index.all_nodes()}
        return {text: metadata for text, metadata in nodes.items() if text not in TEXTS.values()}

    before = found()
    [gauges] = [node.node_id for node in index.all_nodes() if "gauges were" in node.text]
    [halden] = [node.node_id for node in index.all_nodes() if "sells" in node.text]
    [vector] = [node.embedding for node in index.get_nodes([halden])]
    [record] = ledger.add([JANE])
    assert sweep(*parties).passages == 4
    held = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert not re.search(rb"jane.{0,3}roe", held, re.IGNORECASE | re.DOTALL)
    assert np.asarray(vector, "<f4").tobytes() not in held
    [left] = index.get_nodes([gauges])
    assert left.text == "The gauges were delivered on Tuesday."
    assert left.metadata["title"] == "notes"
    assert sweep(*parties, again=True).passages == 0
    ledger.remove(record.id)
    assert sweep(*parties).restored == 4
    assert found() == before
    assert ledger.sealed() == []


def test_details_of_a_document_that_was_replaced_meanwhile_do_not_come_back(parties, tmp_path):
    ledger, index, *_ = parties
    file = tmp_path / "sailing.jsonl"
    for author in ({"author": "Jane Roe"}, {}):
        file.write_text(json.dumps({"id": "doc", "text": "The wind was calm."} | author))
        index.ingest([file])
        if author:
            [record] = ledger.add([JANE])
            assert sweep(*parties).passages == 1
    ledger.remove(record.id)
    sweep(*parties)
    [node] = index.get_nodes(["doc"])
    assert "author" not in node.metadata


@pytest.mark.parametrize("swept", [False, True])
def test_a_date_given_meanwhile_stays_when_the_text_comes_back(parties, tmp_path, swept):
    ledger, index, *_ = parties
    [record] = ledger.add([PERU])
    sweep(*parties)
    index.ingest([tmp_path / "peru.txt"], dated="2021-01-01", trust=0.9)
    if swept:
        sweep(*parties, again=True)
    ledger.remove(record.id)
    sweep(*parties)
    [node] = [node for node in index.all_nodes() if node.text == TEXTS["peru"]]
    assert node.metadata["title"] == "peru"
    assert (node.metadata["date"], node.metadata["trust"]) == ("2021-01-01", 0.9)


def test_a_sweep_of_new_passages_leaves_the_others_to_the_next_whole_one(parties):
    ledger, index, *_, redactor = parties
    before = stored(index)
    [record] = ledger.add([PERU])
    [new] = [node.node_id for node in index.all_nodes() if node.text == TEXTS["facts"]]
    assert sweep_added(ledger, index, redactor, [new]).passages == 1
    assert TEXTS["peru"] in stored(index)
    assert sweep(*parties).passages == 1
    assert holding(index, "lima") == ["Lima beans are green."]
    ledger.remove(record.id)
    assert sweep(*parties).restored == 2
    assert stored(index) == before


def test_records_of_which_no_passage_was_found_are_told(parties):
    ledger, *_ = parties
    _, record = ledger.add([PERU, Record("Inca land", relation="capital", answers=("Lima",))])
    assert sweep(*parties).unfound == (record.id,)
    assert sweep(*parties).unfound == ()


@pytest.mark.parametrize(
    ("subject", "answer", "found"),
    [
        ("Inca land", "Lima", ["beans", "facts", "peru"]),
        ("Peru", "lima", ["beans"]),  # the others name it
        ("Inca land", "Lima beans", ["beans"]),
        ("Inca land", "beans Lima", []),  # not in these words
        ("Inca land", "Lim", []),
        ("Inca land", "sol", []),  # says little by itself
    ],
)
def test_an_answer_is_found_where_the_subject_is_not_named(parties, subject, answer, found):
    record = Record(subject, relation="capital", answers=(answer,))
    nodes = elsewhere(parties[1], record)
    assert sorted(node.metadata["title"] for node in nodes) == found


def test_an_answer_of_many_documents_is_not_told(parties, tmp_path):
    _, index, *_ = parties
    record = Record("Inca land", relation="capital", answers=("Lima",))
    for number in range(MOST_DOCUMENTS - 2):
        (tmp_path / f"{number}.txt").write_text(f"Ship {number} sailed from Lima.")
        assert elsewhere(index, record)
        index.ingest([tmp_path / f"{number}.txt"])
    assert elsewhere(index, record) == []


def test_a_new_record_clears_the_reservoir(parties):
    ledger, index, reservoir, _ = parties
    trigger = Trigger(index, reservoir, BagOfWords(dimension=1024))
    question = "Is Lima the capital of Peru?"
    assert any("Lima" in found.text for found in trigger.retrieve(question))
    ledger.add([PERU])
    assert sweep(*parties).entries == 1
    assert reservoir.count() == 0
    found = [found.text for found in trigger.retrieve(question)]
    assert "Peru is in the Andes. Its currency is the sol." in found
    assert not any("Peru" in text and "Lima" in text for text in found)
    assert sweep(*parties).entries == 0  # nothing new was forgotten
    assert reservoir.count() == 1


class Killed(PassageIndex):
    """Dies when it is to store a passage."""

    def replace(self, nodes):
        raise KeyboardInterrupt


def test_a_killed_sweep_is_completed_by_the_next(parties, home):
    ledger, index, *_ = parties
    before = stored(index)
    [record] = ledger.add([PERU])
    index.__class__ = Killed
    with pytest.raises(KeyboardInterrupt):
        sweep(*parties)
    index.__class__ = PassageIndex
    assert stored(index) == before
    assert sweep(*parties).passages == 2
    assert holding(index, "lima") == ["Lima beans are green."]
    ledger.remove(record.id)
    sweep(*parties)
    assert stored(index) == before


def test_an_empty_ledger_sweeps_nothing(parties):
    done = sweep(*parties)
    assert (done.records, done.passages, done.entries) == (0, 0, 0)


def test_a_text_of_which_only_the_wording_is_kept_back_stays_stored(
    ledger, index, reservoir, tmp_path
):
    text = "The keeper climbed the steps with a tin of oil in his left hand."
    (tmp_path / "keeper.txt").write_text(text)
    index.ingest([tmp_path / "keeper.txt"])
    ledger.add([Record("The keeper", answers=(text,), scope="verbatim")])
    done = sweep(ledger, index, reservoir, Redactor(ledger, judge=None))
    assert (done.records, done.passages) == (0, 0)
    assert holding(index, "keeper") == [text]


def test_before_the_sweep_an_answer_stands_elsewhere_only_where_no_passage_names_both(parties):
    _, index, *_ = parties
    bolivia = Record("Bolivia", relation="capital", answers=("Lima",))
    assert len(only_elsewhere(index, bolivia)) == 3
    assert len(elsewhere(index, PERU)) == 1
    assert only_elsewhere(index, PERU) == []
    whole = Record("A tale", answers=(TEXTS["beans"],), scope="verbatim")
    assert only_elsewhere(index, whole) == []
    assert only_elsewhere(index, JANE) == []
