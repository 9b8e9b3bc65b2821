"""Choose the options of token rules for a model, so that each is compared at its best.

The options of a rule are tried one after the other, in the order of its function's arguments: each
takes all its swept values, with the others as chosen so far, and keeps the best by Q at the memory
end (`evaluation.suites.dial.quality`). As published comes first, and only better values replace it.
Facts to choose on are never those that the rules are compared on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control.decoding.options import check_rule
from control.decoding.rules import RULES, RuleOption, check_options, parameters
from control.engines.base import Engine
from evaluation import metrics
from evaluation.datasets.conflicts import Conflict
from evaluation.report import options_text
from evaluation.suites.dial import (
    PLAIN,
    AnswerSetting,
    DialAnswers,
    Options,
    ScoredAnswers,
    memory_end,
    quality,
    split_known,
)
from foundation.errors import DataError, InputError
from foundation.files import replacing

TUNED = "tuned.json"
TRIED = "tried"  # the long table of the report


def run(
    language_model: Engine,
    items: Sequence[Conflict],
    target: Path,
    rules: Sequence[str] = (),
    batch_size: int = 16,
    unknown_limit: int | None = None,
) -> dict[str, Any]:
    """Sweep every option of the rules and write those that were chosen to ``target/tuned.json``.

    Answers are appended to ``target/answers.jsonl`` as they come; a second call goes on from there.

    Args:
        language_model: The model.
        items: Facts to choose on; those that the model does not know need a true passage.
        target: Directory of the report.
        rules: Rules to tune; all that have swept options if empty.
        batch_size: Questions per batch.
        unknown_limit: Ask at most so many unknown facts, drawn evenly.

    Returns:
        The report: the table ``chosen`` has a row for each rule, ``tried`` one for each setting.

    Raises:
        InputError: A rule has no options to choose.
        DataError: The facts say nothing of Q, or ``target`` holds answers of another run.
    """
    for rule in rules:
        if not _swept(rule):
            raise InputError(f"rule {rule} has no options to tune; {', '.join(_tunable())} have")
    answers = DialAnswers(language_model, items, target, batch_size)
    known, unknown = split_known(answers, items, unknown_limit)
    for passage, whom in (("context", known), ("true_context", unknown)):
        answers.complete(whom, AnswerSetting(passage, PLAIN, (PLAIN,)))
    true = ScoredAnswers(answers, unknown, "true_context")
    if not known or not true.memory(PLAIN, PLAIN).any():
        raise DataError(
            f"{language_model.name} knows {len(known)} of {len(items)} facts, and is right about "
            f"{true.memory(PLAIN, PLAIN).sum()} others when it is told; tuning needs both: give "
            "more or easier facts by --data"
        )
    sweeps = [_Sweep(rule, answers, known, unknown) for rule in rules or _tunable()]
    chosen = {sweep.rule: sweep.best() for sweep in sweeps}
    with replacing(target / TUNED) as new:
        content = {"model": language_model.identity, "name": language_model.name, "rules": chosen}
        new.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return {
        "model": language_model.name,
        "n": len(known) + len(unknown),
        "n_known": len(known),
        "n_unknown": len(unknown),
        "tables": {
            "chosen": [sweep.summary(chosen[sweep.rule]) for sweep in sweeps],
            TRIED: [row for sweep in sweeps for row in sweep.rows()],
        },
    }


def _swept(rule: str) -> dict[str, tuple[RuleOption, ...]]:
    found = parameters(rule)
    return {name: option.swept for name, option in found.items() if option.swept}


def _tunable() -> list[str]:
    return [rule for rule in RULES if _swept(rule)]


Setting = tuple[tuple[str, RuleOption], ...]
"""The options of a rule that differ from those published, sorted"""


@dataclass
class _Sweep:
    """The settings of one rule that are tried."""

    rule: str
    answers: DialAnswers
    known: Sequence[Conflict]
    unknown: Sequence[Conflict]
    tried: dict[Setting, dict[str, Any]] = field(default_factory=dict)

    def best(self) -> dict[str, RuleOption]:
        """All options of the rule, as chosen."""
        chosen = {name: option.default for name, option in parameters(self.rule).items()}
        for name, values in _swept(self.rule).items():
            candidates = [chosen, *(chosen | {name: value} for value in values)]
            chosen = max(candidates, key=lambda options: float(self._measured(options)["Q"]))
        return chosen

    def summary(self, chosen: Mapping[str, RuleOption]) -> dict[str, Any]:
        """What was chosen, and what it brings on the facts that it was chosen on."""
        best, published = self.tried[self._setting(chosen)], self.tried[()]
        return {
            "rule": self.rule,
            "options": options_text(chosen),
            "MR": best["MR"],
            "right": best["right"],
            "Q": best["Q"],
            "Q as published": published["Q"],
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row for each setting."""
        return list(self.tried.values())

    def _setting(self, options: Mapping[str, RuleOption]) -> Setting:
        published = parameters(self.rule)
        changed = {
            name: value for name, value in options.items() if value != published[name].default
        }
        return tuple(sorted(changed.items()))

    def _measured(self, options: Mapping[str, RuleOption]) -> dict[str, Any]:
        setting = self._setting(options)
        if setting not in self.tried:
            answers = self.answers.with_options({self.rule: dict(setting)})
            end = memory_end(self.rule)
            for passage, whom in (("context", self.known), ("true_context", self.unknown)):
                answers.complete(whom, AnswerSetting(passage, self.rule, (end,)))
            wrong = ScoredAnswers(answers, self.known, "context")
            true = ScoredAnswers(answers, self.unknown, "true_context")
            self.tried[setting] = {
                "rule": self.rule,
                "options": options_text(dict(setting)) or "as published",
                "MR": float(
                    metrics.memory_ratio(
                        wrong.context(self.rule, end), wrong.memory(self.rule, end)
                    )
                ),
                "right": metrics.percent(true.memory(self.rule, end)),
                "Q": quality(wrong, true, self.rule),
            }
        return self.tried[setting]


def read(path: Path, model: Engine) -> Options:
    """The options that `run` chose for a model.

    Raises:
        InputError: The file is none of `run`'s, is of another model, or names an option that the
            rule does not have.
    """
    what = f"--tuned {path}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rules = {rule: dict(options) for rule, options in content["rules"].items()}
        identity, name = str(content["model"]), content["name"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{what}: cannot be read ({error}); give the {TUNED} of fulcrum eval dial --tune"
        ) from error
    if identity != model.identity:
        raise InputError(
            f"{what}: was chosen for {name}, not for {model.name}; run fulcrum eval dial --tune "
            "with this model"
        )
    for rule, options in rules.items():
        check_rule(rule)
        check_options(rule, options)
    return rules
