"""Rules that choose a branch by a gate: GRD for the whole answer, NWCAD for every token.

Both are used as published at any ``alpha``: they have no dial.
"""

from typing import Annotated

import torch
from torch import Tensor

from control.decoding.contrastive import (
    RuleOutput,
    Share,
    Swept,
    cocoa,
    entropy,
    jensen_shannon,
    top_margin,
)

UNDECIDED, PASSAGES, MEMORY = 0, 1, 2  # which branch an answer trusts: the state of `grd`
NO_MARGIN = 1e-9  # nats; released GRD code: below it, neither branch prefers its own token


def grd(
    log_p_c: Tensor,
    log_p_m: Tensor,
    _alpha: Tensor | None,
    trusted: Tensor | None = None,
    *,
    confidence: Annotated[Share, Swept((0.0, 0.3, 0.5, 0.7))] = 0.5,
    depth: Annotated[Share, Swept((0.25, 0.5, 0.75, 1.0))] = 0.75,
) -> RuleOutput:
    """Gated reversal decoding (Jiang et al. 2026, arXiv:2606.10298; version 1 has ARR instead).

    At the first token where the branches' best tokens ``a_c`` and ``a_m`` differ, memory is trusted
    for the rest of the answer if ``p_m(a_m) > confidence`` and ``H(p_m) < H(p_c)``; else the
    passages are. Where the passages are trusted, plain RAG. Where memory is, a token on which the
    branches disagree maximises ``tau log p_c + (1 - tau) log p_m`` with

        m_c = log p_c(a_c) - log p_c(a_m),    m_m = log p_m(a_m) - log p_m(a_c),
        tau* = m_m / (m_c + m_m),             tau = (1 - depth) tau*.

    At ``tau*`` both tokens score alike; the lower ``tau``, the surer memory's wins. Steps
    and constants are those of the released code.

    Args:
        log_p_c: With the passages, shape (batch, vocabulary).
        log_p_m: Without them, same shape.
        trusted: The branch that each answer trusts so far, shape (batch, 1); ``None`` at the
            beginning.
        confidence: The probability that memory's best token must exceed.
        depth: The paper's lambda, how far below ``tau*`` the exponent lies.
    """
    best_c, best_m = (each.argmax(dim=-1, keepdim=True) for each in (log_p_c, log_p_m))
    if trusted is None:
        trusted = torch.full_like(best_c, UNDECIDED)
    sure = log_p_m.gather(1, best_m).exp() > confidence
    surer = (entropy(log_p_m) < entropy(log_p_c))[:, None]
    differ = best_c != best_m
    decided = torch.where(sure & surer, MEMORY, PASSAGES)
    trusted = torch.where(differ & (trusted == UNDECIDED), decided, trusted)

    margin_c = log_p_c.gather(1, best_c) - log_p_c.gather(1, best_m)
    margin_m = log_p_m.gather(1, best_m) - log_p_m.gather(1, best_c)
    total = margin_c + margin_m
    reversal = torch.where(total > NO_MARGIN, margin_m / total.clamp_min(NO_MARGIN), 1.0)
    tau = (1 - depth) * reversal
    mixed = differ & (trusted == MEMORY)
    scores = torch.where(mixed, tau * log_p_c + (1 - tau) * log_p_m, log_p_c)
    return RuleOutput(scores, mixed[:, 0], trusted)


def nwcad(
    log_p_c: Tensor,
    log_p_m: Tensor,
    _alpha: Tensor | None,
    *,
    tau: Annotated[Share, Swept((0.01, 0.05, 0.1, 0.2))] = 0.05,
    kappa_memory: Annotated[Share, Swept((0.1, 0.3, 0.5, 0.7))] = 0.5,
    kappa_context: Annotated[Share, Swept((0.0, 0.1, 0.3, 0.5))] = 0.3,
) -> RuleOutput:
    """No-worse context-aware decoding (Tao and Agrawal 2026, arXiv:2604.16686).

    Two gates choose the distribution of every token, ``margin`` being the first minus the second
    highest probability:

    1. ``JSD(p_c || p_m) <= tau`` and ``margin(p_m) >= kappa_memory``: ``p_m``, since the passages
       bring nothing.
    2. Else ``margin(p_c) >= kappa_context``: ``p_c``; and else CoCoA, the paper's default fallback.

    Written after two summaries of the paper; the paper itself was not read. The divergence is in
    nats over the whole vocabulary (the paper: over the 50 most probable tokens). The paper's
    thresholds were not found: the defaults are the middle of what `eval dial --tune` tries.
    """
    near = jensen_shannon(log_p_c, log_p_m) <= tau
    neutral = (near & (top_margin(log_p_m) >= kappa_memory))[:, None]
    sure = (top_margin(log_p_c) >= kappa_context)[:, None]
    fallback = cocoa(log_p_c, log_p_m, None).scores
    scores = torch.where(neutral, log_p_m, torch.where(sure, log_p_c, fallback))
    return RuleOutput(scores, (neutral | ~sure)[:, 0])
