"""CK-PLUG (Bi et al. 2025, arXiv:2503.15888): mix the branches where passages cost confidence.

``p_c`` is the next-token distribution with the passages, ``p_m`` the one without. The paper's
equations and what its released code does instead are two settings of one function, `ck_plug`.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from control.decoding.contrastive import FLOOR, RuleOutput, entropy

HEAD_TOP_K = 10  # released code: each branch's ten most probable tokens ...
HEAD_RELATIVE = 0.01  # ... and every token within 1 % of its branch's maximum
ADAPTIVE_SCALE_RELEASED = 2.0  # released code: its adaptive weights sum to two


def ck_plug(
    log_p_c: Tensor,
    log_p_m: Tensor,
    alpha: Tensor | None,
    gate: Literal["paper", "released"] = "released",
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
        gate: ``"paper"`` fires at ``CG < 0`` with entropies over the whole vocabulary.
            ``"released"`` is what the authors' code does: entropies over the head vocabulary,
            firing at ``H(p_m) < 2 H(p_c)``, tokens outside the head masked everywhere, and
            adaptive weights at twice the scale (which matters only when sampling).
    """
    head = _head_vocabulary(log_p_c, log_p_m)
    if gate == "paper":
        entropy_c, entropy_m = entropy(log_p_c)[:, None], entropy(log_p_m)[:, None]
        fires, elsewhere, scale = entropy_m < entropy_c, log_p_c, 1.0
    else:
        masked_c, masked_m = _renormalised(log_p_c, head), _renormalised(log_p_m, head)
        entropy_c, entropy_m = entropy(masked_c)[:, None], entropy(masked_m)[:, None]
        fires, elsewhere, scale = entropy_m < 2 * entropy_c, masked_c, ADAPTIVE_SCALE_RELEASED
    if alpha is None:
        alpha = entropy_c / (entropy_m + entropy_c).clamp_min(torch.finfo(entropy_c.dtype).eps)
    else:
        scale = 1.0
    weighted = scale * (alpha * log_p_m + (1 - alpha) * (log_p_c - log_p_m))
    weighted = weighted.masked_fill(~head, FLOOR)
    return RuleOutput(torch.where(fires, weighted, elsewhere), fires[:, 0])


def _head_vocabulary(log_p_c: Tensor, log_p_m: Tensor) -> Tensor:
    """Tokens that either branch finds plausible, shape (batch, vocabulary), bool.

    The union of each branch's ``HEAD_TOP_K`` best and of all within ``HEAD_RELATIVE`` of its
    maximum, as in the released code. The paper takes the top k of the log ratio (eq. 9), which may
    leave out the very token that plain RAG would choose.
    """
    head = torch.zeros_like(log_p_c, dtype=torch.bool)
    for log_p in (log_p_c, log_p_m):
        best = log_p.topk(min(HEAD_TOP_K, log_p.shape[-1]), dim=-1).values
        bar = torch.minimum(best[:, -1:], best[:, :1] + math.log(HEAD_RELATIVE))
        head |= log_p >= bar
    return head


def _renormalised(log_p: Tensor, head: Tensor) -> Tensor:
    """``log_p`` with everything outside ``head`` masked and the rest summing to one."""
    return log_p.masked_fill(~head, FLOOR).log_softmax(dim=-1).clamp_min(FLOOR)
