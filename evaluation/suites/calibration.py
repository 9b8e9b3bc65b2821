"""Fit the calibration of a model to what was observed of it, so that its dial can be set.

The probe learns to tell the facts that the model knows from those that it does not, and the
thresholds are chosen by its confidences; all choices use confidences by probes that have not seen
the relation in question. What is observed: `evaluation.suites.observations`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from control.conflict.calibration import (
    ANY_MODEL,
    Calibration,
    Plausibility,
    Resolution,
    Thresholds,
    decide,
    log_odds,
    raised,
)
from control.conflict.probe import (
    DRAFT_NUMBERS,
    LOG_P_NUMBERS,
    OF_DRAFTS,
    MemoryProbe,
    ProbeFeatures,
)
from evaluation import metrics, report
from evaluation.datasets.conflicts import spread
from evaluation.suites.observations import Observation
from foundation.errors import DataError

# Of a hidden state's component against a number, both standardised; chosen leaving relations out.
STATES_WEIGHT = 0.3
# The same of what the model takes for correct; of 1, 2 and 3, on 197 conflicts of a model of 1.5B.
JUDGEMENT_WEIGHT = 2.0
# Inverse strengths of the L2 penalty; that is taken which ranks relations left out best (AUROC):
# with hidden states, of thousands of components, another one than without.
PENALTIES = (0.005, 0.02, 0.1)
UNPENALISED = 1e3  # the same of a regression on two numbers
FEWEST = 20  # conflicts that memory should win, and as many that it should lose
FEWEST_FOR_BARS = 12  # the same where no probe is fitted
FOLDS = 5  # where no relation is stated
ALPHAS = tuple(round(0.05 * step, 2) for step in range(21))
QUANTILES = 60  # candidate bars
READER_BARS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
SIGNIFICANT = 0.05
MADE_UP = 0.98  # of what a model claims about invented things, this share counts as made up
BUILT_IN = "built-in"  # the source of observations that state none


def fit_any(
    models: Mapping[str, Sequence[Observation]],
    drafts_only: bool = False,
    invented: Sequence[Sequence[Observation]] = (),
) -> Calibration:
    """Fit the calibration for models that were not measured, on those that were.

    Each counts alike in the probe, and all choices use confidences of a probe that has not seen the
    model in question. Models differ most in how sure they are of what they know: the larger, the
    surer. The bars at alpha 1 are best for them on average, those at auto the highest of any; on
    the way to 1 as many confidences of each decide. What each comes to by bars that were chosen on
    the others is in ``measured``.

    Args:
        models: Observations by the name of the model.
        drafts_only: For engines that score no given text.
        invented: What each model made up of invented things; its highest bars count.

    Raises:
        DataError: Too few conflicts on one side.
    """
    if drafts_only:
        models = {name: [_of_drafts(each) for each in seen] for name, seen in models.items()}
        invented = [[_of_drafts(each) for each in seen] for seen in invented]
    pooled = [each for seen in models.values() for each in seen]
    names = [name for name, seen in models.items() for _ in seen]
    name = ", ".join(models)
    left_out = names if len(models) > 1 else [each.relation for each in pooled]
    probe, confidence, area = _fit_probe(name, pooled, left_out, names, any_model=True)
    memory_bar = max(map(_memory_bar, invented), default=-math.inf)
    base = _without_bars(ANY_MODEL, name, probe, memory_bar)
    parts = [
        _only(_at_alpha(pooled, base, 1), confidence, [each == model for each in names])
        for model in models
    ]
    auto = max((_best_auto(*part) for part in parts), key=lambda bars: bars.memory)
    measured: dict[str, float] = {}
    for model, part in zip(models, parts, strict=True):
        if others := [each for each in parts if each is not part]:
            came_to = _measured(*part, _best_end(others)) | {"auroc": _area(*part)}
            measured |= {f"{key} {model}": value for key, value in came_to.items()}
    dials = [_with_bars(base, *part, _best_end(parts), auto) for part in parts]
    fitted = replace(dials[0], known=_evenly([each.known for each in dials]))
    return replace(
        fitted,
        ratios=np.mean([_ratios(fitted, *part) for part in parts], axis=0).round(4).tolist(),
        measured=_counts(pooled) | {"auroc": area} | measured,
        plausibility=_plausibility(probe, pooled, confidence, invented),
    )


def _evenly(known: Sequence[Sequence[float]]) -> list[float]:
    """The confidences of several models, ascending, as many of each."""
    fewest = min(map(len, known))
    return sorted(each for one in known for each in spread(list(one), fewest))


def _of_drafts(observation: Observation) -> Observation:
    if observation.evidence is None:
        return observation
    numbers = observation.evidence.numbers[list(OF_DRAFTS)]
    return replace(observation, evidence=ProbeFeatures(numbers, torch.zeros(0, 0)))


def fit(
    identity: str,
    name: str,
    observations: Sequence[Observation],
    invented: Sequence[Sequence[Observation]] = (),
    documents: Sequence[Observation] = (),
) -> Calibration:
    """Fit the probe and choose the bars; each source of observations counts alike.

    Args:
        identity: Of the model.
        name: Of the model.
        observations: From `run`.
        invented: Observations of questions about invented things, of each model; by them is chosen
            what counts as remembered.
        documents: Observations of documents, by which only the reader's bar is chosen too.

    Raises:
        DataError: Too few conflicts on one side.
    """
    relations = [each.relation for each in observations]
    probe, confidence, area = _fit_probe(name, observations, relations, _sources(observations))
    memory_bar = max(map(_memory_bar, invented), default=-math.inf)
    bar = reader_bar([*observations, *documents], memory_bar)
    base = _without_bars(identity, name, probe, memory_bar, bar)
    fitted = _own_bars(base, observations, confidence)
    return replace(
        fitted,
        measured=fitted.measured | {"auroc": area},
        plausibility=_plausibility(probe, observations, confidence, invented),
    )


def fit_bars(
    base: Calibration, identity: str, name: str, observations: Sequence[Observation]
) -> Calibration:
    """Choose the bars at alpha 1, and how alpha goes there; all else is of ``base``.

    A few dozen facts do. Of three models of 135M, 0.5B and 1.5B, 24 facts that they know and 24
    that they do not, drawn by chance 40 times, choose bars that come to Q 79.9, 75.7 and 83.2 on
    their others (12 of each to 77.5, 74.3 and 82.4), where the best bars come to 82.4, 78.9 and
    86.0. Bars for auto that were chosen so would cost 2 to 5 points of right answers.

    Args:
        base: The calibration for any model.
        identity: Of the model.
        name: Of the model.
        observations: From `run`.

    Raises:
        DataError: Too few conflicts on one side.
    """
    _check_sides(name, observations, FEWEST_FOR_BARS)
    confidence = np.array([_confidence(base.probe, each) for each in observations])
    own = _own_bars(replace(base, model=identity, name=name), observations, confidence)
    return replace(own, auto=base.auto)


def _check_sides(name: str, observations: Sequence[Observation], fewest: int) -> None:
    known = sum(each.known for each in observations if each.evidence is not None)
    unknown = sum(not each.known for each in observations if each.evidence is not None)
    if min(known, unknown) < fewest:
        raise DataError(
            f"{name} disagrees with the passages on {known} facts that it "
            f"knows and {unknown} that it does not; a calibration needs {fewest} of each: "
            "give more or easier facts by --data"
        )


def _fit_probe(
    name: str,
    observations: Sequence[Observation],
    left_out: Sequence[str | None],
    alike: Sequence[str],
    any_model: bool = False,
) -> tuple[MemoryProbe, NDArray[np.float64], float]:
    """Fit the probe.

    Args:
        name: Of the model.
        observations: From `run`.
        left_out: For each observation, what is left out together.
        alike: For each, the group that counts as much as any other.
        any_model: Leave out the hidden states, so that the probe serves other models too.

    Returns:
        The probe; the confidence in each observation, in [0, 1], by one that has not seen what is
        left out with it; and the AUROC of these.
    """
    _check_sides(name, observations, FEWEST)
    judged_by = [at for at, o in enumerate(observations) if o.evidence is not None]
    with_evidence = [observations[at] for at in judged_by]
    right = np.array([o.known for o in with_evidence], dtype=bool)
    features, scale = _features(with_evidence, any_model)
    weights = _weights([alike[at] for at in judged_by])
    penalty, held_out = _held_out(features, right, weights, [left_out[at] for at in judged_by])
    confidence = np.zeros(len(observations))
    confidence[judged_by] = held_out
    probe = _probe(features, scale, right, weights, penalty, *_shape(with_evidence, any_model))
    return probe, confidence, round(metrics.auroc(right, held_out), 4)


def _without_bars(
    model: str, name: str, probe: MemoryProbe, memory_bar: float, reader_bar: float = math.inf
) -> Calibration:
    """A calibration of which only the bars of the dial are not chosen."""
    never = Thresholds(math.inf, -math.inf)
    return Calibration(
        model, name, probe, [], never, never, list(ALPHAS), [], {}, memory_bar, None, reader_bar
    )


def _own_bars(
    calibration: Calibration, observations: Sequence[Observation], confidence: NDArray[np.float64]
) -> Calibration:
    """A calibration with the bars that are best for a model; each source counts alike."""
    turned, sources = _at_alpha(observations, calibration, 1), _sources(observations)
    parts = [
        _only(turned, confidence, [each == source for each in sources])
        for source in dict.fromkeys(sources)
    ]
    auto = _best_auto(_at_alpha(observations, calibration, "auto"), confidence)
    return _with_bars(calibration, observations, confidence, _best_end(parts), auto)


def _with_bars(
    calibration: Calibration,
    observations: Sequence[Observation],
    confidence: NDArray[np.float64],
    end: Thresholds,
    auto: Thresholds,
) -> Calibration:
    """A calibration with these bars, and what they come to."""
    in_play = np.array([each.known and each.conflict for each in observations])
    known = np.sort(confidence[in_play]).round(4).tolist()
    chosen = replace(calibration, known=known, end=end, auto=auto)
    turned = _at_alpha(observations, calibration, 1)
    return replace(
        chosen,
        ratios=_ratios(chosen, observations, confidence),
        measured={
            **_counts(observations),
            **_measured(turned, confidence, end),
            **_measured_by(_sources(observations), turned, confidence, end),
        },
    )


def _ratios(
    calibration: Calibration, observations: Sequence[Observation], confidence: NDArray[np.float64]
) -> list[float]:
    """`Calibration.ratios` on these observations."""
    found = [
        _judge(
            _at_alpha(observations, calibration, alpha), confidence, calibration.thresholds(alpha)
        ).ratio
        for alpha in ALPHAS
    ]
    return np.maximum.accumulate(found).round(4).tolist()


def _at_alpha(
    observations: Sequence[Observation], calibration: Calibration, alpha: float | str
) -> list[Observation]:
    """The observations with what counts as misread at a setting of the dial."""
    bar = raised(calibration.reader_bar, alpha)
    return corrected(observations, bar, calibration.memory_bar)


def _counts(observations: Sequence[Observation]) -> dict[str, float]:
    known = sum(each.known for each in observations)
    return {"known": known, "unknown": len(observations) - known}


def _memory_bar(invented: Sequence[Observation]) -> float:
    """`Calibration.memory_bar` of a model."""
    return _made_up([-math.inf if each.likely is None else each.likely for each in invented])


def _plausibility(
    probe: MemoryProbe,
    observations: Sequence[Observation],
    confidence: NDArray[np.float64],
    invented: Sequence[Sequence[Observation]],
) -> Plausibility | None:
    """`Calibration.plausibility`; ``None`` where memory hardly ever contradicts passages.

    Args:
        probe: Of the calibration.
        observations: Of facts.
        confidence: Of each by a probe that has not seen its relation.
        invented: Observations about invented things, of each model; the highest bar counts.
    """
    known = [
        (log_odds(float(sure)), each.likely)
        for each, sure in zip(observations, confidence, strict=True)
        if each.known and _is_claim(each)
    ]
    made_up = [_plausible_by(probe, each) for seen in invented for each in seen if _is_claim(each)]
    if not known or not made_up:
        return None
    rows = np.array([*known, *made_up], dtype=np.float64)
    right = np.arange(len(rows)) < len(known)
    weights = _regression(rows, right, np.ones(len(rows)), UNPENALISED).coef_[0]
    bar = max(
        _made_up(
            [
                float(weights @ _plausible_by(probe, each)) if _is_claim(each) else -math.inf
                for each in seen
            ]
        )
        for seen in invented
    )
    if math.isinf(bar):
        return None
    return Plausibility(_short(weights[0]), _short(weights[1]), _short(bar))


def _is_claim(observation: Observation) -> bool:
    """Whether memory claims something against the passages, with a known likelihood."""
    return observation.conflict and observation.likely is not None


def _plausible_by(probe: MemoryProbe, observation: Observation) -> tuple[float, float | None]:
    """What the plausibility of a claim depends on."""
    return log_odds(_confidence(probe, observation)), observation.likely


def _made_up(likely: Sequence[float]) -> float:
    """The bar that this share of what a model makes up does not reach."""
    return float(np.quantile(likely, MADE_UP, method="higher")) if likely else math.inf


def reader_bar(observations: Sequence[Observation], memory_bar: float = -math.inf) -> float:
    """`Calibration.reader_bar`: where telling the quote makes more answers right.

    Judged on facts that the model does not know, each source counting alike.

    Returns:
        Infinity where no bar gains more than chance would.
    """
    unknown = [each for each in observations if not each.known]
    best, gained = math.inf, 0.0
    if not unknown:
        return best
    plain, weights = (
        np.array([each.memory["plain"] for each in unknown]),
        _weights(_sources(unknown)),
    )
    for bar in reversed(READER_BARS):
        told = np.array([each.memory[_told(each)] for each in corrected(unknown, bar, memory_bar)])
        gain = float(np.average(told.astype(int) - plain, weights=weights))
        if gain > gained and metrics.mcnemar(told, plain) < SIGNIFICANT:
            best, gained = bar, gain
    return best


def corrected(
    observations: Sequence[Observation], bar: float, memory_bar: float
) -> list[Observation]:
    """The observations, with whether plain RAG's answer is corrected, as `Calibration.corrects`."""
    return [
        replace(
            each,
            corrected=each.misread >= bar
            and (each.remembered is None or each.remembered < memory_bar),
        )
        for each in observations
    ]


