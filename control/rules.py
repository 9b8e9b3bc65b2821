"""Token rules: how the next-token distributions of the two branches become one.

A rule is a function of two log-probability tensors of shape (batch, vocabulary), with the passages
(``log_p_c``) and without (``log_p_m``), and of ``alpha`` of shape (batch, 1), to a `Mixture`.
Rules run on the accelerator and never wait for it: no ``.item()``, no Python branch on a value.
To add one, write the function and name it in ``RULES``; `mix` gives it finite tensors.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

FLOOR = -1e4  # nats; stands for log 0 and stays finite when it is multiplied or subtracted

HEAD_TOP_K = 10  # released CK-PLUG code: each branch's ten most probable tokens ...
HEAD_RELATIVE = 0.01  # ... and every token within 1 % of its branch's maximum
ADAPTIVE_SCALE_RELEASED = 2.0  # released CK-PLUG code: its adaptive weights sum to two


class Mixture(NamedTuple):
    """What a rule returns.

    Attributes:
        scores: Unnormalised log-probabilities of the next token, shape (batch, vocabulary).
        mixed: Whether the rule stepped in, shape (batch,), bool.
    """

    scores: Tensor
    mixed: Tensor


Rule = Callable[[Tensor, Tensor, Tensor | None], Mixture]
"""(log_p_c, log_p_m, alpha or None for adaptive) to a mixture."""


class Step(NamedTuple):
    """A mixture and what the trace needs, all of shape (batch,) but the scores and log-probs."""

    scores: Tensor
    mixed: Tensor
    entropy_context: Tensor
    entropy_memory: Tensor
    log_p_c: Tensor
    log_p_m: Tensor


def mix(rule: Rule, logits_c: Tensor, logits_m: Tensor, alpha: Tensor | None) -> Step:
    """Apply ``rule`` to the logits of both branches, each of shape (batch, vocabulary).

    Args:
        rule: The token rule.
        logits_c: Logits with the passages.
        logits_m: Logits without them.
        alpha: 0 = passages only, 1 = memory only, shape (batch, 1); ``None`` = adaptive.
    """
    log_p_c, log_p_m = log_probabilities(logits_c), log_probabilities(logits_m)
    scores, mixed = rule(log_p_c, log_p_m, alpha)
    return Step(scores, mixed, entropy(log_p_c), entropy(log_p_m), log_p_c, log_p_m)


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over the vocabulary in float32, bounded below by ``FLOOR``."""
    return logits.float().log_softmax(dim=-1).clamp_min(FLOOR)


def entropy(log_p: Tensor) -> Tensor:
    """Shannon entropy in nats of log-probabilities of shape (batch, vocabulary), shape (batch,)."""
    return -(log_p.exp() * log_p).sum(dim=-1)


def plain(log_p_c: Tensor, _log_p_m: Tensor, _alpha: Tensor | None) -> Mixture:
    """Plain RAG: the distribution with the passages, untouched."""
    return Mixture(log_p_c, torch.zeros_like(log_p_c[:, 0], dtype=torch.bool))


def cad(log_p_c: Tensor, log_p_m: Tensor, alpha: Tensor | None) -> Mixture:
    """Context-aware decoding (Shi et al. 2024, eq. 2): ``(1 + a) log p_c - a log p_m``.

    The published strength ``a`` is tied to the dial by ``a = 1 - 2 alpha``: 1 (their default) at
    the passage end, 0 (plain RAG) in the middle, -1 (memory alone) at the memory end. It has no
    adaptive form; ``alpha=None`` takes their default.
    """
    a = 1.0 if alpha is None else 1 - 2 * alpha
    return Mixture(
        (1 + a) * log_p_c - a * log_p_m, torch.ones_like(log_p_c[:, 0], dtype=torch.bool)
    )


def ck_plug(
    log_p_c: Tensor,
    log_p_m: Tensor,
    alpha: Tensor | None,
    gate: Literal["paper", "released"] = "released",
) -> Mixture:
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
    return Mixture(torch.where(fires, weighted, elsewhere), fires[:, 0])


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
    "ck_plug": partial(ck_plug, gate="released"),
    "ck_plug_paper": partial(ck_plug, gate="paper"),
}
DEFAULT_RULE = "ck_plug"
