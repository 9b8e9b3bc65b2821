"""How far the dial moves answers between passages and memory."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from control import prompts
from control.conflict import dial
from control.conflict.calibration import Calibration
from control.conflict.passage_claims import with_quote
from control.conflict.sources import NEUTRAL_TRUST
from control.decoding.generate import Alpha, Decoding
from control.decoding.options import RuleOption
from control.decoding.rules import CONTRASTIVE, DEFAULT_RULE, DIAL, WITHOUT_DIAL
from control.engines.base import Engine
from evaluation import metrics
from evaluation.datasets.conflicts import Conflict, spread
from evaluation.judges import fluency
from evaluation.runner import Rows, RunStep, digest, run_now
from foundation.errors import InputError

if TYPE_CHECKING:
    from control.conflict.reader import AnswerReader

MAX_NEW_TOKENS = 32  # every built-in answer stands in the first sentence
PLAIN, CLOSED_BOOK = "plain", "closed-book"
PLAIN_ALPHA = 0.5  # under the plain rule every alpha is the same
RELIANCE = "reliance "  # before the requested share, in the place of an alpha
ALPHAS: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
MEMORY_END = 1.0
AUTO = "auto"
RELIANCE_TARGETS = (0.1, 0.3, 0.5, 0.7, 0.9)
TRUSTS = (0.1, 0.9)  # of a doubtful and of a reliable source
EXAMPLES = 10

Key = tuple[str, str, str, str]
"""(item id, which passage, rule, alpha)"""

Column = tuple[str, str, float | str]
"""(which passage, rule, alpha)"""

Options = Mapping[str, Mapping[str, RuleOption]]
"""Options of the rules that are not used as published, by rule and name"""


@dataclass(frozen=True)
class AnswerSetting:
    """One rule with the passages of one kind.

    Attributes:
        passage: ``none``, ``context`` or ``true_context``.
        rule: A name in `control.decoding.rules.CHOICES`.
        alphas: Settings of the dial: a number, ``"auto"``, or `RELIANCE` and a share.
        trust: In the passage.
    """

    passage: str
    rule: str
    alphas: tuple[float | str, ...]
    trust: float = NEUTRAL_TRUST


class DialAnswers:
    """The answers of a model at the settings of the dial, stored in ``answers.jsonl``."""

    def __init__(
        self,
        language_model: Engine,
        items: Sequence[Conflict],
        target: Path,
        batch_size: int,
        calibration: Calibration | None = None,
        run_step: RunStep = run_now,
        reader: "AnswerReader | None" = None,
        options: Options | None = None,
    ) -> None:
        """Open the answers of a run.

        Args:
            language_model: The model.
            items: All conflicts of the run.
            target: Directory of the report.
            batch_size: Questions at a time.
            calibration: For the rule ``fulcrum``.
            run_step: Runs each batch.
            reader: For the rule ``fulcrum``; finds what the drafts claim.
            options: Of the rules.

        Raises:
            DataError: ``target`` holds answers of another run.
        """
        self.calibration = calibration
        self._options = options or {}
        self._language_model, self._batch_size = language_model, batch_size
        self._run_step, self._reader = run_step, reader
        self._rows: Rows[Key, str] = Rows(
            target / "answers.jsonl",
            {
                "model": language_model.name,
                "items": digest(list(items)),
                "max_new_tokens": MAX_NEW_TOKENS,
            },
            lambda values: (tuple(values[:-1]), values[-1]),
            lambda key, text: [*key, text],
        )

    def with_options(self, options: Options) -> Self:
        """The same store of answers, for those of rules with other options."""
        other = copy.copy(self)
        other._options = options
        return other

    def complete(self, items: Sequence[Conflict], setting: AnswerSetting) -> None:
        """Answer every item at every alpha of the setting, unless it has been answered."""
        self._rows.complete(
            items,
            lambda item: (self._key(item, setting, alpha) for alpha in setting.alphas),
            partial(self._answer, setting),
            self._batch_size,
            length=lambda item: len(item.context),
            title=f"{self._named(setting.rule)}, {setting.passage}",
            run_step=self._run_step,
        )

    def text(self, item: Conflict, setting: AnswerSetting, alpha: float | str) -> str:
        """The stored answer."""
        return self._rows[self._key(item, setting, alpha)]

    def _answer(self, setting: AnswerSetting, batch: Sequence[Conflict]) -> Mapping[Key, str]:
        how = Decoding(
            rule=setting.rule,
            max_new_tokens=MAX_NEW_TOKENS,
            rule_options=self._options.get(setting.rule, {}),
        )
        room = self._language_model.room(how.max_new_tokens)
        texts = [
            prompts.build(
                self._language_model,
                item.question,
                passages := _passages(item, setting.passage),
                room,
                [setting.trust] * len(passages),
            )
            for item in batch
        ]
        if setting.rule == DIAL:
            texts = [with_quote(text, self._reader) for text in texts]
        numbers = [self._number(alpha) for alpha in setting.alphas]
        settled = iter(
            dial.answer(
                self._language_model, texts, how, self.calibration, numbers, reader=self._reader
            )
        )
        return {
            self._key(item, setting, alpha): next(settled).trace.text.strip()
            for item in batch
            for alpha in setting.alphas
        }

    def _number(self, alpha: float | str) -> Alpha:
        if alpha in (PLAIN, CLOSED_BOOK):
            return PLAIN_ALPHA
        if isinstance(alpha, str) and alpha.startswith(RELIANCE):
            return self._calibrated().alpha(float(alpha.removeprefix(RELIANCE)))
        return cast("Alpha", alpha)

    def _key(self, item: Conflict, setting: AnswerSetting, alpha: float | str) -> Key:
        """The row of an answer; another calibration or option gives another answer."""
        rule, passage = self._named(setting.rule), setting.passage
        if setting.rule == DIAL:
            rule += f" {self._calibrated().digest}" + (" with reader" if self._reader else "")
        if setting.trust != NEUTRAL_TRUST:
            passage += f" trust {setting.trust}"
        return item.id, passage, rule, str(alpha)

    def _named(self, rule: str) -> str:
        """The rule with its options, where it is not used as published."""
        options = sorted(self._options.get(rule, {}).items())
        return " ".join([rule, *(f"{name}={value}" for name, value in options)])

    def _calibrated(self) -> Calibration:
        if self.calibration is None:
            raise InputError(f"rule {DIAL} needs a calibration")
        return self.calibration


def _passages(item: Conflict, kind: str) -> list[str]:
    text = {"none": None, "context": item.context, "true_context": item.true_context}[kind]
    return [text] if text else []


def run(
    language_model: Engine,
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
    run_step: RunStep = run_now,
    reader: "AnswerReader | None" = None,
    options: Options | None = None,
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
            costs it little more than one, and a rule without a dial at ``auto`` alone.
        known_only: Ask only known facts with the counterfactual passage; ``all`` stays empty.
        unknown_limit: Ask at most so many unknown facts, drawn evenly.
        trust: Also answer from passages of little and of much trust, by the rule ``fulcrum``.
        run_step: Runs each step of work with the model, such as in turn with other users of it.
        reader: For the rule ``fulcrum``; finds what the drafts claim.
        options: Of the rules, such as those that `evaluation.suites.tuning` chose.

    Returns:
        The report: ``known``, ``all``, ``unknown`` and ``Q`` of the command contract, ``examples``,
        ``paired`` (the first rule against each other one), ``fluency``, ``options`` (of the rules
        that are not used as published), and, where they were measured, ``reliance``, ``states`` and
        ``trust``.

    Raises:
        DataError: ``target`` holds answers of another run.
    """
    rules = list(rules) or [DEFAULT_RULE]
    dialled = {rule: _alphas(rule, alphas) for rule in rules}
    ended = [rule for rule in rules if memory_end(rule) in dialled[rule]]
    options = {rule: dict(options[rule]) for rule in rules if rule in options} if options else {}
    answers = DialAnswers(
        language_model, items, target, batch_size, calibration, run_step, reader, options
    )
    known, unknown = split_known(answers, items, unknown_limit)
    for passage, whom in (("context", known if known_only else items), ("true_context", unknown)):
        answers.complete(whom, AnswerSetting(passage, PLAIN, (PLAIN,)))
        for rule in rules:
            answers.complete(
                whom,
                AnswerSetting(passage, rule, _settings(rule, dialled[rule], adaptive, passage)),
            )

    wrong = ScoredAnswers(answers, known, "context")
    true = ScoredAnswers(answers, unknown, "true_context")
    settings = [(rule, alpha) for rule in rules for alpha in dialled[rule]]
    columns = _columns(settings)
    report = {
        "model": language_model.name,
        "n": len(items),
        "n_known": len(known),
        "known": [_reliance_row(answers, known, len(known), column) for column in columns],
        "all": []
        if known_only
        else [_reliance_row(answers, items, len(known), column) for column in columns],
        "unknown": [_right_row(true, rule, alpha) for _, rule, alpha in columns[1:]],
        "Q": {rule: quality(wrong, true, rule) if rule in ended else None for rule in rules},
        "options": options,
        "paired": [_paired(wrong, true, ended[0], rule) for rule in ended[1:]],
        "fluency": run_step(
            partial(_fluency_rows, language_model, wrong, rules[0], dialled[rules[0]])
        ),
        "reliance": [_reliance_target_row(answers, known, asked) for asked in RELIANCE_TARGETS]
        if DIAL in rules
        else [],
        "states": _states(answers, known, unknown, rules) if adaptive else [],
        "trust": _trust(answers, known, unknown) if trust else [],
        "examples": [
            _example(answers, item, rules[0], dialled[rules[0]]) for item in spread(known, EXAMPLES)
        ],
    }
    if calibration is not None and DIAL in rules:
        report["calibration"] = {"of": calibration.name, **calibration.measured}
    return report


