"""How far the dial moves answers between passages and memory."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from control.conflict.calibration import Calibration
from control.decoding.rules import CONTRASTIVE, DEFAULT_RULE, DIAL
from control.engines.transformers import LanguageModel
from evaluation import metrics, rows
from evaluation.answers import (
    CLOSED_BOOK,
    PLAIN,
    RELIANCE,
    AnswerFunction,
    AnswerLog,
    AnswerSetting,
    at_once,
)
from evaluation.datasets.conflicts import Conflict, spread
from evaluation.rows import MEMORY_END, Column, Sheet

ALPHAS: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
AUTO = "auto"
ASKED_RELIANCE = (0.1, 0.3, 0.5, 0.7, 0.9)
TRUSTS = (0.1, 0.9)  # of a doubtful and of a reliable source
EXAMPLES = 10


def run(
    language_model: LanguageModel,
    items: Sequence[Conflict],
    target: Path,
    rules: Sequence[str] = (),
    batch_size: int = 16,
    adaptive: bool = False,
    calibration: Calibration | None = None,
    alphas: Sequence[float] = ALPHAS,
    known_only: bool = False,
    trust: bool = False,
    unknown_limit: int | None = None,
    turn: Callable[[Callable[[], Any]], Any] = at_once,
) -> dict[str, Any]:
    """Answer every conflict at every setting of the dial and count where the answers came from.

    Answers are appended to ``target/answers.jsonl`` as they come; a second call goes on from there.

    Args:
        language_model: The model under test.
        items: The conflicts.
        target: Directory of the report.
        rules: Rules to measure; the rule in use if empty.
        batch_size: Questions per batch; each is decoded at all alphas together.
        adaptive: Also answer at alpha auto and judge it in three states.
        calibration: For the rule ``fulcrum``.
        alphas: Settings of the dial for token rules; ``fulcrum`` always answers at `ALPHAS`, which
            costs it little more than one.
        known_only: Ask only known facts with the counterfactual passage; ``all`` stays empty.
        unknown_limit: Ask at most so many unknown facts, drawn evenly.
        trust: Also answer from passages of little and of much trust, by the rule ``fulcrum``.
        turn: Does each piece of work with the model, such as in turns with others who use it.

    Returns:
        The report: ``known``, ``all``, ``unknown`` and ``Q`` of the command contract, ``examples``,
        ``paired`` (the first rule against each other one), ``fluency``, and, where they were
        measured, ``reliance``, ``states`` and ``trust``.

    Raises:
        DataError: ``target`` holds answers of another run.
    """
    rules = list(rules) or [DEFAULT_RULE]
    dialled = {rule: ALPHAS if rule == DIAL else tuple(alphas) for rule in rules}
    ended = [rule for rule in rules if MEMORY_END in dialled[rule]]
    answers = AnswerLog(target, language_model.name, items)
    ask = AnswerFunction(language_model, answers, batch_size, calibration, turn)

    ask(items, AnswerSetting("none", PLAIN, (CLOSED_BOOK,)))
    closed_book = Sheet(ask, items, "none")
    known = [
        item
        for item, right in zip(items, closed_book.memory(PLAIN, CLOSED_BOOK), strict=True)
        if right
    ]
    ids = {item.id for item in known}
    unknown = [item for item in items if item.id not in ids and item.true_context]
    unknown = spread(unknown, unknown_limit)
    for passage, whom in (("context", known if known_only else items), ("true_context", unknown)):
        ask(whom, AnswerSetting(passage, PLAIN, (PLAIN,)))
        for rule in rules:
            ask(
                whom,
                AnswerSetting(passage, rule, _settings(rule, dialled[rule], adaptive, passage)),
            )

    wrong = Sheet(ask, known, "context")
    true = Sheet(ask, unknown, "true_context")
    columns: list[Column] = [
        ("none", PLAIN, CLOSED_BOOK),
        ("context", PLAIN, PLAIN),
        *(("context", rule, alpha) for rule in rules for alpha in dialled[rule]),
    ]
    settings: list[tuple[str, float | str]] = [
        (PLAIN, PLAIN),
        *((rule, alpha) for rule in rules for alpha in dialled[rule]),
    ]
    report = {
        "model": language_model.name,
        "n": len(items),
        "n_known": len(known),
        "known": [rows.reliance_row(ask, known, len(known), column) for column in columns],
        "all": []
        if known_only
        else [rows.reliance_row(ask, items, len(known), column) for column in columns],
        "unknown": [rows.right_row(true, rule, alpha) for rule, alpha in settings],
        "Q": {rule: rows.quality(wrong, true, rule) if rule in ended else None for rule in rules},
        "paired": [rows.paired(wrong, true, ended[0], rule) for rule in ended[1:]],
        "fluency": turn(
            partial(rows.fluency_rows, language_model, wrong, rules[0], dialled[rules[0]])
        ),
        "reliance": [rows.asked_reliance(ask, known, asked) for asked in ASKED_RELIANCE]
        if DIAL in rules
        else [],
        "states": _states(ask, known, unknown, rules) if adaptive else [],
        "trust": _trust(ask, known, unknown) if trust else [],
        "examples": [
            _example(ask, item, rules[0], dialled[rules[0]]) for item in spread(known, EXAMPLES)
        ],
    }
    if calibration is not None and DIAL in rules:
        report["calibration"] = {"of": calibration.name, **calibration.measured}
    return report


def _settings(
    rule: str, alphas: Sequence[float], adaptive: bool, passage: str
) -> tuple[float | str, ...]:
    """All settings of a rule that one reading of the prompts can answer."""
    if rule != DIAL:
        return tuple(alphas)
    reliance = [f"{RELIANCE}{asked}" for asked in ASKED_RELIANCE] if passage == "context" else []
    return (*alphas, *reliance, *([AUTO] if adaptive else []))


def _states(
    ask: AnswerFunction,
    known: Sequence[Conflict],
    unknown: Sequence[Conflict],
    rules: Sequence[str],
) -> list[dict[str, Any]]:
    """Right answers at alpha auto, and under plain RAG, in the three states of the two sources.

    ``correction``: the passage is right and the model does not know; ``resistance``: the passage
    is wrong and the model knows; ``agreement``: both are right. Percent, with the exact p-value of
    McNemar's test against plain RAG.
    """
    told_truly = [item for item in known if item.true_context]
    places = {
        "correction": Sheet(ask, unknown, "true_context"),
        "resistance": Sheet(ask, known, "context"),
        "agreement": Sheet(ask, told_truly, "true_context"),
    }
    judged = []
    plain: dict[str, metrics.Flags] = {}
    for rule, alpha in [(PLAIN, PLAIN), *((rule, AUTO) for rule in rules)]:
        decoded = 0.0 if rule in CONTRASTIVE else alpha
        row: dict[str, Any] = {"rule": rule, "alpha": alpha, "n": {}, "p": {}, "ci": {}}
        for state, sheet in places.items():
            ask(sheet.items, AnswerSetting(sheet.passage, rule, (decoded,)))
            right = sheet.memory(rule, decoded)
            row |= {state: metrics.percent(right)}
            row["n"][state] = len(right)
            row["ci"][state] = metrics.interval(metrics.percent, right)
            row["p"][state] = metrics.mcnemar(right, plain.setdefault(state, right))
        judged.append(row)
    return judged


def _trust(
    ask: AnswerFunction, known: Sequence[Conflict], unknown: Sequence[Conflict]
) -> list[dict[str, Any]]:
    """Plain RAG's setting and alpha auto, with passages of little and of much trust."""
    judged: list[dict[str, Any]] = []
    alphas = (0.5, AUTO)
    for trust in TRUSTS:
        ask(known, AnswerSetting("context", DIAL, alphas, trust))
        ask(unknown, AnswerSetting("true_context", DIAL, alphas, trust))
        wrong, true = (
            Sheet(ask, known, "context", trust),
            Sheet(ask, unknown, "true_context", trust),
        )
        judged += [
            {
                "trust": trust,
                "alpha": alpha,
                "n_known": len(known),
                "n_unknown": len(unknown),
                "MR": metrics.memory_ratio(wrong.context(DIAL, alpha), wrong.memory(DIAL, alpha)),
                "right": metrics.percent(true.memory(DIAL, alpha)),
            }
            for alpha in alphas
        ]
    return judged


def _example(
    ask: AnswerFunction, item: Conflict, rule: str, alphas: Sequence[float]
) -> dict[str, Any]:
    """One conflict and what was answered at each setting, for a reader to judge."""
    ends = [alpha for alpha in (0.0, 0.5, 1.0) if alpha in alphas]
    columns: list[Column] = [
        ("none", PLAIN, CLOSED_BOOK),
        ("context", PLAIN, PLAIN),
        *(("context", rule, alpha) for alpha in ends),
    ]
    return {
        "question": item.question,
        "passage_says": item.context_answers[0],
        "memory_says": item.memory_answers[0],
        "answers": {
            str(alpha): Sheet(ask, [item], passage).texts(said_by, alpha)[0]
            for passage, said_by, alpha in columns
        },
    }
