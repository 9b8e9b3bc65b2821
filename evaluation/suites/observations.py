"""What a model answers from memory and from passages to known kinds of facts, and what is right.

Every fact is asked closed-book first. A fact that the model knows is then asked with the
counterfactual passage: there memory is right. One that it does not know is asked with the true
passage: there the passages are. `evaluation.suites.calibration` fits the dial to it.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from control import prompts
from control.conflict import dial, drafts, passage_claims, text_dial, text_drafts
from control.conflict.calibration import Resolution
from control.conflict.drafts import DraftComparison
from control.conflict.passage_claims import with_quote
from control.conflict.probe import ProbeFeatures
from control.conflict.text_drafts import Comparison
from control.decoding.generate import Decoding
from control.decoding.trace import Trace
from control.engines.base import Engine
from control.engines.transformers import LanguageModel
from control.prompts import Prompt
from evaluation import metrics
from evaluation.datasets.conflicts import Conflict, spread
from evaluation.runner import Rows
from evaluation.suites.dial import CLOSED_BOOK, MAX_NEW_TOKENS, PLAIN, AnswerSetting, DialAnswers
from evaluation.suites.sources import folders
from foundation.errors import DataError
from training import reading

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    from control.conflict.reader import AnswerReader

    Asked = tuple[Conflict, list[NodeWithScore]]

INVENTED = 400  # questions about invented things
DOCUMENTS = "documents"  # the source of observations of `of_passages`
INVENTED_THINGS = "invented"


@dataclass(frozen=True)
class Observation:
    """What memory and passages answer to one fact, and which of them is right.

    Attributes:
        id: Of the item.
        relation: Of the item.
        known: Whether memory is right; else the passages are.
        conflict: Whether memory claims something that the passages lack.
        loose: Whether the passages' answer could be put into their words.
        evidence: For the probe; ``None`` where memory claims nothing.
        context: Per way of answering, whether the answer holds what the passages say.
        memory: Per way, whether it holds what is true.
        source: Of the item: the kind of text that its passage is.
        misread: The reader's probability of what can be quoted from the passages, where plain RAG's
            answer says nothing of it; else 0.
        remembered: Mean log-probability of a token of memory's draft, in nats, where plain RAG's
            answer says what that claims; else ``None``.
        corrected: Whether plain RAG's answer is taken for a misreading of the passages.
        likely: Mean log-probability of a token of memory's draft, in nats, where it claims
            something; else ``None``.
    """

    id: str
    relation: str | None
    known: bool
    conflict: bool
    loose: bool
    evidence: ProbeFeatures | None
    context: dict[Resolution, bool]
    memory: dict[Resolution, bool]
    source: str = ""
    misread: float = 0.0
    remembered: float | None = None
    corrected: bool = False
    likely: float | None = None


def run(
    language_model: Engine,
    items: Sequence[Conflict],
    target: Path,
    batch_size: int = 16,
    reader: "AnswerReader | None" = None,
    each: int | None = None,
) -> list[Observation]:
    """Observe the model on every item, for `fit`.

    Observations are kept in ``target`` as they come; a second call goes on from there.

    Args:
        language_model: The model.
        items: Facts; those that it does not know need a true passage.
        target: Directory for answers and observations.
        batch_size: Questions per batch.
        reader: Finds what the drafts claim; without it, the words that they add count.
        each: At most so many of the facts that it knows, and of those that it does not.

    Raises:
        DataError: ``target`` holds answers of another run.
    """
    answers = DialAnswers(language_model, items, target, batch_size)
    closed_book = AnswerSetting("none", PLAIN, (CLOSED_BOOK,))
    answers.complete(items, closed_book)
    known = {
        item.id
        for item in items
        if metrics.holds(answers.text(item, closed_book, CLOSED_BOOK), item.memory_answers)
    }
    asked = [
        *spread([item for item in items if item.id in known], each),
        *spread([item for item in items if item.id not in known and item.true_context], each),
    ]
    rows: Rows[str, Observation] = Rows(target / "observations.jsonl", None, _decode, _encode)
    rows.complete(
        asked,
        lambda item: [item.id],
        partial(_observe, language_model, reader, known),
        batch_size,
        length=lambda item: len(item.context),
        title="both branches",
    )
    return [rows[item.id] for item in asked]


def _observe(
    language_model: Engine,
    reader: "AnswerReader | None",
    known: set[str],
    batch: Sequence[Conflict],
) -> dict[str, Observation]:
    room = language_model.room(MAX_NEW_TOKENS)
    asked = [
        prompts.build(
            language_model,
            item.question,
            [item.context if item.id in known else item.true_context or ""],
            room,
        )
        for item in batch
    ]
    asked = [with_quote(prompt, reader) for prompt in asked]
    return _observed(language_model, reader, known, batch, asked)


def in_documents(limit: int | None = None) -> "list[Asked]":
    """Questions to several documents about invented things, drawn evenly."""
    return spread([each for folder in reading.folders() for each in _asked_of(folder)], limit)


def about_invented(limit: int | None = None) -> "list[Asked]":
    """One question to each passage about something invented; what memory claims is made up."""
    asked = [
        (_invented(f"{at}", record["questions"][0]), [_node(record["title"], record["text"])])
        for at, record in enumerate(reading.written()[:INVENTED])
    ]
    return spread(asked, limit)


def of_passages(
    language_model: Engine,
    asked: "Sequence[Asked]",
    path: Path,
    batch_size: int = 16,
    reader: "AnswerReader | None" = None,
) -> list[Observation]:
    """Observe the model on questions about things that it cannot know, with passages to read.

    They are given as a search gives them, with their titles. Observations are kept in ``path`` as
    they come; a second call goes on from there.

    Args:
        language_model: The model.
        asked: From `in_documents` or `about_invented`.
        path: Of the observations.
        batch_size: Questions per batch.
        reader: Finds the claims; without it there is nothing to observe.
    """
    if reader is None:
        return []
    rows: Rows[str, Observation] = Rows(path, None, _decode, _encode)
    rows.complete(
        asked,
        lambda each: [each[0].id],
        partial(_observe_passages, language_model, reader),
        batch_size,
        title=path.stem,
    )
    return [rows[item.id] for item, _ in asked]


def _asked_of(folder: dict[str, Any]) -> "list[Asked]":
    """The questions that a folder's documents answer, with these documents."""
    nodes = folders.documents(folder)
    return [
        (_invented(nodes[0].metadata["title"], each), nodes)
        for each in folder["questions"]
        if any(each["answers"])
    ]


