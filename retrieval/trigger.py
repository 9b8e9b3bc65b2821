"""The Retriever Trigger of ERM4: only queries that the reservoir cannot serve go to the index."""

from collections.abc import Sequence

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from foundation import trace
from foundation.errors import IndexStateError, InputError
from retrieval.embedding import embed_queries
from retrieval.index import TOP_K, PassageIndex
from retrieval.reservoir import Reservoir
from retrieval.search import Rankings, Search, fuse

# ERM4 found 0.6 best, for single passages under similar questions. Here a near query is served the
# whole ranking of an earlier one, which must be as good as its own. Of 50 pairs of a question on
# three manuals and a rewording of it, 35 had a cosine of 0.9 and more; a search found the right
# passage for 33 of these, the ranking of the other question held it for 31. Of 23 pairs that differ
# in what they ask for, those with two versions reach 0.993 (capitals alone make no difference, to
# BM25 neither); five of ten that differ in nothing that matters lie above 0.995.
TAU = 0.995
ORDER = "joined scores"  # of rankings in the index; to be changed with `combine`
CHECKED_PASSAGES = 3  # that `finds_answer` judges
NOT_KEPT = "what was found is not kept for later questions: {reason}"


def finds_answer(search: Search, judge: BaseNodePostprocessor, question: str) -> bool:
    """Whether a question that was not rewritten finds a passage that ``judge`` keeps.

    Most questions that stand on their own do. Those that need two passages find one for their
    first half, so the judge has to be a strict one.
    """
    with trace.step("trigger"):
        [found] = search(question, [question])
        return bool(judge.postprocess_nodes(found[:CHECKED_PASSAGES], QueryBundle(question)))


class Trigger(BaseRetriever):
    """Answers each query from the reservoir where possible, and from the index otherwise.

    ERM4, for each query: with ``S = {entries with cosine >= tau}``, serve S if ``|S| >= theta``,
    else retrieve. There an entry is one passage, and theta is 3; here it is an earlier search with
    all that it found, so theta is 1 and the nearest entry is served.
    """

    def __init__(
        self,
        index: PassageIndex,
        reservoir: Reservoir,
        embed_model: BaseEmbedding,
        *,
        tau: float = TAU,
        top_k: int = TOP_K,
    ) -> None:
        """Join the reservoir and the index.

        Args:
            index: Answers the queries that the reservoir cannot.
            reservoir: Of earlier searches of it.
            embed_model: The model of the index.
            tau: The least cosine of an earlier query to a query that it serves, in [0, 1].
            top_k: Passages for each query.

        Raises:
            InputError: a number is out of its range.
        """
        if not 0 <= tau <= 1:
            raise InputError(f"tau is {tau}; give a cosine from 0 to 1")
        if top_k < 1:
            raise InputError(f"top_k is {top_k}; give a number of passages from 1 up")
        super().__init__()
        self._index = index
        self._reservoir = reservoir
        self._embed_model = embed_model
        self._tau = tau
        self._top_k = top_k

    def search(self, _question: str, queries: Sequence[str]) -> Rankings:
        """Find passages for each of a question's queries.

        Returns:
            For each query its passages, best first.
        """
        with trace.step("trigger"):
            state = self._index.state()
        if state is None or not queries:  # then no embedding model is needed
            return self._index.retrieve_batch(queries, self._top_k)
        # A ranking for fewer passages, or of another order, serves no search.
        state = f"{state}/{self._top_k}/{ORDER}"
        with trace.step("trigger"):
            embeddings = embed_queries(self._embed_model, queries)
            held = self._held(state, embeddings)
        sent = [place for place, ranking in enumerate(held) if ranking is None]
        vectors = [embeddings[place] for place in sent]
        retrieved = self._index.retrieve_batch(
            [queries[place] for place in sent], self._top_k, vectors
        )
        with trace.step("trigger"):
            self._remember(state, vectors, retrieved)
        trace.count("queries_served", len(queries) - len(sent))
        trace.count("queries_sent", len(sent))
        trace.count("passages_external", count_distinct(retrieved))
        found = iter(retrieved)
        return [next(found) if ranking is None else ranking for ranking in held]

    def _held(
        self, state: str, embeddings: Sequence[Sequence[float]]
    ) -> list[list[NodeWithScore] | None]:
        """Return the passages for each query that the reservoir can serve."""
        rankings = self._reservoir.recall(state, embeddings, self._tau)
        ids = {node_id for ranking in rankings for node_id, _ in ranking or ()}
        nodes = {node.node_id: node for node in self._index.get_nodes(list(ids))} if ids else {}
        return [
            None
            if ranking is None or any(name not in nodes for name, _ in ranking)  # just removed
            else [NodeWithScore(node=nodes[name], score=score) for name, score in ranking]
            for ranking in rankings
        ]

    def _remember(
        self, state: str, embeddings: Sequence[Sequence[float]], rankings: Rankings
    ) -> None:
        try:
            self._reservoir.remember(state, embeddings, rankings)
        except IndexStateError as error:  # a full disk costs later answers time, not this one
            trace.notice(NOT_KEPT.format(reason=error))

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Find passages for ``embedding_strs``, the queries, of ``query_str``, the question."""
        queries = [query for query in query_bundle.embedding_strs if query.strip()]
        return fuse(self.search(query_bundle.query_str, queries), self._top_k)


def count_distinct(rankings: Rankings) -> int:
    """Return the number of different passages in several rankings."""
    return len({found.node_id for ranking in rankings for found in ranking})
