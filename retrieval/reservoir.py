"""The Memory Knowledge Reservoir of ERM4: useful passages, stored for later questions."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, mapped_column

from foundation.errors import IndexStateError, InputError
from foundation.sqlite import open_database, reading, writing
from retrieval.embedding import Vectors, cache_vectors, embed_queries, embed_texts, unit_vectors
from retrieval.ingest.documents import TITLE_KEY
from retrieval.search import fuse
from retrieval.stores.sqlite_tables import PassageColumns, to_node, to_row, to_vector

DATABASE = "reservoir.db"
TAU = 0.6  # the cosine that ERM4 found best
MAX_ENTRIES = 10_000  # 15 MB of vectors of 384 dimensions
MOST_ENTRIES = 30_000  # SQLite may take no more than 32,766 values in one statement
MAX_AGE_DAYS = 30.0
DAY = 86_400.0
# For so long after a document is erased, its passages are not added: an answer that retrieved them
# before may still be running.
ERASURE_SECONDS = 300.0
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
)


class ReservoirTables(DeclarativeBase):
    """The tables as the newest migration leaves them."""


class ReservoirRow(PassageColumns, ReservoirTables):
    """One passage with the use that it was of; times in UTC seconds."""

    __tablename__ = "entries"
    content_hash: Mapped[str] = mapped_column(unique=True)
    embedding_name: Mapped[str] = mapped_column(index=True)
    created: Mapped[float] = mapped_column(index=True)
    useful: Mapped[float] = mapped_column(index=True)
    uses: Mapped[int]


class Erasure(ReservoirTables):
    """A recently erased document, and the time."""

    __tablename__ = "erasures"
    document_id: Mapped[str] = mapped_column(primary_key=True)
    time: Mapped[float]


@dataclass(frozen=True)
class Entry:
    """A passage in the reservoir.

    Attributes:
        node: The passage; its metadata holds the title and where the document came from.
        content_hash: SHA-256 of title and text, in hexadecimal.
        vector: Of length 1, shape (dimension,).
        created: When it was added, in UTC seconds.
        useful: When the filter last kept it, in UTC seconds.
        uses: For how many questions the filter kept it.
    """

    node: TextNode
    content_hash: str
    vector: Vectors
    created: float
    useful: float
    uses: int


class Reservoir(BaseRetriever):
    """Passages that the filter kept, in ``reservoir.db``, found by vector search.

    A LlamaIndex retriever, so that it can be combined with others.

    Each change is one transaction, so it is atomic even if the process is killed; each recall sees
    all earlier changes of any process. Safe to use from several threads. Entries of another
    embedding model are ignored until the same passages are added again.
    """

    def __init__(
        self,
        home: Path,
        embed_model: BaseEmbedding,
        *,
        max_entries: int = MAX_ENTRIES,
        max_age_days: float = MAX_AGE_DAYS,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open or create the reservoir of a home directory.

        Args:
            home: The directory of all state.
            embed_model: The embedding model of entries and queries.
            max_entries: Beyond it, the least recently useful entries are evicted.
            max_age_days: Days after which an entry is evicted, however useful.
            now: The clock, in UTC seconds.

        Raises:
            InputError: a limit is out of range.
            IndexStateError: the database is damaged or cannot be created.
        """
        if not 1 <= max_entries <= MOST_ENTRIES:
            raise InputError(
                f"the reservoir's size is {max_entries}; give 1 to {MOST_ENTRIES} entries"
            )
        if not max_age_days > 0:
            raise InputError(f"the reservoir's age limit is {max_age_days} days; give more than 0")
        super().__init__()
        self._path = home / DATABASE
        self._embed_model = embed_model
        self._max_entries = max_entries
        self._max_age = max_age_days * DAY
        self._now = now
        self._engine = open_database(self._path, MIGRATIONS)
        self._of_this_model = ReservoirRow.embedding_name == embed_model.model_name
        self._lock = threading.Lock()
        self._synchronized_with: tuple[int, ...] = (0, 0)  # count and highest id
        self._ids: NDArray[np.int64] = np.empty(0, np.int64)
        self._created: NDArray[np.float64] = np.empty(0, np.float64)
        self._vectors: Vectors = np.empty((0, 0), np.float32)

    def remember(self, nodes: Sequence[NodeWithScore | BaseNode]) -> int:
        """Add passages that were useful for a question; stored ones count one use more.

        The question is not stored. Entries that are too old are evicted, and the least recently
        useful ones if there are too many. Passages of a just erased document are not added.

        Returns:
            The number of new entries.
        """
        bare = [node.node if isinstance(node, NodeWithScore) else node for node in nodes]
        given = {content_hash(node): node for node in bare}
        if not given:
            return 0
        with reading(self._engine, self._path) as connection:
            known = select(ReservoirRow.rowid).where(self._of_this_model)
            held = {
                key
                for key in given
                if connection.execute(known.where(ReservoirRow.content_hash == key)).first()
            }
        # Embedded before the transaction, which blocks other writers.
        fresh = self._rows([node for key, node in given.items() if key not in held])
        with writing(self._engine, self._path) as connection:
            now = self._now()
            connection.execute(delete(Erasure).where(Erasure.time < now - ERASURE_SECONDS))
            erased = set(connection.execute(select(Erasure.document_id)).scalars())
            new = {"created": now, "useful": now, "uses": 1}
            rows = [row | new for row in fresh if row["document_id"] not in erased]
            for key in held:
                again = update(ReservoirRow).where(ReservoirRow.content_hash == key)
                connection.execute(again.values(useful=now, uses=ReservoirRow.uses + 1))
            if rows:  # replacing what has the same id, an older state of the passage
                connection.execute(insert(ReservoirRow).prefix_with("OR REPLACE"), rows)
            self._evict(connection, now)
        return len(rows)

    def recall(
        self, embeddings: Sequence[Sequence[float]], tau: float = TAU, top_k: int | None = None
    ) -> list[list[NodeWithScore]]:
        """Return the entries near each query: ``S = {entries with cosine >= tau}``.

        Args:
            embeddings: Of the queries, by the reservoir's model.
            tau: The least cosine, in [-1, 1].
            top_k: The most entries for a query; all of them if left out.

        Returns:
            For each query its entries, nearest first, with the cosine as score.

        Raises:
            IndexStateError: the queries have another dimension than the entries.
        """
        if not embeddings:
            return []
        queries = unit_vectors(embeddings)
        with self._lock, reading(self._engine, self._path) as connection:
            self._synchronize(connection)
            if not len(self._ids):
                return [[] for _ in embeddings]
            self._check_dimension(queries.shape[1])
            cosines = np.clip(queries @ self._vectors.T, -1.0, 1.0)
            cosines[:, self._created < self._now() - self._max_age] = -np.inf
            found: list[list[tuple[int, float]]] = []
            for row in cosines:
                places = np.flatnonzero(row >= tau)
                places = places[np.argsort(-row[places], kind="stable")][:top_k]
                found.append(
                    list(zip(self._ids[places].tolist(), row[places].tolist(), strict=True))
                )
            wanted = {number for pairs in found for number, _ in pairs}
            rows = connection.execute(
                select(*ReservoirRow.__table__.columns).where(ReservoirRow.rowid.in_(wanted))
            )
            nodes: dict[int, TextNode] = {}
            for row in rows:
                nodes[row.rowid] = to_node(row)
                nodes[row.rowid].embedding = to_vector(row).tolist()
        cache_vectors(self._embed_model, nodes.values())
        return [
            [NodeWithScore(node=nodes[number], score=cosine) for number, cosine in pairs]
            for pairs in found
        ]

    def erase(self, document_ids: Collection[str]) -> int:
        """Remove all passages of these documents and return how many there were."""
        with writing(self._engine, self._path) as connection:
            now = {"time": self._now()}
            erased = upsert(Erasure).on_conflict_do_update(["document_id"], set_=now)
            for document_id in document_ids:
                connection.execute(erased.values(document_id=document_id, **now))
            return remove(connection, ReservoirRow.document_id, document_ids)

    def erase_entries(self, node_ids: Collection[str]) -> int:
        """Remove single passages by their ids, and return how many there were."""
        with writing(self._engine, self._path) as connection:
            return remove(connection, ReservoirRow.node_id, node_ids)

    def update(self, node: BaseNode) -> bool:
        """Replace the entry of the same id by a passage, with a new vector.

        Returns:
            Whether there was such an entry.
        """
        [row] = self._rows([node])
        history = select(ReservoirRow.created, ReservoirRow.useful, ReservoirRow.uses)
        with writing(self._engine, self._path) as connection:
            old = connection.execute(history.where(ReservoirRow.node_id == node.node_id)).first()
            if old is not None:  # a new row, whose id shows other processes the change
                connection.execute(
                    insert(ReservoirRow).prefix_with("OR REPLACE"), row | old._asdict()
                )
        return old is not None

    def entries(self) -> list[Entry]:
        """Return all entries, in order of insertion."""
        with reading(self._engine, self._path) as connection:
            rows = connection.execute(
                select(*ReservoirRow.__table__.columns).order_by(ReservoirRow.rowid)
            )
            return [
                Entry(
                    to_node(row),
                    row.content_hash,
                    to_vector(row),
                    row.created,
                    row.useful,
                    row.uses,
                )
                for row in rows
            ]

    def count(self) -> int:
        """Return the number of entries."""
        with reading(self._engine, self._path) as connection:
            return connection.execute(select(func.count()).select_from(ReservoirRow)).scalar_one()

    def clear(self) -> None:
        """Remove all entries."""
        with writing(self._engine, self._path) as connection:
            connection.execute(delete(ReservoirRow))

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if query_bundle.embedding is not None:
            embeddings = [query_bundle.embedding]
        else:
            embeddings = embed_queries(self._embed_model, query_bundle.embedding_strs)
        return fuse(self.recall(embeddings), self._max_entries)

    def _rows(self, nodes: Sequence[BaseNode]) -> list[dict[str, Any]]:
        texts = [node.get_content(MetadataMode.EMBED) for node in nodes]
        vectors = unit_vectors(embed_texts(self._embed_model, texts, lambda _: None))
        name = {"embedding_name": self._embed_model.model_name}
        return [
            to_row(node, vector, content_hash(node), (TITLE_KEY,)) | name
            for node, vector in zip(nodes, vectors, strict=True)
        ]

    def _evict(self, connection: Connection, moment: float) -> None:
        connection.execute(
            delete(ReservoirRow).where(ReservoirRow.created < moment - self._max_age)
        )
        eviction_order = select(ReservoirRow.rowid).order_by(
            ReservoirRow.useful.desc(), ReservoirRow.rowid.desc()
        )
        beyond = eviction_order.limit(-1).offset(self._max_entries)  # -1: no limit, to SQLite
        connection.execute(delete(ReservoirRow).where(ReservoirRow.rowid.in_(beyond)))

    def _synchronize(self, connection: Connection) -> None:
        """Read what any process has changed in the database since the last call."""
        # Ids are never reused, so any change shows in the count or the highest id.
        count = select(func.count(), func.coalesce(func.max(ReservoirRow.rowid), 0)).where(
            self._of_this_model
        )
        state = tuple(connection.execute(count).one())
        if state == self._synchronized_with:
            return
        numbers = connection.execute(
            select(ReservoirRow.rowid).where(self._of_this_model)
        ).scalars()
        kept = np.isin(self._ids, np.fromiter(numbers, np.int64))
        added = select(ReservoirRow.rowid, ReservoirRow.created, ReservoirRow.embedding).where(
            self._of_this_model, ReservoirRow.rowid > self._synchronized_with[1]
        )
        rows = connection.execute(added.order_by(ReservoirRow.rowid)).all()
        try:
            vectors = [to_vector(row) for row in rows]
            held = [self._vectors[kept]] if kept.any() else []
            self._vectors = np.vstack([*held, *vectors] or [np.empty((0, 0), np.float32)])
        except ValueError as error:
            raise IndexStateError(
                f"a vector in {self._path} is damaged; remove the file, it fills again by itself"
            ) from error
        new_ids = np.array([row.rowid for row in rows], np.int64)
        self._ids = np.concatenate([self._ids[kept], new_ids])
        created = np.array([row.created for row in rows], np.float64)
        self._created = np.concatenate([self._created[kept], created])
        self._synchronized_with = state

    def _check_dimension(self, dimension: int) -> None:
        held = self._vectors.shape[1]
        if dimension != held:
            raise IndexStateError(
                f"{self._path} holds {held}-dimensional vectors of {self._embed_model.model_name}, "
                f"which now gives {dimension}; remove the file, it fills again by itself"
            )


def content_hash(node: BaseNode) -> str:
    """Return the hash of title and text, which identifies a passage."""
    stated = json.dumps([node.metadata.get(TITLE_KEY, ""), node.get_content()], ensure_ascii=False)
    return hashlib.sha256(stated.encode()).hexdigest()


def remove(
    connection: Connection, column: InstrumentedAttribute[str], values: Iterable[str]
) -> int:
    """Remove the entries with one of these values, and return how many there were."""
    return sum(
        connection.execute(delete(ReservoirRow).where(column == value)).rowcount for value in values
    )
