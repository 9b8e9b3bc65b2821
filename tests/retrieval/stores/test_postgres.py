"""What both stores must do, and what can go wrong with a PostgreSQL server."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.schema import TextNode
from sqlalchemy import select, text

from foundation.errors import FulcrumError, IndexStateError, InputError, ModelError
from retrieval.embedding import unit_vectors
from retrieval.index import PassageIndex, open_index, open_store
from retrieval.ingest.chunking import passage
from retrieval.stores.base import PassageStore
from retrieval.stores.postgres import PostgresStore
from retrieval.stores.postgres_tables import FOLD_ACCENTS, HNSW_INDEX, PASSAGES, PREPARE, exists
from tests.postgres import OWNER, PASSWORD, Server, free_port
from tests.retrieval.conftest import BagOfWords

DIMENSION = 16
WORDS = 1024  # of the fake embedding: so many that the words of a test do not fall together
NO_SPACE = """DO $$ BEGIN
    RAISE 'could not resize shared memory segment' USING ERRCODE = 'disk_full'; END $$"""
Place = tuple[Path, str | None]  # what --home and --index would say
Writer = Callable[..., Path]


@pytest.fixture(params=["local", pytest.param("postgres", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest, home: Path) -> Place:
    local = request.param == "local"
    return home, None if local else request.getfixturevalue("postgres_url")


def open_at(place: Place, embedding_name: str = "model") -> PassageStore:
    home, url = place
    return open_store(home / "index", url, embedding_name)


def opened(place: Place, **embedding: object) -> PassageIndex:
    home, url = place
    return open_index(home, url, BagOfWords(**{"dimension": WORDS} | embedding))


@pytest.fixture
def store(place: Place) -> PassageStore:
    filled = open_at(place)
    filled.add(nodes(0, 100))
    return filled


@pytest.fixture
def index(place: Place) -> PassageIndex:
    return opened(place)


def vector(n: int, dimension: int = DIMENSION) -> list[float]:
    return (np.random.default_rng(n).normal(size=dimension) * 3).tolist()


def nodes(start: int, stop: int, dimension: int = DIMENSION) -> list[TextNode]:
    """Passages of which two and two are a document; each names a person."""
    made = []
    for n in range(start, stop):
        metadata = {"source": "a.txt", "n": n, "title": f"Title{n}", "content_hash": f"h{n // 2}"}
        node = passage(f"n{n}", f"d{n // 2}", f"Person{n} sings and sang.", metadata)
        node.embedding = vector(n, dimension)
        made.append(node)
    return made


def nearest(store: PassageStore, n: int, top_k: int = 3) -> list[str]:
    return store.search_vectors([vector(n)], top_k)[0].ids or []


def matching(store: PassageStore, query: str, top_k: int = 3) -> list[str]:
    return store.search_words([query], [vector(0)], top_k)[0].ids or []


def river(n: int) -> dict[str, object]:
    return {"id": f"r{n}", "text": f"River{n} is {n} km long.", "title": f"River{n}"}


def found(index: PassageIndex, query: str) -> list[str]:
    return [result.node.ref_doc_id or "" for result in index.retrieve(query)]


@pytest.mark.parametrize("finished", [False, True])
def test_query_gives_exact_cosines(store: PassageStore, finished: bool) -> None:
    if finished:
        store.finish()
    [result, other] = store.search_vectors([vector(200), vector(7)], 100)
    matrix = np.array([vector(n) for n in range(100)])
    query = np.array(vector(200))
    cosines = matrix @ query / np.linalg.norm(matrix, axis=1) / np.linalg.norm(query)
    order = np.argsort(-cosines)
    assert result.ids == [f"n{n}" for n in order]
    assert result.similarities == pytest.approx(cosines[order].tolist(), abs=1e-5)
    assert (other.ids or [])[0] == "n7"
    assert len(nearest(store, 5, top_k=1200)) == 100


def test_nodes_come_back_as_they_went_in(store: PassageStore) -> None:
    [node] = store.get_nodes(["n7", "unknown"])
    [given] = nodes(7, 8)
    given.embedding = None
    assert node.ref_doc_id == "d3"
    for [found] in (
        [node],
        store.search_vectors([vector(7)], 1)[0].nodes,
        store.search_words(["Person7"], [vector(7)], 1)[0].nodes,
    ):
        if found.embedding is not None:  # which it need not bring
            assert found.embedding == unit_vectors([vector(7)])[0].tolist()
            found.embedding = None
        assert found == given
    assert store.get_nodes([]) == []
    assert [node.node_id for node in store.get_nodes()] == [f"n{n}" for n in range(100)]


def test_empty_store(place: Place) -> None:
    store = open_at(place)
    assert (store.is_empty(), store.count(), store.get_nodes()) == (True, 0, [])
    assert store.documents(["d1"], ["h1"]) == {}
    assert store.passages_of("d1", 5) == []
    assert store.remove_document("d1") == 0
    assert store.add([]) == []
    assert store.add([], replaced=["d1"]) == []
    assert (nearest(store, 1), matching(store, "Person1")) == ([], [])
    store.finish()
    store.add(nodes(0, 2))
    assert (store.is_empty(), store.count()) == (False, 2)


def test_documents_by_id_or_content(store: PassageStore) -> None:
    assert store.documents(["d3", "d999"], ["h7", "h3"]) == {"d3": "h3", "d7": "h7"}
    assert store.documents([], []) == {}


def test_the_passages_of_a_document(store: PassageStore) -> None:
    assert [node.node_id for node in store.passages_of("d3", 5)] == ["n6", "n7"]
    assert [node.node_id for node in store.passages_of("d3", 1)] == ["n6"]
    assert store.passages_of("d3", 0) == store.passages_of("d999", 5) == []


def test_adding_again_replaces(store: PassageStore) -> None:
    assert store.add(nodes(5, 7)) == ["n5", "n6"]
    assert store.count() == 100
    assert nearest(store, 5)[0] == "n5"
    assert len(set(nearest(store, 5, top_k=100))) == 100


@pytest.mark.parametrize("finished", [False, True])
def test_removal_is_seen_by_the_next_query(
    store: PassageStore, place: Place, finished: bool
) -> None:
    other = open_at(place)
    if finished:
        store.finish()
    assert nearest(other, 15)[0] == "n15"
    assert matching(other, "Person15") == ["n15"]
    assert store.remove_document("d7") == 2
    assert store.remove_document("d7") == 0
    for opened_store in (store, other, open_at(place)):
        assert not {"n14", "n15"} & set(nearest(opened_store, 15, top_k=100))
        assert len(nearest(opened_store, 15, top_k=98)) == 98
        assert matching(opened_store, "Person15") == []
        assert opened_store.count() == 98


def test_replaced_documents_go_with_the_addition(store: PassageStore) -> None:
    store.add(nodes(200, 202), replaced=["d1", "d2", "unknown"])
    assert store.count() == 98
    assert store.documents(["d1", "d2", "d100"], []) == {"d100": "h100"}
    assert matching(store, "Person3 Person201") == ["n201"]


def test_every_change_gives_a_new_state_and_nothing_else_does(
    store: PassageStore, place: Place
) -> None:
    states = {store.state()}
    store.finish()
    store.search_words(["Person7"], [vector(7)], 1)
    assert {open_at(place).state(), store.state()} == states
    changes: list[Callable[[], object]] = [
        lambda: store.add(nodes(200, 202)),
        lambda: store.add(nodes(5, 6)),
        lambda: store.add([], replaced=["d1"]),
        lambda: store.remove_document("d7"),
    ]
    for number, change in enumerate(changes, start=2):
        change()
        states.add(store.state())
        assert len(states) == number
    assert None not in states
    assert open_at(place).state() == store.state()


def test_names_are_found_by_words(store: PassageStore) -> None:
    [result] = store.search_words(["who is  person42, singing?"], [vector(42)], 3)
    assert (result.ids or [])[0] == "n42"
    assert (result.similarities or [])[0] == pytest.approx(1.0)
    assert len(result.scores) == len(result.ids or []) == 3
    assert list(result.scores) == sorted(result.scores, reverse=True)
    assert result.scores[0] > result.scores[1] > 0  # the others only sing
    assert matching(store, "title63")[0] == "n63"
    assert len(matching(store, "sing", top_k=7)) == 7
    cosine = np.dot(vector(1), vector(2)) / np.linalg.norm(vector(1)) / np.linalg.norm(vector(2))
    [result] = store.search_words(["Person1"], [vector(2)], 3)
    assert result.similarities == pytest.approx([cosine], abs=1e-5)


def test_accents_do_not_count(store: PassageStore) -> None:
    [node] = nodes(300, 301)
    node.set_content("Zoë sang in Łódź.")
    store.add([node])
    for query in ("zoe", "ZOË", "Zoé"):
        assert matching(store, query) == ["n300"], query


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        ([["person7"]], ["n7"]),
        ([["PERSON7", "Person 99", "person8"]], ["n7", "n8"]),
        ([["title7"], ["person7 sang"]], ["n7"]),  # title and text
        ([["title7"], ["person8"]], []),
        ([["sing"], ["person7", "person70"]], ["n7", "n70"]),
        ([["the"], ["one"]], ["n7b"]),  # a stop word
        ([["person7"], ["?!"]], []),
        ([["person7"], []], []),
        ([], []),
        ([['person7" OR "person8']], []),
        ([["person7\0"]], ["n7"]),
    ],
)
def test_all_passages_that_contain_words_are_found(
    store: PassageStore, groups: list[list[str]], found: list[str]
) -> None:
    more = passage("n7b", "d7b", "The one.", {"title": "the", "content_hash": "x"})
    more.embedding = vector(0)
    store.add([more])
    assert store.containing(groups) == found


def test_containing_is_exhaustive(store: PassageStore) -> None:
    assert store.containing([["sang"]]) == [f"n{n}" for n in range(100)]


def test_nothing_is_contained_in_an_empty_store(place: Place) -> None:
    assert open_at(place).containing([["person7"]]) == []


def test_passages_are_replaced_with_vectors_of_what_they_say_now(
    index: PassageIndex, json_lines: Writer
) -> None:
    index.ingest([json_lines([{"id": "a", "title": "Peru", "text": "Its capital is Lima."}])])
    [node] = index.get_nodes(["a"])
    node.set_content("Llamas live there.")
    index.replace([node])
    assert index.containing([["lima"]]) == []
    assert index.containing([["llamas"]]) == ["a"]
    assert index.count() == 1
    [found] = index.retrieve_batch(["Peru Llamas live there"], top_k=1)[0]
    assert (found.text, found.score) == ("Llamas live there.", pytest.approx(1))
    assert found.metadata["content_hash"] == node.metadata["content_hash"]


def test_query_without_a_word_that_tells(store: PassageStore) -> None:
    for query in (
        "",
        "?!",
        "\0",
        "the of and",
        "'",
        '"',
        "\\",
        "&|!<->:*()",
        "\ud800",
        "—",
        "%",
        "_",
    ):
        assert matching(store, query) == [], query


def test_no_character_is_an_operator(store: PassageStore) -> None:
    for query in (
        "person9's",
        "person9:*",
        "!person9",
        "(person9",
        "NOT person9 AND",
        "'person9\\",
    ):
        assert matching(store, query)[0] == "n9", query
    assert matching(store, "person9\0;")[0] == "n9"
    assert matching(store, "person9 " + "x" * 5000 + " y" * 5000)[0] == "n9"


def test_wrong_vectors_are_refused(store: PassageStore) -> None:
    broken = nodes(300, 301)
    broken[0].embedding = [float("nan")] * DIMENSION
    with pytest.raises(ModelError, match="not finite"):
        store.add(broken)
    with pytest.raises(ModelError, match="not finite"):
        store.search_vectors([[float("inf")] * DIMENSION], 3)
    assert store.count() == 100


def test_query_of_zeros(store: PassageStore) -> None:
    [result] = store.search_vectors([[0.0] * DIMENSION], 3)
    assert result.similarities == [0.0, 0.0, 0.0]


def test_other_dimension_is_refused(store: PassageStore) -> None:
    expected = f"{DIMENSION}-dimensional .* now gives 5"
    for use in (
        lambda: store.add(nodes(300, 301, dimension=5)),
        lambda: store.search_vectors([[1.0] * 5], 3),
        lambda: store.search_words(["Person1"], [[1.0] * 5], 3),
    ):
        with pytest.raises(IndexStateError, match=expected) as caught:
            use()
        assert "\n" not in str(caught.value)
    assert store.count() == 100


def test_other_embedding_model_is_refused_with_both_names(place: Place) -> None:
    open_at(place, "other")  # empty: nothing to contradict
    open_at(place).add(nodes(0, 2))
    with pytest.raises(
        IndexStateError, match=r"model model .* with other; name model by --embedding, or"
    ) as caught:
        open_at(place, "other")
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_ingest_retrieve_replace_and_delete(index: PassageIndex, json_lines: Writer) -> None:
    path = json_lines(river(n) for n in range(300))
    report = index.ingest([path])
    assert (report.documents, report.passages, report.duplicates) == (300, 300, 0)
    report = index.ingest([path])
    assert (report.documents, report.duplicates, index.count()) == (0, 300, 300)
    best, *_ = index.retrieve("how long is river17?")
    assert (best.node.ref_doc_id, best.node.metadata["title"]) == ("r17", "River17")
    report = index.ingest([json_lines([river(17) | {"text": "It dried up."}], "more.jsonl")])
    assert (report.documents, report.replaced, index.count()) == (1, 1, 300)
    assert "dried" in index.retrieve("it dried up")[0].text
    assert index.delete("r17") == 1
    assert "r17" not in found(index, "river17 dried up")
    for query in ("?!", "\0", "' OR 1=1; --"):
        assert len(index.retrieve(query)) == 5


def test_interruption_keeps_the_finished_batches(place: Place, json_lines: Writer) -> None:
    path = json_lines(river(n) for n in range(600))
    with pytest.raises(KeyboardInterrupt):
        opened(place, fail_after=300).ingest([path])
    resumed = opened(place)
    assert resumed.count() == 256
    report = resumed.ingest([path])
    assert (report.documents, report.duplicates, resumed.count()) == (344, 256, 600)
    assert found(resumed, "river599")[0] == "r599"


def _write_and_remove(place: Place, start: int) -> None:
    store = open_at(place)
    for n in range(start, start + 100, 20):
        store.add(nodes(n, n + 20))
        assert nearest(store, n)[0] == f"n{n}"
        assert store.remove_document(f"d{n // 2}") == 2
    store.finish()


@pytest.mark.kill
def test_processes_write_at_the_same_time(place: Place) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_write_and_remove, args=(place, start)) for start in (0, 1000)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    store = open_at(place)
    assert store.count() == 180
    assert len(nearest(store, 1, top_k=200)) == 180
    assert matching(store, "Person1099") == ["n1099"]


def _die_in_the_middle(place: Place) -> None:
    store = open_at(place)
    assert isinstance(store, PostgresStore)

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    from llama_index.vector_stores.postgres import PGVectorStore

    PGVectorStore.add = die
    store.add(nodes(0, 100), replaced=["d0", "d1"])


@pytest.mark.kill
def test_killed_between_removal_and_addition(postgres_url: str, home: Path) -> None:
    store = PostgresStore(postgres_url, "model")
    store.add(nodes(0, 100))
    process = multiprocessing.get_context("spawn").Process(
        target=_die_in_the_middle, args=((home, postgres_url),)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [node.node_id for node in store.get_nodes()] == [f"n{n}" for n in range(100)]
    store.add(nodes(0, 100), replaced=["d0", "d1"])  # the dead process holds no lock
    assert store.count() == 100


def test_hnsw_index_is_built_once_and_followed(postgres_url: str) -> None:
    store = PostgresStore(postgres_url, "model")
    store.add(nodes(0, 3000, dimension=32))
    store.finish()
    store.finish()
    store.add(nodes(3000, 3100, dimension=32))
    matrix = np.array([vector(n, 32) for n in range(3100)])
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    queries = [vector(n, 32) for n in range(5000, 5050)]
    right = 0
    for query, result in zip(queries, store.search_vectors(queries, 10), strict=True):
        best = np.argsort(-(matrix @ np.array(query)))[:10]
        right += len({f"n{n}" for n in best} & set(result.ids or []))
    assert right >= 0.95 * 10 * len(queries)
    with store._engine.connect() as connection:
        nearest_first = PASSAGES.c.embedding.op("<=>")(str(queries[0]))
        statement = select(PASSAGES.c.id).order_by(nearest_first).limit(10)
        text_of_it = statement.compile(connection, compile_kwargs={"literal_binds": True})
        plan = connection.execute(text(f"EXPLAIN {text_of_it}")).scalars()
        assert "data_fulcrum_passages_embedding_idx" in "".join(plan)


def test_index_that_a_kill_left_unbuilt_is_built_by_the_same_ingestion(
    postgres_url: str, home: Path, json_lines: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: PostgresStore) -> None:
        raise KeyboardInterrupt

    path = json_lines(river(n) for n in range(9))
    place = home, postgres_url
    with monkeypatch.context() as patched:
        patched.setattr(PostgresStore, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            opened(place).ingest([path])
    assert opened(place).ingest([path]).duplicates == 9
    with PostgresStore(postgres_url, "bag-of-words")._engine.connect() as connection:
        assert exists(connection, HNSW_INDEX)


def test_index_that_has_no_room_for_several_workers(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llama_index.vector_stores.postgres import PGVectorStore

    store = PostgresStore(postgres_url, "model")
    store.add(nodes(0, 100))
    build = PGVectorStore._create_hnsw_index
    workers = []

    def fail_first(self: PGVectorStore) -> None:
        with self._session() as session:
            setting = text("SHOW max_parallel_maintenance_workers")
            workers.append(session.execute(setting).scalar_one())
            if len(workers) == 1:
                session.execute(text(NO_SPACE))
        build(self)

    monkeypatch.setattr(PGVectorStore, "_create_hnsw_index", fail_first)
    store.finish()
    assert workers[-1] == "0"
    assert nearest(store, 5)[0] == "n5"


def test_vectors_too_long_for_hnsw_are_searched_exactly(postgres_url: str) -> None:
    store = PostgresStore(postgres_url, "model")
    store.add(nodes(0, 4, dimension=2500))
    store.finish()
    assert store.search_vectors([vector(3, 2500)], 1)[0].ids == ["n3"]


def refusal(url: str) -> str:
    """Open an index that cannot be opened; what the user reads."""
    with pytest.raises(FulcrumError) as caught:
        PostgresStore(url, "model")
    message = str(caught.value)
    assert "\n" not in message
    assert PASSWORD not in message
    return message


def test_server_that_is_down() -> None:
    port = free_port()
    message = refusal(f"postgresql://{OWNER}:{PASSWORD}@127.0.0.1:{port}/x")
    assert f"postgresql://127.0.0.1:{port}/x cannot be used (" in message
    assert "refused" in message
    assert message.endswith("check that the server runs, and host and port in --index")


def test_host_that_does_not_exist() -> None:
    message = refusal(f"postgresql://{OWNER}:{PASSWORD}@nowhere.invalid/x")
    assert message.endswith("check that the server runs, and host and port in --index")


def test_server_that_refuses(postgres: Server, postgres_url: str) -> None:
    database = postgres_url.rsplit("/", 1)[1]
    for url in (postgres.url(database, password="wrong"), postgres.url(database, user="nobody")):
        assert refusal(url).endswith("check user and password in --index")
    message = refusal(postgres.url("nothing_here"))
    assert message.endswith("create the database first, or correct its name in --index")


def test_no_right_to_create_the_extension(postgres: Server, postgres_url: str) -> None:
    database = postgres_url.rsplit("/", 1)[1]
    postgres.run(f"CREATE ROLE guest_{database} LOGIN PASSWORD '{PASSWORD}'")
    guest = postgres.url(database, user=f"guest_{database}")
    assert 'run "CREATE EXTENSION vector" in this database' in refusal(guest)
    postgres.run("CREATE EXTENSION vector", database)
    assert "right to create and change tables in the schema public" in refusal(guest)
    postgres.run(f"GRANT CREATE ON SCHEMA public TO guest_{database}", database)
    store = PostgresStore(guest, "model")
    store.add(nodes(0, 2))
    store.finish()
    assert nearest(store, 1)[0] == "n1"


def test_accents_count_where_the_extension_is_lacking(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = tuple(s.replace("EXISTS unaccent", "EXISTS no_unaccent") for s in FOLD_ACCENTS)
    monkeypatch.setattr("retrieval.stores.postgres_tables.FOLD_ACCENTS", lacking)
    store = PostgresStore(postgres_url, "model")
    [node] = nodes(300, 301)
    node.set_content("Zoë sings.")
    store.add([node])
    assert (matching(store, "zoë"), matching(store, "zoe")) == (["n300"], [])
    assert matching(store, "singing") == ["n300"]


def test_server_without_pgvector(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = tuple(s.replace("vector", "no_vector") for s in PREPARE)
    monkeypatch.setattr("retrieval.stores.postgres_tables.PREPARE", lacking)
    message = refusal(postgres_url)
    assert 'extension "no_vector" is not available' in message
    assert "install pgvector on the server" in message


def test_server_that_stops_and_comes_back(postgres: Server, postgres_url: str) -> None:
    store = PostgresStore(postgres_url, "model")
    store.add(nodes(0, 4))
    assert nearest(store, 3)[0] == "n3"
    postgres.stop()
    try:
        with pytest.raises(IndexStateError, match="check that the server runs") as caught:
            nearest(store, 3)
        assert "\n" not in str(caught.value)
    finally:
        postgres.start()
    assert nearest(store, 3)[0] == "n3"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"postgresql://u:{PASSWORD}@host:port/x", "is no URL that can be read; give postgresql:"),
        (f"postgresql://u:{PASSWORD}@host", "names no database; give postgresql:"),
        (f"postgresql://u:{PASSWORD}@127.0.0.1/x?nonsense=1", 'option "nonsense"); give postgr'),
        ("postgresql://u:first@correct-horse@host/x", 'holds an "@"; write it as %40'),
    ],
)
def test_url_that_cannot_be_used(url: str, expected: str) -> None:
    assert expected in refusal(url)


def test_mistyped_scheme(home: Path) -> None:
    with pytest.raises(InputError, match="--index postgre is not supported") as caught:
        open_store(home, f"postgre://{OWNER}:{PASSWORD}@localhost/x", "model")
    assert PASSWORD not in str(caught.value)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_index.vector_stores.postgres", None)
    message = refusal(f"postgresql://{OWNER}:{PASSWORD}@localhost/x")
    assert "run: pip install llama-index-vector-stores-postgres" in message
