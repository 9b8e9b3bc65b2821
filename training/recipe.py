"""How KnowPO trains: sizes, shares, rates, and the smoke run's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from foundation.errors import InputError
from training import probing
from training.pairs import DPO_RATIOS, SFT_RATIOS, Ratios


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        sft_examples: Answers to follow in supervised fine-tuning.
        pairs: Pairs of preference optimization.
        sft_epochs: Times that supervised fine-tuning goes through them.
        samples: Closed-book draws for each question.
        facts: Facts that are asked at most, in random order; all if ``None``.
        development: Known facts held out to measure along the way, and half as many unknown ones.
        sft_ratios: Proportions of the kinds of answers.
        dpo_ratios: Proportions of the kinds of pairs.
        unfinished: Share of the facts that are asked as a sentence to finish instead of a question,
            where the model has one that the answer ends.
        match_lengths: Whether chosen and rejected answers are to be of like length.
        rank: Of the adapter; its alpha is twice that.
        batch: Examples a step.
        sft_rate: Learning rate of supervised fine-tuning.
        dpo_rate: Learning rate of preference optimization.
        beta: How strongly preference optimization is held to its start.
        evaluations: How often adherence and robustness are measured in a stage.
        seed: Of data and training.
    """

    sft_examples: int = 655
    pairs: int = 320
    sft_epochs: int = 2
    samples: int = probing.SAMPLES
    facts: int | None = None
    development: int = 48
    sft_ratios: Ratios = field(default_factory=lambda: dict(SFT_RATIOS))
    dpo_ratios: Ratios = field(default_factory=lambda: dict(DPO_RATIOS))
    unfinished: float = 0.5  # else the preference holds for questions alone
    match_lengths: bool = True
    rank: int = 16
    batch: int = 8
    sft_rate: float = 1e-3
    dpo_rate: float = 1e-4
    beta: float = 0.1
    evaluations: int = 4
    seed: int = 0


SMOKE = Recipe(
    sft_examples=8,
    pairs=5,
    sft_epochs=1,
    samples=2,
    facts=104,
    development=4,
    batch=4,
    evaluations=1,
)


def with_ratios(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """The recipe with other shares, each given as ``KIND=SHARE``.

    Raises:
        InputError: A kind is unknown, or its share is no number of at least 0.
    """
    sft, dpo = dict(recipe.sft_ratios), dict(recipe.dpo_ratios)
    for change in changes:
        kind, _, share = change.rpartition("=")
        of = sft if kind in sft else dpo
        if kind not in of:
            raise InputError(f"--ratio {change!r}: the kinds are {'; '.join([*sft, *dpo])}")
        try:
            of[kind] = float(share)
        except ValueError:
            of[kind] = -1.0
        if not 0 <= of[kind] < math.inf:
            raise InputError(f"--ratio {change!r}: the share must be a number of at least 0")
    for shares in (sft, dpo):
        if not any(shares.values()):
            raise InputError(f"--ratio: all of {'; '.join(shares)} are 0; leave one above it")
    return replace(recipe, sft_ratios=sft, dpo_ratios=dpo)
