"""The table of token rules, and how a rule is applied to the branches' next-token distributions.

A rule is a function of two log-probability tensors of shape (batch, vocabulary), with the passages
(``log_p_c``) and without (``log_p_m``), and of ``alpha`` of shape (batch, 1), to a `RuleOutput`.
Rules run on the accelerator and never wait for it: no ``.item()``, no Python branch on a value.
To add one, write the function and name it in ``RULES``; `mix` gives it finite tensors.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from control.decoding.ck_plug import ck_plug
from control.decoding.contrastive import (
    Rule,
    RuleOutput,
    adacad,
    cad,
    cocoa,
    coiecd,
    entropy,
    log_probabilities,
)
from control.decoding.options import DEFAULT_RULE, DIAL, RULES

__all__ = [
    "CHOICES",
    "CONTRASTIVE",
    "DEFAULT_RULE",
    "DEFAULT_TOKEN_RULE",
    "DIAL",
    "RULES",
    "MixedStep",
    "NextTokenDistribution",
    "Rule",
    "mix",
    "next_token",
    "plain",
]


class MixedStep(NamedTuple):
    """A rule's output and both branches' distributions.

    Scores and log-probabilities are of shape (batch, vocabulary), all else of shape (batch,);
    entropies are in nats.
    """

    scores: Tensor
    mixed: Tensor
    entropy_context: Tensor
    entropy_memory: Tensor
    log_p_c: Tensor
    log_p_m: Tensor


class NextTokenDistribution(NamedTuple):
    """A branch's log-probabilities (batch, vocabulary) and entropies (batch,), in nats."""

    log_p: Tensor
    entropy: Tensor


def next_token(logits: Tensor) -> NextTokenDistribution:
    """The distribution that logits of shape (batch, vocabulary) stand for."""
    log_p = log_probabilities(logits)
    return NextTokenDistribution(log_p, entropy(log_p))


def mix(
    rule: Rule, context: NextTokenDistribution, memory: NextTokenDistribution, alpha: Tensor | None
) -> MixedStep:
    """Apply ``rule`` to the distributions of both branches.

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


RULES |= {
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
CHOICES = (DIAL, *RULES)
