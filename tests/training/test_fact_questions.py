import json
from collections import Counter

from data import DIRECTORY as DATA
from training import fact_questions


def test_the_training_sees_no_relation_of_the_test_split():
    relations = {
        json.loads(line)["relation"].replace("_", " ")
        for line in (DATA / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        if json.loads(line)["split"] == "test"
    }
    fitted = {relation.noun for relation in fact_questions.relations()}
    assert not relations & fitted


def test_each_record_is_asked_for_and_asked_beside():
    made = fact_questions.build_cases()
    for case in made:
        asks = Counter(asked.asks for asked in case.questions)
        assert asks[True]
        assert asks[False]
    kinds = {asked.kind for case in made for asked in case.questions}
    assert {"paraphrase", "reverse", "same answer"} <= kinds