def _told(observation: Observation) -> Resolution:
    """What is told where memory does not win."""
    return "grounded" if observation.corrected else "plain"


def transfer(
    observations: Sequence[Observation], invented: Sequence[Observation] = ()
) -> dict[str, dict[str, float]]:
    """What the probe and the bars come to on each source when fitted on the others.

    Args:
        observations: From `run`.
        invented: Of the model, as of `fit`.

    Returns:
        By the source left out; empty where there is but one.
    """
    sources = _sources(observations)
    found = {}
    for source in dict.fromkeys(sources):
        others = [o for o, own in zip(observations, sources, strict=True) if own != source]
        inside = [o for o, own in zip(observations, sources, strict=True) if own == source]
        if not others:
            continue
        fitted = fit(source, source, others, invented=[invented] if invented else [])
        inside = _at_alpha(inside, fitted, 1)
        confidence = np.array([_confidence(fitted.probe, o) for o in inside])
        area = _area(inside, confidence)
        found[source] = {"auroc": area, **_measured(inside, confidence, fitted.end)}
    return found


def _area(observations: Sequence[Observation], confidence: NDArray[np.float64]) -> float:
    """AUROC of the confidences where there is evidence."""
    known = np.array([each.known for each in observations])
    seen = np.array([each.evidence is not None for each in observations])
    return round(metrics.auroc(known[seen], confidence[seen]), 4)


