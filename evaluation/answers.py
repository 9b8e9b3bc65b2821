"""Asking a model many questions at many settings, and keeping the answers."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from tqdm import tqdm

from control import prompts
from control.conflict import dial
from control.conflict.calibration import Calibration
from control.decoding.generate import Alpha, Decoding
from control.decoding.rules import DIAL
from control.engines.transformers import LanguageModel
from evaluation.datasets.conflicts import Conflict
from foundation.errors import DataError, InputError

MAX_NEW_TOKENS = 32  # every built-in answer stands in the first sentence
PLAIN, CLOSED_BOOK = "plain", "closed-book"
PLAIN_ALPHA = 0.5  # under the plain rule every alpha is the same

RELIANCE = "reliance "  # before the share that is asked for, in the place of an alpha

Key = tuple[str, str, str, str]
"""(item id, which passage, rule, alpha)"""

Result = TypeVar("Result")


def at_once(work: Callable[[], Result]) -> Result:
    """Do a batch's work, where nobody else needs the model."""
    return work()


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
    trust: float = dial.NEUTRAL_TRUST


class AnswerLog:
    """The answers of a run, kept line by line so that an interrupted one can go on."""

    def __init__(self, target: Path, model: str, items: Sequence[Conflict]) -> None:
        target.mkdir(parents=True, exist_ok=True)
        self._path = target / "answers.jsonl"
        self._texts: dict[Key, str] = {}
        content = hashlib.sha256(repr(list(items)).encode()).hexdigest()[:16]
        header = {"model": model, "items": content, "max_new_tokens": MAX_NEW_TOKENS}
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        if lines and lines[0] != json.dumps(header):
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
        """Keep these answers, on disk first."""
        with self._path.open("a", encoding="utf-8") as file:
            for key, text in texts.items():
                file.write(json.dumps([*key, text], ensure_ascii=False) + "\n")
        self._texts |= texts

    def __contains__(self, key: Key) -> bool:
        return key in self._texts

    def __getitem__(self, key: Key) -> str:
        return self._texts[key]


@dataclass(frozen=True)
class AnswerFunction:
    """Asks what has not been answered yet, in batches of prompts of like length.

    Attributes:
        language_model: The model.
        answers: Where they are kept.
        batch_size: Questions at a time.
        calibration: For the rule ``fulcrum``.
        turn: Does each batch's work, such as in turns with others who use the model.
    """

    language_model: LanguageModel
    answers: AnswerLog
    batch_size: int
    calibration: Calibration | None = None
    turn: Callable[[Callable[[], None]], None] = at_once

    def __call__(self, items: Sequence[Conflict], setting: AnswerSetting) -> None:
        """Make sure that every item is answered at every alpha of the setting."""
        todo = [
            item
            for item in items
            if any(self.key(item, setting, alpha) not in self.answers for alpha in setting.alphas)
        ]
        todo.sort(key=lambda item: len(item.context))
        name = f"{setting.rule}, {setting.passage}"
        with tqdm(total=len(todo), desc=name, unit=" items", delay=2) as bar:
            for start in range(0, len(todo), self.batch_size):
                batch = todo[start : start + self.batch_size]
                self.turn(partial(self._answer, batch, setting))
                bar.update(len(batch))

    def _answer(self, batch: Sequence[Conflict], setting: AnswerSetting) -> None:
        how = Decoding(rule=setting.rule, max_new_tokens=MAX_NEW_TOKENS)
        room = self.language_model.room(how.max_new_tokens)
        texts = [
            prompts.build(
                self.language_model.tokenizer,
                item.question,
                passages := _passages(item, setting.passage),
                room,
                [setting.trust] * len(passages),
            )
            for item in batch
        ]
        numbers = [self._number(alpha) for alpha in setting.alphas]
        settled = iter(dial.answer(self.language_model, texts, how, self.calibration, numbers))
        self.answers.add(
            {
                self.key(item, setting, alpha): next(settled).trace.text.strip()
                for item in batch
                for alpha in setting.alphas
            }
        )

    def _number(self, alpha: float | str) -> Alpha:
        if alpha in (PLAIN, CLOSED_BOOK):
            return PLAIN_ALPHA
        if isinstance(alpha, str) and alpha.startswith(RELIANCE):
            return self._calibrated().alpha(float(alpha.removeprefix(RELIANCE)))
        return cast("Alpha", alpha)

    def key(self, item: Conflict, setting: AnswerSetting, alpha: float | str) -> Key:
        """Where the answer is kept; one by another calibration is another answer."""
        rule, passage = setting.rule, setting.passage
        if rule == DIAL:
            rule += f" {self._calibrated().digest}"
        if setting.trust != dial.NEUTRAL_TRUST:
            passage += f" trust {setting.trust}"
        return item.id, passage, rule, str(alpha)

    def text(self, item: Conflict, setting: AnswerSetting, alpha: float | str) -> str:
        """The answer, once it has been given."""
        return self.answers[self.key(item, setting, alpha)]

    def _calibrated(self) -> Calibration:
        if self.calibration is None:
            raise InputError(f"rule {DIAL} needs a calibration")
        return self.calibration


def _passages(item: Conflict, kind: str) -> list[str]:
    text = {"none": None, "context": item.context, "true_context": item.true_context}[kind]
    return [text] if text else []
