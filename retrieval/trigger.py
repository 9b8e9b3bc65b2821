"""The Retriever Trigger of ERM4: only queries that the reservoir cannot serve go to the index."""

from collections.abc import Sequence

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from foundation import trace
from foundation.errors import IndexStateError, InputError
from retrieval.embedding import embed_queries
from retrieval.index import TOP_K, PassageIndex
from retrieval.reservoir import TAU, Reservoir
from retrieval.search import Rankings, fuse

THETA = 3  # ERM4's, where nearness alone says that a passage bears on a query
JUDGED_THETA = 1  # a judge has read the passages: one that holds the answer is enough
CHECKED_PASSAGES = 3  # that `finds_answer` judges
NOT_KEPT = "the passages of this answer were not kept for later ones: {reason}"


def finds_answer(index: PassageIndex, judge: BaseNodePostprocessor, question: str) -> bool:
    """Whether a question that was not rewritten finds a passage that ``judge`` keeps.

    Most questions that stand on their own do. Those that need two passages find one for their
    first half, so the judge has to be a strict one.
    """
    with trace.step("trigger"):
        [found] = index.retrieve_batch([question], CHECKED_PASSAGES)
        return bool(judge.postprocess_nodes(found, QueryBundle(question)))


class Trigger(BaseRetriever):
    """Answers each query from the reservoir where possible, and from the index otherwise.

    ERM4, for each query: with ``S = {entries with cosine >= tau}``, serve S if ``|S| >= theta``,
    else retrieve. Here an entry counts only if the judge keeps it for the question at hand, so a
    query goes to the index when what is held near it does not bear on the question.
    """

    def __init__(
        self,
        index: PassageIndex,
        reservoir: Reservoir,
        embed_model: BaseEmbedding,
        *,
        judge: BaseNodePostprocessor | None = None,
        strict_judge: BaseNodePostprocessor | None = None,
        tau: float = TAU,
        theta: int | None = None,
        top_k: int = TOP_K,
    ) -> None:
        """Join the reservoir and the index.

        Args:
            index: Answers the queries that the reservoir cannot.
            reservoir: Of passages that were of use before.
            embed_model: The model of the vectors in both.
            judge: Drops passages that do not bear on the question, as the Knowledge Filter does.
            strict_judge: The same for `can_serve`, whose passages nothing judges afterwards;
                ``judge`` if left out.
            tau: The least cosine of an entry to a query, in [0, 1].
            theta: How many entries a query needs to be served; if left out, 3 without a judge
                and 1 with one.
            top_k: Passages returned, and the most that a query takes from the index; from the
                reservoir it takes, and the judge reads, as many, or ``theta`` where that is more.

        Raises:
            InputError: a number is out of its range.
        """
        if theta is None:
            theta = THETA if judge is None else JUDGED_THETA
        if not 0 <= tau <= 1:
            raise InputError(f"tau is {tau}; give a cosine from 0 to 1")
        if theta < 1:
            raise InputError(f"theta is {theta}; give a number of passages from 1 up")
        if top_k < 1:
            raise InputError(f"top_k is {top_k}; give a number of passages from 1 up")
        super().__init__()
        self._index = index
        self._reservoir = reservoir
        self._embed_model = embed_model
        self._judge = judge
        self._surer = strict_judge or judge
        self._tau = tau
        self._theta = theta
        self._top_k = top_k

    def can_serve(self, question: str) -> bool:
        """Whether the reservoir holds enough passages for a question that was not rewritten."""
        with trace.step("trigger"):
            [held], _ = self._recall(question, [question], self._surer)
        return len(held) >= self._theta

    def search(self, question: str, queries: Sequence[str]) -> Rankings:
        """Find passages for each of a question's queries.

        Returns:
            For each query its passages, best first.
        """
        with trace.step("trigger"):
            held, embeddings = self._recall(question, queries, self._judge)
        served = [len(entries) >= self._theta for entries in held]
        sent = [place for place, enough in enumerate(served) if not enough]
        retrieved = self._retrieved(queries, embeddings, sent) if sent else []
        kept = [entries for entries, enough in zip(held, served, strict=True) if enough]
        trace.count("queries_served", len(kept))
        trace.count("queries_sent", len(sent))
        trace.count("passages_reservoir", count_distinct(kept))
        trace.count("passages_external", count_distinct(retrieved))
        found = iter(retrieved)
        return [
            entries if enough else next(found) for entries, enough in zip(held, served, strict=True)
        ]

    def _retrieved(
        self, queries: Sequence[str], embeddings: list[list[float]] | None, places: Sequence[int]
    ) -> Rankings:
        return self._index.retrieve_batch(
            [queries[place] for place in places],
            self._top_k,
            None if embeddings is None else [embeddings[place] for place in places],
        )

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Find passages for ``embedding_strs``, the queries, of ``query_str``, the question."""
        queries = [query for query in query_bundle.embedding_strs if query.strip()]
        return fuse(self.search(query_bundle.query_str, queries), self._top_k)

    def _recall(
        self, question: str, queries: Sequence[str], judge: BaseNodePostprocessor | None
    ) -> tuple[Rankings, list[list[float]] | None]:
        """Return for each query the entries near it that the judge keeps, nearest first.

        With them come the queries' embeddings, if they had to be made.
        """
        if not queries or not self._reservoir.count():  # then no embedding model is needed
            return [[] for _ in queries], None
        embeddings = embed_queries(self._embed_model, queries)
        near = self._reservoir.recall(embeddings, self._tau, max(self._top_k, self._theta))
        union = {entry.node_id: entry for entries in near for entry in entries}
        if judge is None or not union:
            return near, embeddings
        bundle = QueryBundle(question, custom_embedding_strs=list(queries))
        judged = judge.postprocess_nodes(list(union.values()), bundle)
        kept_ids = {entry.node_id for entry in judged}
        kept = [[entry for entry in entries if entry.node_id in kept_ids] for entries in near]
        return kept, embeddings


class ReservoirWriter(BaseNodePostprocessor):
    """Adds the passages that reach it to the reservoir; put it after the Knowledge Filter."""

    _reservoir: Reservoir = PrivateAttr()

    def __init__(self, reservoir: Reservoir) -> None:
        super().__init__()
        self._reservoir = reservoir

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        try:
            self._reservoir.remember(nodes)
        except IndexStateError as error:  # a full disk costs later answers time, not this one
            trace.notice(NOT_KEPT.format(reason=error))
        return nodes


def count_distinct(rankings: Rankings) -> int:
    """Return the number of different passages in several rankings."""
    return len({found.node_id for ranking in rankings for found in ranking})
