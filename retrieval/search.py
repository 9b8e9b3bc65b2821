"""Retrieval for the several queries of one question, also in two hops, and fusion of rankings."""

import re
from collections.abc import Callable, Sequence

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from foundation.text import words

Rankings = list[list[NodeWithScore]]
Search = Callable[[str, Sequence[str]], Rankings]
"""(question, queries) to each query's passages, best first."""

CANDIDATES = 20  # passages of a query that the filter gets to choose from
CHAINED = re.compile(r"#\d+")
NAME = re.compile(r"\b[A-Z][\w'’-]*(?: (?:(?:of|and|the|de|da|von|van) )*[A-Z][\w'’-]*)*")
MOST_BRIDGES = 8  # names from the first passage that are tried in place of #1
# Least cosine of a completed query with what it finds. On 360 questions of the calibration split a
# search that the question needs reached 0.65 in 89 of 90 cases, one that it does not in 6 of 59.
BRIDGE_COSINE = 0.64
# Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
# learning methods" (SIGIR 2009): the constant that they chose on TREC collections.
RANK_CONSTANT = 60
# Of the cosine beside BM25. Of 120 calibration questions to real documents the first seven passages
# hold what answers for 89 % with 0.5, 88 with 0.4 to 0.7, and 84 by reciprocal rank fusion.
COSINE_WEIGHT = 0.5


