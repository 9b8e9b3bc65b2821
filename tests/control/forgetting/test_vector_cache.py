"""Vectors of records are kept sealed, and never mistaken or missed."""

import sqlite3

import numpy as np
import pytest

from control.forgetting.vector_cache import EncryptedVectorCache

KEY = bytes(32)


def vector(number):
    return np.eye(8, dtype=np.float32)[number]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "vectors.db"


@pytest.fixture
def shelf(path):
    return EncryptedVectorCache(path, lambda: KEY, "model")


def test_what_is_kept_is_there_for_the_next_process(shelf, path):
    shelf.put(["a secret", "half a \ud83d sign"], [vector(1), vector(2)])
    found = EncryptedVectorCache(path, lambda: KEY, "model").get(["a secret", "unknown"])
    assert list(found) == ["a secret"]
    assert (found["a secret"] == vector(1)).all()
    assert shelf.missing(["unknown", "half a \ud83d sign"]) == ["unknown"]


def test_cosines_stay_as_they_are(shelf):
    drawn = np.random.default_rng(0).normal(size=384).astype(np.float32)
    drawn /= np.linalg.norm(drawn)
    shelf.put(["text"], [drawn])
    assert float(shelf.get(["text"])["text"] @ drawn) == pytest.approx(1, abs=1e-3)


def test_another_key_or_model_finds_nothing(shelf, path):
    shelf.put(["a secret"], [vector(1)])
    assert EncryptedVectorCache(path, lambda: bytes([1] * 32), "model").get(["a secret"]) == {}
    assert EncryptedVectorCache(path, lambda: KEY, "other").get(["a secret"]) == {}


def test_neither_text_nor_vector_can_be_read_in_the_file(shelf, path):
    shelf.put(["a secret"], [vector(1)])
    whole = path.read_bytes()
    assert b"secret" not in whole
    assert vector(1).astype("<f2").tobytes() not in whole
    assert path.stat().st_mode & 0o077 == 0


def test_without_a_ledger_nothing_is_kept(path):
    keys = [None, None, None, KEY]
    shelf = EncryptedVectorCache(path, lambda: keys.pop(0), "model")
    shelf.put(["text"], [vector(1)])
    assert shelf.get(["text"]) == {}
    assert shelf.missing(["text"]) == ["text"]
    assert not path.exists()
    shelf.put(["text"], [vector(1)])
    assert list(shelf.get(["text"])) == ["text"]


def test_what_is_dropped_is_gone(shelf):
    shelf.put(["one", "two"], [vector(1), vector(2)])
    shelf.drop(["one", "never kept"])
    assert list(shelf.get(["one", "two"])) == ["two"]


def test_only_what_is_not_kept_is_embedded_and_a_question_is_not_kept(shelf):
    shelf.put(["kept"], [vector(1)])
    asked = []

    def embed(texts):
        asked.append(texts)
        return [vector(3) for _ in texts]

    [kept, new] = shelf.before(embed)(["kept", "a question"])
    assert (np.argmax(kept), np.argmax(new)) == (1, 3)
    assert asked == [["a question"]]
    assert shelf.missing(["a question"]) == ["a question"]


def test_a_damaged_file_is_begun_anew(shelf, path):
    shelf.put(["text"], [vector(1)])
    path.write_bytes(b"no database at all, but long enough for a header" * 100)
    assert shelf.get(["text"]) == {}
    shelf.put(["text"], [vector(2)])
    assert np.argmax(shelf.get(["text"])["text"]) == 2


def test_a_changed_row_is_as_if_it_were_not_there(shelf, path):
    shelf.put(["one", "two"], [vector(1), vector(2)])
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT mark, sealed FROM vectors").fetchall()
        (_, sealed), (second, _) = rows
        database.execute("UPDATE vectors SET sealed = ? WHERE mark = ?", (sealed, second))
    assert len(shelf.get(["one", "two"])) == 1


def test_where_nothing_can_be_written_it_goes_on_without(tmp_path):
    (tmp_path / "file").write_text("in the way")
    shelf = EncryptedVectorCache(tmp_path / "file" / "vectors.db", lambda: KEY, "model")
    shelf.put(["text"], [vector(1)])
    assert shelf.get(["text"]) == {}
