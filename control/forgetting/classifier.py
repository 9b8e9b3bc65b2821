"""Whether a message asks for a forgotten fact, and whether a sentence states it.

A cross-encoder reads the fact and the text together, as in natural language inference: the packaged
embedding model with a low-rank adapter (`training.fact_classifier`). Of a message it is told what
the fact asks and not the answer, so that a right guess is judged as a wrong one is. It reads
English; of other languages what `word_translation` makes of them.
"""

from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Protocol

from control.encoders import PairClassifier
from control.forgetting.questions import asked_forms
from control.forgetting.record import Record
from control.forgetting.segments import Turns
from control.prompts import with_title

LONGEST = 192  # word pieces of fact and text; more are cut from the text
LONGEST_FACT = 400  # characters of a fact
LONGEST_ANSWER = 200  # characters of an earlier answer, and of a fact's
LONGEST_BEFORE = 160  # characters of each sentence that precedes one
MOST_ALIASES, MOST_QUESTIONS = 2, 2  # of a fact that are read


class FactJudge(Protocol):
    """What judges messages and sentences by facts, such as a `FactClassifier`."""

    def asks(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """How likely a good answer to a message would tell, confirm or hint at a fact, in [0, 1].

        Args:
            pairs: What the message says, as of `in_conversation`, and what is asked, as of `asked`
                or `asked_backwards`.
        """

    def states(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """How likely a sentence gives a fact away, in [0, 1].

        Args:
            pairs: The sentence, as of `in_passage`, and the fact, as of `stated`.
        """


class FactClassifier(PairClassifier):
    """Judges pairs of a text and a fact, as `FactJudge`."""

    def asks(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """How likely messages ask for facts."""
        return self.probabilities([(fact, text) for text, fact in pairs])

    states = asks


def load(base: Path, adapter: Path) -> FactClassifier:
    """The packaged encoder with its adapter merged; arguments and errors as of `reader.load`."""
    return FactClassifier.load(base, adapter, LONGEST)


def in_conversation(question: str, history: Turns = ()) -> str:
    """A message after the turn before it, if there is one."""
    if not history:
        return question
    asked, answered = history[-1]
    return f"Before: {asked} {answered[:LONGEST_ANSWER]} Now: {question}"


def in_passage(sentence: str, before: str = "", title: str = "") -> str:
    """A sentence after what precedes it, as of `context`, with the title of its document."""
    return with_title(title, f"Before: {before} Now: {sentence}" if before else sentence)


def context(sentences: Sequence[str], place: int, naming: Set[int], titled: bool) -> str:
    """What precedes the sentence at an index: the one before it, and where the subject was named.

    The latter only where neither the title (``titled``) nor these two sentences name it; ``naming``
    has the indices of the sentences that do.
    """
    before = sentences[place - 1][-LONGEST_BEFORE:] if place else ""
    last = max((one for one in naming if one < place), default=place)
    if titled or place in naming or last >= place - 1:
        return before
    return f"{sentences[last][:LONGEST_BEFORE]} {before}"


def asked(record: Record) -> str:
    """What a record's question asks, without its answer."""
    return _fact(_named(record), record.relation, asked_forms(record)[:MOST_QUESTIONS])


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
