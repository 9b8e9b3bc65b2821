"""Several searches for one question: those that stand alone, then those that build on them."""

import re
from collections.abc import Callable, Sequence

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from foundation.text import words
from retrieval.fusion import fuse

Rankings = list[list[NodeWithScore]]
Search = Callable[[str, Sequence[str]], Rankings]
"""(question, queries) to each query's passages, best first."""

CANDIDATES = 10  # passages that the filter gets to choose from
CHAINED = re.compile(r"#\d+")
NAME = re.compile(r"\b[A-Z][\w'’.-]*(?: (?:(?:of|and|the|de|da|von|van) )*[A-Z][\w'’.-]*)*")
BRIDGES = 8  # names from the first passages that are tried in place of #1
BRIDGE_PASSAGES = 2
FOLLOWED = 2  # of them, those whose passages come nearest to their query


class Pipeline(BaseRetriever):
    """Searches for each query of a question and fuses what is found.

    A query may hold ``#1``, which stands for what the others find: the capital of "#1", where
    "#1" is the country that another query asks for. Each name in the first passages found is
    tried in its place, and the names whose passages come nearest to the query so completed are
    followed: the index itself tells which of the names has a capital. The completed queries take
    the place of theirs in the bundle, so that the filter knows what was searched.
    """

    def __init__(self, search: Search, top_k: int) -> None:
        """Search by an index or a trigger, and return ``top_k`` passages at most."""
        super().__init__()
        self._search = search
        self._top_k = top_k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        question = query_bundle.query_str
        queries = [query for query in query_bundle.embedding_strs if query.strip()]
        direct = [query for query in queries if not CHAINED.search(query)]
        rankings = self._search(question, direct)
        followed: list[str] = []
        for query in queries:
            if CHAINED.search(query):
                completed, found = self._follow(question, query, rankings)
                followed += completed
                rankings += found
        query_bundle.custom_embedding_strs = [*direct, *followed]
        return fuse(rankings, self._top_k)

    def _follow(self, question: str, query: str, rankings: Rankings) -> tuple[list[str], Rankings]:
        """The queries that complete a chained one, best first, and what they find."""
        bridges = _names(fuse(rankings, BRIDGE_PASSAGES), unlike=question)
        candidates = [CHAINED.sub(name, query) for name in bridges[:BRIDGES]]
        if not candidates:
            return [], []
        found = zip(candidates, self._search(question, candidates), strict=True)
        best = sorted(found, key=lambda pair: _nearest(pair[1]), reverse=True)[:FOLLOWED]
        return [completed for completed, _ in best], [ranking for _, ranking in best]


def _names(passages: Sequence[NodeWithScore], unlike: str) -> list[str]:
    """Names in the passages that the question does not hold, in reading order."""
    known = words(unlike)
    found: dict[str, None] = {}
    for passage in passages:
        for name in NAME.findall(passage.node.get_content()):
            if not words(name) <= known:
                found[name.strip(".")] = None
    return list(found)


def _nearest(ranking: Sequence[NodeWithScore]) -> float:
    return max((found.score or 0.0 for found in ranking), default=0.0)
