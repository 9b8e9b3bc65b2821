"""What the passage index asks of a store, wherever the passages lie."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import VectorStoreQueryResult


@dataclass(frozen=True)
class Stored:
    """A document of the index.

    Attributes:
        id: Its id.
        title: Its title.
        source: The file that it came from.
        passages: How many it was cut into.
        trust: How far it is trusted against memory, in [0, 1]; ``None`` where nobody said.
    """

    id: str
    title: str
    source: str
    passages: int
    trust: float | None = None


class PassageStore(Protocol):
    """Passages with their vectors, found by nearness and by words.

    Every method that writes leaves whole documents, also if the process is killed in it. Every
    query sees all that was written before, in any process. Safe to use from several threads.

    A store raises ``IndexStateError`` where it is damaged or was built with another embedding model
    or dimension, and ``ModelError`` where a vector holds infinity or NaN.
    """

    def add(self, nodes: Sequence[BaseNode], *, replaced: Collection[str] = ()) -> list[str]:
        """Store embedded passages of ``retrieval.ingest.chunking`` and return their ids.

        Args:
            nodes: Each with its embedding, which is brought to length 1. One whose id is stored
                already takes that one's place.
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

    def stored(self, offset: int = 0, limit: int | None = None) -> list[Stored]:
        """Return the documents in the order they came, ``limit`` of them from ``offset`` on."""
        ...

    def get_nodes(self, node_ids: list[str] | None = None) -> list[BaseNode]:
        """Return the passages of these ids that exist, or all, in the order they were stored."""
        ...

    def is_empty(self) -> bool:
        """Say whether there is no passage; unlike counting, this takes no time on a big store."""
        ...

    def count(self) -> int:
        """Return the number of passages."""
        ...

    def query_batch(
        self, embeddings: Sequence[Sequence[float]], top_k: int
    ) -> list[VectorStoreQueryResult]:
        """Find the passages nearest to each embedding.

        Returns:
            For each embedding its passages, nearest first; the similarity is the cosine, in
            [-1, 1]. A passage may bring its own embedding, of length 1.
        """
        ...

    def match_batch(
        self, queries: Sequence[str], embeddings: Sequence[Sequence[float]], top_k: int
    ) -> list[VectorStoreQueryResult]:
        """Find the passages that share words with each query.

        Args:
            queries: As a user types them; no character in them is an operator.
            embeddings: One for each query.
            top_k: Passages for each query.

        Returns:
            For each query its passages, in the order of the words' weight; the similarity is the
            cosine to the query's embedding. None for a query without a word that tells.
        """
        ...

    def containing(self, groups: Sequence[Sequence[str]]) -> list[str]:
        """Find all passages that hold certain words in title or text, however many there are.

        Args:
            groups: Of phrases, as they may be written; case, accents and endings do not matter.

        Returns:
            The ids of the passages that hold, of each group, all words of one of its phrases.
            None if a group has no phrase with a word.
        """
        ...

    def finish(self) -> None:
        """Do what pays after many additions: write snapshots, build what is pending."""
        ...
