"""The Memory Knowledge Reservoir of ERM4: which passages earlier searches found."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from llama_index.core.schema import NodeWithScore
from numpy.typing import NDArray
from sqlalchemy import JSON, Connection, delete, func, insert, or_, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from foundation.errors import InputError
from foundation.sqlite import empty_log, open_database, reading, writing
from retrieval.embedding import Vectors, unit_vectors

DATABASE = "reservoir.db"
MAX_ENTRIES = 10_000  # 15 MB of vectors of 384 dimensions
MAX_AGE_DAYS = 30.0
DAY = 86_400.0
NONE = -1  # no row has this id
# Append only: a database records which of these it has had, and runs the rest when opened.
MIGRATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "0001 entries, erasures",
        (
            # AUTOINCREMENT never reuses an id: count and highest id show whether the vectors in
            # memory are still current.
            """CREATE TABLE entries (
                rowid INTEGER PRIMARY KEY AUTOINCREMENT,
                content_hash VARCHAR NOT NULL UNIQUE,
                node_id VARCHAR NOT NULL UNIQUE,
                document_id VARCHAR NOT NULL,
                title VARCHAR NOT NULL,
                text VARCHAR NOT NULL,
                details JSON NOT NULL,
                embedding_name VARCHAR NOT NULL,
                embedding BLOB NOT NULL,
                query VARCHAR NOT NULL,
                created FLOAT NOT NULL,
                useful FLOAT NOT NULL,
                uses INTEGER NOT NULL)""",
            "CREATE INDEX entries_document_id ON entries (document_id)",
            "CREATE INDEX entries_embedding_name ON entries (embedding_name)",
            "CREATE INDEX entries_created ON entries (created)",
            "CREATE INDEX entries_useful ON entries (useful)",
            "CREATE TABLE erasures (document_id VARCHAR PRIMARY KEY, time FLOAT NOT NULL)",
        ),
    ),
    # Questions are not stored; SQLite rewrites the rows without the column and erases the old ones.
    ("0002 no questions", ("ALTER TABLE entries DROP COLUMN query",)),
    # Searches with the ids of what they found, instead of the texts of passages.
    (
        "0003 searches",
        (
            "DROP TABLE entries",
            "DROP TABLE erasures",
            # AUTOINCREMENT as above.
            """CREATE TABLE searches (
                rowid INTEGER PRIMARY KEY AUTOINCREMENT,
                state VARCHAR NOT NULL,
                embedding BLOB NOT NULL,
                ranking JSON NOT NULL,
                created FLOAT NOT NULL)""",
            "CREATE INDEX searches_state ON searches (state)",
            "CREATE INDEX searches_created ON searches (created)",
        ),
    ),
)

Ranking = list[tuple[str, float]]
"""Ids of passages with their scores, best first"""


class ReservoirTables(DeclarativeBase):
    """The tables as the newest migration leaves them."""


class SearchRow(ReservoirTables):
    """One search: the query's vector (float32, little-endian, of length 1), and what was found."""

    __tablename__ = "searches"
    rowid: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(index=True)
    embedding: Mapped[bytes]
    ranking: Mapped[list[tuple[str, float]]] = mapped_column(JSON)
    created: Mapped[float] = mapped_column(index=True)


