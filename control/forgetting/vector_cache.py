"""An encrypted cache on disk of the vectors of records' texts: each text is embedded once.

They say what the records say, so they are as secret: each is encrypted under a key derived from the
ledger's, and found by a keyed hash of its text. It is a cache: what cannot be read is made anew.
"""

import hmac
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from control.forgetting.cipher import KEY, NONCE_BYTES, KeyFile, derived, parse_key
from foundation.files import private_directory, private_file

Vectors = NDArray[np.float32]
Embed = Callable[[list[str]], Sequence[Sequence[float]]]

logger = logging.getLogger(__name__)

VECTORS = "forgotten.vectors"  # in the home
KEPT_AS = np.dtype("<f2")  # cosines change by less than 0.001
AT_ONCE = 500  # texts asked for in one statement; SQLite takes 999 values or more
WAIT = 0.5  # seconds for another process that writes; then it goes on without
TABLE = "CREATE TABLE IF NOT EXISTS vectors (mark BLOB PRIMARY KEY, sealed BLOB) WITHOUT ROWID"
SEALED = "SELECT mark, sealed FROM vectors WHERE mark IN ({})"
MARKED = "SELECT mark FROM vectors WHERE mark IN ({})"
KEPT = "INSERT OR REPLACE INTO vectors VALUES (?, ?)"
DROPPED = "DELETE FROM vectors WHERE mark = ?"


class EncryptedVectorCache:
    """The vectors of one ledger's records by one embedding model. Safe to use from several threads.

    Processes may share a file. One that is damaged is removed and a new one begun.
    """

    def __init__(self, path: Path, read_key: Callable[[], bytes | None], model_name: str) -> None:
        """Nothing is read or written yet.

        Args:
            path: The file, made when the first vector is kept.
            read_key: Gives the ledger's key; ``None`` before anything was recorded.
            model_name: Of the embedding model; vectors of another one are not found.
        """
        self._path = path
        self._read_key = read_key
        self._model = model_name.encode()
        self._keys: tuple[AESGCM, bytes] | None = None
        self._lock = threading.Lock()

    def get(self, texts: Iterable[str]) -> dict[str, Vectors]:
        """Those of the texts that are kept, with their vectors of shape (dimension,)."""
        keys = self._ciphers()
        if keys is None or not self._path.exists():
            return {}
        cipher, hashing = keys
        marks = {self._mark(hashing, text): text for text in texts}
        found = {}
        for mark, sealed in self._look_up(SEALED, list(marks)):
            with suppress(InvalidTag, ValueError):  # changed or cut off: as if it were not there
                whole = cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], mark)
                found[marks[mark]] = np.frombuffer(whole, KEPT_AS).astype(np.float32)
        return found

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Those of the texts that are not kept."""
        keys = self._ciphers()
        if keys is None or not self._path.exists():
            return list(texts)
        marks = {self._mark(keys[1], text): text for text in texts}
        held = {mark for (mark,) in self._look_up(MARKED, list(marks))}
        return [text for mark, text in marks.items() if mark not in held]

    def put(self, texts: Sequence[str], vectors: Iterable[Vectors]) -> None:
        """Keep the vectors of texts: all, or none where the disk is full."""
        keys = self._ciphers()
        if keys is None or not texts:
            return
        cipher, hashing = keys
        rows = []
        for text, vector in zip(texts, vectors, strict=True):
            mark, nonce = self._mark(hashing, text), os.urandom(NONCE_BYTES)
            plain = np.asarray(vector, KEPT_AS).tobytes()
            rows.append((mark, nonce + cipher.encrypt(nonce, plain, mark)))
        self._use(lambda database: database.executemany(KEPT, rows))

    def drop(self, texts: Iterable[str]) -> None:
        """Keep the vectors of texts no longer."""
        keys = self._ciphers()
        if keys is not None and self._path.exists():
            marks = [(self._mark(keys[1], text),) for text in texts]
            self._use(lambda database: database.executemany(DROPPED, marks))

    def before(self, embed: Embed) -> Embed:
        """A function that embeds only what is not kept, and keeps nothing: questions are no facts.

        Args:
            embed: Embeds texts in one call.
        """

        def look_up(texts: list[str]) -> Sequence[Sequence[float]]:
            found: dict[str, Any] = dict(self.get(texts))
            missing = [text for text in texts if text not in found]
            if missing:
                found |= zip(missing, embed(missing), strict=True)
            return [found[text] for text in texts]

        return look_up

    def _ciphers(self) -> tuple[AESGCM, bytes] | None:
        """The cipher, and the key of the hashes; ``None`` while there is no ledger."""
        if self._keys is None and (key := self._read_key()) is not None:
            self._keys = AESGCM(derived(key, b"vectors")), derived(key, b"vector marks")
        return self._keys

    def _mark(self, hashing: bytes, text: str) -> bytes:
        said = text.encode("utf-8", "surrogatepass")
        return hmac.digest(hashing, self._model + b"\0" + said, "sha256")

    def _look_up(self, statement: str, marks: Sequence[bytes]) -> list[tuple[Any, ...]]:
        rows = list[tuple[Any, ...]]()

        def read(database: sqlite3.Connection) -> None:
            for start in range(0, len(marks), AT_ONCE):
                some = marks[start : start + AT_ONCE]
                rows.extend(database.execute(statement.format(",".join("?" * len(some))), some))

        self._use(read)
        return rows

    def _use(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Work on the file, in one transaction; what it or the disk complains of is passed over."""
        try:
            with self._lock, closing(self._opened()) as database, database:
                work(database)
        except (sqlite3.Error, OSError) as error:
            logger.info("%s is not used: %s", self._path, error)
            # An operational error is a lock or a full disk; any other one is damage.
            if not isinstance(error, sqlite3.OperationalError | OSError):
                self._path.unlink(missing_ok=True)

    def _opened(self) -> sqlite3.Connection:
        if not self._path.exists():
            private_directory(self._path.parent)
            private_file(self._path)
        database = sqlite3.connect(self._path, timeout=WAIT)
        database.execute(TABLE)
        return database


def open_shelf(home: Path, key: str | None, model_name: str) -> EncryptedVectorCache:
    """The vectors of a home's ledger.

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
