import sqlite3
from pathlib import Path

import pytest

from retrieval.ingest.chunking import passage
from retrieval.stores import bm25
from retrieval.stores.sqlite import LocalStore
from retrieval.stores.sqlite_tables import MIGRATIONS

TEXTS = {
    "curie": ("Marie Curie", "She discovered polonium and radium in Paris."),
    "paris": ("Paris", "The capital of France lies on the Seine."),
    "zoe": ("Zoë Müller", "A painter who lived near the rivers of Bavaria."),
    "code": ("Release notes", "Error E1234-X was mended; NEAR and NOT are words here."),
    "marie": ("Names", "Marie is a name, and Curie is another; Marie Curie had both."),
}


def node(name: str, title: str, body: str) -> object:
    made = passage(name, name, body, {"title": title, "content_hash": name})
    made.embedding = [1.0, float(len(name)), 0.0]
    return made


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    filled = LocalStore(tmp_path / "index", "model")
    filled.add([node(name, *held) for name, held in TEXTS.items()])
    return filled


def matched(store: LocalStore, query: str, top_k: int = 10) -> list[str]:
    [result] = store.search_words([query], [[1.0, 0.0, 0.0]], top_k)
    assert len(result.similarities or ()) == len(result.ids or ())
    return result.ids or []


def test_the_better_match_has_the_higher_score(store: LocalStore) -> None:
    [result] = store.search_words(["Who was Marie Curie?"], [[1.0, 0.0, 0.0]], 10)
    best, other = result.scores
    assert best > other > 0
    [nothing] = store.search_words(["who was"], [[1.0, 0.0, 0.0]], 10)
    assert list(nothing.scores) == []


def test_names_are_found_titles_first(store: LocalStore) -> None:
    assert matched(store, "Who was Marie Curie?") == ["curie", "marie"]
    assert matched(store, "marie curie", top_k=1) == ["curie"]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("zoe muller", "zoe"),  # without diacritics
        ("ZOË", "zoe"),
        ("painters river", "zoe"),  # other forms of the words
        ("e1234", "code"),
        ("E1234-X", "code"),
        ("What lies on the Seine?", "paris"),
    ],
)
def test_words_are_found_in_any_spelling(store: LocalStore, query: str, name: str) -> None:
    assert matched(store, query) == [name]


@pytest.mark.parametrize(
    "query",
    ["", " ", "?!", '"', "''", "()", "***", "the of and", "Who is it?", "_", "\0", "^", "-", "😀"],
)
def test_nothing_that_tells_finds_nothing(store: LocalStore, query: str) -> None:
    assert matched(store, query) == []


@pytest.mark.parametrize(
    "query",
    ['"paris', "paris AND", "title:paris", "paris*", "NOT paris", "paris NEAR(", "-paris", "^paris",
     "{paris}", "paris) OR (", "col : paris +", "'paris'; --", "paris\0paris", "paris OR OR"],
)  # fmt: skip
def test_no_character_is_an_operator(store: LocalStore, query: str) -> None:
    assert "paris" in matched(store, query)


def test_similarities_are_cosines(store: LocalStore) -> None:
    [result] = store.search_words(["seine"], [[0.0, 5.0, 0.0]], 3)
    assert result.similarities == [pytest.approx(5 / 26**0.5)]


def test_removed_and_replaced_passages_are_not_found(store: LocalStore) -> None:
    store.delete("paris")
    assert matched(store, "Seine") == []
    store.add([node("curie", "Marie Curie", "She was born in Warsaw.")])
    assert matched(store, "polonium") == []
    assert matched(store, "Warsaw") == ["curie"]
    store.clear()
    assert matched(store, "Warsaw") == []


def test_a_common_word_gives_way_to_rarer_ones(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bm25, "POSTINGS", 2)
    store.add([node(f"c{n}", "Chronicle", f"A common thing of {n}.") for n in range(10)])
    assert matched(store, "chronicle radium") == ["curie"]
    assert matched(store, "chronicle") == []


def test_a_pasted_page_is_a_query(store: LocalStore) -> None:
    assert matched(store, "radium " + " ".join(f"w{n}" for n in range(20_000))) == ["curie"]


def test_an_index_from_before_words_is_filled(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    folder.mkdir()
    with sqlite3.connect(folder / "passages.db") as old:
        old.execute("CREATE TABLE migrations (name VARCHAR PRIMARY KEY)")
        name, statements = MIGRATIONS[0]
        for statement in statements:
            old.execute(statement)
        old.execute("INSERT INTO migrations VALUES (?)", (name,))
        old.execute("INSERT INTO settings VALUES ('embedding', 'model'), ('dimension', '3')")
        old.execute(
            "INSERT INTO passages VALUES (1, 'a', 'a', 'h', 'Volga', 'A river.', '{}', ?)",
            (b"\0\0\x80\x3f" + b"\0" * 8,),
        )
    old.close()
    assert matched(LocalStore(folder, "model"), "volga") == ["a"]
