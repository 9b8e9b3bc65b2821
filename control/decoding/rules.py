"""The table of token rules, and how a rule is applied to the branches' next-token distributions.

A rule is a function of two log-probability tensors of shape (batch, vocabulary), with the passages
(``log_p_c``) and without (``log_p_m``), and of ``alpha`` of shape (batch, 1), to a `RuleOutput`.
Rules run on the accelerator and never wait for it: no ``.item()``, no Python branch on a value.
To add one, write the function and name it in ``RULES``; `mix` gives it finite tensors. The keyword
arguments of the function are the rule's options, annotated with what they may be.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from control.decoding.ck_plug import ck_plug, ck_plug_paper
from control.decoding.contrastive import (
    Rule,
    RuleOutput,
    Swept,
    adacad,
    cad,
    cocoa,
    coiecd,
    confidence_cad,
    entropy,
    log_probabilities,
)
from control.decoding.gated import grd, nwcad
from control.decoding.options import DEFAULT_RULE, DIAL, RULES, WITHOUT_DIAL, RuleOption
from foundation.errors import InputError

__all__ = [
    "CHOICES",
    "CONTRASTIVE",
    "DEFAULT_RULE",
    "DEFAULT_TOKEN_RULE",
    "DIAL",
    "RULES",
    "WITHOUT_DIAL",
    "MixedStep",
    "NextTokenDistribution",
    "Rule",
    "RuleParameter",
    "check_options",
    "configured",
    "mix",
    "next_token",
    "parameters",
    "plain",
]


class MixedStep(NamedTuple):
    """A rule's output and both branches' distributions.

    Scores and log-probabilities are of shape (batch, vocabulary), all else of shape (batch,);
    entropies are in nats. ``state`` is that of `RuleOutput`.
    """

    scores: Tensor
    mixed: Tensor
    entropy_context: Tensor
    entropy_memory: Tensor
    log_p_c: Tensor
    log_p_m: Tensor
    state: Tensor | None = None


class NextTokenDistribution(NamedTuple):
    """A branch's log-probabilities (batch, vocabulary) and entropies (batch,), in nats."""

    log_p: Tensor
    entropy: Tensor


def next_token(logits: Tensor) -> NextTokenDistribution:
    """The distribution that logits of shape (batch, vocabulary) stand for."""
    log_p = log_probabilities(logits)
    return NextTokenDistribution(log_p, entropy(log_p))


def mix(
    rule: Rule,
    context: NextTokenDistribution,
    memory: NextTokenDistribution,
    alpha: Tensor | None,
    state: Tensor | None = None,
) -> MixedStep:
    """Apply ``rule`` to the distributions of both branches.

    Args:
        rule: The token rule.
        context: With the passages.
        memory: Without them.
        alpha: 0 = passages only, 1 = memory only, shape (batch, 1); ``None`` = adaptive.
        state: What the rule returned at the last token; ``None`` at the beginning.
    """
    kept = () if state is None else (state,)
    scores, mixed, state = rule(context.log_p, memory.log_p, alpha, *kept)
    return MixedStep(
        scores, mixed, context.entropy, memory.entropy, context.log_p, memory.log_p, state
    )


@dataclass(frozen=True)
class RuleParameter:
    """An option of a rule.

    Attributes:
        kind: The type that its values are checked against.
        default: As published, or as the rule's function says.
        swept: What `evaluation.suites.tuning` tries; empty for nothing.
    """

    kind: Any
    default: RuleOption
    swept: tuple[RuleOption, ...] = ()


def parameters(rule: str) -> dict[str, RuleParameter]:
    """The options of a rule, by name: the keyword-only arguments of its function."""
    function = RULES.get(rule)
    if function is None:  # the dial
        return {}
    hints = get_type_hints(getattr(function, "func", function), include_extras=True)
    found = {}
    for name, argument in inspect.signature(function).parameters.items():
        if argument.kind is argument.KEYWORD_ONLY:
            kind = hints.get(name, type(argument.default))
            found[name] = RuleParameter(kind, argument.default, _swept(kind))
    return found


def _swept(kind: Any) -> tuple[RuleOption, ...]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    for note in getattr(kind, "__metadata__", ()):
        if isinstance(note, Swept):
            return note.values
    return ()


def check_options(rule: str, options: Mapping[str, RuleOption]) -> None:
    """Check a rule's options.

    Raises:
        InputError: The rule has no such option, or the option no such value.
    """
    known = parameters(rule)
    for name, value in options.items():
        if name not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(f"rule {rule} has no option {name!r}; {there}")
        try:
            TypeAdapter(known[name].kind).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise InputError(f"option {name} of rule {rule} is {value!r}: {message}") from error


def configured(rule: str, options: Mapping[str, RuleOption]) -> Rule:
    """The function of a token rule with these options.

    Raises:
        InputError: As of `check_options`.
    """
    check_options(rule, options)
    return partial(RULES[rule], **options) if options else RULES[rule]


def plain(log_p_c: Tensor, _log_p_m: Tensor, _alpha: Tensor | None) -> RuleOutput:
    """Plain RAG: the distribution with the passages, untouched."""
    return RuleOutput(log_p_c, torch.zeros_like(log_p_c[:, 0], dtype=torch.bool))


RULES |= {
    "plain": plain,
    "cad": cad,
    "adacad": adacad,
    "coiecd": coiecd,
    "cocoa": cocoa,
    "ck_plug": ck_plug,
    "ck_plug_paper": ck_plug_paper,
    "confidence_cad": confidence_cad,
    "grd": grd,
    "nwcad": nwcad,
}
# At alpha auto as published, which is alpha 0.
CONTRASTIVE = ("cad", "adacad", "coiecd", "cocoa", "confidence_cad")
DEFAULT_TOKEN_RULE = "ck_plug"
CHOICES = (DIAL, *RULES)
