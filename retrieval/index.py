"""The passage index: adds documents, and retrieves their passages."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import (
    BaseNode,
    Document,
    MetadataMode,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from llama_index.core.vector_stores.types import VectorStoreQueryResult

from foundation.errors import DocumentError, InputError
from retrieval.embedding import cache_vectors, embed_queries, embed_texts
from retrieval.ingest.chunking import split
from retrieval.ingest.documents import (
    TITLE_KEY,
    OnFile,
    OnRead,
    ReadDocument,
    SkippedPath,
    date_documents,
    plan_changes,
    read,
    shown_name,
)
from retrieval.search import combine, interleave
from retrieval.stores.base import PassageStore, StoredDocument
from retrieval.stores.faiss import AUTO
from retrieval.stores.sqlite import LocalStore
from retrieval.stores.urls import LOCAL_URL, check_url

TOP_K = 5
# Of each of the two rankings that are joined. By their ranks, on 120 questions about real documents
# the first ten held the answer for 86.7 % with 50 and for 85.0 % with 20.
LEAST_CANDIDATES = 50
# Of one transaction: about 300 passages, 2 s of embedding on two cores, which is the most that an
# interruption loses.
BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 200_000
HIDDEN_SOURCE_KEY = "hidden_source"  # metadata in place of a source that holds a forgotten fact


@dataclass
class IngestReport:
    """The counts of an ingestion.

    Attributes:
        documents: Documents stored, including those that replaced older content.
        passages: Passages that they were cut into.
        duplicates: Documents not stored because their content is in the index already.
        replaced: Documents whose id, or file, was in the index with other content, now removed.
        skipped: Files of directories that could not be read.
    """

    documents: int = 0
    passages: int = 0
    duplicates: int = 0
    replaced: int = 0
    skipped: list[SkippedPath] = field(default_factory=list)


OnProgress = Callable[[int], object]  # such as the update method of a tqdm bar


class PassageIndex(BaseRetriever):
    """A LlamaIndex retriever over a store of passages and the embedding model of their vectors.

    Passages come from vector search and BM25, by a weighted sum of their scores.
    """

    def __init__(
        self,
        store: PassageStore,
        embed_model: BaseEmbedding,
        top_k: int = TOP_K,
        *,
        lexical: bool = True,
        read_document: ReadDocument | None = None,
    ) -> None:
        """Join a store and its embedding model.

        Args:
            store: The passages.
            embed_model: The embedding model.
            top_k: Passages for each query.
            lexical: Whether to use BM25 as well.
            read_document: Finds the words that date a document, and that name what it replaces,
                where no other way does.

        Raises:
            InputError: ``top_k`` is below 1.
        """
        if top_k < 1:
            raise InputError(f"top_k is {top_k}; give a number of passages from 1 up")
        super().__init__()
        self._store = store
        self._embed_model = embed_model
        self._top_k = top_k
        self._lexical = lexical
        self._read_document = read_document

    def ingest(
        self,
        paths: Iterable[Path | str],
        progress: OnProgress = lambda _: None,
        trust: float | None = None,
        on_read: OnRead = lambda _: None,
        report: IngestReport | None = None,
        on_file: OnFile = lambda _: None,
        dated: str | None = None,
    ) -> IngestReport:
        """Read, split, embed and store files and directories, a batch of documents at a time.

        What the index holds of a file whose content has changed is removed, unless the file is one
        of JSON Lines, in which each document has its own id.

        Each batch is one transaction: interrupted at any moment, the index holds the finished
        batches, and the same call again skips them as duplicates and does the rest.

        Args:
            paths: Files or directories.
            progress: Called with the number of passages just embedded, several times a second.
            trust: In the documents, in [0, 1], where they do not say it themselves.
            on_read: Called with the bytes of files just read; their sum is
                `ingest.documents.total_bytes` of the paths.
            report: Its counts are increased, so that they are known after an interruption, too.
            on_file: Called with each file before it is read.
            dated: The documents' date, as for ``ingest.documents.read``.

        Raises:
            InputError: ``dated`` is no date.
            DocumentError: as ``ingest.documents.read``. Documents read before it are kept.
        """
        report = IngestReport() if report is None else report
        changed = _ChangedFiles(self._store, self.hidden_source)

        def begin(path: Path) -> None:
            changed.begin(path)
            on_file(path)

        documents = read(paths, report.skipped.append, trust, on_read, begin, dated)
        noted = changed.noted(documents)
        for _ in self.ingest_documents(noted, report, progress, changed.superseded):
            pass
        return report

    def ingest_documents(
        self,
        documents: Iterable[Document],
        report: IngestReport,
        progress: OnProgress = lambda _: None,
        superseded: Callable[[], set[str]] = set,
    ) -> Iterator[IngestReport]:
        """Ingest documents that were read already; yield after each batch.

        Args:
            documents: As ``retrieval.ingest.documents.read`` yields them.
            report: Its counts are increased.
            progress: As for ``ingest``.
            superseded: Gives ids of stored documents that are to be removed with the next batch.
        """
        if self._read_document is not None:
            documents = date_documents(documents, self._read_document, self._stored_hash)
        batch: list[Document] = []
        characters = 0
        try:
            for document in documents:
                batch.append(document)
                characters += len(document.text)
                if len(batch) >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
                    self._ingest_batch(batch, report, progress, superseded())
                    yield report
                    batch, characters = [], 0
        except DocumentError:
            self._ingest_batch(batch, report, progress, superseded())
            raise
        self._ingest_batch(batch, report, progress, superseded())
        self._store.finish()  # without new documents too: a kill may have left it undone
        yield report

    def _stored_hash(self, document_id: str) -> str:
        return self._store.documents({document_id}, set()).get(document_id, "")

    def delete(self, document_id: str) -> int:
        """Remove a document and return how many passages it had; 0 if there is none of this id."""
        return self._store.remove_document(document_id)

    def count(self) -> int:
        """Return the number of passages."""
        return self._store.count()

    def documents(self, offset: int = 0, limit: int | None = None) -> list[StoredDocument]:
        """Return the stored documents, in order of ingestion."""
        return self._store.list_documents(offset, limit)

    def details(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the id of each document with its title and further metadata."""
        for one in self._store.list_documents():
            yield one.id, {**one.details, TITLE_KEY: one.title}

    def hidden_source(self, source: str) -> str:
        """What is stored in place of a file's path that holds a forgotten fact."""
        return source

    def passages_of(self, document_id: str, limit: int) -> list[BaseNode]:
        """Return the first ``limit`` passages of a document, in order."""
        return self._store.passages_of(document_id, limit)

    def get_nodes(self, node_ids: Sequence[str]) -> list[BaseNode]:
        """Return the passages of these ids that exist."""
        nodes = self._store.get_nodes(list(node_ids))
        cache_vectors(self._embed_model, nodes)
        return nodes

    def state(self) -> str | None:
        """Return a text that every change of the passages changes; ``None`` while it is empty."""
        return None if self._store.is_empty() else self._store.state()

    def all_nodes(self) -> list[BaseNode]:
        """Return all passages, in the order they were stored."""
        return self._store.get_nodes()

    def containing(self, groups: Sequence[Sequence[str]]) -> list[str]:
        """Return the ids of all passages that hold all words of a phrase of each group."""
        return self._store.containing(groups)

    def replace(self, nodes: Sequence[BaseNode]) -> None:
        """Replace the passages of the same ids, with new vectors."""
        texts = [node.get_content(MetadataMode.EMBED) for node in nodes]
        vectors = embed_texts(self._embed_model, texts, lambda _: None)
        for node, vector in zip(nodes, vectors, strict=True):
            node.embedding = vector
        self._store.add(nodes)

    def finish(self) -> None:
        """Write the vectors' snapshot without those of the passages that were replaced."""
        self._store.finish()

    def retrieve_batch(
        self,
        queries: Sequence[str],
        top_k: int | None = None,
        embeddings: Sequence[Sequence[float]] | None = None,
    ) -> list[list[NodeWithScore]]:
        """Retrieve passages for several queries, embedded and searched in one batch.

        Args:
            queries: As a user types them.
            top_k: Passages for each query; by default the index's own number.
            embeddings: One for each query, if they are computed already.

        Returns:
            For each query its passages, best first; the score is the cosine, in [-1, 1], though
            the order is that of the fusion. Empty lists if the index is empty.
        """
        if not queries or self._store.is_empty():  # an empty index needs no embedding model
            return [[] for _ in queries]
        limit = top_k or self._top_k
        if embeddings is None:
            embeddings = embed_queries(self._embed_model, queries)
        results = self._search(queries, embeddings, limit)
        return [self._cached(ranking) for ranking in results]

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self._store.is_empty():
            return []
        if query_bundle.embedding is not None:
            embeddings, texts = [query_bundle.embedding], [query_bundle.query_str]
        else:
            texts = query_bundle.embedding_strs or [query_bundle.query_str]
            embeddings = embed_queries(self._embed_model, texts)
        results = self._search(texts, embeddings, self._top_k)
        return self._cached(interleave(results, self._top_k))

    def _search(
        self, queries: Sequence[str], embeddings: Sequence[Sequence[float]], top_k: int
    ) -> list[list[NodeWithScore]]:
        """Return the ranking of each query: by cosine and, if ``lexical``, by BM25 too."""
        candidates = max(2 * top_k, LEAST_CANDIDATES) if self._lexical else top_k
        near = map(_to_ranking, self._store.search_vectors(embeddings, candidates))
        if not self._lexical:
            return list(near)
        matches = self._store.search_words(queries, embeddings, candidates)
        return [
            combine(ranking, _to_ranking(match), match.scores, top_k)
            for ranking, match in zip(near, matches, strict=True)
        ]

    def _cached(self, ranking: list[NodeWithScore]) -> list[NodeWithScore]:
        """A ranking whose vectors are cached."""
        cache_vectors(self._embed_model, [each.node for each in ranking])
        return ranking

    def _ingest_batch(
        self,
        batch: Sequence[Document],
        report: IngestReport,
        progress: OnProgress,
        superseded: set[str],
    ) -> None:
        if not batch and not superseded:
            return
        stored = self._store.documents(
            {document.id_ for document in batch},
            {document.metadata["content_hash"] for document in batch},
        )
        fresh, replaced = plan_changes(batch, stored)
        replaced |= superseded
        nodes: list[TextNode] = [node for document in fresh for node in split(document)]
        texts = [node.get_content(MetadataMode.EMBED) for node in nodes]
        vectors = embed_texts(self._embed_model, texts, progress)
        for node, vector in zip(nodes, vectors, strict=True):
            node.embedding = vector
        self._store.add(nodes, replaced=replaced)
        report.documents += len(fresh)
        report.passages += len(nodes)
        report.duplicates += len(batch) - len(fresh)
        report.replaced += len(replaced)


