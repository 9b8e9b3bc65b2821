"""The vectors in memory: a FAISS index that follows the database, and its snapshot on disk.

The database is the truth. Whatever happens to the snapshot costs time and never an answer.
"""

import json
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import faiss
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from foundation.errors import IndexStateError, InputError
from foundation.files import replacing
from retrieval.tables import Passage, Removal, read_settings

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 10_000  # 15 MB of vectors of 384 dimensions
SAVE_AFTER = 10_000  # catching up with more than this takes longer than writing a snapshot
HEADER_BYTES = 512
PROBE_DIMENSION = 3840  # divisible by the part counts that product quantisers use
BUFFER_BYTES = 1 << 20
FORMAT = "fulcrum vectors 1"

Vectors = NDArray[np.float32]


class VectorIndex:
    """Vectors of length 1, found by inner product, which for them is the cosine."""

    def __init__(self, snapshot: Path, factory: str) -> None:
        """Hold nothing yet; ``factory`` is FAISS's description of the index, such as "Flat".

        Raises:
            InputError: FAISS does not know the description.
        """
        self._snapshot = snapshot
        self._factory = factory
        self._index: Any = None
        self._identity = ""  # of the database content that the vectors come from
        self._generation = -1
        self._highest = 0  # the last passage number taken in
        _empty(factory, PROBE_DIMENSION)  # so that a wrong description speaks up at once

    def follow(self, connection: Connection) -> None:
        """Take in what has changed in the database since the last call, in any process."""
        settings = read_settings(connection)
        identity, generation = settings["identity"], int(settings["generation"])
        if (identity, generation) == (self._identity, self._generation):
            return
        if "dimension" not in settings:  # nothing was ever ingested, or all was cleared
            self._index, self._identity, self._generation = None, identity, generation
            return
        dimension = int(settings["dimension"])
        repaired = False
        if identity != self._identity or self._index is None:
            repaired = not self._load(identity, generation, dimension)
            if repaired:
                self._start_over(dimension)
        known = self._size()
        if not self._catch_up(connection):
            logger.info("rebuilding the vectors from the database")
            self._start_over(dimension)
            self._add(_rows(connection, after=0))
            repaired = True
        self._identity, self._generation = identity, generation
        if repaired or self._size() - known > SAVE_AFTER:
            self.save()

    def search(self, queries: Vectors, top_k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Return the nearest passages' cosines and numbers, each (queries, top_k), best first.

        Where there are fewer than ``top_k``, the number is -1.
        """
        if self._index is None:
            shape = (len(queries), 0)
            return np.empty(shape, np.float32), np.empty(shape, np.int64)
        cosines, numbers = self._index.search(queries, top_k)
        return np.clip(cosines, -1.0, 1.0), numbers

    def save(self) -> None:
        """Write the snapshot. A failure is logged and harms nothing."""
        if self._index is None:
            return
        try:
            with replacing(self._snapshot) as new, new.open("wb") as file:
                file.write(b" " * HEADER_BYTES)
                checksum = _Checksum(file.write)
                writer = faiss.PyCallbackIOWriter(checksum, BUFFER_BYTES)  # type: ignore[attr-defined]
                faiss.write_index(self._index, writer)
                del writer  # flushes its buffer
                file.seek(0)
                file.write(self._header(checksum.value).ljust(HEADER_BYTES))
        except (OSError, RuntimeError) as error:
            logger.warning("the snapshot %s was not written: %s", self._snapshot, error)

    def _header(self, checksum: int) -> bytes:
        return json.dumps(
            {
                "format": FORMAT,
                "factory": self._factory,
                "identity": self._identity,
                "generation": self._generation,
                "highest": self._highest,
                "checksum": checksum,
            }
        ).encode()

    def _load(self, identity: str, generation: int, dimension: int) -> bool:
        """Read the snapshot; return False if there is none that fits."""
        try:
            with self._snapshot.open("rb") as file:
                header = json.loads(file.read(HEADER_BYTES))
                if (header["format"], header["factory"]) != (FORMAT, self._factory):
                    raise ValueError("it was written with other settings")
                if header["identity"] != identity or header["generation"] > generation:
                    raise ValueError("it belongs to another database")
                # Before FAISS sees a byte: it allocates whatever a damaged file asks for.
                if _checksum(file) != header["checksum"]:
                    raise ValueError("its checksum is wrong")
                file.seek(HEADER_BYTES)
                reader = faiss.PyCallbackIOReader(file.read, BUFFER_BYTES)  # type: ignore[attr-defined]
                index = faiss.read_index(reader)
                if index.d != dimension:
                    raise ValueError("its vectors have another dimension")
        except FileNotFoundError:
            return False
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            logger.info("the snapshot %s is not used: %s", self._snapshot, error)
            return False
        self._index = index
        self._generation, self._highest = header["generation"], header["highest"]
        return True

    def _start_over(self, dimension: int) -> None:
        self._index = _empty(self._factory, dimension)
        self._generation, self._highest = -1, 0

    def _catch_up(self, connection: Connection) -> bool:
        """Add and remove what changed; return False if the count then differs from the database."""
        gone = select(Removal.passage).where(
            Removal.generation > self._generation, Removal.passage <= self._highest
        )
        numbers = np.fromiter(connection.execute(gone).scalars(), np.int64)
        try:
            if len(numbers) and self._size():
                self._index.remove_ids(numbers)
        except RuntimeError:  # graph indexes (HNSW) cannot remove
            return False
        self._add(_rows(connection, after=self._highest))
        stored = connection.execute(select(func.count()).select_from(Passage)).scalar_one()
        return bool(self._size() == stored)

    def _add(self, batches: Iterable[Sequence[Any]]) -> None:
        for rows in batches:
            numbers = np.array([row.rowid for row in rows], np.int64)
            try:
                vectors = np.frombuffer(b"".join(row.embedding for row in rows), "<f4")
                vectors = vectors.reshape(len(rows), self._index.d)
            except ValueError as error:
                raise IndexStateError(
                    f"a vector beside {self._snapshot} is damaged; "
                    "remove the index and ingest the documents again"
                ) from error
            if not self._index.is_trained:
                try:
                    self._index.train(vectors)
                except RuntimeError as error:
                    raise InputError(
                        f"the index {self._factory!r} cannot be trained on {len(rows)} passages; "
                        'give more at once, or use "Flat"'
                    ) from error
            self._index.add_with_ids(vectors, numbers)
            self._highest = int(numbers[-1])

    def _size(self) -> int:
        return 0 if self._index is None else int(self._index.ntotal)


def _empty(factory: str, dimension: int) -> Any:  # faiss has no type information
    try:
        core = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InputError(
            f'FAISS has no index {factory!r}; give an index_factory string such as "Flat"'
        ) from error
    return faiss.IndexIDMap2(core)


def _rows(connection: Connection, after: int) -> Iterator[Sequence[Any]]:
    query = select(Passage.rowid, Passage.embedding).where(Passage.rowid > after)
    result = connection.execute(
        query.order_by(Passage.rowid).execution_options(yield_per=ROWS_AT_ONCE)
    )
    yield from result.partitions()


def _checksum(file: IO[bytes]) -> int:
    value = 0
    while block := file.read(BUFFER_BYTES):
        value = zlib.crc32(block, value)
    return value


class _Checksum:
    """A write function that keeps the checksum of what passes through it."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self.value = 0
        self._write = write

    def __call__(self, block: bytes) -> int:
        self.value = zlib.crc32(block, self.value)
        return self._write(block)
