import json
import math
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.schema import NodeWithScore, TextNode
from sqlalchemy import inspect

from foundation.errors import IndexStateError, InputError, ModelError
from foundation.sqlite import open_database, writing
from retrieval.reservoir import DAY, MIGRATIONS, Reservoir, ReservoirTables
from tests.retrieval.conftest import BagOfWords

STATE = "of the index"


class Clock:
    """Stands still until told otherwise."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


def vector(text: str) -> list[float]:
    return BagOfWords()._vector(text)


def ranking(*ids: str) -> list[NodeWithScore]:
    """Passages with scores of 0.9, 0.8 and so on."""
    return [
        NodeWithScore(node=TextNode(id_=name, text=f"text of {name}"), score=0.9 - place / 10)
        for place, name in enumerate(ids)
    ]


def remember(reservoir: Reservoir, query: str, *ids: str, state: str = STATE) -> None:
    reservoir.remember(state, [vector(query)], [ranking(*ids)])


def near(
    reservoir: Reservoir, query: str, tau: float = 0.5, state: str = STATE
) -> list[str] | None:
    """The ids that the nearest search found, if that is near enough."""
    [found] = reservoir.recall(state, [vector(query)], tau)
    return None if found is None else [node_id for node_id, _ in found]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reservoir(home: Path, clock: Clock) -> Reservoir:
    return Reservoir(home, max_entries=5, max_age_days=10, now=clock)


def test_a_search_comes_back_with_its_whole_ranking(reservoir: Reservoir) -> None:
    remember(reservoir, "how long is the Rhine", "b", "a", "c")
    [found] = reservoir.recall(STATE, [vector("how long is the Rhine")], 0.99)
    assert found is not None
    assert [name for name, _ in found] == ["b", "a", "c"]
    assert [score for _, score in found] == pytest.approx([0.9, 0.8, 0.7])


def test_the_nearest_search_that_is_near_enough(reservoir: Reservoir) -> None:
    remember(reservoir, "Rhine", "one")
    remember(reservoir, "Rhine length", "two")
    remember(reservoir, "Elbe mouth", "three")
    assert near(reservoir, "Rhine length") == ["two"]
    assert near(reservoir, "Rhine length in km") == ["two"]
    assert near(reservoir, "Rhine length in km", tau=0.8) is None
    assert near(reservoir, "Oder") is None


def test_each_of_several_queries_is_judged_by_its_own_cosine(reservoir: Reservoir) -> None:
    remember(reservoir, "Rhine length", "one")
    queries = [vector(text) for text in ("Rhine length", "Rhine", "Oder")]
    assert [found is not None for found in reservoir.recall(STATE, queries, 0.9)] == [
        True,
        False,
        False,
    ]


def test_empty_reservoir(reservoir: Reservoir) -> None:
    assert reservoir.recall(STATE, [], 0.5) == []
    assert near(reservoir, "anything") is None
    assert (reservoir.count(), reservoir.clear()) == (0, 0)
    reservoir.remember(STATE, [], [])
    remember(reservoir, "Rhine")  # it found nothing
    assert near(reservoir, "Rhine") == []


def test_after_a_change_of_the_index_nothing_earlier_is_recalled(reservoir: Reservoir) -> None:
    remember(reservoir, "Rhine", "old")
    assert near(reservoir, "Rhine", state="changed") is None
    remember(reservoir, "Rhine", "new", state="changed")
    assert near(reservoir, "Rhine", state="changed") == ["new"]
    assert near(reservoir, "Rhine") is None
    assert reservoir.count() == 1


def test_the_oldest_go_first(reservoir: Reservoir) -> None:
    for n in range(7):
        remember(reservoir, f"river{n}", f"r{n}")
    assert reservoir.count() == 5
    assert [near(reservoir, f"river{n}") for n in (1, 2, 6)] == [None, ["r2"], ["r6"]]


def test_too_old_goes(reservoir: Reservoir, clock: Clock) -> None:
    remember(reservoir, "river1", "r1")
    clock.time += 9 * DAY
    remember(reservoir, "river2", "r2")
    assert near(reservoir, "river1") == ["r1"]
    clock.time += 2 * DAY
    assert near(reservoir, "river1") is None
    remember(reservoir, "river3", "r3")
    assert reservoir.count() == 2


def test_cleared(reservoir: Reservoir) -> None:
    for n in range(3):
        remember(reservoir, f"river{n}", f"r{n}")
    assert near(reservoir, "river1") == ["r1"]
    assert reservoir.clear() == 3
    assert near(reservoir, "river1") is None
    remember(reservoir, "river1", "again")
    assert near(reservoir, "river1") == ["again"]


def test_two_see_each_other_at_once(home: Path) -> None:
    one, two = Reservoir(home), Reservoir(home)
    remember(one, "river1", "r1")
    assert near(two, "river1") == near(one, "river1") == ["r1"]
    remember(two, "river3", "r3")
    assert near(one, "river3") == ["r3"]
    one.clear()
    remember(one, "river4", "r4")
    remember(one, "river5", "r5")  # as many entries as before
    assert near(two, "river1") is None
    assert near(two, "river5") == ["r5"]


def test_state_outlives_the_object(home: Path) -> None:
    remember(Reservoir(home), "river2", "r2")
    assert near(Reservoir(home), "river2") == ["r2"]


def test_no_text_is_stored(home: Path, reservoir: Reservoir) -> None:
    remember(reservoir, "a secret question", "r1")
    files = list(home.glob("reservoir.db*"))
    assert any(b"r1" in file.read_bytes() for file in files)
    for word in (b"secret", b"text of"):
        assert not any(word in file.read_bytes() for file in files)


def test_texts_of_an_earlier_version_are_erased(home: Path) -> None:
    home.mkdir()
    path = home / "reservoir.db"
    engine = open_database(path, MIGRATIONS[:2])
    columns = "content_hash, node_id, document_id, title, text, details, embedding_name"
    with writing(engine, path) as connection:
        connection.exec_driver_sql(
            f"INSERT INTO entries ({columns}, embedding, created, useful, uses) "  # noqa: S608
            "VALUES ('h', 'r1', 'd1', 'Rhine', 'It is 1,233 km long.', '{}', 'm', x'00', 1, 1, 1)"
        )
    engine.dispose()
    reservoir = Reservoir(home)
    assert (reservoir.count(), near(reservoir, "Rhine")) == (0, None)
    remember(reservoir, "Rhine", "r1")
    assert near(reservoir, "Rhine") == ["r1"]
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    assert not any(b"1,233 km" in file.read_bytes() for file in home.glob("reservoir.db*"))


def test_another_dimension_or_a_damaged_vector_is_not_recalled(
    home: Path, reservoir: Reservoir, clock: Clock
) -> None:
    remember(reservoir, "river1", "r1")
    remember(reservoir, "river2", "r2")
    assert reservoir.recall(STATE, [[1.0, 0.0]], -1.0) == [None]
    with sqlite3.connect(home / "reservoir.db") as connection:
        connection.execute("UPDATE searches SET embedding = x'0011' WHERE rowid = 2")
    connection.close()
    assert near(Reservoir(home, now=clock), "river1 river2") == ["r1"]


def test_numbers_that_are_none_are_not_kept(reservoir: Reservoir) -> None:
    with pytest.raises(ModelError, match="not finite"):
        reservoir.remember(STATE, [[math.nan, 1.0]], [ranking("r1")])
    assert reservoir.count() == 0


def test_size_out_of_range(home: Path) -> None:
    with pytest.raises(InputError, match="size is 0; give 1 entry or more"):
        Reservoir(home, max_entries=0)


@pytest.mark.parametrize("days", [0, -1, math.nan])
def test_age_out_of_range(home: Path, days: float) -> None:
    with pytest.raises(InputError, match="give more than 0"):
        Reservoir(home, max_age_days=days)


def test_damaged_database(home: Path) -> None:
    home.mkdir()
    (home / "reservoir.db").write_bytes(b"This is a letter and not a database. " * 200)
    with pytest.raises(IndexStateError, match=r"reservoir\.db is damaged .*; remove it") as caught:
        Reservoir(home)
    assert "\n" not in str(caught.value)


def test_migrations_give_the_tables_of_the_models(reservoir: Reservoir) -> None:
    inspector = inspect(reservoir._engine)
    assert set(inspector.get_table_names()) == {*ReservoirTables.metadata.tables, "migrations"}
    for table in ReservoirTables.metadata.sorted_tables:
        columns = {c["name"]: str(c["type"]) for c in inspector.get_columns(table.name)}
        dialect = reservoir._engine.dialect
        assert columns == {c.name: c.type.compile(dialect) for c in table.columns}
        indexed = {tuple(index["column_names"]) for index in inspector.get_indexes(table.name)}
        assert indexed == {(c.name,) for c in table.columns if c.index or c.unique}


def test_threads_share_one(home: Path) -> None:
    reservoir = Reservoir(home)
    failures: list[Exception] = []

    def work(start: int) -> None:
        try:
            for n in range(start, start + 20):
                remember(reservoir, f"river{n}", f"r{n}")
                assert near(reservoir, f"river{n}") == [f"r{n}"]
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert reservoir.count() == 60


KILLS = 20
TOGETHER = 4  # searches of one question, which are all there or none of them
SIZE = 200
DIMENSION = 64


def _keep_writing(home: Path, run: int, channel: Connection) -> None:
    reservoir = Reservoir(home, max_entries=SIZE)
    for question in range(1_000_000):
        embeddings = np.random.default_rng(question).normal(size=(TOGETHER, DIMENSION)).tolist()
        found = [ranking(*(f"{run}:{question}:{n}" for n in range(10))) for _ in range(TOGETHER)]
        reservoir.remember(STATE, embeddings, found)
        channel.send(question)


def _stored(home: Path) -> list[str]:
    """The question of each stored search."""
    assert Reservoir(home).recall(STATE, [[1.0] * DIMENSION], -1.0) != [None]
    with sqlite3.connect(home / "reservoir.db") as connection:
        rows = connection.execute("SELECT ranking, length(embedding) FROM searches").fetchall()
    connection.close()
    rankings = [json.loads(stored) for stored, _ in rows]
    assert {size for _, size in rows} == {4 * DIMENSION}
    assert {len(found) for found in rankings} == {10}
    return [found[0][0].rsplit(":", 1)[0] for found in rankings]


@pytest.mark.kill
def test_killed_at_any_moment_everything_in_it_is_whole(home: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # else each child imports for seconds
    chance = np.random.default_rng(4)
    for run in range(KILLS):
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_keep_writing, args=(home, run, sender))
        child.start()
        sender.close()
        for _ in range(chance.integers(1, 20)):
            done = receiver.recv()
        time.sleep(chance.uniform(0, 0.03))  # anywhere within one of the next few changes
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        try:
            while True:
                done = receiver.recv()
        except EOFError:
            receiver.close()
        together = _stored(home)
        assert {together.count(question) for question in together} == {TOGETHER}
        assert len(together) <= SIZE
        assert f"{run}:{done}" in together  # what was reported as done is there
