"""The contrastive rules: CAD, and others that choose its strength for every token.

All score a token by ``(1 + a) log p_c - a log p_m``; they differ in the strength ``a``. The dial
multiplies it by ``1 - 2 alpha``: as published at ``alpha=0`` (and at ``None``, since the methods
have no dial), 0 (plain RAG) at 0.5, and as far towards memory at 1. Only CAD's equation is cited by
its number; the numbers of the others were not verified. The types and the arithmetic that all token
rules share stand here too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

FLOOR = -1e4  # nats; stands for log 0 and stays finite when it is multiplied or subtracted
COCOA_WEIGHT = 0.5  # released CoCoA code: weight of the passages in its blend, a constant


class RuleOutput(NamedTuple):
    """What a token rule returns.

    Attributes:
        scores: Unnormalised log-probabilities of the next token, shape (batch, vocabulary).
        mixed: Whether the rule mixed the two branches, shape (batch,), bool.
        state: What the rule wants to be given as a fourth argument at the next token of the same
            answers, shape (batch, ...); ``None`` for a rule that looks at one token alone.
    """

    scores: Tensor
    mixed: Tensor
    state: Tensor | None = None


Rule = Callable[..., RuleOutput]
"""A function of (log_p_c, log_p_m, alpha or ``None`` for adaptive); see `RuleOutput`.

