import logging
import threading
from pathlib import Path

import numpy as np
import pytest

from foundation.errors import InputError
from retrieval.stores import faiss, snapshot
from retrieval.stores.sqlite import LocalStore
from tests.retrieval.stores.test_sqlite import nearest, nodes

LIMIT = 300


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "FLAT_LIMIT", LIMIT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Hold a background build at its end until this is set."""
    opened = threading.Event()
    save = snapshot.save

    def held_up(built: faiss.FaissIndex, path: Path) -> None:
        if threading.current_thread() is not threading.main_thread():
            opened.wait()
        save(built, path)

    monkeypatch.setattr(snapshot, "save", held_up)
    return opened


def kind(store: LocalStore) -> str:
    index = store._vectors._current
    assert index is not None
    return index.factory


def swapped(store: LocalStore, n: int) -> list[str]:
    """Ask once more when the index that is being built is finished."""
    store._vectors.wait()
    return nearest(store, n)


def test_a_big_index_becomes_approximate(folder: Path) -> None:
    store = LocalStore(folder, "model")
    store.add(nodes(0, LIMIT))
    assert nearest(store, 5)[0] == "n5"
    assert kind(store) == "Flat"
    store.add(nodes(LIMIT, LIMIT + 1))
    exact = [nearest(store, n, top_k=10) for n in range(50)]
    store._vectors.wait()
    assert [nearest(store, n, top_k=10) for n in range(50)] == exact
    assert "RaBitQ" in kind(store)
    reopened = LocalStore(folder, "model")
    assert [nearest(reopened, n, top_k=10) for n in range(50)] == exact
    assert kind(reopened) == kind(store)


def test_a_big_ingestion_ends_with_the_approximate_index(folder: Path) -> None:
    store = LocalStore(folder, "model")
    store.add(nodes(0, 100))
    store.finish()
    store.add(nodes(100, 450))
    store.finish()
    assert "RaBitQ" in kind(store)
    assert nearest(store, 444)[0] == "n444"


def test_queries_go_on_while_the_index_is_built(folder: Path, gate: threading.Event) -> None:
    store = LocalStore(folder, "model")
    store.add(nodes(0, 200))
    assert nearest(store, 5)[0] == "n5"
    store.add(nodes(200, LIMIT + 1))
    assert nearest(store, 5)[0] == "n5"  # starts the build, which now waits at the gate
    store.delete("d5")
    store.add(nodes(1000, 1001))
    assert "n5" not in nearest(store, 5, top_k=400)
    assert nearest(store, 1000)[0] == "n1000"
    assert kind(store) == "Flat"
    gate.set()
    assert "n5" not in swapped(store, 5)
    assert "RaBitQ" in kind(store)
    assert nearest(store, 1000)[0] == "n1000"
    assert len(nearest(store, 5, top_k=1000)) == LIMIT + 1


def test_removed_passages_are_never_found(folder: Path) -> None:
    store = LocalStore(folder, "model")
    store.add(nodes(0, 350))
    nearest(store, 0)
    swapped(store, 0)
    best = nearest(store, 7, top_k=20)
    for name in best:  # all that are near, so that many have to be passed over
        store.delete(name.replace("n", "d"))
        assert name not in nearest(store, 7, top_k=20)
    store.finish()
    for opened in (store, LocalStore(folder, "model")):
        assert len(nearest(opened, 7, top_k=20)) == 20
        assert not set(best) & set(nearest(opened, 7, top_k=350))
        assert len(nearest(opened, 7, top_k=350)) == 330
        assert opened.count() == 330


def test_an_index_worn_by_removals_is_built_anew(folder: Path) -> None:
    store = LocalStore(folder, "model")
    store.add(nodes(0, 400))
    assert nearest(store, 0)[0] == "n0"
    for n in range(50):
        store.delete(f"d{n}")
    nearest(store, 0)
    assert swapped(store, 99)[0] == "n99"
    index = store._vectors._current
    assert index is not None
    assert (index.index.ntotal, index.deleted) == (350, set())


def test_a_build_that_fails_leaves_the_index_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise MemoryError("no memory left")

    store = LocalStore(folder, "model")
    store.add(nodes(0, 200))
    nearest(store, 0)
    monkeypatch.setattr(snapshot, "save", full)
    store.add(nodes(200, 400))
    nearest(store, 0)
    for _ in range(3):
        assert swapped(store, 399)[0] == "n399"
    assert kind(store) == "Flat"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_clearing_during_a_build(folder: Path, gate: threading.Event) -> None:
    store = LocalStore(folder, "model")
    store.add(nodes(0, 200))
    nearest(store, 0)
    store.add(nodes(200, 400))
    nearest(store, 0)
    store.clear()
    gate.set()
    assert swapped(store, 0) == []
    store.add(nodes(7, 8))
    assert nearest(store, 0) == ["n7"]


def test_recall_of_the_approximate_index() -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(5000, 96)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    index = faiss.create_index(faiss.approximate_factory(96), 96)
    index.train(points)
    index.add_with_ids(points, np.arange(len(points)))
    state = faiss.FaissIndex(index, faiss.approximate_factory(96), "", 0, 0)
    queries = generator.normal(size=(50, 96)).astype(np.float32)
    faiss.set_candidates(state, 10)
    found = index.search(queries, 10)[1]
    exact = np.argsort(-(queries @ points.T), axis=1)[:, :10]
    hits = [len(set(a) & set(b)) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
    assert sum(hits) / 500 > 0.95


@pytest.mark.parametrize("dimension", [3, 100, 1024, 1100])
def test_approximate_index_of_other_dimensions(dimension: int) -> None:
    points = np.random.default_rng(0).normal(size=(1000, dimension)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    index = faiss.create_index(faiss.approximate_factory(dimension), dimension)
    index.train(points)
    index.add_with_ids(points, np.arange(1000))
    faiss.set_candidates(faiss.FaissIndex(index, "", "", 0, 0), 1)
    assert index.search(points[:20], 1)[1].ravel().tolist() == list(range(20))


def test_explicit_factory_is_kept_whatever_the_size(folder: Path) -> None:
    store = LocalStore(folder, "model", "IVF4,Flat")
    store.add(nodes(0, 400))
    assert nearest(store, 5)[0] == "n5"
    for n in range(0, 30):
        store.delete(f"d{n}")
    assert nearest(store, 35)[0] == "n35"  # others keep their numbers when some go
    assert kind(store) == "IVF4,Flat"
    with pytest.raises(InputError, match="no index 'Nonsense'"):
        LocalStore(folder, "model", "Nonsense")
