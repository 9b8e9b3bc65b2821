import json

import pytest

from foundation.errors import DataError
from training import corpus
from training.corpus import guess_kind


def written(tmp_path, *lines):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_the_built_in_corpus_keeps_the_test_relations_out():
    kinds = {fact.kind for fact in corpus.read()}
    assert "capital" in kinds
    assert kinds.isdisjoint({"continent", "painter", "composer"})


def test_squad_gives_its_answerable_questions(tmp_path):
    said = {"text": "in 1859", "answer_start": 0}
    asked = [
        {"id": "a", "question": "When was it opened? ", "answers": [said, said]},
        {"id": "b", "question": "Who sold it?", "answers": [], "is_impossible": True},
    ]
    paragraph = {"context": "It was opened in 1859 by nobody.", "qas": asked}
    path = tmp_path / "squad.json"
    data = {"data": [{"title": "It", "paragraphs": [paragraph]}]}
    path.write_text(json.dumps(data), encoding="utf-8")
    [fact] = corpus.read(path)
    assert (fact.id, fact.question, fact.answers) == ("a", "When was it opened?", ("in 1859",))
    assert fact.kind == "date"


def test_json_lines_state_the_kind_or_have_it_guessed(tmp_path):
    line = {"question": "Who?", "answers": ["Ada Lovelace"], "passage": "It was Ada Lovelace."}
    path = written(tmp_path, line, {**line, "kind": "programmer"})
    assert [fact.kind for fact in corpus.read(path)] == ["name", "programmer"]


@pytest.mark.parametrize(
    ("one", "other"), [("1859", "3 May 1859"), ("Rome", "a city"), ("gold", "Gold Coast")]
)
def test_answers_of_different_looks_are_of_different_kinds(one, other):
    assert guess_kind(one) != guess_kind(other)


def test_a_corpus_without_answers_is_refused_in_one_line(tmp_path):
    line = {"question": "Who?", "passage": "Nobody knows."}
    with pytest.raises(DataError, match="line 1: field 'answers' is missing"):
        corpus.read(written(tmp_path, line))
    with pytest.raises(DataError, match="none of its 1 questions has an answer that stands in"):
        corpus.read(written(tmp_path, {**line, "answers": ["Ada"]}))
    with pytest.raises(DataError, match="no questions"):
        corpus.read(written(tmp_path))


def test_two_questions_of_one_id_are_refused(tmp_path):
    line = {"id": 7, "question": "Who?", "answers": ["Ada"], "passage": "Ada."}
    with pytest.raises(DataError, match="2 questions have the id '7'"):
        corpus.read(written(tmp_path, line, line))
