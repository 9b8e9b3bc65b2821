import numpy as np
import pytest

from control.forgetting import fact_index
from control.forgetting.fact_index import QuestionIndex


def unit(draw, count):
    vectors = draw.normal(size=(count, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("partitioned", [False, True])
def test_the_nearest_is_found_and_gone_once_removed(monkeypatch, partitioned):
    monkeypatch.setattr(fact_index, "FLAT_LIMIT", 1_000 if partitioned else 10_000)
    monkeypatch.setattr(fact_index, "CENTRES", "IVF8,SQfp16")
    draw = np.random.default_rng(0)
    vectors = unit(draw, 3_000)
    held = QuestionIndex()
    for start in range(0, 3_000, 500):  # two forms of each record
        keys = [f"r{number}" for number in range(start // 2, (start + 500) // 2)]
        held.add(keys, [2] * 250, vectors[start : start + 500])
    assert len(held) == 3_000
    for number in (0, 7, 1_499):
        [row] = held.search(vectors[[2 * number + 1]], 3)
        assert row[0] == (f"r{number}", 1)
    held.remove("r7")
    held.remove("r7")
    [row] = held.search(vectors[[15]], 3)
    assert "r7" not in [key for key, _ in row]
    assert len(held) == 2_998


def test_an_empty_index_finds_nothing():
    assert QuestionIndex().search(np.zeros((2, 16), np.float32), 3) == [[], []]