Its keyword arguments are its options; their annotations say which values they take (pydantic) and
which ones `evaluation.suites.tuning` tries (`Swept`).
"""


@dataclass(frozen=True)
class Swept:
    """In the annotation of a rule's option: the values that are tried for a model."""

    values: tuple[float, ...]


Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over the vocabulary in float32, bounded below by ``FLOOR``."""
    return logits.float().log_softmax(dim=-1).clamp_min(FLOOR)


def entropy(log_p: Tensor) -> Tensor:
    """Shannon entropy in nats of log-probabilities of shape (batch, vocabulary), shape (batch,)."""
    return -(log_p.exp() * log_p).sum(dim=-1)


def cad(
    log_p_c: Tensor,
    log_p_m: Tensor,
    alpha: Tensor | None,
    *,
    strength: Annotated[Positive, Swept((0.25, 0.5, 0.75, 1.0, 1.5))] = 1.0,
) -> RuleOutput:
    """Context-aware decoding (Shi et al. 2024, eq. 2): ``(1 + a) log p_c - a log p_m``.

    The strength is their default ``a = 1`` for every token; at the memory end of the dial it is
    -1, which is memory alone.
    """
    return _contrast(log_p_c, log_p_m, torch.full_like(log_p_c[:, :1], strength), alpha)


def adacad(
    log_p_c: Tensor,
    log_p_m: Tensor,
    alpha: Tensor | None,
    *,
    lower_bound: Annotated[Positive, Swept((0.0, 0.3, 0.6))] = 0.0,
    logarithm: Literal["natural", "binary"] = "natural",
) -> RuleOutput:
    """AdaCAD (Wang et al. 2024, arXiv:2409.07394): CAD as strong as the branches disagree.

    ``a = max(JSD(p_m || p_c), lower_bound)``, with the Jensen-Shannon divergence of the branches.

    Args:
        log_p_c: With the passages, shape (batch, vocabulary).
        log_p_m: Without them, same shape.
        alpha: The dial, shape (batch, 1), or ``None`` for the strength as published.
        lower_bound: Of the strength: the authors' warm-up for long texts. Their code sets 0 for
            questions and 0.3 for summaries.
        logarithm: Of the divergence. The released code takes the natural one: the strength is at
            most ln 2 = 0.69. With the binary one it is 1, as CAD's, where no token is shared.
    """
    strength = jensen_shannon(log_p_c, log_p_m)
    if logarithm == "binary":
        strength = strength / math.log(2)
    return _contrast(log_p_c, log_p_m, strength.clamp_min(lower_bound)[:, None], alpha)


def coiecd(
    log_p_c: Tensor,
    log_p_m: Tensor,
    alpha: Tensor | None,
    *,
    strength: Annotated[Positive, Swept((0.5, 1.0, 1.5))] = 1.0,
    factor: Annotated[float, Field(ge=1, allow_inf_nan=False), Swept((2.0, 4.0, 8.0, 16.0))] = 4.0,
) -> RuleOutput:
    """COIECD (Yuan et al. 2024, arXiv:2402.11893): CAD only for tokens that look in conflict.

    A token's information shift ``-log p_c - H(p_m)`` becomes a probability ``p_d`` by a softmax
    over the vocabulary. The constraint set ``C`` holds the tokens with
    ``min p_d / l <= p_d <= l max p_d``. With ``g = log p_c - log p_m``, a token in ``C`` scores
    ``log p_m + b g`` and one outside ``log p_c + b g``. If only one token is below the lower
    bound, the passages leave no doubt and no token counts as below it.

    Equations and constants, ``l = 1/4`` and ``b = 1``, are those of the released code; ``b`` is
    ``strength`` here and ``1 / l`` is ``factor``. They are CAD's with ``a = b - 1`` in ``C`` and
    ``a = b`` outside. The entropy is the same for all tokens and cancels in the softmax: in
    conflict are the tokens more than a quarter as probable as the first choice, and those less
    than four times as probable as the last.

    Returns:
        Mixed where the lower bound is broken; the upper one concerns the least probable tokens.
    """
    information = -log_p_c
    margin = math.log(factor)
    below = information < information.amin(dim=-1, keepdim=True) + margin
    above = information > information.amax(dim=-1, keepdim=True) - margin
    several = below.sum(dim=-1, keepdim=True) > 1
    conflict = (below & several) | above
    strengths = conflict.to(log_p_c.dtype) + (strength - 1)
    return _contrast(log_p_c, log_p_m, strengths, alpha, mixed=several[:, 0])


def cocoa(
    log_p_c: Tensor,
    log_p_m: Tensor,
    alpha: Tensor | None,
    *,
    gamma: Annotated[Positive, Swept((0.75, 1.0, 1.5))] = 1.0,
) -> RuleOutput:
    """CoCoA (Khandelwal et al. 2025, arXiv:2508.17670), as its released code decides.

    ``w log p_c + (1 - w) log p_m + gamma (log p_c - log p_m)``: the contrast of strength
    ``a = w + gamma - 1``. The code computes ``w`` from the paper's signals and then overwrites it
    with 0.5. What it does afterwards (a transform that keeps the order of the scores, a floor)
    leaves the first choice as it is. Left out: it forbids the end of the answer for five tokens.

    How the paper joins its signals into ``w`` was not found; `confidence_cad` is our reading.
    """
    strength = torch.full_like(log_p_c[:, :1], COCOA_WEIGHT + gamma - 1)
    return _contrast(log_p_c, log_p_m, strength, alpha)


def confidence_cad(
    log_p_c: Tensor,
    log_p_m: Tensor,
    alpha: Tensor | None,
    *,
    gamma: Annotated[Positive, Swept((0.5, 1.0, 2.0))] = 1.0,
    peakedness: Annotated[Positive, Swept((0.0, 1.0, 5.0, 10.0))] = 5.0,
) -> RuleOutput:
    """CAD as strong as the passages are sure: ours, from the three signals that CoCoA names.

    The entropy gap ``dH = H(p_m) - H(p_c)``; the Rényi divergence of order 1/2,
    ``D = -2 log sum sqrt(p_m p_c)``; and the contextual peakedness ``m``, first minus second
    highest probability of ``p_c``. The strength is
    ``a = sigmoid(gamma dH + gamma D / (1 + D) + z m)``, ``z`` being ``peakedness``; its default is
    that of a third party's reimplementation of CoCoA. Results of this rule are not the paper's.
    """
    entropy_gap = entropy(log_p_m) - entropy(log_p_c)
    divergence = _renyi_half(log_p_c, log_p_m)
    confidence = entropy_gap + divergence / (1 + divergence)
    strength = (gamma * confidence + peakedness * top_margin(log_p_c)).sigmoid()
    return _contrast(log_p_c, log_p_m, strength[:, None], alpha)


def top_margin(log_p: Tensor) -> Tensor:
    """First minus second highest probability, shape (batch,)."""
    best = log_p.topk(2, dim=-1).values.exp()
    return best[:, 0] - best[:, 1]


def _contrast(
    log_p_c: Tensor,
    log_p_m: Tensor,
    strength: Tensor,
    alpha: Tensor | None,
    mixed: Tensor | None = None,
) -> RuleOutput:
    """``(1 + a) log p_c - a log p_m`` with ``a = (1 - 2 alpha) strength``.

    Args:
        log_p_c: With the passages, shape (batch, vocabulary).
        log_p_m: Without them, same shape.
        strength: The method's own, shape (batch, 1) or (batch, vocabulary).
        alpha: The dial, shape (batch, 1), or ``None`` for the strength as it is.
        mixed: Where the rule stepped in, shape (batch,); everywhere by default.
    """
    a = strength if alpha is None else (1 - 2 * alpha) * strength
    if mixed is None:
        mixed = torch.ones_like(log_p_c[:, 0], dtype=torch.bool)
    return RuleOutput((1 + a) * log_p_c - a * log_p_m, mixed)


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats, shape (batch,): the mean of both KL to their middle."""
    log_middle = torch.logaddexp(log_p, log_q) - math.log(2)
    terms = log_p.exp() * (log_p - log_middle) + log_q.exp() * (log_q - log_middle)
    return (terms.sum(dim=-1) / 2).clamp(0, math.log(2))


def _renyi_half(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Rényi divergence of order 1/2 in nats, shape (batch,); finite and symmetric."""
    return (-2 * ((log_p + log_q) / 2).logsumexp(dim=-1)).clamp_min(0)
