import logging
import multiprocessing
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from sqlalchemy import inspect

from foundation.errors import IndexStateError, InputError
from retrieval.embedding import unit_vectors
from retrieval.ingest.chunking import passage
from retrieval.stores.sqlite import LocalStore
from retrieval.stores.sqlite_tables import IndexTables

DIMENSION = 16


def nodes(start: int, stop: int, document: str | None = None) -> list:
    made = []
    for n in range(start, stop):
        node = passage(
            f"n{n}", document or f"d{n}", f"text {n}", {"title": "t", "content_hash": f"h{n}"}
        )
        node.embedding = vector(n)
        made.append(node)
    return made


def vector(n: int) -> list[float]:
    return (np.random.default_rng(n).normal(size=DIMENSION) * 3).tolist()


def nearest(store: LocalStore, n: int, top_k: int = 3) -> list[str]:
    query = VectorStoreQuery(query_embedding=vector(n), similarity_top_k=top_k)
    return store.query(query).ids or []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def store(folder: Path) -> LocalStore:
    filled = LocalStore(folder, "model")
    filled.add(nodes(0, 100))
    filled.finish()
    return filled


def test_query_gives_exact_cosines(store: LocalStore) -> None:
    result = store.query(VectorStoreQuery(query_embedding=vector(200), similarity_top_k=100))
    matrix = np.array([vector(n) for n in range(100)])
    query = np.array(vector(200))
    cosines = matrix @ query / np.linalg.norm(matrix, axis=1) / np.linalg.norm(query)
    order = np.argsort(-cosines)
    assert result.ids == [f"n{n}" for n in order]
    assert result.similarities == pytest.approx(cosines[order].tolist(), abs=1e-5)
    assert nearest(store, 5, top_k=1000)[0] == "n5"
    assert len(nearest(store, 5, top_k=1000)) == 100


def test_nodes_come_back_as_they_went_in(store: LocalStore) -> None:
    (node,) = store.get_nodes(["n7", "unknown"])
    (given,) = nodes(7, 8)
    given.embedding = unit_vectors([given.embedding])[0].tolist()
    assert node == given
    assert node.ref_doc_id == "d7"
    assert [node.node_id for node in store.get_nodes()] == [f"n{n}" for n in range(100)]


def test_removed_text_does_not_lie_in_the_file(store: LocalStore, folder: Path) -> None:
    def lies_there() -> bool:
        with sqlite3.connect(folder / "passages.db") as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return any(b"text 7 of n7" in file.read_bytes() for file in folder.glob("passages.db*"))

    node = passage("n7", "d7", "text 7 of n7", {"title": "t", "content_hash": "h"})
    node.embedding = vector(7)
    store.add([node])
    assert lies_there()
    store.remove_document("d7")
    assert not lies_there()


def test_adding_again_replaces(store: LocalStore) -> None:
    assert store.add(nodes(5, 7)) == ["n5", "n6"]
    assert store.count() == 100
    assert nearest(store, 5)[0] == "n5"
    assert len(set(nearest(store, 5, top_k=100))) == 100


def test_clear_allows_another_model(store: LocalStore, folder: Path) -> None:
    store.clear()
    assert (store.count(), nearest(store, 5)) == (0, [])
    other = LocalStore(folder, "other")
    node = passage("x", "x", "text", {"title": "t", "content_hash": "h"})
    node.embedding = [1.0, 0.0, 0.0]
    other.add([node])
    result = other.query(VectorStoreQuery(query_embedding=[2.0, 0.0, 0.0]))
    assert (result.ids, result.similarities) == (["x"], [1.0])
    with pytest.raises(IndexStateError, match="other"):
        nearest(store, 5)


def test_what_it_cannot_do_is_said(store: LocalStore) -> None:
    filters = MetadataFilters(
        filters=[MetadataFilter(key="a", value="b", operator=FilterOperator.EQ)]
    )
    for query in (
        VectorStoreQuery(query_embedding=vector(1), filters=filters),
        VectorStoreQuery(query_embedding=vector(1), doc_ids=["d1"]),
        VectorStoreQuery(query_str="text"),
    ):
        with pytest.raises(InputError, match="the local index"):
            store.query(query)
    with pytest.raises(InputError, match="filter"):
        store.get_nodes(filters=filters)


def _missing(snapshot: Path) -> None:
    snapshot.unlink()


def _truncated(snapshot: Path) -> None:
    snapshot.write_bytes(snapshot.read_bytes()[:-40])


def _flipped(snapshot: Path) -> None:
    data = bytearray(snapshot.read_bytes())
    data[-1000] ^= 255
    snapshot.write_bytes(data)


def _garbage(snapshot: Path) -> None:
    snapshot.write_bytes(b"\0garbage" * 500)


def _empty(snapshot: Path) -> None:
    snapshot.write_bytes(b"")


@pytest.mark.parametrize("harm", [_missing, _truncated, _flipped, _garbage, _empty])
def test_snapshot_is_repaired(
    store: LocalStore, folder: Path, harm: Callable[[Path], None]
) -> None:
    snapshot = folder / "passages.faiss"
    whole = snapshot.read_bytes()
    harm(snapshot)
    reopened = LocalStore(folder, "model")
    assert nearest(reopened, 42, top_k=100) == nearest(store, 42, top_k=100)
    assert snapshot.read_bytes() == whole


