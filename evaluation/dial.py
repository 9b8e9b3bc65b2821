"""How far the dial moves answers between passages and memory."""

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from control.model import LanguageModel
from control.rules import DEFAULT_RULE
from evaluation import metrics
from evaluation.answers import CLOSED_BOOK, PLAIN, Answers, Asking, Setting
from evaluation.datasets import Conflict, spread

ALPHAS: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
MEMORY_END = 1.0
AUTO = "auto"
EXAMPLES = 10


def run(
    language_model: LanguageModel,
    items: Sequence[Conflict],
    target: Path,
    rules: Sequence[str] = (),
    batch_size: int = 16,
    adaptive: bool = False,
) -> dict[str, Any]:
    """Answer every conflict at every setting of the dial and count where the answers came from.

    Answers are appended to ``target/answers.jsonl`` as they come; a second call goes on from there.

    Args:
        language_model: The model under test.
        items: The conflicts.
        target: Directory of the report.
        rules: Token rules to measure; the rule in use if empty.
        batch_size: Questions per batch; each is decoded at all alphas together.
        adaptive: Also decode at alpha auto and judge it in three states.

    Returns:
        The report: ``known``, ``all``, ``unknown`` and ``Q`` of the command contract, ``examples``,
        and ``states`` (empty unless ``adaptive``).

    Raises:
        DataError: ``target`` holds answers of another run.
    """
    rules = list(rules) or [DEFAULT_RULE]
    answers = Answers(target, language_model.name, items)
    ask = Asking(language_model, answers, batch_size)

    ask(items, Setting("none", PLAIN, (CLOSED_BOOK,)))
    known = [item for item in items if _right(answers, item, "none", PLAIN, CLOSED_BOOK)]
    unknown = [item for item in items if item not in known and item.true_context]
    for setting in (
        Setting("context", PLAIN, (PLAIN,)),
        *(Setting("context", rule, ALPHAS) for rule in rules),
    ):
        ask(items, setting)
    for setting in (
        Setting("true_context", PLAIN, (PLAIN,)),
        *(Setting("true_context", rule, ALPHAS) for rule in rules),
    ):
        ask(unknown, setting)

    states = _states(ask, known, unknown, rules) if adaptive else []
    columns: list[tuple[str, str, float | str]] = [
        ("none", PLAIN, CLOSED_BOOK),
        ("context", PLAIN, PLAIN),
        *(("context", rule, alpha) for rule in rules for alpha in ALPHAS),
    ]
    return {
        "model": language_model.name,
        "n": len(items),
        "n_known": len(known),
        "known": [_reliance_row(answers, known, len(known), *column) for column in columns],
        "all": [_reliance_row(answers, items, len(known), *column) for column in columns],
        "unknown": (unknown_rows := _unknown_rows(answers, unknown, rules)),
        "Q": _quality(answers, known, unknown_rows, rules),
        "states": states,
        "examples": [_example(answers, item, rules[0]) for item in spread(known, EXAMPLES)],
    }


def _example(answers: Answers, item: Conflict, rule: str) -> dict[str, Any]:
    """One conflict and what was answered at each setting, for a reader to judge."""
    settings: list[tuple[str, str, float | str]] = [
        ("none", PLAIN, CLOSED_BOOK),
        ("context", PLAIN, PLAIN),
        *(("context", rule, alpha) for alpha in (0.0, 0.5, 1.0)),
    ]
    return {
        "question": item.question,
        "passage_says": item.context_answers[0],
        "memory_says": item.memory_answers[0],
        "answers": {
            str(alpha): answers[item.id, passage, said_by, str(alpha)]
            for passage, said_by, alpha in settings
        },
    }


def _right(answers: Answers, item: Conflict, passage: str, rule: str, alpha: object) -> bool:
    return metrics.holds(answers[item.id, passage, rule, str(alpha)], item.memory_answers)


def _reliance_row(
    answers: Answers,
    items: Sequence[Conflict],
    n_known: int,
    passage: str,
    rule: str,
    alpha: float | str,
) -> dict[str, Any]:
    texts = [answers[item.id, passage, rule, str(alpha)] for item in items]
    con, par = (
        np.array(
            [metrics.holds(text, of(item)) for text, item in zip(texts, items, strict=True)],
            dtype=bool,
        )
        for of in (attrgetter("context_answers"), attrgetter("memory_answers"))
    )
    return {
        "rule": rule,
        "alpha": alpha,
        "n": len(items),
        "n_known": n_known,
        **metrics.reliance(con, par),
    }


def _unknown_rows(
    answers: Answers, unknown: Sequence[Conflict], rules: Sequence[str]
) -> list[dict[str, Any]]:
    """How often facts that the model does not know are answered rightly from a true passage."""
    columns: list[tuple[str, float | str]] = [
        (PLAIN, PLAIN),
        *((rule, alpha) for rule in rules for alpha in ALPHAS),
    ]
    rows = []
    for rule, alpha in columns:
        right = np.array(
            [_right(answers, item, "true_context", rule, alpha) for item in unknown], dtype=bool
        )
        rows.append(
            {
                "rule": rule,
                "alpha": alpha,
                "n": len(unknown),
                "right": metrics.percent(right),
                "ci": {"right": metrics.interval(metrics.percent, right)},
            }
        )
    return rows


def _states(
    ask: Asking, known: Sequence[Conflict], unknown: Sequence[Conflict], rules: Sequence[str]
) -> list[dict[str, Any]]:
    """Right answers at alpha auto, and under plain RAG, in the three states of the two sources.

    ``correction``: the passage is right and the model does not know; ``resistance``: the passage
    is wrong and the model knows; ``agreement``: both are right. Percent, with the exact p-value of
    McNemar's test against plain RAG.
    """
    told_truly = [item for item in known if item.true_context]
    places = {
        "correction": (unknown, "true_context"),
        "resistance": (known, "context"),
        "agreement": (told_truly, "true_context"),
    }
    rows = []
    plain: dict[str, metrics.Flags] = {}
    for rule, alpha in [(PLAIN, PLAIN), *((rule, AUTO) for rule in rules)]:
        row: dict[str, Any] = {"rule": rule, "alpha": alpha, "n": {}, "p": {}, "ci": {}}
        for state, (items, passage) in places.items():
            ask(items, Setting(passage, rule, (alpha,)))
            right = np.array(
                [_right(ask.answers, item, passage, rule, alpha) for item in items], dtype=bool
            )
            row |= {state: metrics.percent(right)}
            row["n"][state] = len(items)
            row["ci"][state] = metrics.interval(metrics.percent, right)
            row["p"][state] = metrics.mcnemar(right, plain.setdefault(state, right))
        rows.append(row)
    return rows


def _quality(
    answers: Answers,
    known: Sequence[Conflict],
    unknown_rows: Sequence[dict[str, Any]],
    rules: Sequence[str],
) -> dict[str, float | None]:
    """Q per rule, in percent; ``None`` where there are no known or no unknown facts to tell.

    The harmonic mean, at the memory end, of MR on known conflicts and of right answers on unknown
    facts relative to plain RAG.
    """
    right = {(row["rule"], row["alpha"]): row["right"] for row in unknown_rows}
    baseline = right[PLAIN, PLAIN]
    quality: dict[str, float | None] = dict.fromkeys(rules)
    if not known or not baseline:
        return quality
    for rule in rules:
        row = _reliance_row(answers, known, len(known), "context", rule, MEMORY_END)
        relative = 100 * right[rule, MEMORY_END] / baseline
        quality[rule] = metrics.harmonic_mean(row["MR"], min(relative, 100.0))
    return quality