def _confidence(probe: MemoryProbe, observation: Observation) -> float:
    return 0.0 if observation.evidence is None else probe(observation.evidence)


def _sources(observations: Sequence[Observation]) -> list[str]:
    """The source of each observation; those that state none are the built-in ones."""
    return [o.source or BUILT_IN for o in observations]


def _weights(groups: Sequence[str]) -> NDArray[np.float64]:
    """Weights of observations, by which each of their groups counts alike; their mean is 1."""
    counts = Counter(groups)
    return np.array([len(groups) / len(counts) / counts[group] for group in groups])


def _measured_by(
    names: Sequence[str],
    observations: Sequence[Observation],
    confidence: NDArray[np.float64],
    end: Thresholds,
) -> dict[str, float]:
    """What `_measured` says of each group; nothing where there is but one."""
    groups = dict.fromkeys(names)
    if len(groups) <= 1:
        return {}
    return {
        f"{key} {group}": value
        for group in groups
        for key, value in _measured(
            *_only(observations, confidence, [name == group for name in names]), end
        ).items()
    }


def _measured(
    observations: Sequence[Observation], confidence: NDArray[np.float64], end: Thresholds
) -> dict[str, float]:
    judged = _judge(observations, confidence, end)
    return {
        "MR": round(judged.ratio, 4),
        "unknown_right": round(judged.right, 4),
        "Q": round(judged.quality, 4),
    }


