"""How fast an engine answers: plain, and with the dial, alone and many at once."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from rich.table import Table
from tqdm import tqdm

from control import prompts
from control.conflict import dial
from control.conflict.calibration import Calibration
from control.decoding.generate import Decoding
from control.engines.base import Engine, EnginePrompt, GenerationRequest
from control.engines.transformers import LanguageModel
from evaluation.datasets.conflicts import Conflict
from evaluation.report import table

PASSAGES = 3  # in each prompt: the item's own, and those of two others
ALPHA = 1.0  # where a conflict costs the most


@dataclass
class Timing:
    """What some answers took.

    Attributes:
        seconds: Of each answer: its share of the time of all that were asked at once.
        first: Until the first token of each group, in seconds.
        tokens: Of all answers.
    """

    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    tokens: int = 0

    def report(self) -> dict[str, Any]:
        """Medians; tokens a second over all."""
        return {
            "answers": len(self.seconds),
            "seconds_per_answer": statistics.median(self.seconds),
            "first_token_seconds": statistics.median(self.first),
            "tokens_per_second": self.tokens / sum(self.seconds),
        }


@dataclass(frozen=True)
class Measured:
    """An engine with its calibration, under its name in the report."""

    name: str
    engine: Engine
    calibration: Calibration


def run(
    engines: Sequence[Measured],
    items: Sequence[Conflict],
    clients: Sequence[int] = (1, 16),
    tokens: int = 64,
) -> dict[str, Any]:
    """Measure engines in turns, so that all of them meet the same disturbances.

    Every prompt begins with a number of its own, so that no cache of prompts has it already. What
    the dial finds to be a conflict and what not is reported apart.

    Args:
        engines: The engines; the first is what ``ratio`` compares the others with.
        items: Questions with a counterfactual and a true passage.
        clients: How many questions are asked at once.
        tokens: Longest answer.
    """
    rows: dict[tuple[str, int, str], Timing] = {}
    numbers = count(1000)
    work = [
        (at_once, group, measured)
        for at_once in clients
        for group in _groups(items, at_once)
        for measured in engines
    ]
    for at_once, group, measured in tqdm(work, "groups", delay=2):
        for kind, ask in (("plain", _plain), ("dial", _dial)):
            built = [
                prompts.build(
                    measured.engine,
                    item.question,
                    [f"({next(numbers)}) {text}" for text in passages],
                    measured.engine.room(tokens),
                )
                for item, passages in group
            ]
            told = ask(measured, built, tokens)
            for outcome, took, first, written in told:
                name = kind if kind == "plain" else outcome
                timing = rows.setdefault((measured.name, at_once, name), Timing())
                timing.seconds.append(took)
                timing.first.append(first)
                timing.tokens += written
    return {
        "tokens": tokens,
        "passages": PASSAGES,
        "engines": [each.name for each in engines],
        "rows": [
            {"engine": name, "clients": at_once, "kind": kind, **timing.report()}
            for (name, at_once, kind), timing in sorted(rows.items())
        ],
    }


def _groups(items: Sequence[Conflict], at_once: int) -> Iterator[list[tuple[Conflict, list[str]]]]:
    """Questions to be asked at once, each with its passages; true and false ones take turns."""
    asked = [
        (item, [passage, items[place - 1].context, items[place - 2].context])
        for place, item in enumerate(items)
        for passage in (item.context, item.true_context)
        if passage
    ]
    for start in range(0, len(asked) - at_once + 1, at_once):
        yield asked[start : start + at_once]


Told = list[tuple[str, float, float, int]]
"""Per answer: whether there was a conflict, its seconds, those to the first token, its tokens."""


def _timed(answers: int, ask: Callable[[Callable[..., None]], list[tuple[str, int]]]) -> Told:
    heard: list[float] = []
    started = time.perf_counter()
    outcomes = ask(lambda *_: heard.append(time.perf_counter()))
    took = (time.perf_counter() - started) / answers
    first = (heard[0] if heard else time.perf_counter()) - started
    return [(outcome, took, first, written) for outcome, written in outcomes]


def _plain(measured: Measured, built: Sequence[prompts.Prompt], tokens: int) -> Told:
    """The engine's own generation, without Fulcrum's comparison."""
    engine = measured.engine

    def ask(hear: Callable[..., None]) -> list[tuple[str, int]]:
        if isinstance(engine, LanguageModel):
            how = Decoding(rule="plain", max_new_tokens=tokens)
            answers = dial.answer(engine, built, how, None, on_token=hear)
            return [("plain", len(each.trace.tokens)) for each in answers]
        requests = [
            GenerationRequest(EnginePrompt(each.context, each.context_chat), max_new_tokens=tokens)
            for each in built
        ]
        return [("plain", len(each.tokens)) for each in engine.generate(requests, hear)]

    return _timed(len(built), ask)


def _dial(measured: Measured, built: Sequence[prompts.Prompt], tokens: int) -> Told:
    how = Decoding(alpha=ALPHA, max_new_tokens=tokens)

    def ask(hear: Callable[..., None]) -> list[tuple[str, int]]:
        answers = dial.answer(measured.engine, built, how, measured.calibration, on_token=hear)
        return [
            ("conflict" if each.conflict else "no conflict", len(each.trace.tokens))
            for each in answers
        ]

    return _timed(len(built), ask)


def engine_table(result: dict[str, Any]) -> Table:
    """The timings, for a terminal."""
    plain = {
        (row["engine"], row["clients"]): row["seconds_per_answer"]
        for row in result["rows"]
        if row["kind"] == "plain"
    }
    return table(
        f"{result['passages']} passages, answers of at most {result['tokens']} tokens",
        (
            "engine",
            "at once",
            "",
            "answers",
            "s per answer",
            "to plain",
            "first token, s",
            "tokens/s",
        ),
        (
            (
                row["engine"],
                str(row["clients"]),
                row["kind"],
                str(row["answers"]),
                f"{row['seconds_per_answer']:.2f}",
                f"{row['seconds_per_answer'] / plain[row['engine'], row['clients']]:.2f}",
                f"{row['first_token_seconds']:.2f}",
                f"{row['tokens_per_second']:.1f}",
            )
            for row in result["rows"]
        ),
    )