def memory_end(rule: str) -> float | str:
    """The alpha at which a rule follows memory most; ``auto`` for one without a dial."""
    return AUTO if rule in WITHOUT_DIAL else MEMORY_END


def _alphas(rule: str, given: Sequence[float]) -> tuple[float | str, ...]:
    """The settings of the dial that a rule is asked at."""
    if rule in WITHOUT_DIAL:
        return (AUTO,)
    return ALPHAS if rule == DIAL else tuple(given)


def _columns(settings: Sequence[tuple[str, float | str]]) -> list[Column]:
    """Answers from memory, plain RAG, and these rules at these alphas."""
    return [
        ("none", PLAIN, CLOSED_BOOK),
        ("context", PLAIN, PLAIN),
        *(("context", rule, alpha) for rule, alpha in settings),
    ]


def split_known(
    answers: DialAnswers, items: Sequence[Conflict], unknown_limit: int | None
) -> tuple[list[Conflict], list[Conflict]]:
    """Ask all facts closed-book: those that the model knows, and those that it can be told.

    Args:
        answers: Of the run; the closed-book ones are completed.
        items: The conflicts.
        unknown_limit: Keep at most so many unknown facts, drawn evenly.

    Returns:
        The known facts, and the unknown ones that have a true passage.
    """
    answers.complete(items, AnswerSetting("none", PLAIN, (CLOSED_BOOK,)))
    right = ScoredAnswers(answers, items, "none").memory(PLAIN, CLOSED_BOOK)
    known = [item for item, knows in zip(items, right, strict=True) if knows]
    ids = {item.id for item in known}
    unknown = [item for item in items if item.id not in ids and item.true_context]
    return known, spread(unknown, unknown_limit)


