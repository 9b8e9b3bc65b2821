"""The rows of the dial's report, from answers that have been given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from control.decoding.rules import DIAL
from control.engines.transformers import LanguageModel
from evaluation import metrics
from evaluation.answers import PLAIN, RELIANCE, AnswerFunction, AnswerSetting
from evaluation.datasets.conflicts import Conflict
from evaluation.judges import fluency

MEMORY_END = 1.0

Column = tuple[str, str, float | str]
"""(which passage, rule, alpha)"""


@dataclass(frozen=True)
class Sheet:
    """The answers to some items with one kind of passage, marked."""

    ask: AnswerFunction
    items: Sequence[Conflict]
    passage: str
    trust: float = 0.5

    def texts(self, rule: str, alpha: float | str) -> list[str]:
        """The answers of a rule at an alpha."""
        setting = AnswerSetting(self.passage, rule, (alpha,), self.trust)
        return [self.ask.text(item, setting, alpha) for item in self.items]

    def context(self, rule: str, alpha: float | str) -> metrics.Flags:
        """Whether each answer holds what the passage says."""
        return self._held(rule, alpha, [item.context_answers for item in self.items])

    def memory(self, rule: str, alpha: float | str) -> metrics.Flags:
        """Whether each answer holds what is true."""
        return self._held(rule, alpha, [item.memory_answers for item in self.items])

    def _held(
        self, rule: str, alpha: float | str, wanted: Sequence[tuple[str, ...]]
    ) -> metrics.Flags:
        held = map(metrics.holds, self.texts(rule, alpha), wanted)
        return np.array(list(held), dtype=bool)


def reliance_row(
    ask: AnswerFunction, items: Sequence[Conflict], n_known: int, column: Column
) -> dict[str, Any]:
    """ConR, ParR, MR and hit of one rule at one alpha."""
    passage, rule, alpha = column
    sheet = Sheet(ask, items, passage)
    reliance = metrics.reliance(sheet.context(rule, alpha), sheet.memory(rule, alpha))
    return {"rule": rule, "alpha": alpha, "n": len(items), "n_known": n_known, **reliance}


def right_row(sheet: Sheet, rule: str, alpha: float | str) -> dict[str, Any]:
    """How often facts that the model does not know are answered rightly from a true passage."""
    right = sheet.memory(rule, alpha)
    return {
        "rule": rule,
        "alpha": alpha,
        "n": len(right),
        "right": metrics.percent(right),
        "ci": {"right": metrics.interval(metrics.percent, right)},
    }


def quality(wrong: Sheet, true: Sheet, rule: str) -> float | None:
    """Q in percent; ``None`` where there are no known or no unknown facts to tell.

    The harmonic mean, at the memory end, of MR on known conflicts and of right answers on unknown
    facts relative to plain RAG.
    """
    baseline = metrics.percent(true.memory(PLAIN, PLAIN))
    if not wrong.items or not baseline:
        return None
    ratio = metrics.memory_ratio(wrong.context(rule, MEMORY_END), wrong.memory(rule, MEMORY_END))
    relative = 100 * metrics.percent(true.memory(rule, MEMORY_END)) / baseline
    return metrics.harmonic_mean(ratio, min(relative, 100.0))


def paired(wrong: Sheet, true: Sheet, rule: str, other: str) -> dict[str, Any]:
    """Two rules on the same items at the memory end, by McNemar's test.

    ``known``: answers from memory alone; ``unknown``: right answers. Each with how often only the
    one rule and only the other gave them.
    """
    row: dict[str, Any] = {"rule": rule, "against": other}
    for name, one, two in (
        ("known", _memory_alone(wrong, rule), _memory_alone(wrong, other)),
        ("unknown", true.memory(rule, MEMORY_END), true.memory(other, MEMORY_END)),
    ):
        row[name] = {
            "only_rule": int((one & ~two).sum()),
            "only_other": int((two & ~one).sum()),
            "p": metrics.mcnemar(one, two),
        }
    return row


def _memory_alone(sheet: Sheet, rule: str) -> metrics.Flags:
    flags: metrics.Flags = sheet.memory(rule, MEMORY_END) & ~sheet.context(rule, MEMORY_END)
    return flags


def fluency_rows(
    language_model: LanguageModel, wrong: Sheet, rule: str, alphas: Sequence[float]
) -> list[dict[str, Any]]:
    """Repetition and perplexity of plain RAG's answers and of a rule's."""
    rows = []
    settings: list[tuple[str, float | str]] = [(PLAIN, PLAIN), *((rule, a) for a in alphas)]
    for each, alpha in settings:
        texts = wrong.texts(each, alpha)
        rows.append(
            {
                "rule": each,
                "alpha": alpha,
                "n": len(texts),
                "repetition": fluency.repetition(texts),
                "perplexity": fluency.perplexity(language_model, texts),
            }
        )
    return rows


def asked_reliance(ask: AnswerFunction, known: Sequence[Conflict], asked: float) -> dict[str, Any]:
    """What came of asking that memory settle a share of the known conflicts."""
    alpha = f"{RELIANCE}{asked}"
    row = reliance_row(ask, known, len(known), ("context", DIAL, alpha))
    turned = ask.calibration.alpha(asked) if ask.calibration else None
    return {
        "asked": 100 * asked,
        "turned_to": turned,
        "n": row["n"],
        "MR": row["MR"],
        "ci": row["ci"],
    }
