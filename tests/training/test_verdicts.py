import json
import re
import tomllib
from collections import Counter, defaultdict

import pytest

from data.build import HERE, mentions
from training import verdicts


@pytest.fixture(scope="module")
def both():
    """Examples to learn from, and those to choose the threshold on."""
    return verdicts.build_examples()


@pytest.fixture(scope="module")
def every(both):
    return [*both[0], *both[1]]


@pytest.fixture(scope="module")
def conflicts():
    """The built-in conflicts by question."""
    lines = (HERE / "conflicts.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["question"]: record for record in map(json.loads, lines)}


def test_the_same_seed_gives_the_same_lessons(both):
    assert verdicts.build_examples() == both
    assert verdicts.build_examples(seed=1) != both


def test_no_lesson_is_about_a_relation_of_the_test_split(every):
    for relation in {example.relation for example in every}:
        text = (HERE / "relations" / f"{relation}.toml").read_text(encoding="utf-8")
        assert tomllib.loads(text)["split"] == "calibration"


def test_no_question_or_passage_of_the_test_split_is_seen(every):
    kept_back = set()
    for name in ("questions.jsonl", "conversations.jsonl", "conflicts.jsonl"):
        for record in map(json.loads, (HERE / name).read_text(encoding="utf-8").splitlines()):
            if record["split"] == "test":
                kept_back |= {record["question"], record.get("true_context"), record.get("context")}
    assert not kept_back & {text for example in every for text in (example.question, example.text)}


def test_the_threshold_is_chosen_on_relations_that_were_not_learned(both):
    learn, develop = both
    assert {example.relation for example in develop} == set(verdicts.DEVELOPMENT)
    assert not {example.relation for example in learn} & set(verdicts.DEVELOPMENT)
    assert not {example.text for example in learn} & {example.text for example in develop}


def test_both_verdicts_are_common_in_both_parts(both):
    for part in both:
        share = sum(example.answers for example in part) / len(part)
        assert len(part) > 1000
        assert 0.3 < share < 0.7


def test_a_passage_with_a_swapped_answer_answers_all_the_same(every, conflicts):
    swapped = [example for example in every if example.kind == "swapped"]
    assert swapped
    for example in swapped:
        assert example.answers
        assert example.text == conflicts[example.question]["context"]


def test_a_passage_from_which_the_answer_was_taken_seldom_holds_it_still(every, conflicts):
    """Now and then a sentence seems to end within a name: after "E." in "E. B. White"."""
    stripped = [example for example in every if example.kind == "stripped"]
    assert not any(example.answers for example in stripped)
    still = [
        example
        for example in stripped
        for answer in conflicts[example.question]["memory_answers"]
        if mentions(example.text, answer)
    ]
    assert len(still) < 0.01 * len(stripped)


def test_a_window_answers_only_if_the_answer_stands_in_it(every, conflicts):
    for example in every:
        if example.kind == "window":
            record = conflicts[example.question]
            answers = [*record["memory_answers"], *record["context_answers"]]
            if example.answers:
                assert any(mentions(example.text, answer) for answer in answers), example


def test_a_question_about_another_subject_is_not_answered(every, conflicts):
    own = {record["true_context"]: question for question, record in conflicts.items()}
    for example in every:
        if example.kind in ("other", "stranger"):
            assert not example.answers
            assert own[example.text] != example.question


def test_hardly_any_lesson_contradicts_another(every):
    """The same question on the same passage gets one verdict."""
    said = defaultdict(set)
    for example in every:
        said[example.question, example.text].add(example.answers)
    contradicted = [key for key, answers in said.items() if len(answers) > 1]
    assert len(contradicted) < 0.01 * len(said)


def test_every_way_of_asking_and_of_not_answering_is_there(every):
    kinds = Counter(example.kind for example in every)
    assert set(kinds) == {
        "own",
        "swapped",
        "column",
        "absent",
        "other",
        "stranger",
        "stripped",
        "window",
    }
    assert not any(re.search(r"[{}~]", example.question) for example in every)