@dataclass(frozen=True)
class ScoredAnswers:
    """The answers to some items with one kind of passage, and what each of them holds."""

    answers: DialAnswers
    items: Sequence[Conflict]
    passage: str
    trust: float = 0.5

    def texts(self, rule: str, alpha: float | str) -> list[str]:
        """The answers of a rule at an alpha."""
        setting = AnswerSetting(self.passage, rule, (alpha,), self.trust)
        return [self.answers.text(item, setting, alpha) for item in self.items]

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


def _reliance_row(
    answers: DialAnswers, items: Sequence[Conflict], n_known: int, column: Column
) -> dict[str, Any]:
    """ConR, ParR, MR and hit of one rule at one alpha."""
    passage, rule, alpha = column
    sheet = ScoredAnswers(answers, items, passage)
    reliance = metrics.reliance(sheet.context(rule, alpha), sheet.memory(rule, alpha))
    return {"rule": rule, "alpha": alpha, "n": len(items), "n_known": n_known, **reliance}


def _right_row(sheet: ScoredAnswers, rule: str, alpha: float | str) -> dict[str, Any]:
    """How often facts that the model does not know are answered rightly from a true passage."""
    right = sheet.memory(rule, alpha)
    return {
        "rule": rule,
        "alpha": alpha,
        "n": len(right),
        "right": metrics.percent(right),
        "ci": {"right": metrics.interval(metrics.percent, right)},
    }


def quality(wrong: ScoredAnswers, true: ScoredAnswers, rule: str) -> float | None:
    """Q in percent; ``None`` where there are no known or no unknown facts to tell.

    The harmonic mean, at the memory end, of MR on known conflicts and of right answers on unknown
    facts relative to plain RAG. A rule without a dial has it at ``auto``.
    """
    end = memory_end(rule)
    baseline = metrics.percent(true.memory(PLAIN, PLAIN))
    if not wrong.items or not baseline:
        return None
    ratio = metrics.memory_ratio(wrong.context(rule, end), wrong.memory(rule, end))
    relative = 100 * metrics.percent(true.memory(rule, end)) / baseline
    return metrics.harmonic_mean(ratio, min(relative, 100.0))


