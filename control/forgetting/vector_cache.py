"""An encrypted cache on disk of the embeddings of records' texts: each text is embedded once.

Embeddings reveal what the records say, so each is encrypted under a key derived from the ledger's
and stored under a keyed hash of its text. What cannot be read is computed again.
"""

import hmac
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from control.forgetting.cipher import CODEC, KEY, NONCE_BYTES, KeyFile, derived, parse_key
from foundation.files import private_directory, private_file

Vectors = NDArray[np.float32]
Embed = Callable[[list[str]], Sequence[Sequence[float]]]

logger = logging.getLogger(__name__)

VECTORS = "forgotten.vectors"  # in the home
STORED_TYPE = np.dtype("<f2")  # cosines change by less than 0.001
BATCH = 500  # texts in one statement; SQLite allows at least 999 values
WAIT = 0.5  # seconds for another process that writes; after that the cache is not used
TABLE = "CREATE TABLE IF NOT EXISTS vectors (mark BLOB PRIMARY KEY, sealed BLOB) WITHOUT ROWID"
SELECT = "SELECT mark, sealed FROM vectors WHERE mark IN ({})"
INSERT = "INSERT OR REPLACE INTO vectors VALUES (?, ?)"
DELETE = "DELETE FROM vectors WHERE mark = ?"


class EncryptedVectorCache:
    """The vectors of one ledger's records by one embedding model. Thread-safe.

    Processes may share a file. A damaged file is removed and replaced by a new one.
    """

    def __init__(self, path: Path, read_key: Callable[[], bytes | None], model_name: str) -> None:
        """Nothing is read or written yet.

        Args:
            path: The file, created when the first vector is stored.
            read_key: Returns the ledger's key; ``None`` before anything was recorded.
            model_name: Of the embedding model; vectors of other models are not found.
        """
        self._path = path
        self._read_key = read_key
        self._model = model_name.encode()
        self._keys: tuple[AESGCM, bytes] | None = None
        self._lock = threading.Lock()

    def get(self, texts: Iterable[str]) -> dict[str, Vectors]:
        """The vectors of those of the texts that are stored, each of shape (dimension,)."""
        keys = self._ciphers()
        if keys is None or not self._path.exists():
            return {}
        cipher, hash_key = keys
        texts_by_hash = {self._hash(hash_key, text): text for text in texts}
        hashes = list(texts_by_hash)
        rows: list[tuple[bytes, bytes]] = []

        def read(database: sqlite3.Connection) -> None:
            for start in range(0, len(hashes), BATCH):
                batch = hashes[start : start + BATCH]
                rows.extend(database.execute(SELECT.format(",".join("?" * len(batch))), batch))

        self._use(read)
        found = {}
        for digest, sealed in rows:
            with suppress(InvalidTag, ValueError):  # altered or truncated: treated as missing
                plain = cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], digest)
                found[texts_by_hash[digest]] = np.frombuffer(plain, STORED_TYPE).astype(np.float32)
        return found

    def put(self, texts: Sequence[str], vectors: Iterable[Vectors]) -> None:
        """Store the vectors of texts: all, or none if the disk is full."""
        keys = self._ciphers()
        if keys is None or not texts:
            return
        cipher, hash_key = keys
        rows = []
        for text, vector in zip(texts, vectors, strict=True):
            digest, nonce = self._hash(hash_key, text), os.urandom(NONCE_BYTES)
            plain = np.asarray(vector, STORED_TYPE).tobytes()
            rows.append((digest, nonce + cipher.encrypt(nonce, plain, digest)))
        self._use(lambda database: database.executemany(INSERT, rows))

    def drop(self, texts: Iterable[str]) -> None:
        """Delete the vectors of texts."""
        keys = self._ciphers()
        if keys is not None and self._path.exists():
            hashes = [(self._hash(keys[1], text),) for text in texts]
            self._use(lambda database: database.executemany(DELETE, hashes))

    def _ciphers(self) -> tuple[AESGCM, bytes] | None:
        """The cipher and the key of the hashes; ``None`` while there is no ledger key."""
        if self._keys is None and (key := self._read_key()) is not None:
            self._keys = AESGCM(derived(key, b"vectors")), derived(key, b"vector marks")
        return self._keys

    def _hash(self, hash_key: bytes, text: str) -> bytes:
        return hmac.digest(hash_key, self._model + b"\0" + text.encode(*CODEC), "sha256")

    def _use(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Run ``work`` in one transaction; errors of the database or the disk are only logged."""
        try:
            with self._lock, closing(self._open()) as database, database:
                work(database)
        except (sqlite3.Error, OSError) as error:
            logger.info("%s is not used: %s", self._path, error)
            # An operational error is a lock or a full disk; any other error means a damaged file.
            if not isinstance(error, sqlite3.OperationalError | OSError):
                self._path.unlink(missing_ok=True)

    def _open(self) -> sqlite3.Connection:
        if not self._path.exists():
            private_directory(self._path.parent)
            private_file(self._path)
        database = sqlite3.connect(self._path, timeout=WAIT)
        database.execute(TABLE)
        return database


def unit(vectors: Sequence[Sequence[float]]) -> Vectors:
    """Vectors brought to length 1; zeros stay zeros."""
    array = np.asarray(vectors, np.float32)
    unit_length: Vectors = array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-9)
    return unit_length


def open_vector_cache(home: Path, key: str | None, model_name: str) -> EncryptedVectorCache:
    """Open the vector cache of a home's ledger.

    Args:
        home: The directory of all state.
        key: 64 hexadecimal digits; by default those of ``ledger.key`` in the home.
        model_name: As in `EncryptedVectorCache`.

    Raises:
        InputError: ``key`` is not a key.
    """
    given = None if key is None else parse_key(key)
    read_key = KeyFile(home / KEY).read if given is None else lambda: given
    return EncryptedVectorCache(home / VECTORS, read_key, model_name)
