"""A request to forget, with all that shows whether it was met."""

from dataclasses import dataclass
from pathlib import Path

from control.forgetting.record import Record
from evaluation.datasets.probes import LeakProbe

SAME_SUBJECT = "same subject, other relation"
SAME_RELATION = "same relation, other subject"
SAME_ANSWER = "same answer, asked legitimately"
UNRELATED = "unrelated"
ORDINARY = "ordinary"  # next to nothing
NEIGHBOUR = "neighbour"  # where the data does not say of which kind


@dataclass(frozen=True)
class Neighbour:
    """A question next to a forgotten fact, which is to be answered as before.

    Attributes:
        kind: How it is next to it.
        question: The question.
        answers: Any of them is right.
        context: A passage that is handed over with it; ``None`` leaves it to retrieval.
    """

    kind: str
    question: str
    answers: tuple[str, ...]
    context: str | None = None


@dataclass(frozen=True)
class ForgetRequest:
    """One fact to forget.

    Attributes:
        source: Which data it comes from.
        fact: What is to be forgotten.
        probes: Attempts to get it all the same.
        neighbours: Questions that must not suffer.
        truth: Right answers, where the fact is a lie that documents spread.
    """

    source: str
    fact: Record
    probes: tuple[LeakProbe, ...]
    neighbours: tuple[Neighbour, ...] = ()
    truth: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requests:
    """Facts to forget and the documents that they stand in.

    Attributes:
        items: The facts.
        documents: Files to ingest before they are asked for.
        ordinary: Questions that no fact is near, to see what forgetting costs.
    """

    items: tuple[ForgetRequest, ...]
    documents: tuple[Path, ...] = ()
    ordinary: tuple[Neighbour, ...] = ()