class MultiQueryRetriever(BaseRetriever):
    """Retrieves for each query of a question and merges the rankings; two hops where needed.

    A query may hold ``#1``, which stands for what the other queries find (a bridge entity): in
    "capital of #1", the country that another query asks for. Each name in the first passage found
    is tried in its place, and the completed query whose best passage is nearest is kept, if that
    is near enough. Completed queries replace theirs in the bundle and are added to its question,
    for the filter and the reader.
    """

    def __init__(self, search: Search, top_k: int) -> None:
        """Search by an index or a trigger for ``top_k`` passages of each query.

        Of several queries half as many of each are returned.
        """
        super().__init__()
        self._search = search
        self._top_k = top_k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        question = query_bundle.query_str
        queries = [query for query in query_bundle.embedding_strs if query.strip()]
        # "Who sang the #1 hit of 1987?" is a question about a #1, and stands alone.
        chained = [query for query in queries if CHAINED.search(query) and query != question]
        direct = [query for query in queries if query not in chained]
        rankings = self._search(question, direct)
        first = rankings[-1][:1] if rankings else []  # of the query before the chained one
        completed: list[str] = []
        for query in chained:
            if second_hop := self._complete(question, query, first):
                completed.append(second_hop[0])
                rankings.append(second_hop[1])
        query_bundle.custom_embedding_strs = [*direct, *completed]
        if completed:
            query_bundle.query_str = _extend_question(question, completed[0])
        of_each = self._top_k if len(rankings) == 1 else max(1, self._top_k // 2)
        return interleave(rankings, of_each * len(rankings))

    def _complete(
        self, question: str, query: str, first: Sequence[NodeWithScore]
    ) -> tuple[str, list[NodeWithScore]] | None:
        """Return a chained query with its bridge filled in, and what it finds."""
        bridges = _names(first, unlike=question)[:MOST_BRIDGES]
        if not bridges:
            return None
        candidates = [CHAINED.sub(name, query) for name in bridges]
        rankings = self._search(question, candidates)
        # A passage that does not name the bridge was found for the rest of the query.
        cosines = [
            _highest_cosine(name, ranking) for name, ranking in zip(bridges, rankings, strict=True)
        ]
        best = cosines.index(max(cosines))
        if cosines[best] < BRIDGE_COSINE:
            return None
        return candidates[best], rankings[best]


def _extend_question(question: str, completed: str) -> str:
    """Return the question with its completed query, so that one passage can answer it."""
    bare = question.rstrip(" ?.!")
    the = "" if completed.lower().startswith("the ") else "the "
    return f"{bare}, that is, {the}{completed}{question[len(bare) :]}"


def _names(passages: Sequence[NodeWithScore], unlike: str) -> list[str]:
    """Return the names in the passages that are not in the question, in reading order."""
    known = words(unlike)
    found: dict[str, None] = {}
    for passage in passages:
        for name in NAME.findall(passage.node.get_content()):
            if not words(name) <= known:
                found[name.strip(".")] = None
    return list(found)


def _highest_cosine(name: str, ranking: Sequence[NodeWithScore]) -> float:
    """Return the highest cosine of a passage that holds the name."""
    return max(
        (
            found.score or 0.0
            for found in ranking
            if words(name) <= words(found.node.get_content(MetadataMode.EMBED))
        ),
        default=0.0,
    )


def combine(
    by_cosine: Sequence[NodeWithScore],
    by_words: Sequence[NodeWithScore],
    scores: Sequence[float],
    top_k: int,
) -> list[NodeWithScore]:
    """Merge the rankings of vector search and full-text search for one query.

    A convex combination of normalised scores: a * m(cosine) + (1 - a) * m(BM25), where m scales to
    [0, 1] by the least and the highest value; of BM25 the least one is 0, that of a passage which
    full-text search did not find (Bruch, Gai and Ingber 2023, "An Analysis of Fusion Functions for
    Hybrid Retrieval", arXiv:2210.11934). Unlike ranks, scores tell that a passage is ahead by far:
    the only one with a rare word of the query, such as an identifier.

    Args:
        by_cosine: Passages nearest to the query, with their cosines.
        by_words: Those that share words with it, with their cosines.
        scores: Of ``by_words``, positive.
        top_k: Passages to return at most.

    Returns:
        Passages by their sum, highest first; of equal ones, the one with the higher cosine.
    """
    found = {each.node_id: each for each in (*by_cosine, *by_words)}
    cosines = [_score(each) for each in found.values()]
    least, span = min(cosines, default=0.0), (max(cosines, default=0.0) - min(cosines, default=0.0))
    best = max(scores, default=0.0)
    matched = {
        each.node_id: score / best if best else 0.0
        for each, score in zip(by_words, scores, strict=True)
    }

    def weighed(each: NodeWithScore) -> float:
        near = (_score(each) - least) / span if span else 1.0
        return COSINE_WEIGHT * near + (1 - COSINE_WEIGHT) * matched.get(each.node_id, 0.0)

    return sorted(found.values(), key=lambda each: (-weighed(each), -_score(each)))[:top_k]


def fuse(rankings: Sequence[Sequence[NodeWithScore]], top_k: int) -> list[NodeWithScore]:
    """Merge rankings: a passage at rank r, counted from 1, earns 1 / (60 + r) in each.

    Args:
        rankings: Each best first.
        top_k: Passages to return at most.

    Returns:
        Passages by their sum, highest first; of equal ones, the passage with the higher score, then
        the one met first. Each keeps its own score, the highest of those it came with.
    """
    sums: dict[str, float] = {}
    best: dict[str, NodeWithScore] = {}
    for ranking in rankings:
        for rank, found in enumerate(ranking, start=1):
            name = found.node_id
            sums[name] = sums.get(name, 0.0) + 1 / (RANK_CONSTANT + rank)
            if name not in best or _score(found) > _score(best[name]):
                best[name] = found
    order = sorted(sums, key=lambda name: (-sums[name], -_score(best[name])))
    return [best[name] for name in order[:top_k]]


def interleave(rankings: Sequence[Sequence[NodeWithScore]], top_k: int) -> list[NodeWithScore]:
    """Merge the rankings of *different* queries: the first passage of each, then the seconds.

    Reciprocal rank fusion rewards agreement, which suits wordings of one query.
    Of several queries for different parts of an answer, each has its own best passage, which two
    middling ranks elsewhere (2 / 62) must not outrank (1 / 61). Passages of equal best rank are
    ordered by their reciprocal rank sum.
    """
    best_rank: dict[str, int] = {}
    for ranking in rankings:
        for rank, found in enumerate(ranking):
            best_rank[found.node_id] = min(rank, best_rank.get(found.node_id, rank))
    fused = fuse(rankings, len(best_rank))
    return sorted(fused, key=lambda found: best_rank[found.node_id])[:top_k]


def _score(found: NodeWithScore) -> float:
    return float("-inf") if found.score is None else found.score
