import math
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from sqlalchemy import inspect

from foundation.errors import IndexStateError, InputError, ModelError
from retrieval.ingest.chunking import passage
from retrieval.reservoir import (
    DAY,
    ERASURE_SECONDS,
    MOST_ENTRIES,
    Reservoir,
    ReservoirTables,
    content_hash,
)
from tests.retrieval.conftest import BagOfWords


class Clock:
    """Stands still until told otherwise."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


class Counting(BagOfWords):
    embedded: list[str] = Field(default_factory=list)

    def _get_text_embedding(self, text: str) -> list[float]:
        self.embedded.append(text)
        return super()._get_text_embedding(text)


def river(n: int, text: str | None = None) -> TextNode:
    metadata = {"title": f"River{n}", "content_hash": f"h{n}", "source": "rivers.jsonl"}
    return passage(f"r{n}", f"d{n}", text or f"River{n} is {n} km long.", metadata)


def held(reservoir: Reservoir) -> list[str]:
    return [entry.node.node_id for entry in reservoir.entries()]


def near(reservoir: Reservoir, query: str, tau: float = 0.3) -> list[str]:
    [found] = reservoir.recall([BagOfWords()._vector(query)], tau)
    return [result.node_id for result in found]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reservoir(home: Path, clock: Clock) -> Reservoir:
    return Reservoir(home, BagOfWords(), max_entries=5, max_age_days=10, now=clock)


def test_recall_gives_what_is_near_enough_with_its_cosine(reservoir: Reservoir) -> None:
    # Title and text are embedded: (river1 twice, is, 1, km, long).
    reservoir.remember([river(1), river(2)])
    query = BagOfWords()._vector("long river1")
    cosines = [3 / math.sqrt(2 * 8), 1 / math.sqrt(2 * 8)]
    [found] = reservoir.recall([query], tau=0.0)
    assert [result.node_id for result in found] == ["r1", "r2"]
    assert [result.score for result in found] == pytest.approx(cosines)
    assert found[0].node == river(1)
    assert near(reservoir, "long river1", tau=0.7) == ["r1"]
    assert near(reservoir, "long river1", tau=0.8) == []
    [one] = reservoir.recall([query], tau=0.0, top_k=1)
    assert [result.node_id for result in one] == ["r1"]


def test_many_queries_at_once(reservoir: Reservoir) -> None:
    reservoir.remember([river(n) for n in range(4)])
    queries = ["river2", "nothing of it", "river0"]
    found = reservoir.recall([BagOfWords()._vector(query) for query in queries], tau=0.5)
    assert [[result.node_id for result in results] for results in found] == [["r2"], [], ["r0"]]
    assert reservoir.recall([]) == []


def test_empty_reservoir(reservoir: Reservoir) -> None:
    assert reservoir.recall([[1.0, 0.0]]) == [[]]
    assert reservoir.retrieve("anything") == []
    assert (reservoir.count(), reservoir.entries(), reservoir.erase(["d1"])) == (0, [], 0)
    assert reservoir.remember([]) == 0


def test_it_is_a_retriever(reservoir: Reservoir) -> None:
    reservoir.remember([river(n) for n in range(3)])
    assert [result.node_id for result in reservoir.retrieve("river1 river1 is 1 km long")] == ["r1"]
    both = QueryBundle("ignored", custom_embedding_strs=["river0 river0", "river2 river2"])
    assert {result.node_id for result in reservoir.retrieve(both)} == {"r0", "r2"}
    vector = QueryBundle("ignored", embedding=BagOfWords()._vector("river1 river1"))
    assert [result.node_id for result in reservoir.retrieve(vector)] == ["r1"]


def test_provenance_and_uses_are_kept(reservoir: Reservoir, clock: Clock) -> None:
    assert reservoir.remember([river(1)]) == 1
    clock.time += 60
    assert reservoir.remember([NodeWithScore(node=river(1), score=0.9)]) == 0
    [entry] = reservoir.entries()
    assert entry.node.metadata["source"] == "rivers.jsonl"
    assert entry.node.ref_doc_id == "d1"
    assert (entry.created, entry.useful, entry.uses) == (1_000_000.0, 1_000_060.0, 2)
    assert entry.content_hash == content_hash(river(1))
    assert np.linalg.norm(entry.vector) == pytest.approx(1.0)


def test_each_passage_is_embedded_once(home: Path) -> None:
    model = Counting()
    reservoir = Reservoir(home, model)
    reservoir.remember([river(1), river(1), river(2)])
    reservoir.remember([river(2), river(1)])
    Reservoir(home, model).remember([river(1)])
    assert len(model.embedded) == 2


def test_same_passage_under_another_id_is_the_same(reservoir: Reservoir) -> None:
    reservoir.remember([river(1)])
    copy = passage("copy", "elsewhere", river(1).text, {"title": "River1", "content_hash": "c"})
    assert reservoir.remember([copy]) == 0
    assert held(reservoir) == ["r1"]


def test_newer_content_takes_the_place_of_the_older(reservoir: Reservoir) -> None:
    reservoir.remember([river(1)])
    reservoir.remember([river(1, "It dried up.")])
    [entry] = reservoir.entries()
    assert entry.node.text == "It dried up."
    assert near(reservoir, "dried up") == ["r1"]


def test_least_recently_useful_goes_first(reservoir: Reservoir, clock: Clock) -> None:
    for n in range(5):
        clock.time += 1
        reservoir.remember([river(n)])
    clock.time += 1
    reservoir.remember([river(0)])
    reservoir.remember([river(5), river(6)])
    assert held(reservoir) == ["r0", "r3", "r4", "r5", "r6"]
    assert near(reservoir, "river1 river2 river3") == ["r3"]


def test_more_at_once_than_it_holds(reservoir: Reservoir) -> None:
    reservoir.remember([river(n) for n in range(50)])
    assert reservoir.count() == 5


def test_too_old_goes_however_useful(reservoir: Reservoir, clock: Clock) -> None:
    reservoir.remember([river(1)])
    clock.time += 9 * DAY
    reservoir.remember([river(1), river(2)])
    assert near(reservoir, "river1 river2") == ["r1", "r2"]
    clock.time += 2 * DAY
    assert near(reservoir, "river1 river2") == ["r2"]
    assert held(reservoir) == ["r1", "r2"]
    reservoir.remember([river(3)])
    assert held(reservoir) == ["r2", "r3"]


def test_erased_with_its_document(reservoir: Reservoir) -> None:
    parts = [passage(f"d:{n}", "d", f"part {n}", {"title": "t"}) for n in range(2)]
    reservoir.remember([*parts, river(1)])
    assert near(reservoir, "part") == ["d:0", "d:1"]
    assert reservoir.erase(["d", "unknown"]) == 2
    assert near(reservoir, "part") == []
    assert held(reservoir) == ["r1"]


def test_erased_text_does_not_lie_in_the_file(reservoir: Reservoir, home: Path) -> None:
    def lies_there() -> bool:
        with sqlite3.connect(home / "reservoir.db") as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        files = home.glob("reservoir.db*")
        return any(b"River1 is 1 km long" in file.read_bytes() for file in files)

    reservoir.remember([river(1), river(2)])
    assert lies_there()
    reservoir.erase(["d1"])
    assert not lies_there()


def test_answer_under_way_does_not_bring_an_erased_document_back(
    reservoir: Reservoir, clock: Clock
) -> None:
    reservoir.erase(["d1"])
    clock.time += 5
    reservoir.erase(["d1"])
    assert reservoir.remember([river(1), river(2)]) == 1
    assert held(reservoir) == ["r2"]
    clock.time += ERASURE_SECONDS + 1
    assert reservoir.remember([river(1)]) == 1


def test_single_entries_can_be_changed_and_erased(reservoir: Reservoir) -> None:
    reservoir.remember([river(1), river(2), river(3)])
    before = reservoir.entries()[0]
    assert near(reservoir, "km long", tau=0.2) == ["r1", "r2", "r3"]
    assert reservoir.update(river(1, "It is blue."))
    assert not reservoir.update(river(9))
    assert near(reservoir, "km long", tau=0.2) == ["r2", "r3"]
    assert near(reservoir, "blue") == ["r1"]
    after = next(entry for entry in reservoir.entries() if entry.node.node_id == "r1")
    assert after.content_hash == content_hash(after.node)
    assert (after.created, after.uses) == (before.created, 1)
    assert reservoir.erase_entries(["r1", "r3", "unknown"]) == 2
    assert held(reservoir) == ["r2"]
    reservoir.clear()
    assert (reservoir.count(), near(reservoir, "river2")) == (0, [])


def test_two_see_each_other_at_once(home: Path) -> None:
    one, two = Reservoir(home, BagOfWords()), Reservoir(home, BagOfWords())
    one.remember([river(1), river(2)])
    assert near(two, "river1") == near(one, "river1") == ["r1"]
    two.remember([river(3)])
    assert near(one, "river3") == ["r3"]
    two.update(river(2, "Its bed is dry."))
    assert near(one, "dry") == ["r2"]
    one.erase(["d3"])
    assert near(two, "river3") == []
    two.remember([river(4)])  # as many entries as before the erasure
    assert near(one, "river4") == ["r4"]
    one.clear()
    assert near(two, "river1") == []


def test_state_outlives_the_object(home: Path) -> None:
    Reservoir(home, BagOfWords()).remember([river(n) for n in range(3)])
    assert near(Reservoir(home, BagOfWords()), "river2") == ["r2"]


def test_another_embedding_model_starts_anew_and_harms_nothing(home: Path) -> None:
    Reservoir(home, BagOfWords()).remember([river(1), river(2)])
    other = Reservoir(home, BagOfWords(model_name="other", dimension=7))
    assert other.recall([[1.0] * 7], tau=-1.0) == [[]]
    assert other.remember([river(1)]) == 1
    assert len(other.recall([[1.0] * 7], tau=-1.0)[0]) == 1
    assert near(Reservoir(home, BagOfWords()), "river2") == ["r2"]


def test_same_name_with_another_dimension_is_told(home: Path, reservoir: Reservoir) -> None:
    reservoir.remember([river(1)])
    with pytest.raises(IndexStateError, match=r"8192-dimensional .* now gives 2; remove the file"):
        reservoir.recall([[1.0, 0.0]])


def test_numbers_that_are_none_are_not_kept(home: Path, monkeypatch) -> None:
    monkeypatch.setattr(BagOfWords, "_vector", lambda self, text: [math.nan, 1.0])
    reservoir = Reservoir(home, BagOfWords())
    with pytest.raises(ModelError, match="not finite"):
        reservoir.remember([river(1)])
    assert reservoir.count() == 0


@pytest.mark.parametrize("limits", [{"max_entries": 0}, {"max_entries": MOST_ENTRIES + 1}])
def test_size_out_of_range(home: Path, limits: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"size is \d+; give 1 to 30000 entries"):
        Reservoir(home, BagOfWords(), **limits)


@pytest.mark.parametrize("days", [0, -1, math.nan])
def test_age_out_of_range(home: Path, days: float) -> None:
    with pytest.raises(InputError, match="give more than 0"):
        Reservoir(home, BagOfWords(), max_age_days=days)


def test_damaged_database(home: Path) -> None:
    home.mkdir()
    (home / "reservoir.db").write_bytes(b"This is a letter and not a database. " * 200)
    with pytest.raises(IndexStateError, match=r"reservoir\.db is damaged .*; remove it") as caught:
        Reservoir(home, BagOfWords())
    assert "\n" not in str(caught.value)


def test_damaged_vector(home: Path, reservoir: Reservoir) -> None:
    reservoir.remember([river(1), river(2)])
    with sqlite3.connect(home / "reservoir.db") as connection:
        connection.execute("UPDATE entries SET embedding = x'0011' WHERE node_id = 'r2'")
    with pytest.raises(IndexStateError, match=r"a vector in .*reservoir\.db is damaged; remove"):
        near(reservoir, "river1")


def test_migrations_give_the_tables_of_the_models(reservoir: Reservoir) -> None:
    inspector = inspect(reservoir._engine)
    for table in ReservoirTables.metadata.sorted_tables:
        columns = {c["name"]: str(c["type"]) for c in inspector.get_columns(table.name)}
        dialect = reservoir._engine.dialect
        assert columns == {c.name: c.type.compile(dialect) for c in table.columns}
        indexed = {tuple(index["column_names"]) for index in inspector.get_indexes(table.name)}
        unique = inspector.get_unique_constraints(table.name)
        indexed |= {tuple(constraint["column_names"]) for constraint in unique}
        assert indexed == {(c.name,) for c in table.columns if c.index or c.unique}


def test_threads_share_one(home: Path) -> None:
    reservoir = Reservoir(home, BagOfWords(dimension=64))
    failures: list[Exception] = []

    def work(start: int) -> None:
        try:
            for n in range(start, start + 20):
                reservoir.remember([river(n)])
                [found] = reservoir.recall([[1.0] * 64], tau=-1.0)
                assert f"r{n}" in {result.node_id for result in found}
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
TOGETHER = 4  # passages of one question, which are all there or none of them
ERASED_AFTER = 5  # questions
SIZE = 200
DIMENSION = 64


def _keep_writing(home: Path, run: int, channel: Connection) -> None:
    reservoir = Reservoir(home, BagOfWords(dimension=DIMENSION), max_entries=SIZE)
    for question in range(1_000_000):
        nodes = []
        for part in range(TOGETHER):
            node_id, document_id = f"{run}:{question}:{part}", f"{run}:{question}"
            text = f"run {run} question {question} part {part} " + "word " * 200
            nodes.append(passage(node_id, document_id, text, {"title": document_id}))
        reservoir.remember(nodes)
        reservoir.update(passage(nodes[0].node_id, document_id, document_id, {"title": "t"}))
        reservoir.erase([f"{run}:{question - ERASED_AFTER}"])
        channel.send(question)


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

        reservoir = Reservoir(home, BagOfWords(dimension=DIMENSION), max_entries=SIZE)
        entries = reservoir.entries()
        for entry in entries:
            assert entry.vector.shape == (DIMENSION,)
            assert np.linalg.norm(entry.vector) == pytest.approx(1.0, abs=1e-5)
            assert entry.content_hash == content_hash(entry.node)
        together = Counter(entry.node.ref_doc_id for entry in entries)
        assert set(together.values()) == {TOGETHER}
        assert len(entries) <= SIZE
        assert f"{run}:{done}" in together  # what was reported as done is there
        assert f"{run}:{done - ERASED_AFTER}" not in together  # and what was erased is not
        assert len(reservoir.recall([[1.0] * DIMENSION], tau=-1.0)[0]) == len(entries)
