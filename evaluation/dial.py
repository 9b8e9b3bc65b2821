"""How far the dial moves answers between passages and memory."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from control import decoding, prompts
from control.decoding import Decoding
from control.model import LanguageModel
from control.rules import DEFAULT_RULE
from evaluation import metrics
from evaluation.datasets import Conflict, spread
from foundation.errors import DataError

ALPHAS: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
MEMORY_END = 1.0
MAX_NEW_TOKENS = 32  # every built-in answer stands in the first sentence
EXAMPLES = 10
PLAIN, CLOSED_BOOK = "plain", "closed-book"

Key = tuple[str, str, str, str]
"""(item id, which passage, rule, alpha)"""


@dataclass(frozen=True)
class Setting:
    """One rule with the passages of one kind: ``none``, ``context`` or ``true_context``."""

    passage: str
    rule: str
    alphas: tuple[float | str, ...]


def run(
    language_model: LanguageModel,
    items: Sequence[Conflict],
    target: Path,
    rules: Sequence[str] = (),
    batch_size: int = 16,
) -> dict[str, Any]:
    """Answer every conflict at every setting of the dial and count where the answers came from.

    Answers are appended to ``target/answers.jsonl`` as they come; a second call goes on from there.

    Args:
        language_model: The model under test.
        items: The conflicts.
        target: Directory of the report.
        rules: Token rules to measure; the rule in use if empty.
        batch_size: Questions per batch; each is decoded at all alphas together.

    Returns:
        The report: ``known``, ``all``, ``unknown`` and ``Q`` of the command contract.

    Raises:
        DataError: ``target`` holds answers of another run.
    """
    rules = list(rules) or [DEFAULT_RULE]
    answers = _Answers(target, language_model.name, items)
    ask = _Asking(language_model, answers, batch_size)

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
        "examples": [_example(answers, item, rules[0]) for item in spread(known, EXAMPLES)],
    }


class _Answers:
    """The answers of a run, kept line by line so that an interrupted one can go on."""

    def __init__(self, target: Path, model: str, items: Sequence[Conflict]) -> None:
        target.mkdir(parents=True, exist_ok=True)
        self._path = target / "answers.jsonl"
        self._texts: dict[Key, str] = {}
        content = hashlib.sha256(repr(list(items)).encode()).hexdigest()[:16]
        header = {"model": model, "items": content, "max_new_tokens": MAX_NEW_TOKENS}
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        if lines and json.loads(lines[0]) != header:
            raise DataError(
                f"{target}: holds the answers of another run ({lines[0]}); "
                "give another --out, or delete it"
            )
        if not lines:
            self._path.write_text(json.dumps(header) + "\n", encoding="utf-8")
        elif lines[-1:] and not self._path.read_bytes().endswith(b"\n"):
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n")
        for line in lines[1:]:
            try:
                item, passage, rule, alpha, text = json.loads(line)
            except ValueError:  # the last line of a killed run
                continue
            self._texts[item, passage, rule, alpha] = text

    def add(self, texts: dict[Key, str]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            for key, text in texts.items():
                file.write(json.dumps([*key, text], ensure_ascii=False) + "\n")
        self._texts |= texts

    def __contains__(self, key: Key) -> bool:
        return key in self._texts

    def __getitem__(self, key: Key) -> str:
        return self._texts[key]


@dataclass(frozen=True)
class _Asking:
    """Asks what has not been answered yet, in batches of prompts of like length."""

    language_model: LanguageModel
    answers: _Answers
    batch_size: int

    def __call__(self, items: Sequence[Conflict], setting: Setting) -> None:
        todo = [
            item
            for item in items
            if any(_key(item, setting, alpha) not in self.answers for alpha in setting.alphas)
        ]
        todo.sort(key=lambda item: len(item.context))
        name = f"{setting.rule}, {setting.passage}"
        with tqdm(total=len(todo), desc=name, unit=" items", delay=2) as bar:
            for start in range(0, len(todo), self.batch_size):
                batch = todo[start : start + self.batch_size]
                self._answer(batch, setting)
                bar.update(len(batch))

    def _answer(self, batch: Sequence[Conflict], setting: Setting) -> None:
        how = Decoding(rule=setting.rule, max_new_tokens=MAX_NEW_TOKENS)
        room = self.language_model.window - how.max_new_tokens
        texts = [
            prompts.build(
                self.language_model.tokenizer, item.question, _passages(item, setting.passage), room
            )
            for item in batch
        ]
        numbers = [0.5 if isinstance(alpha, str) else alpha for alpha in setting.alphas]
        traces = iter(decoding.generate(self.language_model, texts, how, numbers))
        self.answers.add(
            {
                _key(item, setting, alpha): next(traces).text.strip()
                for item in batch
                for alpha in setting.alphas
            }
        )


def _example(answers: _Answers, item: Conflict, rule: str) -> dict[str, Any]:
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


def _passages(item: Conflict, kind: str) -> list[str]:
    text = {"none": None, "context": item.context, "true_context": item.true_context}[kind]
    return [text] if text else []


def _key(item: Conflict, setting: Setting, alpha: float | str) -> Key:
    return item.id, setting.passage, setting.rule, str(alpha)


def _right(answers: _Answers, item: Conflict, passage: str, rule: str, alpha: object) -> bool:
    return metrics.holds(answers[item.id, passage, rule, str(alpha)], item.memory_answers)


def _reliance_row(
    answers: _Answers,
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
    answers: _Answers, unknown: Sequence[Conflict], rules: Sequence[str]
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


def _quality(
    answers: _Answers,
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
