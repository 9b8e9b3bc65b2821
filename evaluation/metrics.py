"""Does an answer hold a string, and what follows from it for many answers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from foundation.text import holds, normalise  # noqa: F401 - a metric, and said as metrics.holds

RESAMPLES = 2000
CONFIDENCE = 0.95

Flags = NDArray[np.bool_]


def token_f1(answer: str, right: str) -> float:
    """F1 of the words that two texts share, in [0, 1] (SQuAD; Rajpurkar et al. 2016)."""
    said, wanted = normalise(answer).split(), normalise(right).split()
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted)) if shared else 0.0


def percent(values: NDArray[Any], axis: int = -1) -> Any:
    """Share of true values, or mean of shares, along an axis, in percent; 0 for none at all."""
    return 100 * values.mean(axis=axis) if values.shape[axis] else 0.0


def memory_ratio(con: Flags, par: Flags, axis: int = -1) -> Any:
    """MR = ParR / (ParR + ConR), in percent (CK-PLUG, section 4.1); 0 if neither was held."""
    memory = par.sum(axis=axis)
    return 100 * memory / np.maximum(con.sum(axis=axis) + memory, 1)


def interval(statistic: Callable[..., Any], *samples: NDArray[Any]) -> list[float]:
    """95 % percentile bootstrap interval of ``statistic`` over paired samples, ``[low, high]``.

    The statistic takes the samples and the axis along which they lie, for all resamples at once.
    """
    if len(samples[0]) < 2:  # noqa: PLR2004 - nothing to resample
        return [float(statistic(*samples))] * 2
    result = stats.bootstrap(
        samples,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=0,
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def percents(measured: Mapping[str, Flags]) -> dict[str, float]:
    """The share of true values of each, in percent."""
    return {name: percent(flags) for name, flags in measured.items()}


def intervals(measured: Mapping[str, Flags]) -> dict[str, list[float]]:
    """The interval of each of these shares."""
    return {name: interval(percent, flags) for name, flags in measured.items()}


def exact_interval(hits: int, n: int) -> tuple[float, float]:
    """Exact 95 % interval of a share, in [0, 1] (Clopper and Pearson 1934); all of it for n = 0."""
    if not n:
        return 0.0, 1.0
    exact = stats.binomtest(hits, n).proportion_ci(CONFIDENCE, method="exact")
    return float(exact.low), float(exact.high)


def auroc(flags: Flags, scores: Sequence[float] | NDArray[np.float64]) -> float:
    """How well scores tell what is flagged: the area under the ROC curve."""
    from sklearn.metrics import roc_auc_score  # takes a second

    return float(roc_auc_score(flags, scores))


def reliance(con: Flags, par: Flags) -> dict[str, object]:
    """ConR, ParR, MR and hit in percent, with their intervals under ``ci``.

    Args:
        con: Whether each answer holds the passage's answer.
        par: Whether it holds the memory's answer.
    """
    values: dict[str, tuple[Callable[..., Any], tuple[Flags, ...]]] = {
        "ConR": (percent, (con,)),
        "ParR": (percent, (par,)),
        "MR": (memory_ratio, (con, par)),
        "hit": (percent, (con | par,)),
    }
    row: dict[str, object] = {name: float(of(*flags)) for name, (of, flags) in values.items()}
    row["ci"] = {name: interval(of, *flags) for name, (of, flags) in values.items()}
    return row


def mcnemar(first: Flags, second: Flags) -> float:
    """Exact p-value that two ways of answering the same items are equally often right."""
    better, worse = int((first & ~second).sum()), int((second & ~first).sum())
    if better + worse == 0:
        return 1.0
    return float(stats.binomtest(better, better + worse).pvalue)


def harmonic_mean(first: float, second: float) -> float:
    """Harmonic mean; 0 if either is."""
    return 2 * first * second / (first + second) if first > 0 and second > 0 else 0.0
