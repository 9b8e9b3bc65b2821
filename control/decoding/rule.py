"""What every token rule takes and returns, and the arithmetic that rules share."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

FLOOR = -1e4  # nats; stands for log 0 and stays finite when it is multiplied or subtracted


class RuleOutput(NamedTuple):
    """What a rule returns.

    Attributes:
        scores: Unnormalised log-probabilities of the next token, shape (batch, vocabulary).
        mixed: Whether the rule stepped in, shape (batch,), bool.
    """

    scores: Tensor
    mixed: Tensor


Rule = Callable[[Tensor, Tensor, Tensor | None], RuleOutput]
"""(log_p_c, log_p_m, alpha or None for adaptive) to a mixture."""


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over the vocabulary in float32, bounded below by ``FLOOR``."""
    return logits.float().log_softmax(dim=-1).clamp_min(FLOOR)


def entropy(log_p: Tensor) -> Tensor:
    """Shannon entropy in nats of log-probabilities of shape (batch, vocabulary), shape (batch,)."""
    return -(log_p.exp() * log_p).sum(dim=-1)
