"""Watch one model on known kinds of facts, so that its dial can be set by what it achieves.

Every fact is asked closed-book first. A fact that the model knows is then asked with the
counterfactual passage: there memory is right. One that it does not know is asked with the true
passage: there the passages are. `evaluation.suites.calibration_fit` learns to tell the two apart.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from control import prompts
from control.conflict import dial, drafts
from control.conflict.calibration import Resolution
from control.conflict.probe import ProbeFeatures
from control.decoding.generate import Decoding
from control.engines.transformers import LanguageModel
from evaluation import metrics
from evaluation.answers import (
    CLOSED_BOOK,
    MAX_NEW_TOKENS,
    PLAIN,
    AnswerFunction,
    AnswerLog,
    AnswerSetting,
)
from evaluation.datasets.conflicts import Conflict


@dataclass(frozen=True)
class Observation:
    """One fact, both sides of it, and which of them is right.

    Attributes:
        id: Of the item.
        relation: Of the item.
        known: Whether memory is right; else the passages are.
        conflict: Whether memory claims something that the passages lack.
        loose: Whether the passages' answer could be put into their words.
        evidence: For the probe; ``None`` where memory claims nothing.
        context: Per way of answering, whether the answer holds what the passages say.
        memory: Per way, whether it holds what is true.
    """

    id: str
    relation: str | None
    known: bool
    conflict: bool
    loose: bool
    evidence: ProbeFeatures | None
    context: dict[Resolution, bool]
    memory: dict[Resolution, bool]


def run(
    language_model: LanguageModel, items: Sequence[Conflict], target: Path, batch_size: int = 16
) -> list[Observation]:
    """Observe the model on every item, for `evaluation.suites.calibration_fit`.

    Observations are kept in ``target`` as they come; a second call goes on from there.

    Args:
        language_model: The model.
        items: Facts; those that it does not know need a true passage.
        target: Directory for answers and observations.
        batch_size: Questions per batch.

    Raises:
        DataError: ``target`` holds answers of another run.
    """
    answers = AnswerLog(target, language_model.name, items)
    AnswerFunction(language_model, answers, batch_size)(
        items, AnswerSetting("none", PLAIN, (CLOSED_BOOK,))
    )
    known = {
        item.id
        for item in items
        if metrics.holds(answers[item.id, "none", PLAIN, CLOSED_BOOK], item.memory_answers)
    }
    asked = [item for item in items if item.id in known or item.true_context]
    path = target / "observations.jsonl"
    seen = _kept(path)
    todo = sorted((item for item in asked if item.id not in seen), key=lambda i: len(i.context))
    with tqdm(total=len(todo), desc="both sides", unit=" items", delay=2) as bar:
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            observed = _observe(language_model, batch, known)
            with path.open("a", encoding="utf-8") as file:
                file.writelines(_line(observation) + "\n" for observation in observed)
            seen |= {observation.id: observation for observation in observed}
            bar.update(len(batch))
    return [seen[item.id] for item in asked]


def _observe(
    language_model: LanguageModel, batch: Sequence[Conflict], known: set[str]
) -> list[Observation]:
    how = Decoding(max_new_tokens=MAX_NEW_TOKENS)
    room = language_model.room(how.max_new_tokens)
    asked = [
        prompts.build(
            language_model.tokenizer,
            item.question,
            [item.context if item.id in known else item.true_context or ""],
            room,
        )
        for item in batch
    ]
    drafted = drafts.compare(language_model, asked, how)
    ways: list[list[Resolution]] = [
        ["plain", "memory", "grounded"] if view.grounded else ["plain", "memory"]
        for view in drafted.comparisons
    ]
    observed = []
    for item, view, chosen, traces in zip(
        batch, drafted.comparisons, ways, dial.finish(drafted, ways), strict=True
    ):
        texts = {way: trace.text for way, trace in zip(chosen, traces, strict=True)}
        observed.append(
            Observation(
                item.id,
                item.relation,
                item.id in known,
                view.claim is not None,
                view.grounded is not None,
                view.features,
                {way: metrics.holds(text, item.context_answers) for way, text in texts.items()},
                {way: metrics.holds(text, item.memory_answers) for way, text in texts.items()},
            )
        )
    return observed


def _line(observation: Observation) -> str:
    values = {name: getattr(observation, name) for name in observation.__dataclass_fields__}
    if observation.evidence is not None:
        values["evidence"] = [
            base64.b64encode(each.numpy().astype(np.float32).tobytes()).decode()
            for each in (observation.evidence.numbers, observation.evidence.states)
        ] + [len(observation.evidence.states)]
    return json.dumps(values)


def _kept(path: Path) -> dict[str, Observation]:
    """The observations of an interrupted run."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:  # the last line of a killed run
        path.write_text(whole, encoding="utf-8")
    kept = {}
    for line in whole.splitlines():
        values = json.loads(line)
        if values["evidence"] is not None:
            numbers, states, rows = values["evidence"]
            values["evidence"] = ProbeFeatures(_tensor(numbers), _tensor(states).reshape(rows, -1))
        kept[values["id"]] = Observation(**values)
    return kept


def _tensor(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype=np.float32).copy())