class Reservoir:
    """Earlier searches of one index, in ``reservoir.db``: each query's vector and its ranking.

    Passages are named by their ids and questions are not stored, so it holds no text that could
    become outdated or would have to be forgotten. An entry is valid for one state of the index, and
    is removed after any change to that.

    Each change is one transaction, so it is atomic even if the process is killed; each recall sees
    all earlier changes of any process. Safe to use from several threads.
    """

    def __init__(
        self,
        home: Path,
        *,
        max_entries: int = MAX_ENTRIES,
        max_age_days: float = MAX_AGE_DAYS,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open or create the reservoir of a home directory.

        Args:
            home: The directory of all state.
            max_entries: Beyond it, the oldest entries are evicted.
            max_age_days: Days after which an entry is evicted.
            now: The clock, in UTC seconds.

        Raises:
            InputError: a limit is out of range.
            IndexStateError: the database is damaged or cannot be created.
        """
        if max_entries < 1:
            raise InputError(f"the reservoir's size is {max_entries}; give 1 entry or more")
        if not max_age_days > 0:
            raise InputError(f"the reservoir's age limit is {max_age_days} days; give more than 0")
        self._path = home / DATABASE
        self._max_entries = max_entries
        self._max_age = max_age_days * DAY
        self._now = now
        self._engine = open_database(self._path, MIGRATIONS)
        self._lock = threading.Lock()
        self._hold("", 0)

    def remember(
        self,
        state: str,
        embeddings: Sequence[Sequence[float]],
        rankings: Sequence[Sequence[NodeWithScore]],
    ) -> None:
        """Add searches; entries of other states of the index, too old ones and too many go.

        Args:
            state: Of the index, read before it was searched.
            embeddings: Of the queries.
            rankings: What each query found, best first.
        """
        now = self._now()
        rows = [
            {
                "state": state,
                "embedding": vector.astype("<f4").tobytes(),
                "ranking": [(found.node_id, found.score) for found in ranking],
                "created": now,
            }
            for vector, ranking in zip(unit_vectors(embeddings), rankings, strict=True)
        ]
        if not rows:
            return
        # In this order SQLite reads an index alone, 30 times faster than the vectors with it.
        newest = select(SearchRow.rowid).order_by(SearchRow.created.desc(), SearchRow.rowid.desc())
        beyond = newest.limit(-1).offset(self._max_entries)  # -1: no limit, to SQLite
        with writing(self._engine, self._path) as connection:
            connection.execute(insert(SearchRow), rows)
            for gone in (
                or_(SearchRow.state < state, SearchRow.state > state),  # != would use no index
                SearchRow.created < now - self._max_age,
                SearchRow.rowid.in_(beyond),
            ):
                connection.execute(delete(SearchRow).where(gone))

    def recall(
        self, state: str, embeddings: Sequence[Sequence[float]], tau: float
    ) -> list[Ranking | None]:
        """Return what the nearest of ``S = {entries with cosine >= tau}`` found, for each query.

        Args:
            state: Of the index now; entries of other states are ignored.
            embeddings: Of the queries.
            tau: The least cosine, in [-1, 1].

        Returns:
            For each query the ranking, ``None`` if S is empty.
        """
        if not embeddings:
            return []
        queries = unit_vectors(embeddings)
        with self._lock, reading(self._engine, self._path) as connection:
            self._synchronize(connection, state, queries.shape[1])
            if not len(self._ids):
                return [None for _ in embeddings]
            cosines = queries @ self._vectors.T
            old = self._created < self._now() - self._max_age
            cosines[:, old | np.isnan(self._vectors[:, 0])] = -np.inf
            nearest = np.where(
                cosines.max(axis=1) >= tau, self._ids[cosines.argmax(axis=1)], NONE
            ).tolist()
            columns = select(SearchRow.rowid, SearchRow.ranking)
            rows = connection.execute(columns.where(SearchRow.rowid.in_({*nearest})))
            rankings = {number: [(name, score) for name, score in found] for number, found in rows}
        return [rankings.get(number) for number in nearest]

    def count(self) -> int:
        """Return the number of entries, also of earlier states."""
        with reading(self._engine, self._path) as connection:
            return connection.execute(select(func.count()).select_from(SearchRow)).scalar_one()

    def clear(self) -> int:
        """Remove all entries, and return how many there were."""
        with writing(self._engine, self._path) as connection:
            removed = connection.execute(delete(SearchRow)).rowcount
        empty_log(self._path)
        return removed

    def _hold(self, state: str, dimension: int) -> None:
        """Begin to hold the vectors of one state of the index."""
        self._held = (state, dimension)
        self._ids: NDArray[np.int64] = np.empty(0, np.int64)
        self._created: NDArray[np.float64] = np.empty(0, np.float64)
        self._vectors: Vectors = np.empty((0, dimension), np.float32)

    def _synchronize(self, connection: Connection, state: str, dimension: int) -> None:
        """Read what any process has changed in the database since the last call."""
        if (state, dimension) != self._held:
            self._hold(state, dimension)
        of_state = SearchRow.state == state
        last = int(self._ids[-1]) if len(self._ids) else 0
        columns = select(SearchRow.rowid, SearchRow.created, SearchRow.embedding)
        added = columns.where(of_state, SearchRow.rowid > last).order_by(SearchRow.rowid)
        if rows := connection.execute(added).all():
            nothing = np.full(dimension, np.nan, np.float32)
            vectors = [np.frombuffer(row.embedding, np.uint8) for row in rows]
            # One of another length is of another model behind the same name, or damaged.
            fitting = [
                each.view("<f4") if len(each) == nothing.nbytes else nothing for each in vectors
            ]
            self._ids = np.append(self._ids, [row.rowid for row in rows])
            self._created = np.append(self._created, [row.created for row in rows])
            self._vectors = np.vstack([self._vectors, *fitting])
        count = select(func.count()).select_from(SearchRow).where(of_state)
        if connection.execute(count).scalar_one() < len(self._ids):  # some were removed
            numbers = connection.execute(select(SearchRow.rowid).where(of_state)).scalars()
            kept = np.isin(self._ids, np.fromiter(numbers, np.int64))
            self._ids, self._created = self._ids[kept], self._created[kept]
            self._vectors = self._vectors[kept]
