import json
from collections import Counter

import pytest

from evaluation.datasets import questions
from evaluation.datasets.questions import RetrievalQuestion
from foundation.errors import DataError
from retrieval.ingest import documents
from retrieval.ingest.chunking import split

KINDS = {"plain", "follow-up", "ambiguous", "two-hop", "comparison"}


def item(**changes):
    values = {"id": "1", "kind": "plain", "question": "Who?", "history": (), "answers": ("she",)}
    return RetrievalQuestion(**{**values, "evidence": (("a",), ("b",)), **changes})


def test_a_question_is_recalled_when_all_that_it_needs_is_found():
    assert item().recalled(["x", "b", "a"])
    assert not item().recalled(["a", "a", "x"])
    assert item(evidence=(("a", "b"),)).recalled(["b"])
    assert not item(evidence=((),)).recalled(["x"])  # what was never ingested
    assert item().recalled(["a:3", "b:0"])  # of a long passage a part is enough
    assert not item().recalled(["a:0", "a:1"])


@pytest.mark.parametrize("split", ["calibration", "test"])
def test_the_built_in_questions_of_a_split_are_of_all_kinds(split):
    items = questions.built_in(split)
    counts = Counter(item.kind for item in items)
    assert set(counts) == KINDS
    assert all(counts[kind] >= 150 for kind in KINDS)
    assert len({item.id for item in items}) == len(items)
    for item in items:
        assert item.answers
        assert len(item.evidence) == (1 + (item.kind in ("two-hop", "comparison")))
        assert bool(item.history) == (item.kind == "follow-up")


def test_the_splits_have_no_question_in_common():
    calibration, test = (
        {item.id for item in questions.built_in(split)} for split in ("calibration", "test")
    )
    assert calibration
    assert not calibration & test


def test_a_limit_holds_for_each_kind():
    items = questions.built_in("test", limit=3)
    assert Counter(item.kind for item in items) == dict.fromkeys(KINDS, 3)
    assert {item.id for item in items} <= {item.id for item in questions.built_in("test")}


RECORD = {
    "question": "Where was Ann born?",
    "documents": [
        {"text": "Ann was born in Rome.", "type": "correct", "answer": "Rome"},
        {"text": "Ann was born in Oslo.", "type": "misinfo", "answer": "Oslo"},
        {"text": "Ann likes tea.", "type": "noise", "answer": "unknown"},
        {"text": "The other Ann was born in Bonn.", "type": "correct", "answer": "Bonn"},
    ],
    "gold_answers": ["Rome", "Bonn"],
    "wrong_answers": ["Oslo"],
}


@pytest.fixture
def ramdocs(tmp_path):
    """Write records, each the changes to one."""
    path = tmp_path / "RAMDocs.jsonl"

    def write(*changes):
        path.write_text("".join(json.dumps(RECORD | change) + "\n" for change in changes))
        return path

    return write


def test_ramdocs_becomes_questions_whose_passages_are_in_the_corpus(ramdocs, tmp_path):
    path = ramdocs({}, {"question": "Where was Bob born?"})
    items = questions.ramdocs(path)
    assert [item.question for item in items] == ["Where was Ann born?", "Where was Bob born?"]
    corpus = documents.read([questions.corpus(path, tmp_path / "out")], on_skipped=pytest.fail)
    passages = [node for document in corpus for node in split(document)]
    texts = {node.node_id.split(":")[0]: node.get_content() for node in passages}
    assert len(texts) == len(passages) == 8
    for item in items:
        assert item.answers == ("Rome", "Bonn")
        assert item.recalled(item.serving()[:1])  # one of the right documents is enough
        assert [texts[passage] for passage in item.serving()] == [
            "Ann was born in Rome.",
            "The other Ann was born in Bonn.",
        ]
        assert [texts[passage] for passage in item.noise] == ["Ann likes tea."]


def test_of_ramdocs_a_limit_takes_so_many_questions(ramdocs):
    path = ramdocs({}, {}, {})
    items = questions.ramdocs(path, limit=2)
    assert len(items) == 2
    assert set(items) <= set(questions.ramdocs(path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"question": ""}, "line 2: field 'question'"),
        ({"documents": None}, "line 2: field 'documents' must be a list of objects"),
        ({"documents": ["text"]}, "line 2: field 'documents' must be a list of objects"),
        ({"gold_answers": []}, "line 2: field 'gold_answers'"),
    ],
)
def test_a_record_that_is_not_ramdocs_is_named(ramdocs, change, says):
    with pytest.raises(DataError, match=says):
        questions.ramdocs(ramdocs({}, change))
