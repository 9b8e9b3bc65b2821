import numpy as np
import pytest

from evaluation import metrics


@pytest.mark.parametrize(
    ("answer", "wanted", "held"),
    [
        ("The capital is Brasília.", ["Brasilia"], True),
        ("It is in the U.S. state of Ohio.", ["U.S."], True),
        ("Let us see.", ["U.S."], False),
        ("He is German.", ["Germany"], False),
        ("GERMANY!", ["France", "Germany"], True),
        ("", ["Germany"], False),
        ("anything", ["..."], False),
    ],
)
def test_an_answer_is_held_as_whole_words(answer, wanted, held):
    assert metrics.holds(answer, wanted) is held


def flags(*values):
    return np.array(values, dtype=bool)


def test_reliance_counts_as_the_paper_does():
    row = metrics.reliance(con=flags(1, 1, 0, 0, 1), par=flags(0, 0, 1, 0, 1))
    assert row["ConR"] == 60
    assert row["ParR"] == 40
    assert row["MR"] == 40
    assert row["hit"] == 80
    assert row["ci"]["hit"][0] <= 80 <= row["ci"]["hit"][1]


def test_an_interval_narrows_with_more_items():
    few, many = flags(*[1, 0] * 10), flags(*[1, 0] * 500)
    widths = [
        high - low for low, high in (metrics.interval(metrics.percent, f) for f in (few, many))
    ]
    assert widths[0] > 3 * widths[1]


def test_no_answers_at_all_is_zero_and_no_nan():
    row = metrics.reliance(flags(), flags())
    assert row["MR"] == row["hit"] == 0
    assert metrics.reliance(flags(0, 0), flags(0, 0))["MR"] == 0


def test_a_paired_test_sees_only_the_items_that_differ():
    first, second = flags(*[1] * 30, *[0] * 10), flags(*[1] * 20, *[0] * 20)
    assert metrics.mcnemar(first, second) == pytest.approx(2 * 0.5**10)
    assert metrics.mcnemar(first, first) == 1


def test_harmonic_mean_is_zero_if_either_is():
    assert metrics.harmonic_mean(100, 0) == 0
    assert metrics.harmonic_mean(80, 40) == pytest.approx(53.33, abs=0.01)


@pytest.mark.parametrize(
    ("answer", "right", "f1"),
    [
        ("Jane Austen", "Jane Austen", 1),
        ("jane austen.", "Jane AUSTEN", 1),
        ("It was Jane Austen", "Jane Austen", 2 * 2 / (4 + 2)),
        ("Austen", "Jane Austen", 2 * 1 / (1 + 2)),
        ("New York, New Jersey", "New York", 2 * 2 / (4 + 2)),  # a word counts as often as in both
        ("Emma", "Jane Austen", 0),
        ("", "Jane Austen", 0),
        ("...", "...", 0),
    ],
)
def test_f1_counts_the_words_in_common(answer, right, f1):
    assert metrics.token_f1(answer, right) == pytest.approx(f1)
    assert metrics.token_f1(right, answer) == pytest.approx(f1)
