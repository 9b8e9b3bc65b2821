"""A ``PassageStore`` in PostgreSQL, over LlamaIndex's pgvector store."""

import math
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from sqlalchemy import Connection, Engine, Float, Select, event, func, or_, select

from foundation import postgres
from retrieval.embedding import unit_vectors
from retrieval.stores.base import StoredDocument, WordMatches, check_embedding
from retrieval.stores.postgres_tables import (
    CONTENT_HASH,
    DOCUMENT_ID,
    EF_SEARCH,
    HNSW_INDEX,
    MOST_DIMENSIONS,
    MOST_EF_SEARCH,
    PASSAGES,
    SETTINGS,
    build_hnsw,
    content_words,
    create_table,
    exists,
    open_table,
    passages_containing,
    prepare,
    read_settings,
    record,
    run,
)

if TYPE_CHECKING:
    from llama_index.vector_stores.postgres import PGVectorStore

OPTION = "--index"
PACKAGE = "llama-index-vector-stores-postgres"  # it brings the driver, psycopg2
# Continue the scan of the graph until enough passages are found, also after deletions.
ITERATIVE_SCAN = "SET hnsw.iterative_scan = strict_order"  # pgvector before 0.8 ignores it
LOCK = 0x46554C43  # writers of this index wait for each other; the number spells FULC

explained = partial(postgres.explained, option=OPTION)

_STORED = select(PASSAGES.c.text, PASSAGES.c.metadata_).order_by(PASSAGES.c.id)


