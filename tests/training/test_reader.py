"""Training the reader: examples, and a run of two steps that another one goes on from."""

import pytest

from control.conflict import reader as readers
from control.conflict.reader import DATE_QUESTION
from foundation.errors import ModelError
from foundation.text import find
from retrieval.embedding import packaged_model
from retrieval.ingest.dates import first_date
from training import reader, reading


def test_every_answer_of_the_examples_stands_in_its_text():
    examples = reading.build([])
    assert len(examples) > 10_000
    assert all(find(one.text, one.answer) for one in examples if one.answer)
    questions = {one.question for one in examples}
    assert DATE_QUESTION in questions


def test_both_versions_of_a_document_are_on_one_side():
    held_out, learned = reading.dated(held_out=True), reading.dated()
    assert len(held_out) % 2 == len(learned) % 2 == 0
    asked = [
        {each["question"] for record in side for each in record["questions"]}
        for side in (held_out, learned)
    ]
    assert not asked[0] & asked[1]


def test_what_is_marked_as_the_date_of_a_document_is_one():
    dated = [record for record in reading.dated() if record["dated"]]
    found = [(first_date(record["dated"]), record["date"]) for record in dated]
    assert all(date and stated.startswith(date) for date, stated in found)


def test_a_run_leaves_an_adapter_that_another_one_goes_on_from(tmp_path):
    first = reader.train(tmp_path / "first", smoke=True)
    second = reader.train(tmp_path / "second", smoke=True, start=first)
    loaded = readers.load(packaged_model(), second)
    assert len(loaded.read([("Who leads it?", "Ms Oduya leads the archive.")])) == 1
    with pytest.raises(ModelError, match="holds no adapter to go on from"):
        reader.train(tmp_path / "third", smoke=True, start=tmp_path)
