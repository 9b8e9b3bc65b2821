"""What training made of the preference between passages and memory.

Every system answers the same items: conflicts over facts that the base model knows, the same facts
with irrelevant passages, and facts that it does not know. The measures are those of
`training.preference`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from control import prompts
from control.conflict import dial
from control.conflict.calibration import Calibration
from control.decoding.generate import Decoding
from control.decoding.rules import DIAL
from control.engines.adapters import Adapter, use_adapter
from control.engines.transformers import LanguageModel
from control.module_models import replies
from control.prompts import SYSTEM
from evaluation import metrics
from evaluation.datasets.conflicts import spread
from evaluation.datasets.contexts import Items
from evaluation.metrics import Flags
from evaluation.runner import Rows, digest
from foundation.errors import DataError
from foundation.text import holds
from training import preference
from training.conflicts import Context, ContextCase, Kind
from training.pairs import refuses
from training.preference import BATCH, MAX_NEW_TOKENS

PROMPT_ONLY = (
    "You answer questions briefly and factually. Use the passages if they help; otherwise answer "
    "from your own knowledge; if you do not know the answer, say that you do not know."
)
BASE, PROMPTED = "base", "prompt only"
ALPHAS = (0.0, 0.5, 1.0)
PLAIN = "plain"

Judge = Callable[[str, ContextCase], bool]


@dataclass(frozen=True)
class EvaluatedSystem:
    """Something that answers.

    Attributes:
        name: In the report.
        adapter: LoRA adapter of the system.
        system: What the model is told to do.
    """

    name: str
    adapter: Adapter | None = None
    system: str = SYSTEM


@dataclass(frozen=True)
class PreferencePlan:
    """How much to ask.

    Attributes:
        known: Facts that the model knows, asked with passages at most.
        unknown: Facts that it does not know, asked at most.
        dialled: Whether to answer with the dial too.
    """

    known: int | None = None
    unknown: int | None = None
    dialled: bool = True


@dataclass(frozen=True)
class PreferenceAnswers:
    """The answers of systems to questions with contexts, stored in ``answers.jsonl``."""

    language_model: LanguageModel
    calibration: Calibration
    rows: Rows[str, str]

    def of(
        self,
        system: EvaluatedSystem,
        cases: Sequence[ContextCase],
        kind: Kind,
        alpha: float | str = PLAIN,
    ) -> list[str]:
        """The answers to these cases with contexts of this kind; what is missing is answered."""

        def key(case: ContextCase) -> str:
            return f"{system.name}|{alpha}|{kind}|{case.fact.id}"

        def answer(batch: Sequence[tuple[ContextCase, Context]]) -> dict[str, str]:
            with use_adapter(system.adapter):
                texts = (self._plain if alpha == PLAIN else self._dialled)(system, batch)
                return {f"{system.name}|{at}|{kind}|{name}": text for at, name, text in texts}

        self.rows.complete(
            [(case, case.context(kind)) for case in cases],
            lambda one: [key(one[0])],
            answer,
            BATCH,
            length=lambda one: sum(map(len, one[1].passages)),
            title=f"{system.name}, {kind}",
            unit="answers",
        )
        return [self.rows[key(case)] for case in cases]

    def _plain(
        self, system: EvaluatedSystem, batch: Sequence[tuple[ContextCase, Context]]
    ) -> Iterator[tuple[str, str, str]]:
        texts = [
            preference.build_prompt(
                self.language_model, case.fact.question, context.passages, system.system
            )
            for case, context in batch
        ]
        said = replies(self.language_model, texts, MAX_NEW_TOKENS)
        for (case, _), text in zip(batch, said, strict=True):
            yield PLAIN, case.fact.id, text

    def _dialled(
        self, system: EvaluatedSystem, batch: Sequence[tuple[ContextCase, Context]]
    ) -> Iterator[tuple[str, str, str]]:
        """Answers at all of `ALPHAS`, which cost little more than those at one."""
        room = self.language_model.room(MAX_NEW_TOKENS)
        written = [
            prompts.build(
                self.language_model,
                case.fact.question,
                context.passages,
                room,
                system=system.system,
            )
            for case, context in batch
        ]
        how = Decoding(rule=DIAL, max_new_tokens=MAX_NEW_TOKENS)
        settled = iter(
            dial.answer(self.language_model, written, how, self.calibration, list(ALPHAS))
        )
        for case, _ in batch:
            for alpha in ALPHAS:
                yield str(alpha), case.fact.id, next(settled).trace.text.strip()


def run(
    language_model: LanguageModel,
    items: Items,
    adapters: Sequence[tuple[str, Adapter]],
    calibration: Calibration,
    target: Path,
    plan: PreferencePlan = PreferencePlan(),
) -> dict[str, Any]:
    """Let base model, prompted model and adapters answer, plainly and with the dial.

    Answers are kept in ``target/answers.jsonl``; a second call goes on from there.

    Args:
        language_model: The base model.
        items: What to ask.
        adapters: Trained adapters of it, each with its name.
        calibration: Of the dial on the base model; adapters are dialled by it too.
        target: Directory of the report.
        plan: How much to ask.

    Returns:
        The report. Its table ``preference`` has a row for each system; ``dial`` one for each system
        and alpha; ``paired`` holds each adapter against the one before it by McNemar's exact test.

    Raises:
        DataError: The model knows none of the facts, or ``target`` holds another run.
    """
    systems = [EvaluatedSystem(BASE), EvaluatedSystem(PROMPTED, system=PROMPT_ONLY)]
    systems += [EvaluatedSystem(name, adapter) for name, adapter in adapters]
    names = [system.name for system in systems]
    header = {"model": language_model.name, "items": digest(items), "systems": names}
    rows: Rows[str, str] = Rows(target / "answers.jsonl", header)
    answers = PreferenceAnswers(language_model, calibration, rows)
    # Who knows what is settled by the base model, so that all systems answer the same items.
    closed_book = _flags(answers.of(systems[0], items.cases, "empty"), items.cases, _right)
    known = [case for case, knows in zip(items.cases, closed_book, strict=True) if knows]
    unknown = [case for case, knows in zip(items.cases, closed_book, strict=True) if not knows]
    if not known:
        raise DataError(
            f"{items.name}: {language_model.name} knows none of the {len(items.cases)} facts "
            "closed-book, so that there is nothing to hold against the passages; give other data "
            "or a larger --limit"
        )
    known, unknown = spread(known, plan.known), spread(unknown, plan.unknown)
    sheets = {
        system.name: _sheet(answers, system, items.cases, known, unknown) for system in systems
    }
    report: dict[str, Any] = {
        "n": len(items.cases),
        "n_known": len(known),
        "n_unknown": len(unknown),
        "tables": {"preference": [_row(name, sheet) for name, sheet in sheets.items()]},
    }
    if plan.dialled:
        report["tables"]["dial"] = [
            _dial_row(answers, system, alpha, known)
            for system in systems
            for alpha in (PLAIN, *map(str, ALPHAS))
        ]
    names = [name for name in sheets if name != PROMPTED]
    report["tables"]["paired"] = [
        _paired(sheets[one], sheets[other], one, other) for other, one in pairwise(names)
    ]
    report["gain"] = _gain(report["tables"])
    return report


def _sheet(
    answers: PreferenceAnswers,
    system: EvaluatedSystem,
    every: Sequence[ContextCase],
    known: Sequence[ContextCase],
    unknown: Sequence[ContextCase],
) -> dict[str, Flags]:
    """What a system's answers were, item by item."""
    conflict = answers.of(system, known, "counterfactual")
    beside = answers.of(system, known, "irrelevant")
    lost = answers.of(system, unknown, "irrelevant")
    return {
        "R_Ad": _flags(conflict, known, preference.adheres),
        "R_Ro": _flags(beside, known, preference.is_robust),
        "refused, unknown": np.array([refuses(answer) for answer in lost], dtype=bool),
        "refused, known": np.array([refuses(answer) for answer in beside], dtype=bool),
        "right, unknown": _flags(answers.of(system, unknown, "relevant"), unknown, _right),
        "closed-book": _flags(answers.of(system, every, "empty"), every, _right),
        "ConR": _flags(conflict, known, _follows_passages),
        "ParR": _flags(conflict, known, _right),
    }


