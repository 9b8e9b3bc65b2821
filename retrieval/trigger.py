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
from retrieval.reservoir import Entry, Reservoir
from retrieval.search import Rankings, Search, fuse

TAU = 0.99
NEAR = 0.6  # the cosine that ERM4 found best
THETA = 1  # ERM4's is 3, of single passages; an entry here is a whole search
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
    else retrieve. Here an entry is an earlier search, and what the nearest one found is served
    whole. Where that is not near enough, but nearer than ``near``, its passages are merged with
    those of the index.
    """

    def __init__(
        self,
        index: PassageIndex,
        reservoir: Reservoir,
        embed_model: BaseEmbedding,
        *,
        tau: float = TAU,
        theta: int = THETA,
        near: float = NEAR,
        top_k: int = TOP_K,
    ) -> None:
        """Join the reservoir and the index.

        Args:
            index: Answers the queries that the reservoir cannot.
            reservoir: Of earlier searches of it.
            embed_model: The model of the index.
            tau: The least cosine of an earlier query that is as good as this one, in [0, 1].
            theta: How many of those a query needs to be served.
            near: The least cosine of an earlier query whose passages are merged.
            top_k: Passages for each query.

        Raises:
            InputError: a number is out of its range.
        """
        for name, cosine in (("tau", tau), ("near", near)):
            if not 0 <= cosine <= 1:
                raise InputError(f"{name} is {cosine}; give a cosine from 0 to 1")
        if theta < 1:
            raise InputError(f"theta is {theta}; give a number of searches from 1 up")
        if top_k < 1:
            raise InputError(f"top_k is {top_k}; give a number of passages from 1 up")
        super().__init__()
        self._index = index
        self._reservoir = reservoir
        self._embed_model = embed_model
        self._tau = tau
        self._theta = theta
        self._near = near
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
        state = f"{state}/{self._top_k}"
        with trace.step("trigger"):
            embeddings = embed_queries(self._embed_model, queries)
            least = min(self._near, self._tau)
            near = self._reservoir.recall(state, embeddings, least, self._theta)
            remembered = self._passages(near)
        sent = [
            place
            for place, (entries, found) in enumerate(zip(near, remembered, strict=True))
            if not found or sum(each.cosine >= self._tau for each in entries) < self._theta
        ]
        vectors = [embeddings[place] for place in sent]
        retrieved = self._index.retrieve_batch(
            [queries[place] for place in sent], self._top_k, vectors
        )
        rankings = list(remembered)
        for place, fresh in zip(sent, retrieved, strict=True):
            rankings[place] = fuse([fresh, remembered[place]], self._top_k)
        trace.count("queries_served", len(queries) - len(sent))
        trace.count("queries_sent", len(sent))
        trace.count("passages_external", count_distinct(retrieved))
        self._remember(state, vectors, [rankings[place] for place in sent])
        return rankings

    def _passages(self, near: Sequence[Sequence[Entry]]) -> Rankings:
        """Return what the nearest entry of each query found, if there is one."""
        rankings = [entries[0].ranking if entries else [] for entries in near]
        ids = {node_id for ranking in rankings for node_id, _ in ranking}
        nodes = {node.node_id: node for node in self._index.get_nodes(list(ids))} if ids else {}
        return [
            [NodeWithScore(node=nodes[node_id], score=score) for node_id, score in ranking]
            if all(node_id in nodes for node_id, _ in ranking)  # else the index has just changed
            else []
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
