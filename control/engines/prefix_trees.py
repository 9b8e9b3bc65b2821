"""Prefix trees: continuations of one prompt whose common beginnings are read once."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


class TokenTree:
    """Texts that follow one prompt, as a tree of tokens.

    Attributes:
        tokens: Of all texts.
        parents: Index of the token before each; -1 where there is none.
        depths: How many tokens come before each.
        paths: The indices of each text's tokens.
    """

    def __init__(self, texts: Sequence[Sequence[int]]) -> None:
        """Join the texts."""
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.paths: list[list[int]] = []
        places: dict[tuple[int, int], int] = {}
        for text in texts:
            path: list[int] = []
            for token in text:
                parent = path[-1] if path else -1
                place = places.setdefault((parent, token), len(self.tokens))
                if place == len(self.tokens):
                    self.tokens.append(token)
                    self.parents.append(parent)
                    self.depths.append(len(path))
                path.append(place)
            self.paths.append(path)

    @property
    def forks(self) -> bool:
        """Whether it branches."""
        return self.parents != list(range(-1, len(self.parents) - 1))

    def lineage(self) -> Tensor:
        """Whether a token (row) is or descends from another (column), (tokens, tokens), bool."""
        count = len(self.tokens)
        follows = torch.zeros(count, count, dtype=torch.bool)
        begins = [
            place for place, parent in enumerate(self.parents) if parent != place - 1 or not place
        ]
        for start, stop in pairwise([*begins, count]):  # each run of tokens that follow each other
            follows[start:stop, start:stop] = torch.ones(stop - start, stop - start).tril().bool()
            if self.parents[start] >= 0:
                follows[start:stop] |= follows[self.parents[start]]
        return follows


def tree_mask(dtype: torch.dtype, seen: Tensor, trees: Sequence[TokenTree], longest: int) -> Tensor:
    """The additive attention mask of every new token, shape (rows, 1, longest, all tokens).

    Args:
        dtype: Of the model.
        seen: Attention mask of the earlier tokens, shape (rows, length).
        trees: One for each row.
        longest: Most tokens of a tree; shorter ones are padded on the right.
    """
    lineage = torch.eye(longest, dtype=torch.bool).repeat(len(trees), 1, 1)
    for row, tree in enumerate(trees):
        count = len(tree.tokens)
        lineage[row, :count, :count] = tree.lineage()
    before = seen.bool()[:, None].expand(-1, longest, -1)
    allowed = torch.cat([before, lineage.to(seen.device)], dim=2)[:, None]
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