def _right(answer: str, case: ContextCase) -> bool:
    return holds(answer, case.fact.answers)


def _follows_passages(answer: str, case: ContextCase) -> bool:
    return holds(answer, case.counterfactual.says)


def _flags(answers: Sequence[str], cases: Sequence[ContextCase], judge: Judge) -> Flags:
    return np.array([judge(a, case) for a, case in zip(answers, cases, strict=True)], dtype=bool)


SHOWN = ("R_Ad", "R_Ro", "refused, unknown", "refused, known", "right, unknown", "closed-book")


def _row(name: str, sheet: dict[str, Flags]) -> dict[str, Any]:
    shown = {column: sheet[column] for column in SHOWN}
    row: dict[str, Any] = {"system": name, **metrics.percents(shown)}
    row["R_Ad + R_Ro"] = row["R_Ad"] + row["R_Ro"]
    row["MR"] = metrics.memory_ratio(sheet["ConR"], sheet["ParR"])
    row["ci"] = metrics.intervals(shown)
    row["ci"]["R_Ad + R_Ro"] = metrics.interval(_sum, sheet["R_Ad"], sheet["R_Ro"])
    row["ci"]["MR"] = metrics.interval(metrics.memory_ratio, sheet["ConR"], sheet["ParR"])
    return row


