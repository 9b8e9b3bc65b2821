"""Contexts that agree with a fact, contradict it, or have nothing to do with it.

KnowPO's (Zhang et al. 2024) four kinds. A context is four passages in random order, so that neither
place nor length tells which of them answers.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from foundation.text import holds, normalise
from training.corpus import Contrary, CorpusFact

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["relevant", "counterfactual", "irrelevant", "empty"]
Embed = Callable[[Sequence[str]], "NDArray[np.float32]"]
"""Texts to unit vectors, shape (texts, dimension)"""

PASSAGES = 4
OFF_TOPIC = {"relevant": 2, "irrelevant": 3}
NEAREST = 8  # passages that count as of the same topic
SENTENCE_BEFORE = re.compile(r"(?:^|[.!?] )$")
DRAWS = 12  # other answers among which the one of the closest length stands in for the answer


@dataclass(frozen=True)
class Context:
    """Passages to read with a question.

    Attributes:
        passages: In the order in which they are read.
        says: What they answer, with its other names; empty where they do not answer.
        distractors: Answers of other questions that stand in them, of the fact's own kind first.
    """

    passages: tuple[str, ...]
    says: tuple[str, ...]
    distractors: tuple[str, ...]


@dataclass(frozen=True)
class ContextCase:
    """A fact with its contexts.

    Attributes:
        fact: The fact.
        relevant: The passage that answers, one on the same topic, two on others.
        counterfactual: The same with the answer replaced wherever it stands.
        irrelevant: One passage on the same topic and three on others, none with the answer.
    """

    fact: CorpusFact
    relevant: Context
    counterfactual: Context
    irrelevant: Context

    def context(self, kind: Kind) -> Context:
        """The context of a kind."""
        return Context((), (), ()) if kind == "empty" else getattr(self, kind)


def build(
    facts: Sequence[CorpusFact],
    embed: Embed,
    length: Callable[[str], int] = len,
    match_lengths: bool = True,
    seed: int = 0,
) -> list[ContextCase]:
    """Contexts for all facts that others of the corpus can stand beside.

    A fact is left out if no other answer of its kind fits into its passage, or if too few passages
    are free of its answers.

    Args:
        facts: The corpus.
        embed: Says which passages are of the same topic.
        length: Of an answer, in tokens.
        match_lengths: Replace an answer by one about as long; else by any.
        seed: Of the draw.
    """
    passages = embed([fact.passage for fact in facts])
    questions = embed([fact.question for fact in facts])
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    size = length if match_lengths else (lambda _: 0)
    cases = []
    for place, fact in enumerate(facts):
        told = fact.contrary or _draw_counterfactual(fact, facts, size, draw)
        if told and (case := _build_case(facts, place, questions[place] @ passages.T, told, draw)):
            cases.append(case)
    return cases


def _build_case(
    facts: Sequence[CorpusFact],
    place: int,
    near: "NDArray[np.float32]",
    contrary: Contrary,
    draw: random.Random,
) -> ContextCase | None:
    fact, (told, other) = facts[place], contrary
    free = [
        index
        for index in np.argsort(-near).tolist()
        if index != place and not holds(facts[index].passage, (*fact.answers, *other))
    ]
    strangers = sum(OFF_TOPIC.values())
    topic, far = free[:NEAREST], [facts[index] for index in free[len(free) // 2 :]]
    off = [other for other in far if other.kind != fact.kind]
    off = off if len(off) >= strangers else far
    if len(topic) < len(OFF_TOPIC) or len(off) < strangers:
        return None
    beside, instead = (facts[index] for index in draw.sample(topic, len(OFF_TOPIC)))
    drawn = draw.sample(off, strangers)
    two, three = drawn[: OFF_TOPIC["relevant"]], drawn[OFF_TOPIC["relevant"] :]
    order = draw.sample(range(PASSAGES), PASSAGES)
    return ContextCase(
        fact,
        _build_context(fact.passage, fact.answers, [beside, *two], order, fact.kind),
        _build_context(told, other, [beside, *two], order, fact.kind),
        _build_context(None, (), [instead, *three], draw.sample(order, PASSAGES), fact.kind),
    )


def _build_context(
    answering: str | None,
    says: tuple[str, ...],
    others: list[CorpusFact],
    order: list[int],
    kind: str,
) -> Context:
    texts = [*([] if answering is None else [answering]), *(other.passage for other in others)]
    distractors = sorted(others, key=lambda other: other.kind != kind)
    return Context(
        tuple(texts[place] for place in order),
        says,
        tuple(dict.fromkeys(other.answers[0] for other in distractors)),
    )


def _draw_counterfactual(
    fact: CorpusFact, facts: Sequence[CorpusFact], length: Callable[[str], int], draw: random.Random
) -> Contrary | None:
    """The passage with another answer of the same type, wrong for this fact, and about as long."""
    others = [other for other in facts if other.kind == fact.kind and _fits(other, fact)]
    if not others:
        return None
    drawn = draw.sample(others, min(DRAWS, len(others)))
    wanted = length(fact.answers[0])
    chosen = min(drawn, key=lambda other: abs(length(other.answers[0]) - wanted)).answers
    return replace_answer(fact.passage, fact.answers, chosen[0]), chosen


def _fits(other: CorpusFact, fact: CorpusFact) -> bool:
    answer = other.answers[0]
    apart = not holds(answer, fact.answers) and not any(
        holds(one, other.answers) for one in fact.answers
    )
    told = replace_answer(fact.passage, fact.answers, answer)
    return (
        apart
        and bool(normalise(answer))
        and not holds(fact.question, other.answers)
        and not holds(fact.passage, other.answers)
        and not holds(told, fact.answers)
    )


def replace_answer(text: str, answers: Sequence[str], by: str) -> str:
    """``text`` with every name of an answer replaced; a sentence still begins with a capital."""
    names = "|".join(re.escape(name) for name in sorted(answers, key=len, reverse=True))

    def instead(match: re.Match[str]) -> str:
        begins = SENTENCE_BEFORE.search(text[: match.start()])
        return by[:1].upper() + by[1:] if begins else by

    return re.sub(rf"(?<!\w)(?:{names})(?!\w)", instead, text, flags=re.IGNORECASE)
