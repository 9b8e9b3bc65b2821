import json

import pytest

from control.forgetting.record import Record
from control.forgetting.requests import read
from foundation.errors import DataError

PERU = {"subject": "Peru", "relation": "capital", "answers": ["Lima"]}


@pytest.fixture
def written(tmp_path):
    def write(*lines):
        path = tmp_path / "facts.jsonl"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


def test_records_are_read_with_all_their_fields(written):
    full = {
        **PERU,
        "aliases": ["Perú"],
        "questions": ["What is the capital of Peru?"],
        "answer_aliases": ["City of Kings"],
        "scope": "fact",
        "reason": "a request",
        "who": "me",
    }
    path = written(json.dumps(PERU), "", json.dumps(full, ensure_ascii=False))
    assert list(read(path)) == [
        Record("Peru", relation="capital", answers=("Lima",)),
        Record(**{name: tuple(v) if isinstance(v, list) else v for name, v in full.items()}),
    ]


def test_the_facts_of_evaluation_data_are_read(written):
    path = written(json.dumps({"fact": PERU, "probes": [{"kind": "direct"}], "neighbours": []}))
    assert [record.subject for record in read(path)] == ["Peru"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('["Peru"]', "list instead of an object"),
        ('{"relation": "capital", "answers": ["Lima"]}', "subject: .*required"),
        ('{"subject": "Peru", "relation": "capital", "answers": "Lima"}', "answers: .*tuple"),
        ('{"subject": "Peru", "relation": "capital", "answers": [5]}', "answers.0: .*string"),
        ('{"subject": "Peru", "alias": ["x"]}', "unknown field 'alias'.*aliases"),
        ('{"subject": "Peru", "relation": "capital", "answers": ["the"]}', "stop all answers"),
        ('{"subject": "Peru", "scope": "all"}', "scope: .*'fact', 'claim' or 'subject'"),
        ('{"fact": {"subject": ""}}', "nothing but space"),
    ],
)
def test_a_wrong_line_is_named(written, line, said):
    found = read(written(json.dumps(PERU), line))
    assert next(found).subject == "Peru"
    with pytest.raises(DataError, match=rf"facts\.jsonl, line 2: .*{said}") as caught:
        list(found)
    assert len(str(caught.value)) < 300


def test_ten_megabytes_of_answer_are_refused(written):
    path = written(json.dumps({**PERU, "answers": ["x" * 10_000_000]}))
    with pytest.raises(DataError, match="line 1: answer has 10,000,000 characters") as caught:
        list(read(path))
    assert len(str(caught.value)) < 300


def test_a_file_that_cannot_be_read_is_named(tmp_path, written):
    with pytest.raises(DataError, match=r"missing\.jsonl cannot be read"):
        list(read(tmp_path / "missing.jsonl"))
    with pytest.raises(DataError, match="cannot be read"):
        list(read(tmp_path))
    with pytest.raises(DataError, match="holds no record"):
        list(read(written("", " ")))
    path = written("x")
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="not UTF-8"):
        list(read(path))
