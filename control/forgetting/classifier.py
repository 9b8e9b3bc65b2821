"""Whether a message asks for a forgotten fact, and whether a sentence states it.

A cross-encoder reads the fact and the text together, as in natural language inference: the packaged
embedding model with a low-rank adapter (`training.fact_classifier`). Of a message it is told what
the fact asks and not the answer, so that a right guess is judged as a wrong one is. It reads
English; of other languages what `word_translation` makes of them.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from control.conflict.reader import read_adapter
from control.forgetting.questions import asked_forms
from control.forgetting.record import Record

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Turns = Sequence[tuple[str, str]]

LONGEST = 192  # word pieces of fact and text; more are cut from the text
LONGEST_FACT = 400  # characters of a fact
LONGEST_ANSWER = 200  # characters of an earlier answer, and of a fact's
MOST_ALIASES, MOST_QUESTIONS = 2, 2  # of a fact that are read
BATCH = 32  # pairs


class FactJudge(Protocol):
    """What judges messages and sentences by facts, such as a `FactClassifier`."""

    def asks(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """How likely each message asks for a fact; as `FactClassifier.asks`."""

    def states(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """How likely each sentence states a fact; as `FactClassifier.states`."""


@dataclass(frozen=True)
class FactClassifier:
    """Judges pairs of a text and a fact.

    Attributes:
        model: The encoder with a head for two labels, in evaluation mode.
        tokenizer: Its tokenizer.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def asks(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """How likely a good answer to a message would tell, confirm or hint at a fact, in [0, 1].

        Args:
            pairs: What the message says, as of `in_conversation`, and what is asked, as of `asked`
                or `asked_backwards`.
        """
        return self._probabilities(pairs)

    def states(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """How likely a sentence gives a fact away, in [0, 1].

        Args:
            pairs: The sentence, with the title of its document, and the fact, as of `stated`.
        """
        return self._probabilities(pairs)

    def _probabilities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        by_length = sorted(range(len(pairs)), key=lambda at: len(pairs[at][0]) + len(pairs[at][1]))
        found: dict[int, float] = {}
        with self._lock, torch.inference_mode():  # a tokenizer serves one at a time
            for first in range(0, len(pairs), BATCH):
                places = by_length[first : first + BATCH]
                encoded = self.tokenizer(
                    [pairs[at][1] for at in places],
                    [pairs[at][0] for at in places],
                    truncation="longest_first",
                    max_length=LONGEST,
                    padding=True,
                    return_tensors="pt",
                ).to(self.model.device)
                likely = self.model(**encoded).logits.float().softmax(-1)[:, 1].tolist()
                found |= dict(zip(places, likely, strict=True))
        return [found[at] for at in range(len(pairs))]


def load(base: Path, adapter: Path) -> FactClassifier:
    """The packaged encoder with its adapter merged; arguments and errors as of `reader.load`."""
    from transformers import AutoModelForSequenceClassification

    return FactClassifier(*read_adapter(AutoModelForSequenceClassification, base, adapter))


def in_conversation(question: str, history: Turns = ()) -> str:
    """A message after the turn before it, if there is one.

    Args:
        question: What the user says now.
        history: The (question, answer) pairs before it.
    """
    if not history:
        return question
    asked, answered = history[-1]
    return f"Before: {asked} {answered[:LONGEST_ANSWER]} Now: {question}"


def asked(record: Record, named: bool = False) -> str:
    """What a record's question asks, without its answer.

    Args:
        record: The fact.
        named: Whether the message calls its subject as the record does, so that other names of it
            tell nothing.
    """
    subject = record.subject if named else _named(record)
    return _fact(subject, record.relation, asked_forms(record)[:MOST_QUESTIONS])


def asked_backwards(record: Record) -> str:
    """The reversed question: of what this is the answer."""
    answer = record.answers[0][:LONGEST_ANSWER]
    return _fact(answer, f"{record.relation or 'answer'} of what or whom?", record.questions[:1])


def stated(record: Record) -> str:
    """What a sentence that gives a record away states."""
    answer = " or ".join(record.answers)[:LONGEST_ANSWER]
    asks = record.relation or " ".join(record.questions[:1])
    return f"{_named(record)}: {asks}: {answer}"[:LONGEST_FACT]


def _named(record: Record) -> str:
    aliases = ", ".join(record.aliases[:MOST_ALIASES])
    return f"{record.subject} ({aliases})" if aliases else record.subject


def _fact(subject: str, relation: str, questions: Iterable[str]) -> str:
    return f"{subject}: {' '.join(filter(None, [relation, *questions]))}"[:LONGEST_FACT]