class PostgresStore:
    """A ``PassageStore`` in PostgreSQL with pgvector.

    LlamaIndex's ``PGVectorStore`` creates the table, adds, removes, and searches by vectors and by
    words. Each write is one transaction, so it is atomic even if the process is killed. Until
    ``finish`` has built the HNSW index, vector search is exact and slow. Safe to use from several
    threads and processes.
    """

    def __init__(self, url: str, embedding_name: str) -> None:
        """Connect to a database, and prepare it if it holds no index.

        Raises:
            InputError: the URL cannot be read, or a Python package is missing.
            IndexStateError: the server cannot be reached, refuses, or lacks pgvector, or the index
                was built with another embedding model.
        """
        self._engine, self._place = _connect(url)
        self._embedding_name = embedding_name
        self._searching: PGVectorStore | None = None
        with self._reading() as connection:
            prepared = exists(connection, SETTINGS.fullname)
        if not prepared:
            with self._writing() as connection:
                prepare(connection)
        with self._reading() as connection:
            self._check_embedding(connection)

    def add(self, nodes: Sequence[BaseNode], *, replaced: Collection[str] = ()) -> list[str]:
        """Store embedded passages, in one transaction; see ``PassageStore``."""
        if not nodes and not replaced:
            return []
        ids = [node.node_id for node in nodes]
        vectors = unit_vectors([node.get_embedding() for node in nodes]) if nodes else None
        with self._writing() as connection:
            given = None if vectors is None else vectors.shape[1]
            dimension = self._check_embedding(connection, given)
            if dimension is None:
                if vectors is None:
                    return []
                dimension = vectors.shape[1]
                create_table(connection, dimension)
                record(connection, embedding=self._embedding_name, dimension=dimension)
            store = open_table(connection, dimension)
            for document_id in replaced:
                store.delete(document_id)
            if vectors is not None:
                store.delete_nodes(ids)
                store.add(
                    [
                        node.model_copy(update={"embedding": vector.tolist()})
                        for node, vector in zip(nodes, vectors, strict=True)
                    ]
                )
            record(connection, state=uuid.uuid4().hex)
        return ids

    def remove_document(self, document_id: str) -> int:
        """Remove a document's passages and return how many there were."""
        with self._writing() as connection:
            dimension = self._check_embedding(connection)
            if dimension is None:
                return 0
            passages = select(func.count()).where(document_id == DOCUMENT_ID)
            there = int(connection.execute(passages).scalar_one())
            open_table(connection, dimension).delete(document_id)
            record(connection, state=uuid.uuid4().hex)
        return there

    def documents(
        self, document_ids: Collection[str], content_hashes: Collection[str]
    ) -> dict[str, str]:
        """Return the stored documents, id to content hash, that have one of these ids or hashes."""
        wanted = or_(DOCUMENT_ID.in_(document_ids), CONTENT_HASH.in_(content_hashes))
        rows = self._rows(select(DOCUMENT_ID, CONTENT_HASH).where(wanted).distinct())
        return {document_id: content_hash for document_id, content_hash in rows}

    def get_nodes(self, node_ids: list[str] | None = None) -> list[BaseNode]:
        """Return the passages of these ids that exist, or all, in the order they were stored."""
        return self._nodes(
            _STORED if node_ids is None else _STORED.where(PASSAGES.c.node_id.in_(node_ids))
        )

    def passages_of(self, document_id: str, limit: int) -> list[BaseNode]:
        """Return the first ``limit`` passages of a document, in order."""
        return self._nodes(_STORED.where(document_id == DOCUMENT_ID).limit(limit))

    def list_documents(self, offset: int = 0, limit: int | None = None) -> list[StoredDocument]:
        """Return ``limit`` documents from ``offset`` on, in order of ingestion."""
        first = func.min(PASSAGES.c.id)
        grouped = (
            select(first.label("first"), func.count().label("passages"))
            .group_by(DOCUMENT_ID)
            .order_by(first)
            .offset(offset)
            .limit(limit)
            .subquery()
        )
        listed = (
            select(PASSAGES.c.metadata_, grouped.c.passages)
            .join(grouped, PASSAGES.c.id == grouped.c.first)
            .order_by(grouped.c.first)
        )
        return [
            StoredDocument(
                metadata["ref_doc_id"],
                metadata.get("title", ""),
                str(metadata.get("source", "")),
                passages,
                metadata.get("trust"),
                str(metadata.get("date", "")),
                metadata,
            )
            for metadata, passages in self._rows(listed)
        ]

    def is_empty(self) -> bool:
        """Whether there is no passage; unlike `count`, in constant time."""
        return not self._rows(select(PASSAGES.c.id).limit(1))

    def count(self) -> int:
        """Return the number of passages."""
        rows = self._rows(select(func.count()).select_from(PASSAGES))
        return int(rows[0][0]) if rows else 0

    def search_vectors(
        self, embeddings: Sequence[Sequence[float]], top_k: int
    ) -> list[VectorStoreQueryResult]:
        """Find the passages nearest to each embedding; see ``PassageStore``."""
        if not embeddings:
            return []
        vectors = unit_vectors(embeddings)
        store = self._store_to_search(vectors.shape[1])
        if store is None:
            return [_result([], []) for _ in embeddings]
        with explained(self._place):
            results = [
                store.query(
                    VectorStoreQuery(query_embedding=vector.tolist(), similarity_top_k=top_k),
                    hnsw_ef_search=min(max(EF_SEARCH, top_k), MOST_EF_SEARCH),
                )
                for vector in vectors
            ]
        return [_result(result.nodes or [], result.similarities or []) for result in results]

    def search_words(
        self, queries: Sequence[str], embeddings: Sequence[Sequence[float]], top_k: int
    ) -> list[WordMatches]:
        """Find the passages that share words with each query; see ``PassageStore``.

        This is PostgreSQL's full-text search: words are stemmed as English, and one in the title
        counts more than one in the text.
        """
        if not queries:
            return []
        vectors = unit_vectors(embeddings)
        store = self._store_to_search(vectors.shape[1])
        if store is None:
            return [WordMatches([], [], []) for _ in queries]
        return [
            self._match(store, query, vector.tolist(), top_k)
            for query, vector in zip(queries, vectors, strict=True)
        ]

    def containing(self, groups: Sequence[Sequence[str]]) -> list[str]:
        """Find all passages that hold all words of a phrase of each group."""
        with self._reading() as connection:
            if self._check_embedding(connection) is None:
                return []
            return passages_containing(connection, groups)

    def state(self) -> str | None:
        """Return a text that every change of the passages changes; ``None`` before the first."""
        with self._reading() as connection:
            return read_settings(connection).get("state")

    def finish(self) -> None:
        """Build the HNSW index if there is none, and renew the planner's statistics.

        Later writes update the index. During the build others can read, and their writes wait.
        """
        with self._writing() as connection:
            dimension = self._check_embedding(connection)
            if dimension is None:
                return
            if dimension <= MOST_DIMENSIONS and not exists(connection, HNSW_INDEX):
                build_hnsw(connection, dimension)
            run(connection, [f"ANALYZE {PASSAGES.fullname}"])

    def _match(
        self, store: "PGVectorStore", query: str, vector: list[float], top_k: int
    ) -> WordMatches:
        with self._reading() as connection:
            words = content_words(connection, query)
        if not words:
            return WordMatches([], [], [])
        mode = VectorStoreQueryMode.TEXT_SEARCH
        asked = VectorStoreQuery(query_str=" ".join(words), mode=mode, similarity_top_k=top_k)
        with explained(self._place):
            matched = store.query(asked)
        nodes = matched.nodes or []
        scores = dict(zip((n.node_id for n in nodes), matched.similarities or [], strict=True))
        distance = PASSAGES.c.embedding.op("<=>", return_type=Float())(str(vector))
        found = PASSAGES.c.node_id.in_([node.node_id for node in nodes])
        distances = dict(
            tuple(row) for row in self._rows(select(PASSAGES.c.node_id, distance).where(found))
        )
        nodes = [node for node in nodes if node.node_id in distances]
        ids = [node.node_id for node in nodes]
        return WordMatches(
            nodes,
            [1 - distances[each] for each in ids],
            ids,
            [scores[each] for each in ids],
        )

    def _store_to_search(self, dimension: int) -> "PGVectorStore | None":
        """Return LlamaIndex's store outside any transaction; None while nothing was ever stored."""
        with self._reading() as connection:
            if self._check_embedding(connection, dimension) is None:
                return None
        if self._searching is None or self._searching.embed_dim != dimension:
            self._searching = open_table(self._engine, dimension)
        return self._searching

    def _check_embedding(self, connection: Connection, dimension: int | None = None) -> int | None:
        """Return the index's dimension; ``None`` before its first passage."""
        built = read_settings(connection)
        return check_embedding(built, self._embedding_name, dimension, self._place, OPTION)

    def _nodes(self, statement: Select[Any]) -> list[BaseNode]:
        return [
            metadata_dict_to_node(metadata, content) for content, metadata in self._rows(statement)
        ]

    def _rows(self, statement: Select[Any]) -> Sequence[Any]:
        """Return what a statement reads of the passages; nothing if nothing was ever stored."""
        with self._reading() as connection:
            if self._check_embedding(connection) is None:
                return []
            return connection.execute(statement).all()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with explained(self._place), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._reading() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
            yield connection


def _connect(url: str) -> tuple[Engine, str]:
    """Return an engine, which has not connected yet, and what to call its database in messages."""
    parsed = postgres.parse(url, OPTION)
    try:
        import llama_index.vector_stores.postgres  # noqa: F401
    except ImportError as error:
        raise postgres.missing_package(parsed, OPTION, PACKAGE) from error
    engine = postgres.connect(parsed, OPTION, PACKAGE)
    event.listen(engine, "connect", _set_options)
    return engine, postgres.place(parsed)


def _set_options(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(ITERATIVE_SCAN)
    connection.commit()


def _result(nodes: Sequence[BaseNode], cosines: Sequence[float]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=list(nodes),
        # With a vector of zeros, pgvector's cosine is NaN.
        similarities=[0.0 if math.isnan(cosine) else cosine for cosine in cosines],
        ids=[node.node_id for node in nodes],
    )