def _only(
    observations: Sequence[Observation], confidence: NDArray[np.float64], chosen: Sequence[bool]
) -> tuple[list[Observation], NDArray[np.float64]]:
    kept = [each for each, wanted in zip(observations, chosen, strict=True) if wanted]
    return kept, confidence[np.array(chosen)]


def table(calibration: Calibration) -> Table:
    """What was measured, for a terminal."""
    pairs = zip(calibration.alphas, calibration.ratios, strict=True)
    return report.table(
        f"{calibration.name}: the dial, on relations left out of the probe",
        ("alpha", "MR %"),
        ((f"{alpha:.2f}", f"{100 * ratio:.1f}") for alpha, ratio in pairs),
        "  ".join(f"{name} {value}" for name, value in calibration.measured.items()),
        left=(),
    )


@dataclass(frozen=True)
class _Outcome:
    """Shares in [0, 1] over the observations: MR and hits on known, right on unknown facts."""

    ratio: float
    resistance: float
    right: float
    plain_right: float

    @property
    def quality(self) -> float:
        relative = min(self.right / self.plain_right, 1.0) if self.plain_right else 0.0
        return metrics.harmonic_mean(self.ratio, relative)


def _judge(
    observations: Sequence[Observation], confidence: NDArray[np.float64], bars: Thresholds
) -> _Outcome:
    con = par = right = plain = n_known = 0
    for observation, sure in zip(observations, confidence, strict=True):
        way = decide(
            observation.conflict, observation.loose, float(sure), bars, observation.corrected
        )
        if observation.known:
            n_known += 1
            con += observation.context[way]
            par += observation.memory[way]
        else:
            right += observation.memory[way]
            plain += observation.memory["plain"]
    unknown = max(len(observations) - n_known, 1)
    return _Outcome(
        par / max(con + par, 1), par / max(n_known, 1), right / unknown, plain / unknown
    )


