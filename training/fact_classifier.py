"""Trains the classifier of forgotten facts (`control.forgetting.classifier`).

From facts with messages and sentences written for it (``facts.jsonl``), and from the questions of
`training.fact_questions`. One fact in eight of the written ones is held out.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from control.forgetting.classifier import (
    LONGEST,
    asked,
    asked_backwards,
    in_conversation,
    stated,
)
from control.forgetting.matcher import find_answers
from control.forgetting.normalize import find
from control.forgetting.questions import question_forms
from control.forgetting.record import Record
from control.forgetting.segments import mask
from control.forgetting.text_redaction import MASK
from control.forgetting.word_translation import translated
from control.prompts import with_title
from data import DIRECTORY as DATA
from training.encoders import SMOKE, EncoderTask, tune
from training.fact_questions import build_cases

READER = DATA / "adapters" / "reader"  # of the same rank
WRITTEN = Path(__file__).with_name("facts.jsonl")
DEVELOPMENT = 8  # one in so many written facts is held out
RANK, EPOCHS = 64, 3
# At the rate of the other encoders it learned nothing but how frequent the labels are.
LEARNING_RATE = 4e-4
ORIGIN = """\
It goes on from the encoder of the adapter `reader`. `training/fact_classifier.py` builds the
examples, from facts with messages and sentences written for it (`training/facts.jsonl`) and from
templates. What it is worth: `docs/forgetting.md`."""
MADE = 4_000  # of the made questions that are learned from
WITH_RELATION = 0.8  # share of the records that say their relation
MASKED = 0.5  # share of the stating sentences that are also shown with the answer masked
LOWERED = 0.3  # share of the questions about other subjects in small letters
BACKWARDS = ("reverse", "same answer")  # kinds of made questions that say the answer


class FactExample(NamedTuple):
    """A text, what is known of the fact, and whether the text asks for it or states it.

    Attributes:
        kind: Of the text.
        text: A message or a sentence.
        fact: As `control.forgetting.classifier` writes it.
        concerns: Whether it asks for the fact or gives it away.
    """

    kind: str
    text: str
    fact: str
    concerns: bool


def written(held_out: bool = False) -> list[dict[str, Any]]:
    """The written facts: to learn from, or those held out."""
    with WRITTEN.open(encoding="utf-8") as file:
        return [
            fact
            for number, fact in enumerate(map(json.loads, file))
            if (number % DEVELOPMENT == 0) == held_out
        ]


def record_of(fact: dict[str, Any]) -> Record:
    """A written fact as a record."""
    return Record(
        fact["subject"],
        tuple(fact["aliases"]),
        fact["relation"],
        tuple(fact["questions"]),
        (fact["answer"],),
        tuple(fact["answer_aliases"]),
    )


def of_others(facts: Sequence[dict[str, Any]], draw: random.Random) -> Iterator[FactExample]:
    """What written facts ask, asked about the subject of another fact, also in small letters."""
    for fact in facts:
        record, other = record_of(fact), record_of(draw.choice(facts))
        if record.subject == other.subject:
            continue
        for text in record.questions:
            places = [(start, end) for start, end, _ in find(text, record.names)]
            asks = mask(text, places, other.subject)
            asks = asks.lower() if draw.random() < LOWERED else asks
            yield FactExample("other subject", asks, asked(_as_entered(record, draw)), not places)


def of_fact(fact: dict[str, Any], draw: random.Random) -> Iterator[FactExample]:
    """The messages and sentences of a written fact, each with one of the forms of its record."""
    record = record_of(fact)
    for kind, concerns in (("asking", True), ("beside", False)):
        for each in fact[kind]:
            text = in_conversation(each["text"], tuple(map(tuple, each.get("history", ()))))
            yield FactExample(kind, text, asked(_as_entered(record, draw)), concerns)
    for kind, concerns in (("stating", True), ("not_stating", False)):
        for each in fact[kind]:
            text = with_title(each["title"], each["sentence"])
            told = stated(_as_entered(record, draw))
            yield FactExample(kind, text, told, concerns)
            places = find_answers(each["sentence"], record) if concerns else []
            if places and draw.random() < MASKED:
                masked = with_title(each["title"], mask(each["sentence"], places, MASK))
                yield FactExample("masked", masked, told, False)


def _as_entered(record: Record, draw: random.Random) -> Record:
    """A record as users enter them: with its questions, with its relation alone, or with both."""
    if draw.random() >= WITH_RELATION:
        return replace(record, relation="")
    own = draw.sample(record.questions, draw.randint(0, len(record.questions)))
    return replace(record, questions=tuple(own or question_forms(record.subject, record.relation)))


def made() -> Iterator[FactExample]:
    """The made questions."""
    for case in build_cases():
        for each in case.questions:
            backwards = each.kind in BACKWARDS
            text = in_conversation(translated(each.text) or each.text, each.history)
            fact = asked_backwards(case.record) if backwards else asked(case.record)
            yield FactExample(each.kind, text, fact, each.asks)


def build(seed: int = 0) -> list[FactExample]:
    """All examples to learn from, in random order."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    examples = list(made())
    examples = draw.sample(examples, min(MADE, len(examples)))
    facts = written()
    for fact in facts:
        examples += of_fact(fact, draw)
    examples += of_others(facts, draw)
    draw.shuffle(examples)
    return examples


def train(target: Path, seed: int = 0, smoke: bool = False) -> Path:
    """Train the adapter; arguments, result and errors as of `training.encoders.tune`."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from retrieval.embedding import packaged_model

    tokenizer = AutoTokenizer.from_pretrained(packaged_model())
    examples: Sequence[FactExample] = build(seed)[: SMOKE if smoke else None]
    rows = [
        {
            **tokenizer(each.fact, each.text, truncation="longest_first", max_length=LONGEST),
            "labels": int(each.concerns),
        }
        for each in examples
    ]
    task = EncoderTask(
        "facts",
        AutoModelForSequenceClassification,
        "SEQ_CLS",
        "classifier",
        ("labels",),
        RANK,
        EPOCHS,
        LEARNING_RATE,
        ORIGIN,
        READER,
        "random",
    )
    return tune(task, tokenizer, rows, target, seed, smoke)
