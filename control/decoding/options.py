"""The settings of decoding, validated; importing them loads no torch."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from foundation.errors import InputError

if TYPE_CHECKING:
    from control.decoding.contrastive import Rule

DIAL = "fulcrum"  # no token rule: it decides whole answers, see `control.conflict.dial`
DEFAULT_RULE = DIAL
Alpha = float | Literal["auto"]
RuleOption = float | str

# The names, so that one can be checked at once; `control.decoding.rules` puts in the functions.
RULES: "dict[str, Rule]" = dict.fromkeys(  # type: ignore[assignment]
    (
        "plain",
        "cad",
        "adacad",
        "coiecd",
        "cocoa",
        "ck_plug",
        "ck_plug_paper",
        "confidence_cad",
        "grd",
        "nwcad",
    )
)
"""The token rules by name, to which a program may add its own."""
WITHOUT_DIAL = ("grd", "nwcad")  # the same at every alpha, and measured at auto


@dataclass(frozen=True)
class Decoding:
    """Settings of decoding, validated.

    Attributes:
        rule: A name in `control.decoding.rules.CHOICES`.
        alpha: 0 = passages only, 0.5 = plain RAG, 1 = memory only, or ``"auto"``.
        temperature: 0 is greedy; above it, sampling at that temperature.
        top_p: Share of probability that sampling keeps.
        seed: Of the sampling.
        max_new_tokens: Longest answer, in tokens.
        reliance: In place of alpha: the share of conflicts over known facts, in [0, 1], that memory
            should win; needs rule ``fulcrum``, whose calibration has the alpha for it.
        rule_options: Of the rule, by name: the keyword arguments of its function.

    Raises:
        InputError: A value is out of its range.
    """

    rule: str = DEFAULT_RULE
    alpha: Alpha = 0.5
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int = 128
    reliance: float | None = None
    rule_options: Mapping[str, RuleOption] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check every value."""
        check_rule(self.rule)
        if self.alpha != "auto" and not _between(self.alpha, 0, 1):
            raise InputError(
                f"alpha is {self.alpha!r}; give a number from 0 (passages) to 1 (memory), or auto"
            )
        if self.reliance is not None and not _between(self.reliance, 0, 1):
            raise InputError(f"reliance is {self.reliance!r}; give a share from 0 to 1, or none")
        if self.reliance is not None and self.rule != DIAL:
            raise InputError(
                f"reliance is measured for rule {DIAL}, not for {self.rule}; turn that one by alpha"
            )
        if not _between(self.temperature, 0, math.inf):
            raise InputError(f"temperature is {self.temperature!r}; give 0 (greedy) or more")
        if not _between(self.top_p, 0, 1) or self.top_p == 0:
            raise InputError(f"top-p is {self.top_p!r}; give a number above 0 and at most 1")
        if self.max_new_tokens < 1:
            raise InputError(f"max-new-tokens is {self.max_new_tokens}; give 1 or more")
        if self.rule_options:
            from control.decoding import rules  # loads torch

            rules.check_options(self.rule, self.rule_options)


def check_rule(name: str) -> None:
    """Check the name of a rule.

    Raises:
        InputError: There is no such rule.
    """
    if name not in (DIAL, *RULES):
        raise InputError(f"rule is {name!r}; choose one of {', '.join((DIAL, *RULES))}")


def read_rule_options(given: Iterable[str]) -> dict[str, RuleOption]:
    """The options that texts of the form ``name=value`` stand for.

    Raises:
        InputError: A text is not of that form, or a name stands twice.
    """
    options: dict[str, RuleOption] = {}
    for text in given:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not (name and sign and value):
            raise InputError(f"rule option {text!r} is not of the form name=value, as epsilon=3")
        if name in options:
            raise InputError(f"rule option {name} is given twice; give it once")
        try:
            options[name] = float(value)
        except ValueError:
            options[name] = value
    return options


def _between(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and low <= value <= high
