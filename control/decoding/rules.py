"""Token rules: how the next-token distributions of the two branches become one.

A rule is a function of two log-probability tensors of shape (batch, vocabulary), with the passages
(``log_p_c``) and without (``log_p_m``), and of ``alpha`` of shape (batch, 1), to a `RuleOutput`.
Rules run on the accelerator and never wait for it: no ``.item()``, no Python branch on a value.
To add one, write the function and name it in ``RULES``; `mix` gives it finite tensors.
"""

import math
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from control.decoding.contrastive import adacad, cad, cocoa, coiecd
from control.decoding.rule import FLOOR, Rule, RuleOutput, entropy, log_probabilities

HEAD_TOP_K = 10  # released CK-PLUG code: each branch's ten most probable tokens ...
HEAD_RELATIVE = 0.01  # ... and every token within 1 % of its branch's maximum
ADAPTIVE_SCALE_RELEASED = 2.0  # released CK-PLUG code: its adaptive weights sum to two


class MixedStep(NamedTuple):
    """A mixture and what the trace needs, all of shape (batch,) but the scores and log-probs."""

    scores: Tensor
    mixed: Tensor
    entropy_context: Tensor
    entropy_memory: Tensor
    log_p_c: Tensor
    log_p_m: Tensor


class NextTokenDistribution(NamedTuple):
    """What a branch expects next: log-probabilities (batch, vocabulary), entropies (batch,)."""

    log_p: Tensor
    entropy: Tensor


def next_token(logits: Tensor) -> NextTokenDistribution:
    """From logits of shape (batch, vocabulary)."""
    log_p = log_probabilities(logits)
    return NextTokenDistribution(log_p, entropy(log_p))


def mix(
    rule: Rule, context: NextTokenDistribution, memory: NextTokenDistribution, alpha: Tensor | None
) -> MixedStep:
    """Apply ``rule`` to the outlooks of both branches.

    Args:
        rule: The token rule.
        context: With the passages.
        memory: Without them.
        alpha: 0 = passages only, 1 = memory only, shape (batch, 1); ``None`` = adaptive.
    """
    scores, mixed = rule(context.log_p, memory.log_p, alpha)
    return MixedStep(scores, mixed, context.entropy, memory.entropy, context.log_p, memory.log_p)


def plain(log_p_c: Tensor, _log_p_m: Tensor, _alpha: Tensor | None) -> RuleOutput:
    """Plain RAG: the distribution with the passages, untouched."""
    return RuleOutput(log_p_c, torch.zeros_like(log_p_c[:, 0], dtype=torch.bool))


def ck_plug(
    log_p_c: Tensor,
    log_p_m: Tensor,
    alpha: Tensor | None,
    gate: Literal["paper", "released"] = "released",
) -> RuleOutput:
    """CK-PLUG (Bi et al. 2025): mix the branches only where the passages cost confidence.

    Confidence gain is ``CG = H(p_m) - H(p_c)`` (eq. 4). Where the gate fires, the scores are
    ``alpha log p_m + (1 - alpha) (log p_c - log p_m)`` over the head vocabulary (eq. 6 and 7);
    elsewhere ``p_c``. Adaptive (eq. 8): ``alpha = H(p_c) / (H(p_m) + H(p_c))``.

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
    maximum, as in the released CK-PLUG code. The paper writes "top k of the log ratio" (eq. 7),
    which may leave out the very token that plain RAG would say.
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


RULES: dict[str, Rule] = {
    "plain": plain,
    "cad": cad,
    "adacad": adacad,
    "coiecd": coiecd,
    "cocoa": cocoa,
    "ck_plug": partial(ck_plug, gate="released"),
    "ck_plug_paper": partial(ck_plug, gate="paper"),
}
CONTRASTIVE = ("cad", "adacad", "coiecd", "cocoa")  # at alpha auto as published, which is alpha 0
DEFAULT_TOKEN_RULE = "ck_plug"
DIAL = "fulcrum"  # no token rule: it settles whole conflicts, see `control.conflict.dial`
DEFAULT_RULE = DIAL
CHOICES = (DIAL, *RULES)