def _sum(adheres: Flags, firm: Flags, axis: int = -1) -> Any:
    return metrics.percent(adheres, axis) + metrics.percent(firm, axis)


def _dial_row(
    answers: PreferenceAnswers, system: EvaluatedSystem, alpha: str, known: Sequence[ContextCase]
) -> dict[str, Any]:
    conflict = answers.of(system, known, "counterfactual", alpha)
    adheres = _flags(conflict, known, preference.adheres)
    firm = _flags(answers.of(system, known, "irrelevant", alpha), known, preference.is_robust)
    con, par = _flags(conflict, known, _follows_passages), _flags(conflict, known, _right)
    return {
        "system": system.name,
        "alpha": alpha,
        "R_Ad": metrics.percent(adheres),
        "R_Ro": metrics.percent(firm),
        "R_Ad + R_Ro": _sum(adheres, firm),
        "MR": metrics.memory_ratio(con, par),
        "ci": {
            "R_Ad + R_Ro": metrics.interval(_sum, adheres, firm),
            "MR": metrics.interval(metrics.memory_ratio, con, par),
        },
    }


def _paired(
    one: dict[str, Flags], other: dict[str, Flags], name: str, against: str
) -> dict[str, Any]:
    """How often only the one system and only the other was right, with the p-value."""
    row: dict[str, Any] = {"system": name, "against": against}
    for column in ("R_Ad", "R_Ro", "refused, unknown", "closed-book"):
        better, worse = one[column] & ~other[column], other[column] & ~one[column]
        row[column] = f"+{int(better.sum())} -{int(worse.sum())}"
        row[f"p, {column}"] = metrics.mcnemar(one[column], other[column])
    return row


def _gain(tables: dict[str, list[dict[str, Any]]]) -> float | None:
    """R_Ad + R_Ro of the last system relative to the best that was not trained, in percent.

    The best of base and prompted model, with the dial at any setting and without.
    """
    untrained = [
        row["R_Ad + R_Ro"]
        for name in ("preference", "dial")
        for row in tables.get(name, ())
        if row["system"] in (BASE, PROMPTED)
    ]
    best, last = max(untrained), tables["preference"][-1]["R_Ad + R_Ro"]
    return 100 * (last / best - 1) if best else None
