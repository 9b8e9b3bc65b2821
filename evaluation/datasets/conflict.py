"""A conflict between a passage and what is generally known."""

from dataclasses import dataclass

from foundation.records import DataRecord
from foundation.text import holds

INDISTINCT = "the answers of passage and memory hold one another"
ECHO = "the question holds an answer, so that repeating it would count"


@dataclass(frozen=True)
class Conflict:
    """A question whose passage contradicts what is generally known.

    Attributes:
        id: Stable name of the item.
        question: The question.
        context: The counterfactual passage.
        context_answers: What the passage says, aliases included.
        memory_answers: What is true and may be known from training, aliases included; empty only
            where an NQ-Synth file does not say it.
        true_context: The passage with the right answer, if there is one.
        split: Part of the data that it belongs to, if any.
        relation: Kind of fact, if stated.
    """

    id: str
    question: str
    context: str
    context_answers: tuple[str, ...]
    memory_answers: tuple[str, ...]
    true_context: str | None
    split: str | None
    relation: str | None


Result = Conflict | str
"""A conflict, or why there is none to be had from the record."""


def distinct(
    record: DataRecord,
    question: str,
    context: str,
    context_answers: tuple[str, ...],
    memory_answers: tuple[str, ...],
    true_context: str | None = None,
    relation: str | None = None,
    offered: bool = False,
) -> Result:
    """The conflict, unless a text would count for a side that it does not take.

    Args:
        record: Where it comes from.
        question: Its question.
        context: Its passage.
        context_answers: What the passage says.
        memory_answers: What the memory says.
        true_context: The passage with the right answer.
        relation: Kind of fact.
        offered: Whether the question offers both answers to choose from.
    """
    if any(holds(phrase, memory_answers) for phrase in context_answers) or any(
        holds(phrase, context_answers) for phrase in memory_answers
    ):
        return INDISTINCT
    if not offered and holds(question, context_answers + memory_answers):
        return ECHO
    return Conflict(
        id=str(record.values.get("case_id", record.number)),
        question=question,
        context=context,
        context_answers=context_answers,
        memory_answers=memory_answers,
        true_context=true_context,
        split=None,
        relation=relation,
    )