def _candidates(confidence: NDArray[np.float64]) -> list[float]:
    never = 1.01  # above every confidence
    return sorted({*np.quantile(confidence, np.linspace(0, 1, QUANTILES)).tolist(), never})


def _best_end(
    parts: Sequence[tuple[Sequence[Observation], NDArray[np.float64]]],
) -> Thresholds:
    """The bars with the highest Q, the middle of the best ten, which single items do not decide.

    Args:
        parts: Observations and the confidence in each, by source or model; each counts alike.
    """
    candidates = _candidates(np.concatenate([confidence for _, confidence in parts]))
    judged = [
        (float(np.mean([_judge(*part, bars).quality for part in parts])), bars)
        for memory in candidates
        for passages in (0.0, *np.linspace(0.1, 0.9, 5) * memory)
        if (bars := Thresholds(memory, float(passages)))
    ]
    return _middle(judged)


def _best_auto(observations: Sequence[Observation], confidence: NDArray[np.float64]) -> Thresholds:
    """The bars with the highest resistance that cost the unknown facts nothing."""
    judged = []
    for memory in _candidates(confidence):
        for passages in (0.0, *np.linspace(0.1, 1.0, 10) * memory):
            bars = Thresholds(memory, float(passages))
            result = _judge(observations, confidence, bars)
            if result.right >= result.plain_right:
                judged.append((result.resistance, bars))
    return _middle(judged)