class _ChangedFiles:
    """Finds what is stored of files whose content has changed since.

    A file is recognised by any path that leads to it; relative ones, stored ones too, are taken
    from the current directory.
    """

    def __init__(self, store: PassageStore, hidden_source: Callable[[str], str]) -> None:
        self._store = store
        self._hidden_source = hidden_source
        self._stored: dict[str, set[str]] | None = None  # ids by resolved source
        self._source, self._own = "", set[str]()  # of the file that is being read
        self._read, self._old = set[str](), set[str]()
        self._some_hidden = False

    def begin(self, path: Path) -> None:
        """Called before a file is read."""
        self._end()
        self._source = "" if path.suffix.lower() == ".jsonl" else shown_name(path)

    def noted(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents, each noted before it is given."""
        for document in documents:
            self._read.add(document.id_)
            if document.metadata["source"] == self._source:
                self._own.add(document.id_)
            yield document
        self._end()

    def superseded(self) -> set[str]:
        """Ids of what is stored of the files read so far and not in them, each told once.

        What another file of this ingestion holds stays.
        """
        found, self._old = self._old - self._read, set()
        return found

    def _end(self) -> None:
        if not self._own:  # nothing was read, or it could not be
            return
        if self._stored is None:
            self._stored = {}
            for one in self._store.list_documents():
                hidden = one.details.get(HIDDEN_SOURCE_KEY, "")
                self._some_hidden = self._some_hidden or bool(hidden)
                self._stored.setdefault(hidden or os.path.realpath(one.source), set()).add(one.id)
        path = os.path.realpath(self._source)
        keys = {path}
        if self._some_hidden:
            given = (self._source, path, os.path.relpath(path))
            keys.update(map(self._hidden_source, given))
        self._old |= set().union(*(self._stored.get(key, set()) for key in keys)) - self._own
        self._own = set()


def open_index(
    home: Path,
    url: str | None,
    embed_model: BaseEmbedding,
    *,
    top_k: int = TOP_K,
    index_factory: str = AUTO,
    lexical: bool = True,
    read_document: ReadDocument | None = None,
) -> PassageIndex:
    """Open the passage index, creating it if there is none.

    Args:
        home: The directory of all state; the local index lies in its folder ``index``.
        url: None or "faiss" for the local index; or a database,
            ``postgresql://user:password@host:port/database``.
        embed_model: The model whose ``model_name`` the index records.
        top_k: Passages for each query.
        index_factory: FAISS's description of the local index; "Flat" searches exactly, "auto" too
            up to `retrieval.stores.faiss.FLAT_LIMIT` passages.
        lexical: Whether to use BM25 beside vector search.
        read_document: As for `PassageIndex`.

    Raises:
        InputError: the URL is not supported.
        IndexStateError: the index is damaged or cannot be reached, or was built with another
            embedding model.
    """
    store = open_store(home / "index", url, embed_model.model_name, index_factory)
    return PassageIndex(store, embed_model, top_k, lexical=lexical, read_document=read_document)


def open_store(
    directory: Path, url: str | None, embedding_name: str, index_factory: str = AUTO
) -> PassageStore:
    """Open the store that a URL names; the local one lies in ``directory``.

    Raises:
        InputError: the URL is not supported.
        IndexStateError: the index is damaged or cannot be reached, or was built with another
            embedding model.
    """
    check_url(url)
    if url is None or url == LOCAL_URL:
        return LocalStore(directory, embedding_name, index_factory)
    from retrieval.stores.postgres import PostgresStore  # an optional dependency

    return PostgresStore(url, embedding_name)


def _to_ranking(result: VectorStoreQueryResult) -> list[NodeWithScore]:
    pairs = zip(result.nodes or (), result.similarities or (), strict=True)
    return [NodeWithScore(node=node, score=cosine) for node, cosine in pairs]
