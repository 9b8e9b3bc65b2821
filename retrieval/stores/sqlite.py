"""A LlamaIndex vector store on this machine: passages in SQLite, vector search by FAISS."""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from sqlalchemy import ColumnElement, Connection, Engine, delete, func, insert, select, true

from foundation.errors import InputError
from foundation.sqlite import empty_log, reading, writing
from retrieval.embedding import Vectors, unit_vectors
from retrieval.stores import bm25
from retrieval.stores.base import StoredDocument, WordMatches, check_embedding
from retrieval.stores.faiss import AUTO, VectorIndex, highest_number
from retrieval.stores.sqlite_tables import (
    PassageRow,
    RemovalRow,
    SettingRow,
    new_identity,
    next_generation,
    open_passages,
    read_settings,
    record,
    remove,
    to_node,
    to_row,
    to_vector,
)

Value = TypeVar("Value")
VALUES_AT_ONCE = 10_000  # SQLite takes at most 32,766 values in one statement
OWN_COLUMNS = ("title", "content_hash")  # metadata in columns of their own


class LocalStore(BasePydanticVectorStore):
    """Passages with their vectors, in ``passages.db``; ``passages.faiss`` beside it is derived.

    Each write is one transaction, so it is atomic even if the process is killed. Each read sees
    what other processes have written. Safe to use from several threads and processes.
    """

    stores_text: bool = True
    _database: Path = PrivateAttr()
    _engine: Engine = PrivateAttr()
    _embedding_name: str = PrivateAttr()
    _vectors: VectorIndex = PrivateAttr()
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, directory: Path, embedding_name: str, index_factory: str = AUTO) -> None:
        """Open or create the store in a directory.

        Args:
            directory: Created if it does not exist.
            embedding_name: The embedding model's.
            index_factory: FAISS's description of the index of vectors, or "auto".

        Raises:
            IndexStateError: the database is damaged, or was built with another embedding model.
            InputError: FAISS does not know ``index_factory``.
        """
        super().__init__(stores_text=True)
        self._database = directory / "passages.db"
        self._embedding_name = embedding_name
        self._engine = open_passages(self._database)
        self._vectors = VectorIndex(
            directory / "passages.faiss",
            index_factory,
            partial(reading, self._engine, self._database),
        )
        with reading(self._engine, self._database) as connection:
            self._check_embedding(connection, dimension=None)

    @property
    def client(self) -> Engine:
        """The database."""
        return self._engine

    def add(
        self, nodes: Sequence[BaseNode], *, replaced: Collection[str] = (), **_kwargs: object
    ) -> list[str]:
        """Store embedded passages, in one transaction.

        Args:
            nodes: Passages of ``retrieval.ingest.chunking``, each with its embedding, which is
                scaled to length 1. A node replaces a stored one of the same id.
            replaced: Ids of documents whose stored passages are removed first.

        Returns:
            The ids of the nodes.

        Raises:
            IndexStateError: the vectors' dimension is not the index's.
            ModelError: a vector holds infinity or NaN.
        """
        if not nodes and not replaced:
            return []
        ids = [node.node_id for node in nodes]
        rows = _rows(nodes)
        with writing(self._engine, self._database) as connection:
            generation = next_generation(connection)
            if rows:
                dimension = len(rows[0]["embedding"]) // np.dtype("<f4").itemsize
                self._check_embedding(connection, dimension)
                record(connection, embedding=self._embedding_name, dimension=dimension)
            removed = [
                remove(connection, column.in_(part), generation)
                for column, names in ((PassageRow.document_id, replaced), (PassageRow.node_id, ids))
                for part in _parts(names)
            ]
            if rows:
                connection.execute(insert(PassageRow), rows)
        if any(removed):
            empty_log(self._database)
        return ids

    def delete(self, ref_doc_id: str, **_kwargs: object) -> None:
        """Remove a document's passages; the next query anywhere no longer finds them."""
        self.remove_document(ref_doc_id)

    def remove_document(self, document_id: str) -> int:
        """Remove a document's passages and return how many there were."""
        with writing(self._engine, self._database) as connection:
            generation = next_generation(connection)
            removed = remove(connection, PassageRow.document_id == document_id, generation)
        empty_log(self._database)
        return removed

    def clear(self) -> None:
        """Remove everything; another embedding model may then be used."""
        with writing(self._engine, self._database) as connection:
            connection.execute(delete(PassageRow))
            connection.execute(delete(RemovalRow))
            connection.execute(
                delete(SettingRow).where(SettingRow.name.in_(("embedding", "dimension")))
            )
            record(connection, identity=new_identity(), generation=0)

    def query(self, query: VectorStoreQuery, **_kwargs: object) -> VectorStoreQueryResult:
        """Return the passages nearest to the query's embedding, with cosines in [-1, 1].

        Raises:
            InputError: the query asks for filters or another mode, which this store does not have.
        """
        if query.filters or query.doc_ids or query.node_ids:
            raise InputError("the local index cannot filter; ask without filters")
        if query.mode != VectorStoreQueryMode.DEFAULT or query.query_embedding is None:
            raise InputError(
                f"the local index searches by embedding, not in mode {query.mode.value!r}"
            )
        return self.search_vectors([query.query_embedding], query.similarity_top_k)[0]

    def search_vectors(
        self, embeddings: Sequence[Sequence[float]], top_k: int
    ) -> list[VectorStoreQueryResult]:
        """Search for several embeddings at once; one result for each, best passages first."""
        if len(embeddings) == 0:
            return []
        queries = unit_vectors(embeddings)
        with self._lock, reading(self._engine, self._database) as connection:
            self._check_embedding(connection, dimension=queries.shape[1])
            self._vectors.synchronize(connection)
            _, numbers = self._vectors.search(queries, top_k)
            return _results(connection, queries, numbers.tolist(), by_cosine=True)

    def search_words(
        self, queries: Sequence[str], embeddings: Sequence[Sequence[float]], top_k: int
    ) -> list[WordMatches]:
        """Search by BM25 for several queries; the similarities are cosines all the same.

        Returns:
            For each query its passages, best BM25 score first; none for a query of stop words.
        """
        if not queries:
            return []
        vectors = unit_vectors(embeddings)
        with reading(self._engine, self._database) as connection:
            self._check_embedding(connection, dimension=vectors.shape[1])
            matches = [bm25.find(connection, query, top_k) for query in queries]
            results = _results(connection, vectors, list(map(list, matches)), by_cosine=False)
        return [
            WordMatches(result.nodes, result.similarities, result.ids, list(match.values()))
            for result, match in zip(results, matches, strict=True)
        ]

    def containing(self, groups: Sequence[Sequence[str]]) -> list[str]:
        """Find all passages that hold all words of a phrase of each group."""
        with reading(self._engine, self._database) as connection:
            return bm25.containing(connection, groups)

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return the passages of these ids that exist, or all, in the order they were stored.

        Those asked for by their ids have their embeddings.
        """
        if filters is not None:
            raise InputError("the local index cannot filter; ask without filters")
        conditions: list[ColumnElement[bool]] = [true()]
        if node_ids is not None:
            conditions = [PassageRow.node_id.in_(part) for part in _parts(node_ids)]
        wanted = _WITHOUT_VECTOR if node_ids is None else _WITH_VECTOR
        with reading(self._engine, self._database) as connection:
            rows = [
                row
                for condition in conditions
                for row in connection.execute(wanted.where(condition))
            ]
        nodes: list[BaseNode] = []
        for row in sorted(rows, key=lambda row: row.rowid):
            nodes.append(to_node(row, content_hash=row.content_hash))
            if node_ids is not None:
                nodes[-1].embedding = to_vector(row).tolist()
        return nodes

    def documents(
        self, document_ids: Collection[str], content_hashes: Collection[str]
    ) -> dict[str, str]:
        """Return the stored documents, id to content hash, that have one of these ids or hashes."""
        conditions = [PassageRow.document_id.in_(part) for part in _parts(document_ids)]
        conditions += [PassageRow.content_hash.in_(part) for part in _parts(content_hashes)]
        columns = select(PassageRow.document_id, PassageRow.content_hash).distinct()
        with reading(self._engine, self._database) as connection:
            return {
                row.document_id: row.content_hash
                for condition in conditions
                for row in connection.execute(columns.where(condition))
            }

    def list_documents(self, offset: int = 0, limit: int | None = None) -> list[StoredDocument]:
        """Return ``limit`` documents from ``offset`` on, in order of ingestion."""
        first = func.min(PassageRow.rowid)
        # SQLite takes the other columns from the row that holds the minimum.
        listed = (
            select(
                PassageRow.document_id, PassageRow.title, PassageRow.details, func.count(), first
            )
            .group_by(PassageRow.document_id)
            .order_by(first)
            .offset(offset)
            .limit(-1 if limit is None else limit)
        )
        with reading(self._engine, self._database) as connection:
            return [
                StoredDocument(
                    row[0],
                    row[1],
                    str(row[2].get("source", "")),
                    row[3],
                    row[2].get("trust"),
                    str(row[2].get("date", "")),
                    row[2],
                )
                for row in connection.execute(listed)
            ]

    def passages_of(self, document_id: str, limit: int) -> list[BaseNode]:
        """Return the first ``limit`` passages of a document, in order."""
        wanted = _WITHOUT_VECTOR.where(PassageRow.document_id == document_id)
        with reading(self._engine, self._database) as connection:
            rows = connection.execute(wanted.order_by(PassageRow.rowid).limit(limit)).all()
        return [to_node(row, content_hash=row.content_hash) for row in rows]

    def is_empty(self) -> bool:
        """Whether there is no passage; unlike `count`, in constant time."""
        with reading(self._engine, self._database) as connection:
            return connection.execute(select(PassageRow.rowid).limit(1)).first() is None

    def count(self) -> int:
        """Return the number of passages."""
        with reading(self._engine, self._database) as connection:
            return connection.execute(select(func.count()).select_from(PassageRow)).scalar_one()

    def state(self) -> str:
        """Return a text that every change of the passages changes."""
        with reading(self._engine, self._database) as connection:
            built = read_settings(connection)
        return f"{built['identity']}:{built['generation']}"

    def finish(self) -> None:
        """Write the snapshot of the vectors, so that the next process need not rebuild them.

        If the number of passages needs another kind of index, it is built first. Without new
        passages this does nothing.
        """
        with self._lock, reading(self._engine, self._database) as connection:
            last = highest_number(connection)
            if last <= int(read_settings(connection).get("finished", 0)):
                return
            self._vectors.synchronize(connection)
        self._vectors.wait()
        with self._lock, reading(self._engine, self._database) as connection:
            self._vectors.synchronize(connection)
            self._vectors.save()
        with writing(self._engine, self._database) as connection:
            record(connection, finished=last)

    def _check_embedding(self, connection: Connection, dimension: int | None) -> None:
        built = read_settings(connection)
        check_embedding(built, self._embedding_name, dimension, self._database, "--home")


_WITHOUT_VECTOR = select(
    *(PassageRow.rowid, PassageRow.node_id, PassageRow.document_id, PassageRow.content_hash),
    *(PassageRow.title, PassageRow.text, PassageRow.details),
)
_WITH_VECTOR = _WITHOUT_VECTOR.add_columns(PassageRow.embedding)


def _rows(nodes: Sequence[BaseNode]) -> list[dict[str, Any]]:
    if not nodes:
        return []
    vectors = unit_vectors([node.get_embedding() for node in nodes])
    return [
        to_row(node, vector, node.metadata.get("content_hash", node.hash), OWN_COLUMNS)
        for node, vector in zip(nodes, vectors, strict=True)
    ]


def _results(
    connection: Connection, queries: Vectors, numbers: Sequence[Sequence[int]], *, by_cosine: bool
) -> list[VectorStoreQueryResult]:
    """Read passages; cosines are computed from their exact vectors in the database."""
    nodes: dict[int, TextNode] = {}
    vectors: dict[int, Vectors] = {}
    for part in _parts({n for found in numbers for n in found if n >= 0}):
        for row in connection.execute(_WITH_VECTOR.where(PassageRow.rowid.in_(part))):
            nodes[row.rowid] = to_node(row, content_hash=row.content_hash)
            vectors[row.rowid] = to_vector(row)
            nodes[row.rowid].embedding = vectors[row.rowid].tolist()
    return [
        _result(query, [n for n in found if n in nodes], nodes, vectors, by_cosine)
        for query, found in zip(queries, numbers, strict=True)
    ]


def _result(
    query: Vectors,
    found: Sequence[int],
    nodes: Mapping[int, TextNode],
    vectors: Mapping[int, Vectors],
    by_cosine: bool,
) -> VectorStoreQueryResult:
    cosines = {n: float(np.clip(vectors[n] @ query, -1.0, 1.0)) for n in found}
    if by_cosine:
        found = sorted(found, key=cosines.__getitem__, reverse=True)
    return VectorStoreQueryResult(
        nodes=[nodes[n] for n in found],
        similarities=[cosines[n] for n in found],
        ids=[nodes[n].node_id for n in found],
    )


def _parts(values: Collection[Value]) -> Iterator[list[Value]]:
    ordered = list(values)
    for start in range(0, len(ordered), VALUES_AT_ONCE):
        yield ordered[start : start + VALUES_AT_ONCE]
