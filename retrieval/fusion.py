"""Several rankings of passages become one: reciprocal rank fusion."""

from collections.abc import Sequence

from llama_index.core.schema import NodeWithScore

# Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
# learning methods" (SIGIR 2009): the constant that they chose on TREC collections.
RANK_CONSTANT = 60


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


def best_first(rankings: Sequence[Sequence[NodeWithScore]], top_k: int) -> list[NodeWithScore]:
    """Merge the rankings of *different* searches: each one's first passage, then the seconds.

    Fusion by reciprocal rank rewards agreement, as two ways of searching for one thing should; of
    several searches for different parts of an answer, each has its own best passage, which two
    middling places elsewhere (2 / 62) must not outrank (1 / 61). Passages of equal best rank are
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