def test_fresh_snapshot_is_used(store: LocalStore, folder: Path, caplog) -> None:
    with caplog.at_level(logging.INFO, logger="retrieval.stores.faiss"):
        assert nearest(LocalStore(folder, "model"), 42)[0] == "n42"
    assert not caplog.records


def test_stale_snapshot_is_brought_up_to_date(store: LocalStore, folder: Path) -> None:
    store.add(nodes(100, 110))
    store.delete("d42")
    reopened = LocalStore(folder, "model")
    assert nearest(reopened, 105)[0] == "n105"
    assert "n42" not in nearest(reopened, 42, top_k=200)
    assert len(nearest(reopened, 42, top_k=200)) == 109


def test_snapshot_of_another_database_is_not_used(store: LocalStore, folder: Path) -> None:
    for file in folder.glob("passages.db*"):
        file.unlink()
    reopened = LocalStore(folder, "model")
    assert nearest(reopened, 5) == []
    reopened.add(nodes(300, 302))
    assert set(nearest(reopened, 5)) == {"n300", "n301"}


def test_unwritable_snapshot_harms_nothing(store: LocalStore, folder: Path, caplog) -> None:
    (folder / "passages.faiss").unlink()
    (folder / "passages.faiss").mkdir()
    (folder / "passages.faiss" / "file").touch()
    reopened = LocalStore(folder, "model")
    assert nearest(reopened, 42)[0] == "n42"


@pytest.mark.parametrize("factory", ["HNSW8", "IVF4,Flat", "SQ8"])
def test_other_factories(folder: Path, factory: str) -> None:
    store = LocalStore(folder, "model", factory)
    store.add(nodes(0, 200))
    assert nearest(store, 5)[0] == "n5"
    store.delete("d5")
    store.add(nodes(200, 201))
    assert "n5" not in nearest(store, 5, top_k=50)
    assert nearest(store, 200)[0] == "n200"
    assert nearest(LocalStore(folder, "model", "Flat"), 7)[0] == "n7"


def test_factory_that_needs_more_passages(folder: Path) -> None:
    store = LocalStore(folder, "model", "IVF64,Flat")
    store.add(nodes(0, 3))
    with pytest.raises(InputError, match=r"'IVF64,Flat' cannot be trained on 3 passages"):
        nearest(store, 1)


def test_other_file_in_place_of_the_database(store: LocalStore, folder: Path) -> None:
    store.client.dispose()
    for file in folder.glob("passages.db*"):
        file.unlink()
    (folder / "passages.db").write_bytes(b"This is a letter and not a database. " * 200)
    with pytest.raises(IndexStateError, match=r"passages\.db is damaged .*; remove it") as caught:
        LocalStore(folder, "model")
    assert "\n" not in str(caught.value)


def test_damaged_database(folder: Path) -> None:
    store = LocalStore(folder, "model")
    store.add(nodes(0, 2000))
    store.client.dispose()
    database = folder / "passages.db"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(database.read_bytes())
    for start in range(8192, len(data), 4096):  # all but the schema
        data[start : start + 200] = b"\xff" * 200
    database.write_bytes(data)
    with pytest.raises(IndexStateError, match="is damaged"):
        nearest(LocalStore(folder, "model"), 3)


def test_database_of_a_newer_version(store: LocalStore, folder: Path) -> None:
    with sqlite3.connect(folder / "passages.db") as connection:
        connection.execute("INSERT INTO migrations VALUES ('0999 the future')")
    with pytest.raises(IndexStateError, match=r"newer version \(it has had '0999 the future'\)"):
        LocalStore(folder, "model")


def test_migrations_give_the_tables_of_the_models(store: LocalStore) -> None:
    inspector = inspect(store.client)
    for table in IndexTables.metadata.sorted_tables:
        columns = {c["name"]: str(c["type"]) for c in inspector.get_columns(table.name)}
        dialect = store.client.dialect
        assert columns == {c.name: c.type.compile(dialect) for c in table.columns}
        indexed = {tuple(index["column_names"]) for index in inspector.get_indexes(table.name)}
        unique = inspector.get_unique_constraints(table.name)
        indexed |= {tuple(constraint["column_names"]) for constraint in unique}
        assert indexed == {(c.name,) for c in table.columns if c.index or c.unique}


def _add(folder: Path, start: int) -> None:
    store = LocalStore(folder, "model")
    for n in range(start, start + 200, 20):
        store.add(nodes(n, n + 20))
        assert nearest(store, n)[0] == f"n{n}"
        store.delete(f"d{n}")
    store.finish()


@pytest.mark.kill
def test_processes_write_at_the_same_time(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_add, args=(folder, start)) for start in (0, 1000, 2000)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    store = LocalStore(folder, "model")
    assert store.count() == 570
    assert len(nearest(store, 1, top_k=600)) == 570


def test_removed_text_is_on_the_disk_no_more(folder: Path, store: LocalStore) -> None:
    [secret] = nodes(200, 201)
    secret.set_content("the seal of Ostrava is under the stairs")
    store.add([secret])
    [public] = nodes(200, 201)
    store.add([public])
    store.remove_document("d1")
    kept = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    assert b"text 200" in kept
    assert b"Ostrava" not in kept
    assert store.query(VectorStoreQuery(query_embedding=vector(200), similarity_top_k=1)).ids
