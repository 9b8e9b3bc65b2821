"""What is counted: checks of single answers, the shares that they make, and the failures."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from text_to_num import alpha2digit

from evaluation import metrics
from evaluation.judges import values

ALL = "all"
# What may stand before a value; the article SQuAD's evaluation leaves out, too.
BEFORE = re.compile(r"^(?:(?:in|to|on|at|by|for|from)\s+)?(?:(?:a|an|the)\s+)?", re.IGNORECASE)
PERCENT = re.compile(r"\s*(?:%|\bper ?cent\b)", re.IGNORECASE)

Table = list[dict[str, Any]]


@dataclass(frozen=True)
class Check:
    """One thing that was checked of one answer.

    Attributes:
        measure: What is counted.
        id: Of the record.
        score: Whether it is so, or how far, in [0, 1].
        question: As asked.
        expected: What the record says.
        said: What the system said.
        of: Which kind of record it counts for, beside all of them.
        arm: How the system was asked.
        wanted: The score of a system without faults; a check that falls short is a failure.
    """

    measure: str
    id: str
    score: float
    question: str = ""
    expected: str = ""
    said: str = ""
    of: str = ALL
    arm: str = ""
    wanted: float = 1


def shares(checks: Sequence[Check], baseline: str | None = None) -> Table:
    """The mean score of each measure, arm and kind in percent, with its interval.

    Args:
        checks: All checks of a task.
        baseline: The arm that the others are tested against, by McNemar's exact test, wherever
            both were checked on the same records.
    """
    table = []
    for measure in dict.fromkeys(check.measure for check in checks):
        measured = [check for check in checks if check.measure == measure]
        kinds = list(dict.fromkeys(check.of for check in measured))
        for kind in kinds if len(kinds) == 1 else [*kinds, ALL]:
            within = [check for check in measured if kind in (check.of, ALL)]
            arms = list(dict.fromkeys(check.arm for check in within))
            by_arm = {arm: [check for check in within if check.arm == arm] for arm in arms}
            against = by_arm.get(baseline or "", []) if baseline else []
            table += [
                _share(measure, kind, arm, chosen, against if arm != baseline else [])
                for arm, chosen in by_arm.items()
            ]
    # Columns that would say nothing.
    left_out = set() if baseline else {"p"}
    if not any(check.arm for check in checks):
        left_out.add("arm")
    return [{key: row[key] for key in row if key not in left_out} for row in table]


def _share(
    measure: str, kind: str, arm: str, checks: Sequence[Check], against: Sequence[Check]
) -> dict[str, Any]:
    scores = np.array([check.score for check in checks], dtype=float)
    other = {check.id: check.score for check in against}
    paired = bool(other) and [check.id for check in checks] == list(other)
    return {
        "measure": measure,
        "of": kind,
        "arm": arm,
        "n": len(checks),
        "share": float(metrics.percent(scores)),
        "p": metrics.mcnemar(scores == 1, np.array([*other.values()]) == 1) if paired else None,
        "ci": {"share": metrics.interval(metrics.percent, scores)},
    }


def failures(task: str, checks: Iterable[Check]) -> Table:
    """A line for each check that fell short."""
    return [
        {
            "task": task,
            "measure": check.measure,
            "arm": check.arm,
            "id": check.id,
            "question": check.question,
            "expected": check.expected,
            "said": check.said,
        }
        for check in checks
        if check.score != check.wanted
    ]


def holds(text: str, wanted: Sequence[str]) -> bool:
    """Whether a text holds one of the values, numbers in digits or in words, units in any notation.

    With or without the preposition and the article before it.
    """
    forms = [form for value in wanted for form in (value, BEFORE.sub("", value))]
    if metrics.holds(text, forms):
        return True
    told, asked = _in_digits(text), [_in_digits(form) for form in forms]
    return metrics.holds(told, asked) or any(_holds_amount(told, form) for form in asked)


def _holds_amount(text: str, wanted: str) -> bool:
    """Whether a text holds an amount that is all of a value: "55 grams" for "55 g"."""
    whole = {
        (each.value, each.unit)
        for each in values.amounts(wanted)
        if each.unit and wanted[each.start : each.end] == wanted.strip()
    }
    return bool(whole) and any((each.value, each.unit) in whole for each in values.amounts(text))


def _in_digits(text: str) -> str:
    return PERCENT.sub(" percent", alpha2digit(text, "en", threshold=0))


def holds_only(text: str, wanted: Sequence[str], others: Sequence[str]) -> bool:
    """Whether it holds one of the values and none of the others that are no part of it."""
    apart = [other for other in others if other and not any(holds(one, [other]) for one in wanted)]
    return holds(text, wanted) and not holds(text, apart)
