"""The contrastive rules: CAD, and three that choose its strength for every token.

All score a token by ``(1 + a) log p_c - a log p_m``; they differ in the strength ``a``. The dial
multiplies it by ``1 - 2 alpha``: as published at ``alpha=0`` (and at ``None``, since the methods
have no dial), 0 (plain RAG) at 0.5, and as far towards memory at 1. Only CAD's equation is cited by
its number; the numbers of the others were not verified. The types and the arithmetic that all token
rules share stand here too.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = -1e4  # nats; stands for log 0 and stays finite when it is multiplied or subtracted
COIECD_FACTOR = 4.0  # released COIECD code: how far from either end the constraint's bounds lie
COCOA_GAMMA = 1.0  # released CoCoA code: weight of entropy gap, of divergence and of the contrast
COCOA_PEAKEDNESS = 5.0  # a third party's reimplementation; not verified against the paper


class RuleOutput(NamedTuple):
    """What a token rule returns.

    Attributes:
        scores: Unnormalised log-probabilities of the next token, shape (batch, vocabulary).
        mixed: Whether the rule mixed the two branches, shape (batch,), bool.
    """

    scores: Tensor
    mixed: Tensor


Rule = Callable[[Tensor, Tensor, Tensor | None], RuleOutput]
"""A function of (log_p_c, log_p_m, alpha or ``None`` for adaptive); see `RuleOutput`."""


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over the vocabulary in float32, bounded below by ``FLOOR``."""
    return logits.float().log_softmax(dim=-1).clamp_min(FLOOR)


def entropy(log_p: Tensor) -> Tensor:
    """Shannon entropy in nats of log-probabilities of shape (batch, vocabulary), shape (batch,)."""
    return -(log_p.exp() * log_p).sum(dim=-1)


def cad(log_p_c: Tensor, log_p_m: Tensor, alpha: Tensor | None) -> RuleOutput:
    """Context-aware decoding (Shi et al. 2024, eq. 2): ``(1 + a) log p_c - a log p_m``.

    The strength is their default ``a = 1`` for every token; at the memory end of the dial it is
    -1, which is memory alone.
    """
    return _contrast(log_p_c, log_p_m, torch.ones_like(log_p_c[:, :1]), alpha)


def adacad(log_p_c: Tensor, log_p_m: Tensor, alpha: Tensor | None) -> RuleOutput:
    """AdaCAD (Wang et al. 2024, arXiv:2409.07394): CAD as strong as the branches disagree.

    ``a = JSD(p_m || p_c)``, the Jensen-Shannon divergence, here in bits: 0 where the branches
    agree, 1 (as CAD) where they share no token. The released code takes natural logarithms, so
    its strengths are ln 2 = 0.69 times these; which of the two the paper means was not verified.
    Its lower bound on the strength, a warm-up for long texts, is left out.
    """
    return _contrast(log_p_c, log_p_m, _jensen_shannon(log_p_c, log_p_m)[:, None], alpha)


def coiecd(log_p_c: Tensor, log_p_m: Tensor, alpha: Tensor | None) -> RuleOutput:
    """COIECD (Yuan et al. 2024, arXiv:2402.11893): CAD only for tokens that look in conflict.

    A token's information shift ``-log p_c - H(p_m)`` becomes a probability ``p_d`` by a softmax
    over the vocabulary. The constraint set ``C`` holds the tokens with
    ``min p_d / l <= p_d <= l max p_d``. With ``g = log p_c - log p_m``, a token in ``C`` scores
    ``log p_m + b g`` and one outside ``log p_c + b g``. If only one token is below the lower
    bound, the passages leave no doubt and no token counts as below it.

    Equations and constants, ``l = 1/4`` and ``b = 1``, are those of the released code. At
    ``b = 1`` they are CAD's with ``a = 0`` in ``C`` and ``a = 1`` outside. The entropy is the same
    for all tokens and cancels in the softmax: in conflict are the tokens more than a quarter as
    probable as the first choice, and those less than four times as probable as the last.

    Returns:
        Mixed where the lower bound is broken; the upper one concerns the least probable tokens.
    """
    information = -log_p_c
    margin = math.log(COIECD_FACTOR)
    below = information < information.amin(dim=-1, keepdim=True) + margin
    above = information > information.amax(dim=-1, keepdim=True) - margin
    several = below.sum(dim=-1, keepdim=True) > 1
    conflict = (below & several) | above
    return _contrast(log_p_c, log_p_m, conflict.to(log_p_c.dtype), alpha, mixed=several[:, 0])


def cocoa(log_p_c: Tensor, log_p_m: Tensor, alpha: Tensor | None) -> RuleOutput:
    """CoCoA (Khandelwal et al. 2025, arXiv:2508.17670): CAD as strong as the passages are sure.

    Three signals of the paper: the entropy gap ``dH = H(p_m) - H(p_c)``; the Rényi divergence of
    order 1/2, ``D = -2 log sum sqrt(p_m p_c)``; and the contextual peakedness ``m``, first minus
    second highest probability of ``p_c``. They set the weight ``w`` of the passages in the blend
    ``(1 - w) log p_m + w log p_c``, to which the released code adds
    ``gamma (log p_c - log p_m)`` with ``gamma = 1``: together the contrast of strength
    ``a = w + gamma - 1``, used here.

    How the paper joins the signals into ``w`` was not found. The released code computes
    ``sigmoid(gamma dH + gamma D')``, ``D'`` being a divergence scaled to ``D / (1 + D)``, then
    overwrites it with 0.5: its first choice is CAD's at ``a = 0.5`` whatever the signals say.
    Chosen here: ``w = sigmoid(gamma dH + gamma D / (1 + D) + z m)``, with ``z = 5`` from a third
    party's reimplementation. Results of this rule are this variant's, not the paper's.
    """
    entropy_gap = entropy(log_p_m) - entropy(log_p_c)
    divergence = _renyi_half(log_p_c, log_p_m)
    best = log_p_c.topk(2, dim=-1).values.exp()
    confidence = entropy_gap + divergence / (1 + divergence)
    weight = COCOA_GAMMA * confidence + COCOA_PEAKEDNESS * (best[:, 0] - best[:, 1])
    strength = weight.sigmoid() + COCOA_GAMMA - 1
    return _contrast(log_p_c, log_p_m, strength[:, None], alpha)


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


def _jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in bits, shape (batch,): the mean of both KL to their middle."""
    log_middle = torch.logaddexp(log_p, log_q) - math.log(2)
    terms = log_p.exp() * (log_p - log_middle) + log_q.exp() * (log_q - log_middle)
    return (terms.sum(dim=-1) / (2 * math.log(2))).clamp(0, 1)


def _renyi_half(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Rényi divergence of order 1/2 in nats, shape (batch,); finite and symmetric."""
    return (-2 * ((log_p + log_q) / 2).logsumexp(dim=-1)).clamp_min(0)
