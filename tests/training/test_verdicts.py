import json
import re
import tomllib
from collections import Counter, defaultdict

import pytest

from data.build import HERE, mentions
from training import verdicts


@pytest.fixture(scope="module")
def both():
    """Lessons to learn from, and those to choose the threshold on."""
    return verdicts.lessons()


@pytest.fixture(scope="module")
def every(both):
    return [*both[0], *both[1]]


@pytest.fixture(scope="module")
def conflicts():
    """The built-in conflicts by question."""
    lines = (HERE / "conflicts.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["question"]: record for record in map(json.loads, lines)}


def test_the_same_seed_gives_the_same_lessons(both):
    assert verdicts.lessons() == both
    assert verdicts.lessons(seed=1) != both


def test_no_lesson_is_about_a_relation_of_the_test_split(every):
    for relation in {lesson.relation for lesson in every}:
        text = (HERE / "relations" / f"{relation}.toml").read_text(encoding="utf-8")
        assert tomllib.loads(text)["split"] == "calibration"


def test_no_question_or_passage_of_the_test_split_is_seen(every):
    kept_back = set()
    for name in ("questions.jsonl", "conversations.jsonl", "conflicts.jsonl"):
        for record in map(json.loads, (HERE / name).read_text(encoding="utf-8").splitlines()):
            if record["split"] == "test":
                kept_back |= {record["question"], record.get("true_context"), record.get("context")}
    assert not kept_back & {text for lesson in every for text in (lesson.question, lesson.text)}


def test_the_threshold_is_chosen_on_relations_that_were_not_learned(both):
    learn, develop = both
    assert {lesson.relation for lesson in develop} == set(verdicts.DEVELOPMENT)
    assert not {lesson.relation for lesson in learn} & set(verdicts.DEVELOPMENT)
    assert not {lesson.text for lesson in learn} & {lesson.text for lesson in develop}


def test_both_verdicts_are_common_in_both_parts(both):
    for part in both:
        share = sum(lesson.answers for lesson in part) / len(part)
        assert len(part) > 1000
        assert 0.3 < share < 0.7


def test_a_passage_with_a_swapped_answer_answers_all_the_same(every, conflicts):
    swapped = [lesson for lesson in every if lesson.kind == "swapped"]
    assert swapped
    for lesson in swapped:
        assert lesson.answers
        assert lesson.text == conflicts[lesson.question]["context"]


def test_a_passage_from_which_the_answer_was_taken_seldom_holds_it_still(every, conflicts):
    """Now and then a sentence seems to end within a name: after "E." in "E. B. White"."""
    stripped = [lesson for lesson in every if lesson.kind == "stripped"]
    assert not any(lesson.answers for lesson in stripped)
    still = [
        lesson
        for lesson in stripped
        for answer in conflicts[lesson.question]["memory_answers"]
        if mentions(lesson.text, answer)
    ]
    assert len(still) < 0.01 * len(stripped)


def test_a_window_answers_only_if_the_answer_stands_in_it(every, conflicts):
    for lesson in every:
        if lesson.kind == "window":
            record = conflicts[lesson.question]
            answers = [*record["memory_answers"], *record["context_answers"]]
            if lesson.answers:
                assert any(mentions(lesson.text, answer) for answer in answers), lesson


def test_a_question_about_another_subject_is_not_answered(every, conflicts):
    own = {record["true_context"]: question for question, record in conflicts.items()}
    for lesson in every:
        if lesson.kind in ("other", "stranger"):
            assert not lesson.answers
            assert own[lesson.text] != lesson.question


def test_hardly_any_lesson_contradicts_another(every):
    """The same question on the same passage gets one verdict."""
    said = defaultdict(set)
    for lesson in every:
        said[lesson.question, lesson.text].add(lesson.answers)
    contradicted = [key for key, answers in said.items() if len(answers) > 1]
    assert len(contradicted) < 0.01 * len(said)


def test_every_way_of_asking_and_of_not_answering_is_there(every):
    kinds = Counter(lesson.kind for lesson in every)
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
    assert not any(re.search(r"[{}~]", lesson.question) for lesson in every)