def _paired(wrong: ScoredAnswers, true: ScoredAnswers, rule: str, other: str) -> dict[str, Any]:
    """Two rules on the same items at the memory end, by McNemar's test.

    ``known``: answers from memory alone; ``unknown``: right answers. Each with how often only the
    one rule and only the other gave them.
    """
    row: dict[str, Any] = {"rule": rule, "against": other}
    for name, one, two in (
        ("known", _memory_alone(wrong, rule), _memory_alone(wrong, other)),
        (
            "unknown",
            true.memory(rule, memory_end(rule)),
            true.memory(other, memory_end(other)),
        ),
    ):
        row[name] = {
            "only_rule": int((one & ~two).sum()),
            "only_other": int((two & ~one).sum()),
            "p": metrics.mcnemar(one, two),
        }
    return row


def _memory_alone(sheet: ScoredAnswers, rule: str) -> metrics.Flags:
    end = memory_end(rule)
    flags: metrics.Flags = sheet.memory(rule, end) & ~sheet.context(rule, end)
    return flags


def _fluency_rows(
    language_model: Engine, wrong: ScoredAnswers, rule: str, alphas: Sequence[float | str]
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


def _reliance_target_row(
    answers: DialAnswers, known: Sequence[Conflict], asked: float
) -> dict[str, Any]:
    """What came of asking that memory settle a share of the known conflicts."""
    alpha = f"{RELIANCE}{asked}"
    row = _reliance_row(answers, known, len(known), ("context", DIAL, alpha))
    turned = answers.calibration.alpha(asked) if answers.calibration else None
    return {
        "asked": 100 * asked,
        "turned_to": turned,
        "n": row["n"],
        "MR": row["MR"],
        "ci": row["ci"],
    }


def _settings(
    rule: str, alphas: Sequence[float | str], adaptive: bool, passage: str
) -> tuple[float | str, ...]:
    """All settings of a rule that one reading of the prompts can answer."""
    if rule != DIAL:
        return tuple(alphas)
    reliance = [f"{RELIANCE}{asked}" for asked in RELIANCE_TARGETS] if passage == "context" else []
    return (*alphas, *reliance, *([AUTO] if adaptive else []))


def _states(
    answers: DialAnswers,
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
        "correction": ScoredAnswers(answers, unknown, "true_context"),
        "resistance": ScoredAnswers(answers, known, "context"),
        "agreement": ScoredAnswers(answers, told_truly, "true_context"),
    }
    judged = []
    plain: dict[str, metrics.Flags] = {}
    for rule, alpha in [(PLAIN, PLAIN), *((rule, AUTO) for rule in rules)]:
        decoded = 0.0 if rule in CONTRASTIVE else alpha
        row: dict[str, Any] = {"rule": rule, "alpha": alpha, "n": {}, "p": {}, "ci": {}}
        for state, sheet in places.items():
            answers.complete(sheet.items, AnswerSetting(sheet.passage, rule, (decoded,)))
            right = sheet.memory(rule, decoded)
            row |= {state: metrics.percent(right)}
            row["n"][state] = len(right)
            row["ci"][state] = metrics.interval(metrics.percent, right)
            row["p"][state] = metrics.mcnemar(right, plain.setdefault(state, right))
        judged.append(row)
    return judged


def _trust(
    answers: DialAnswers, known: Sequence[Conflict], unknown: Sequence[Conflict]
) -> list[dict[str, Any]]:
    """Plain RAG's setting and alpha auto, with passages of little and of much trust."""
    judged: list[dict[str, Any]] = []
    alphas = (0.5, AUTO)
    for trust in TRUSTS:
        answers.complete(known, AnswerSetting("context", DIAL, alphas, trust))
        answers.complete(unknown, AnswerSetting("true_context", DIAL, alphas, trust))
        wrong = ScoredAnswers(answers, known, "context", trust)
        true = ScoredAnswers(answers, unknown, "true_context", trust)
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
    answers: DialAnswers, item: Conflict, rule: str, alphas: Sequence[float | str]
) -> dict[str, Any]:
    """One conflict and what was answered at each setting, for a reader to judge."""
    ends = [alpha for alpha in (0.0, 0.5, 1.0, AUTO) if alpha in alphas]
    return {
        "question": item.question,
        "passage_says": item.context_answers[0],
        "memory_says": item.memory_answers[0],
        "answers": {
            str(alpha): ScoredAnswers(answers, [item], passage).texts(said_by, alpha)[0]
            for passage, said_by, alpha in _columns([(rule, end) for end in ends])
        },
    }
