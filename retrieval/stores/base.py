"""The protocol of a store of passages."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import VectorStoreQueryResult

from foundation.errors import IndexStateError


@dataclass(frozen=True)
class StoredDocument:
    """A document of the index.

    Attributes:
        id: Its id.
        title: Its title.
        source: The file that it came from.
        passages: Their number.
        trust: Its trust against memory, in [0, 1]; ``None`` if not given.
        date: In ISO 8601, of which day or month may lack; empty if not known.
        details: The metadata of its first passage.
    """

    id: str
    title: str
    source: str
    passages: int
    trust: float | None = None
    date: str = ""
    details: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass
class WordMatches(VectorStoreQueryResult):
    """What full-text search finds.

    Attributes:
        scores: How well each passage matches, such as by BM25; positive, best first.
    """

    scores: Sequence[float] = ()


class PassageStore(Protocol):
    """Passages with their vectors, found by vector search and by full-text search.

    Each write is atomic, also if the process is killed in it. Each read sees all earlier writes of
    any process. Safe to use from several threads.

    A store raises ``IndexStateError`` if it is damaged or was built with another embedding model or
    dimension, and ``ModelError`` if a vector holds infinity or NaN.
    """

    def add(self, nodes: Sequence[BaseNode], *, replaced: Collection[str] = ()) -> list[str]:
        """Store embedded passages of ``retrieval.ingest.chunking`` and return their ids.

        Args:
            nodes: Each with its embedding, which is scaled to length 1; a node replaces a stored
                one of the same id.
            replaced: Ids of documents whose stored passages are removed first.
        """
        ...

    def remove_document(self, document_id: str) -> int:
        """Remove a document's passages and return how many there were."""
        ...

    def documents(
        self, document_ids: Collection[str], content_hashes: Collection[str]
    ) -> dict[str, str]:
        """Return the stored documents, id to content hash, that have one of these ids or hashes."""
        ...

    def list_documents(self, offset: int = 0, limit: int | None = None) -> list[StoredDocument]:
        """Return ``limit`` documents from ``offset`` on, in order of ingestion."""
        ...

    def passages_of(self, document_id: str, limit: int) -> list[BaseNode]:
        """Return the first ``limit`` passages of a document, in order."""
        ...

    def get_nodes(self, node_ids: list[str] | None = None) -> list[BaseNode]:
        """Return the passages of these ids that exist, or all, in the order they were stored.

        A passage that was asked for by its id may have its embedding, of length 1.
        """
        ...

    def state(self) -> str | None:
        """Return a text that every change of the passages changes; ``None`` if there is none yet.

        No two indexes ever have the same one.
        """
        ...

    def is_empty(self) -> bool:
        """Whether there is no passage; unlike `count`, in constant time."""
        ...

    def count(self) -> int:
        """Return the number of passages."""
        ...

    def search_vectors(
        self, embeddings: Sequence[Sequence[float]], top_k: int
    ) -> list[VectorStoreQueryResult]:
        """Find the passages nearest to each embedding.

        Returns:
            For each embedding its passages, nearest first; the similarity is the cosine, in
            [-1, 1]. A passage may have its embedding, of length 1.
        """
        ...

    def search_words(
        self, queries: Sequence[str], embeddings: Sequence[Sequence[float]], top_k: int
    ) -> list[WordMatches]:
        """Find the passages that share words with each query, by full-text search.

        Args:
            queries: As a user types them; no character in them is an operator.
            embeddings: One for each query.
            top_k: Passages for each query.

        Returns:
            For each query its passages, best match first; the similarity is the cosine to the
            query's embedding. None for a query of stop words alone.
        """
        ...

    def containing(self, groups: Sequence[Sequence[str]]) -> list[str]:
        """Find all passages that hold certain words in title or text, without a limit.

        Args:
            groups: Of phrases; case, accents and word endings are ignored.

        Returns:
            The ids of the passages that hold, of each group, all words of one of its phrases.
            None if a group has no phrase with a word.
        """
        ...

    def finish(self) -> None:
        """Complete an ingestion: write snapshots, build pending indexes."""
        ...


def check_embedding(
    built: Mapping[str, str], name: str, dimension: int | None, place: object, option: str
) -> int | None:
    """Check that an index was built with the embedding model in use.

    Args:
        built: The index's properties ``embedding`` and ``dimension``, if it has any.
        name: Of the embedding model.
        dimension: Of its vectors, if known.
        place: What to call the index in messages.
        option: What else to change, such as ``--home``.

    Returns:
        The index's dimension; ``None`` before its first passage.

    Raises:
        IndexStateError: Model or dimension differ.
    """
    model = built.get("embedding", name)
    if model != name:
        raise IndexStateError(
            f"{place} was built with the embedding model {model} and cannot be used "
            f"with {name}; name {model} by --embedding, or ingest again with another {option}"
        )
    if "dimension" not in built:
        return None
    expected = int(built["dimension"])
    if dimension not in (None, expected):
        raise IndexStateError(
            f"{place} was built with {expected}-dimensional vectors of {model}, but "
            f"{name} now gives {dimension}; use the former model, or ingest again with "
            f"another {option}"
        )
    return expected
