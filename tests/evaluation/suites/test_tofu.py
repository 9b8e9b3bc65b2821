"""TOFU's forget quality and model utility, with systems that forget or do not."""

import math

import pytest

from evaluation.datasets.tofu import Benchmark, TofuQuestion
from evaluation.suites import tofu
from evaluation.suites.replies import GuardedReply

RIGHT, WRONG = math.log(0.8), math.log(0.2)
WORLD = "world facts"
QUESTIONS = tuple(
    TofuQuestion(part, f"{part} {number}?", "a red boat", "a boat that is red", ("a", "b", "c"))
    for part in ("forget", "retain", WORLD)
    for number in range(10)
)
BENCHMARK = Benchmark(("Ida Stone",), QUESTIONS, ("Q: ?\nA: a red boat",), ())


class Ledger:
    """Records in memory."""

    def __init__(self):
        self.kept = []

    def add(self, records):
        self.kept += records


class System:
    """Gives the right answer, unless the question is of the forgotten part and it has forgotten."""

    def __init__(self, forgets):
        self._forgets = forgets
        self.asked = 0

    def _knows(self, question, mode):
        return not (question.startswith("forget") and self._forgets(mode))

    def __call__(self, queries, mode, samples=1):
        self.asked += len(queries)
        texts = ["A red boat." if self._knows(q.question, mode) else "No." for q in queries]
        return [[GuardedReply(text, refused=text == "No.")] for text in texts]

    def log_probs(self, query, answers, mode):
        knows = self._knows(query.question, mode)
        right = RIGHT if knows else WRONG
        # Apart by question, so that a distribution is compared and not one value.
        told = right + 0.01 * int(query.question.split()[-1][:-1])
        return [right, told, *[WRONG for _ in answers[2:]]]


def rows_by_part(report, arm):
    return {row["part"]: row for row in report["tables"]["by part"] if row["documents"] == arm}


def test_what_forgets_is_like_what_never_had_the_documents(tmp_path):
    ledger = Ledger()
    system, never = System(lambda mode: mode != "off"), System(lambda mode: True)
    report = tofu.run("fake", system, never, ledger, BENCHMARK, tmp_path)

    assert [(each.subject, each.scope) for each in ledger.kept] == [("Ida Stone", "subject")]
    assert report["n"] == len(QUESTIONS)
    assert report["forget_quality"][tofu.BEFORE] < 0.001
    assert report["forget_quality"][tofu.AFTER] == pytest.approx(1)
    assert report["model_utility"][tofu.AFTER] == report["model_utility"][tofu.BEFORE]


def test_what_forgets_nothing_is_found_out(tmp_path):
    system, never = System(lambda mode: False), System(lambda mode: True)
    report = tofu.run("fake", system, never, Ledger(), BENCHMARK, tmp_path)
    assert report["forget_quality"][tofu.AFTER] < 0.001
    assert rows_by_part(report, tofu.AFTER)["forget"]["ROUGE-L"] == 100


def test_the_numbers_are_those_of_the_authors_definitions(tmp_path):
    system, never = System(lambda mode: mode != "off"), System(lambda mode: True)
    report = tofu.run("fake", system, never, Ledger(), BENCHMARK, tmp_path)
    rows = rows_by_part(report, tofu.BEFORE)
    spread = [math.exp(0.01 * number) for number in range(10)]

    assert rows["retain"]["probability"] == pytest.approx(80)
    # Short answers are a choice: 0.8 among 0.8 and three of 0.2.
    assert rows[WORLD]["probability"] == pytest.approx(100 * 0.8 / 1.4)
    assert rows["retain"]["ROUGE-L"] == 100
    ratios = [4 * each for each in spread]  # of 0.8 and 0.2
    told = sum(1 - 1 / ratio for ratio in ratios) / 10
    assert rows["retain"]["truth ratio"] == pytest.approx(100 * told)
    assert rows["forget"]["truth ratio"] == pytest.approx(sum(100 / each for each in ratios) / 10)

    six = [0.8, 1, told, 0.8 / 1.4, 1, told]
    utility = len(six) / sum(1 / each for each in six)
    assert report["model_utility"][tofu.BEFORE] == pytest.approx(utility)
    after = rows_by_part(report, tofu.AFTER)
    assert (after["forget"]["refused"], after["retain"]["refused"]) == (100, 0)
    assert after["forget"]["ROUGE-L"] == 0


def test_a_run_goes_on_where_it_was_interrupted(tmp_path):
    system, never = System(lambda mode: mode != "off"), System(lambda mode: True)
    first = tofu.run("fake", system, never, Ledger(), BENCHMARK, tmp_path)
    asked = system.asked, never.asked
    again = tofu.run("fake", system, never, Ledger(), BENCHMARK, tmp_path)
    assert (system.asked, never.asked) == asked
    assert again == first
