import json

import numpy as np
import pytest

from evaluation import report
from evaluation.bench import index as bench_index
from foundation.errors import InputError
from retrieval.stores.sqlite import LocalStore
from tests.retrieval.conftest import BagOfWords


@pytest.fixture
def result(monkeypatch):
    monkeypatch.setattr(bench_index, "QUERIES", 20)
    draws = {
        "like passages": bench_index.passage_like(BagOfWords(dimension=64)),
        "uniform": bench_index.uniform(64),
    }
    return bench_index.run(
        [100, 300], draws, lambda folder: LocalStore(folder, "bench"), kind="local"
    )


def test_each_size_is_measured_and_the_other_vectors_at_the_largest(result, tmp_path):
    report.write_json(result, tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    assert [(row["vectors"], row["passages"]) for row in rows] == [
        ("like passages", 100),
        ("like passages", 300),
        ("uniform", 300),
    ]
    for row in rows:
        assert row["recall_at_10"] == 1  # an exact index of this size
        assert row["found_after_deletion"] == 0
        assert 0 < row["query_ms_p50"] <= row["query_ms_p95"]
        assert row["disk_mb"] > 0
    assert bench_index.table(result).row_count == 3


def test_a_store_that_loses_passages_shows_in_recall():
    class Forgetful(LocalStore):
        def search_vectors(self, embeddings, top_k):
            return super().search_vectors(embeddings, top_k // 2)

    draws = {"uniform": bench_index.uniform(32)}
    [row] = bench_index.run([200], draws, lambda f: Forgetful(f, "bench"), kind="x")["rows"]
    assert row["recall_at_10"] == 0.5


def test_vectors_like_passages_have_length_one_and_near_neighbours():
    draw = bench_index.passage_like(BagOfWords(dimension=64))
    vectors = draw(np.random.default_rng(0), 500)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(500), abs=1e-5)
    cosines = vectors @ vectors.T
    assert np.median(cosines) > 0.1  # not spread evenly


def test_a_store_that_holds_passages_is_refused(tmp_path):
    def filled(folder):
        store = LocalStore(folder, "bench")
        store.add(bench_index._nodes(0, np.eye(32, dtype=np.float32), ["text"] * 32))
        return store

    with pytest.raises(InputError, match="holds passages"):
        bench_index.run([100], {"uniform": bench_index.uniform(32)}, filled, kind="local")