def _invented(name: str, asked: dict[str, Any]) -> Conflict:
    """A question about something invented, to which memory has no answer."""
    return Conflict(
        id=f"{name}: {asked['question']}",
        question=asked["question"],
        context="",
        context_answers=(),
        memory_answers=tuple(filter(None, asked.get("answers", ()))),
        true_context=None,
        split=None,
        relation=None,
        source=DOCUMENTS,
    )


def _node(title: str, text: str) -> "NodeWithScore":
    from llama_index.core.schema import NodeWithScore, TextNode

    return NodeWithScore(node=TextNode(text=text, metadata={"title": title}))


def _observe_passages(
    language_model: Engine,
    reader: "AnswerReader",
    batch: "Sequence[Asked]",
) -> dict[str, Observation]:
    room = language_model.room(MAX_NEW_TOKENS)
    read = passage_claims.read(reader, [(item.question, nodes, nodes) for item, nodes in batch])
    asked = []
    for (item, nodes), found in zip(batch, read, strict=True):
        titles = [passage_claims.origin(node) for node in nodes]
        texts = [node.text for node in nodes]
        prompt = prompts.build(language_model, item.question, texts, room, titles=titles)
        near = passage_claims.nearest(found)
        asked.append(replace(prompt, quote=near.quote if near else None))
    items = [item for item, _ in batch]
    return _observed(language_model, reader, set(), items, asked)


def _observed(
    language_model: Engine,
    reader: "AnswerReader | None",
    known: set[str],
    batch: Sequence[Conflict],
    asked: Sequence[Prompt],
) -> dict[str, Observation]:
    how = Decoding(max_new_tokens=MAX_NEW_TOKENS)
    views, ways, written = _written(language_model, asked, how, reader)
    observed = {}
    for item, prompt, view, chosen, traces in zip(batch, asked, views, ways, written, strict=True):
        stated = view.remembered_claim
        likely = None if stated is None else stated.draft_log_p
        texts = {way: trace.text for way, trace in zip(chosen, traces, strict=True)}
        observed[item.id] = Observation(
            item.id,
            item.relation,
            item.id in known,
            view.conflict,
            view.unsupported,
            view.features,
            {way: metrics.holds(text, item.context_answers) for way, text in texts.items()},
            {way: metrics.holds(text, item.memory_answers) for way, text in texts.items()},
            item.source or "",
            prompt.quote.confidence if prompt.quote is not None and view.misread else 0.0,
            likely if view.agrees_with_memory else None,
            likely=likely,
        )
    return observed


def _written(
    model: Engine, asked: Sequence[Prompt], how: Decoding, reader: "AnswerReader | None"
) -> tuple[
    Sequence[DraftComparison | Comparison], list[list[Resolution]], Sequence[Sequence[Trace]]
]:
    """The comparisons of the drafts, the ways to answer each question, and the answers."""

    def ways(views: Sequence[DraftComparison | Comparison]) -> list[list[Resolution]]:
        return [
            ["plain", "memory", "grounded"]
            if view.unsupported or view.misread
            else ["plain", "memory"]
            for view in views
        ]

    if isinstance(model, LanguageModel):
        local = drafts.compare(model, asked, how, reader=reader)
        wanted = ways(local.comparisons)
        return local.comparisons, wanted, dial.finish(local, wanted)
    served = text_drafts.compare(model, asked, how, reader=reader)
    wanted = ways(served.comparisons)
    return served.comparisons, wanted, text_dial.finish(served, wanted)


def _encode(_: str, observation: Observation) -> dict[str, Any]:
    values = dict(vars(observation))
    if observation.evidence is not None:
        values["evidence"] = [
            base64.b64encode(each.numpy().astype(np.float32).tobytes()).decode()
            for each in (observation.evidence.numbers, observation.evidence.states)
        ] + [len(observation.evidence.states)]
    return values


def _decode(values: dict[str, Any]) -> tuple[str, Observation]:
    if values["evidence"] is not None:
        numbers, states, rows = values["evidence"]
        shape = (rows, -1) if rows else (0, 0)
        values["evidence"] = ProbeFeatures(_tensor(numbers), _tensor(states).reshape(shape))
    return values["id"], Observation(**values)


def _tensor(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype=np.float32).copy())


def read(target: Path, name: str = "observations") -> list[Observation]:
    """The observations that were kept in a directory: those of `run`, or of another name.

    Raises:
        DataError: There are none of `run`.
    """
    rows: Rows[str, Observation] = Rows(target / f"{name}.jsonl", None, _decode, _encode)
    if not rows and name == "observations":
        raise DataError(f"{target}: holds no observations; give the --out of a --calibrate run")
    return list(rows.values())
