"""CK-PLUG (Bi et al. 2025, arXiv:2503.15888): mix the branches where passages cost confidence.

``p_c`` is the next-token distribution with the passages, ``p_m`` the one without. The paper's
equations and what its released code does instead are two settings of one function, `ck_plug`.
Equations are numbered as in the paper's first version.
"""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from control.decoding.contrastive import FLOOR, Finite, RuleOutput, Swept, entropy

EPSILONS = (0.0, 1.0, 3.0, 7.0, 15.0)  # factors 1 (the paper's eq. 6), 2 (the code's), 4, 8, 16
HEAD_TOP_K = 10  # released code: each branch's ten most probable tokens ...
HEAD_RELATIVE = 0.01  # ... and every token within 1 % of its branch's maximum
ADAPTIVE_SCALE_RELEASED = 2.0  # released code: its adaptive weights sum to two


def ck_plug(
    log_p_c: Tensor,
    log_p_m: Tensor,
    alpha: Tensor | None,
    *,
    gate: Literal["released", "paper"] = "released",
    head: Literal["released", "paper"] = "released",
    epsilon: Annotated[Finite, Swept(EPSILONS)] = 1.0,
) -> RuleOutput:
    """CK-PLUG: mix the branches at a token where the passages cost confidence.

    - Confidence gain (eq. 4): ``CG = H(p_m) - H(p_c)``, entropies in nats.
    - Where the gate fires (eq. 6 and 7): ``alpha log p_m + (1 - alpha) (log p_c - log p_m)`` over
      the head vocabulary (eq. 9); elsewhere ``log p_c``.
    - Adaptive weight (eq. 10): ``alpha = H(p_c) / (H(p_m) + H(p_c))``.

    Args:
        log_p_c: With the passages, shape (batch, vocabulary).
        log_p_m: Without them, same shape.
        alpha: Shape (batch, 1), or ``None`` for adaptive.
        gate: ``"paper"`` takes entropies over the whole vocabulary. ``"released"`` is what the
            authors' code does: entropies over the head vocabulary, tokens outside the head masked
            everywhere, and adaptive weights at twice the scale (which matters only when sampling).
        head: Which tokens may be chosen where the gate fires. ``"paper"`` (eq. 9): the ten of
            highest ``log p_m`` and the ten of highest ``log p_c - log p_m``, which may leave out
            the very token that plain RAG would choose. ``"released"``: each branch's ten best and
            all within 1 % of its maximum.
        epsilon: The threshold of the gate (eq. 11), which the paper sets for each model: -2 for
            LLaMA2, -1 for LLaMA3 and Mistral, -3 for Qwen2.5. As printed, a negative one never
            fires; the code turns the sign and has 1 for all models. Here the sign does not matter:
            the gate fires at ``H(p_m) < (1 + |epsilon|) H(p_c)``; 0 is ``CG < 0`` (eq. 6).
    """
    tokens = _released_head(log_p_c, log_p_m) if head == "released" else _head(log_p_c, log_p_m)
    if gate == "paper":
        entropy_c, entropy_m = entropy(log_p_c)[:, None], entropy(log_p_m)[:, None]
        elsewhere, scale = log_p_c, 1.0
    else:
        masked_c, masked_m = _renormalised(log_p_c, tokens), _renormalised(log_p_m, tokens)
        entropy_c, entropy_m = entropy(masked_c)[:, None], entropy(masked_m)[:, None]
        elsewhere, scale = masked_c, ADAPTIVE_SCALE_RELEASED
    fires = entropy_m < (1 + abs(epsilon)) * entropy_c
    if alpha is None:
        alpha = entropy_c / (entropy_m + entropy_c).clamp_min(torch.finfo(entropy_c.dtype).eps)
    else:
        scale = 1.0
    weighted = scale * (alpha * log_p_m + (1 - alpha) * (log_p_c - log_p_m))
    weighted = weighted.masked_fill(~tokens, FLOOR)
    return RuleOutput(torch.where(fires, weighted, elsewhere), fires[:, 0])


def ck_plug_paper(
    log_p_c: Tensor,
    log_p_m: Tensor,
    alpha: Tensor | None,
    *,
    head: Literal["released", "paper"] = "released",
    epsilon: Annotated[Finite, Swept(EPSILONS)] = 0.0,
) -> RuleOutput:
    """`ck_plug` with the paper's gate; with ``head="paper"`` too, all of it is the paper's.

    The released head is the default because with the paper's ``alpha=0.5`` need not be plain RAG.
    """
    return ck_plug(log_p_c, log_p_m, alpha, gate="paper", head=head, epsilon=epsilon)


def _head(log_p_c: Tensor, log_p_m: Tensor) -> Tensor:
    """The paper's head vocabulary (eq. 9), shape (batch, vocabulary), bool."""
    head = torch.zeros_like(log_p_c, dtype=torch.bool)
    for scores in (log_p_m, log_p_c - log_p_m):
        best = scores.topk(min(HEAD_TOP_K, scores.shape[-1]), dim=-1).values
        head |= scores >= best[:, -1:]
    return head


def _released_head(log_p_c: Tensor, log_p_m: Tensor) -> Tensor:
    """The released code's head vocabulary, shape (batch, vocabulary), bool."""
    head = torch.zeros_like(log_p_c, dtype=torch.bool)
    for log_p in (log_p_c, log_p_m):
        best = log_p.topk(min(HEAD_TOP_K, log_p.shape[-1]), dim=-1).values
        bar = torch.minimum(best[:, -1:], best[:, :1] + math.log(HEAD_RELATIVE))
        head |= log_p >= bar
    return head


def _renormalised(log_p: Tensor, head: Tensor) -> Tensor:
    """``log_p`` with everything outside ``head`` masked and the rest summing to one."""
    return log_p.masked_fill(~head, FLOOR).log_softmax(dim=-1).clamp_min(FLOOR)
