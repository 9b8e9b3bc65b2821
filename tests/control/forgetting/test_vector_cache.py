"""Vectors of records are kept sealed, and never mistaken or missed."""

import sqlite3

import numpy as np
import pytest

from control.forgetting.vector_cache import BATCH, EncryptedVectorCache

KEY = bytes(32)


def vector(number):
    return np.eye(8, dtype=np.float32)[number]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "vectors.db"


@pytest.fixture
def cache(path):
    return EncryptedVectorCache(path, lambda: KEY, "model")


def test_stored_vectors_are_found_by_the_next_process(cache, path):
    cache.put(["a secret", "half a \ud83d sign"], [vector(1), vector(2)])
    found = EncryptedVectorCache(path, lambda: KEY, "model").get(["a secret", "unknown"])
    assert list(found) == ["a secret"]
    assert (found["a secret"] == vector(1)).all()
    assert list(cache.get(["half a \ud83d sign"])) == ["half a \ud83d sign"]


def test_more_vectors_than_one_statement_takes_are_found(cache):
    texts = [f"text {number}" for number in range(2 * BATCH + 1)]
    cache.put(texts, [vector(number % 8) for number in range(len(texts))])
    found = cache.get([*texts, "unknown"])
    assert found.keys() == set(texts)
    assert all((found[text] == vector(number % 8)).all() for number, text in enumerate(texts))


def test_stored_vectors_keep_their_cosine(cache):
    drawn = np.random.default_rng(0).normal(size=384).astype(np.float32)
    drawn /= np.linalg.norm(drawn)
    cache.put(["text"], [drawn])
    assert float(cache.get(["text"])["text"] @ drawn) == pytest.approx(1, abs=1e-3)


def test_another_key_or_model_finds_nothing(cache, path):
    cache.put(["a secret"], [vector(1)])
    assert EncryptedVectorCache(path, lambda: bytes([1] * 32), "model").get(["a secret"]) == {}
    assert EncryptedVectorCache(path, lambda: KEY, "other").get(["a secret"]) == {}


def test_neither_text_nor_vector_can_be_read_in_the_file(cache, path):
    cache.put(["a secret"], [vector(1)])
    whole = path.read_bytes()
    assert b"secret" not in whole
    assert vector(1).astype("<f2").tobytes() not in whole
    assert path.stat().st_mode & 0o077 == 0


def test_nothing_is_stored_without_a_ledger_key(path):
    keys = [None, None, KEY]
    cache = EncryptedVectorCache(path, lambda: keys.pop(0), "model")
    cache.put(["text"], [vector(1)])
    assert cache.get(["text"]) == {}
    assert not path.exists()
    cache.put(["text"], [vector(1)])
    assert list(cache.get(["text"])) == ["text"]


def test_dropped_vectors_are_deleted(cache):
    cache.put(["one", "two"], [vector(1), vector(2)])
    cache.drop(["one", "never kept"])
    assert list(cache.get(["one", "two"])) == ["two"]


def test_a_damaged_file_is_replaced(cache, path):
    cache.put(["text"], [vector(1)])
    path.write_bytes(b"no database at all, but long enough for a header" * 100)
    assert cache.get(["text"]) == {}
    cache.put(["text"], [vector(2)])
    assert np.argmax(cache.get(["text"])["text"]) == 2


def test_an_altered_row_is_treated_as_missing(cache, path):
    cache.put(["one", "two"], [vector(1), vector(2)])
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT mark, sealed FROM vectors").fetchall()
        (_, sealed), (second, _) = rows
        database.execute("UPDATE vectors SET sealed = ? WHERE mark = ?", (sealed, second))
    assert len(cache.get(["one", "two"])) == 1


def test_without_write_access_nothing_is_cached(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = EncryptedVectorCache(tmp_path / "file" / "vectors.db", lambda: KEY, "model")
    cache.put(["text"], [vector(1)])
    assert cache.get(["text"]) == {}