def _middle(judged: Sequence[tuple[float, Thresholds]]) -> Thresholds:
    best = sorted(judged, key=lambda each: each[0], reverse=True)[:10]
    return Thresholds(
        round(float(np.median([bars.memory for _, bars in best])), 4),
        round(float(np.median([bars.passages for _, bars in best])), 4),
    )


def _features(
    observations: Sequence[Observation], any_model: bool
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Standardised features (observations, features), and the mean and scale that did it."""
    numbers, size = _shape(observations, any_model)
    rows = np.array([_flat(o.evidence) for o in observations if o.evidence is not None])
    rows = rows if size else rows[:, :numbers]
    mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    spread[numbers:] /= STATES_WEIGHT
    if numbers in (LOG_P_NUMBERS, DRAFT_NUMBERS):
        spread[numbers - 1] /= JUDGEMENT_WEIGHT
    return (rows - mean) / spread, (mean, spread)


def _shape(observations: Sequence[Observation], any_model: bool) -> tuple[int, int]:
    """How many numbers the evidence holds, and how large a hidden state is, 0 if not wanted."""
    evidence = next(o.evidence for o in observations if o.evidence is not None)
    return len(evidence.numbers), 0 if any_model else evidence.states.shape[1]


def _flat(evidence: ProbeFeatures) -> NDArray[np.float64]:
    return np.concatenate(
        [evidence.numbers.numpy(), evidence.states.numpy().reshape(-1)], dtype=np.float64
    )


def _regression(
    features: NDArray[np.float64],
    right: NDArray[np.bool_],
    weights: NDArray[np.float64],
    penalty: float,
) -> Any:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=5000)
    return model.fit(features, right, sample_weight=weights)


def _held_out(
    features: NDArray[np.float64],
    right: NDArray[np.bool_],
    weights: NDArray[np.float64],
    relations: Sequence[str | None],
) -> tuple[float, NDArray[np.float64]]:
    """The penalty to take, and the confidences by probes that have not seen the relation."""
    groups = np.array(
        [relation or str(at % FOLDS) for at, relation in enumerate(relations)], dtype=object
    )
    if len(set(groups)) == 1:
        groups = np.array([str(at % FOLDS) for at in range(len(groups))], dtype=object)
    tried = []
    for penalty in PENALTIES:
        confidence = np.zeros(len(right))
        for group in sorted(set(groups)):
            inside = groups == group
            model = _regression(features[~inside], right[~inside], weights[~inside], penalty)
            confidence[inside] = model.predict_proba(features[inside])[:, 1]
        tried.append((metrics.auroc(right, confidence), penalty, confidence))
    _, penalty, confidence = max(tried, key=lambda each: each[0])
    return penalty, confidence


def _probe(
    features: NDArray[np.float64],
    scale: tuple[NDArray[np.float64], NDArray[np.float64]],
    right: NDArray[np.bool_],
    sample_weights: NDArray[np.float64],
    penalty: float,
    numbers: int,
    size: int,
) -> MemoryProbe:
    """The regression on all observations, its standardisation folded into the weights."""
    model = _regression(features, right, sample_weights, penalty)
    mean, spread = scale
    weights = model.coef_[0] / spread
    bias = float(model.intercept_[0] - (weights * mean).sum())
    states = weights[numbers:].reshape(-1, size) if size else []
    return MemoryProbe(
        [_short(weight) for weight in weights[:numbers]],
        [[_short(weight) for weight in row] for row in states],
        _short(bias),
    )


def _short(number: float) -> float:
    """Five significant digits: what a confidence needs."""
    return float(f"{number:.5g}")
