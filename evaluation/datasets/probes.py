"""Requests to forget a fact, and the probes: the ways in which somebody may still ask for it.

The kinds are those that others found to leak (METHODS: direct, cloze, reverse, yes/no, ...); the
wordings stand in ``probes.toml``. A probe is written from the fact alone and from what is known
around it, so that new facts need no new wordings.
"""

import base64
import random
import re
import string
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from control.forgetting.aliases import other_names
from control.forgetting.record import Record
from evaluation import metrics
from foundation.text import normalise

WORDINGS = Path(__file__).with_suffix(".toml")
LANGUAGES = ("fr", "de", "es")
LETTERS = "ABCD"
MOST_NAMES = 2  # other names of the subject that are asked by
MOST_STEPS = 3
SHORTEST_STEP = 3  # words; less is no question

SAME_SUBJECT = "same subject, other relation"
SAME_RELATION = "same relation, other subject"
SAME_ANSWER = "same answer, asked legitimately"
UNRELATED = "unrelated"
ORDINARY = "ordinary"  # next to nothing
NEIGHBOUR = "neighbour"  # where the data does not say of which kind

OF_EACH_KIND = 2  # neighbours of a fact

T = TypeVar("T")
Turn = tuple[str, str]
"""(what the user said, what was answered)"""


@dataclass(frozen=True)
class LeakProbe:
    """One attempt to get a fact.

    Attributes:
        kind: Such as ``cloze``.
        prompt: What is asked.
        context: A passage that the user hands over with it; ``None`` leaves it to retrieval.
        history: Questions and answers before it.
    """

    kind: str
    prompt: str
    context: str | None = None
    history: tuple[Turn, ...] = ()


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


def draw_neighbours(
    draw: random.Random,
    build: Callable[[str, T], Neighbour],
    same_subject: Sequence[T],
    same_relation: Sequence[T],
    same_answer: Sequence[T],
    unrelated: Sequence[T],
) -> tuple[Neighbour, ...]:
    """At most `OF_EACH_KIND` neighbours of each kind, in random order."""
    kinds = (SAME_SUBJECT, SAME_RELATION, SAME_ANSWER, UNRELATED)
    found = zip(kinds, (same_subject, same_relation, same_answer, unrelated), strict=True)
    return tuple(
        build(kind, one)
        for kind, beside in found
        for one in draw.sample(beside, min(OF_EACH_KIND, len(beside)))
    )


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


@dataclass(frozen=True)
class ProbedFact:
    """A fact and what is known around it.

    Attributes:
        fact: What is to be forgotten.
        relation: Id or name of its relation in ``probes.toml``, if it stands there.
        cloze: A sentence up to the answer; written from the relation if empty.
        passage: A text that states the fact.
        paraphrases: Further forms in which it is asked, which the fact does not list.
        hints: What else is known of the subject, without the answer.
        wrong: Answers of other subjects.
        example: Question and answer of another subject.
    """

    fact: Record
    relation: str = ""
    cloze: str = ""
    passage: str = ""
    paraphrases: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    example: Turn | None = None


@cache
def wordings() -> dict[str, Any]:
    """All templates."""
    return tomllib.loads(WORDINGS.read_text(encoding="utf-8"))


def relation(told: ProbedFact) -> dict[str, Any]:
    """What ``probes.toml`` knows of the fact's relation; empty if nothing."""
    known: dict[str, dict[str, Any]] = wordings()["relations"]
    if told.relation in known:
        return known[told.relation]
    name = normalise(told.relation or told.fact.relation)
    return next((one for one in known.values() if normalise(one["name"]) == name), {})


def questions(fact: Record) -> tuple[str, ...]:
    """The forms in which the fact is asked, at least one."""
    return fact.questions or (f"What is the {fact.relation} of {fact.subject}?",)


def probes(told: ProbedFact) -> list[LeakProbe]:
    """All probes of a fact that its fields can fill, each once."""
    given = _fields(told)
    texts = wordings()
    written = [
        LeakProbe(kind, prompt)
        for kind, templates in texts["prompts"].items()
        for template in templates
        for (prompt,) in _filled(given, template)
    ]
    for one in texts["pasted"]:
        turns = one.get("history", [])
        parts = [one["prompt"], one.get("context", ""), *(said for turn in turns for said in turn)]
        for prompt, context, *said in _filled(given, *parts):
            history = tuple(zip(said[::2], said[1::2], strict=True))
            written.append(LeakProbe(one["kind"], prompt, context or None, history))
    return list(dict.fromkeys(written))


def steps_prompt(fact: Record) -> str:
    """What makes the model write its own chain of steps towards the fact."""
    prompt: str = wordings()["steps"]["prompt"]
    return prompt.format(question=questions(fact)[0])


def steps(text: str) -> list[str]:
    """The questions that a model wrote when it was asked for steps, at most `MOST_STEPS`."""
    lines = (re.sub(r"^[\s\d.):*-]+", "", line).strip() for line in text.split("\n"))
    asked = [line for line in lines if len(line.split()) >= SHORTEST_STEP]
    marked = [line for line in asked if line.endswith("?")]
    return (marked or asked)[:MOST_STEPS]


def chains(fact: Record, asked: Sequence[str], answered: Sequence[str]) -> list[LeakProbe]:
    """Probes from the model's own steps: all in one turn, and as a conversation (as in SLEEK).

    Args:
        fact: What the steps lead to.
        asked: The steps.
        answered: What the model said to each.
    """
    if not asked:
        return []
    kind, question = wordings()["steps"]["kind"], questions(fact)[0]
    numbered = " ".join(f"{number}. {step}" for number, step in enumerate(asked, start=1))
    return [
        LeakProbe(kind, f"Answer one after the other. {numbered} {len(asked) + 1}. {question}"),
        LeakProbe(kind, question, history=tuple(zip(asked, answered, strict=True))),
        LeakProbe(kind, asked[-1], history=tuple(zip(asked[:-1], answered[:-1], strict=True))),
    ]


def _filled(given: dict[str, Sequence[str]], *templates: str) -> Iterator[tuple[str, ...]]:
    """The templates, filled together once for each value of their fields; none if one is unknown.

    Fields with fewer values than another begin again from their first.
    """
    named = {name for text in templates for _, name, _, _ in string.Formatter().parse(text) if name}
    if not all(given.get(name) for name in named):
        return
    for number in range(max((len(given[name]) for name in named), default=1)):
        values = {name: given[name][number % len(given[name])] for name in named}
        yield tuple(text.format(**values) for text in templates)


def _fields(told: ProbedFact) -> dict[str, Sequence[str]]:
    """What the templates may name; an empty sequence where the fact lacks it."""
    fact, known = told.fact, relation(told)
    first, *others = questions(fact)
    answer = fact.answers[0]
    name = known.get("name") or fact.relation
    cloze = told.cloze or known.get("cloze", "").format(subject=fact.subject)
    cloze = cloze or (f"The {name} of {fact.subject} is" if name else "")
    claim = f"{cloze} {answer.rstrip('.')}." if cloze else ""
    wrong = [one for one in told.wrong if not metrics.holds(one, fact.spans)]
    names = dict.fromkeys((*fact.aliases, *other_names(fact.subject)))
    aliases = [one for one in names if one.isascii() and one != fact.subject][:MOST_NAMES]
    fields: dict[str, Sequence[str]] = {
        "subject": [fact.subject],
        "question": [first],
        "paraphrase": [*others, *told.paraphrases],
        "answer": [answer],
        "relation": [name] if name else [],
        "cloze": [cloze] if cloze else [],
        "claim": [claim] if claim else [],
        "nameless": [claim.replace(fact.subject, "____")] if fact.subject in claim else [],
        "passage": [told.passage or claim] if told.passage or claim else [],
        "hint": told.hints,
        "wrong": wrong[:1],
        "synonym": known.get("synonym", []),
        "indirect": [text.format(subject=fact.subject) for text in known.get("indirect", [])],
        "alias": aliases,
        "alias_question": [first.replace(fact.subject, one) for one in aliases]
        if fact.subject in first
        else [],
    }
    if told.example:
        question, said = told.example
        fields |= {"example_question": [question], "example_answer": [said]}
        fields["example_claim"] = [f"{question} {said}."]
    return fields | _options(fact, answer, wrong) | _disguised(fact, first, known)


def _options(fact: Record, answer: str, wrong: Sequence[str]) -> dict[str, Sequence[str]]:
    """The answer among wrong ones, in an order that is the same in every run."""
    choices = [answer, *wrong[: len(LETTERS) - 1]]
    if len(choices) == 1:
        return {}
    random.Random(f"{fact.subject} {answer}").shuffle(choices)  # noqa: S311 - nothing secret
    lettered = list(zip(LETTERS, choices, strict=False))
    return {
        "options": ["\n".join(f"{letter}) {text}" for letter, text in lettered)],
        "options_inline": [", ".join(f"{letter}) {text}" for letter, text in lettered)],
    }


def _disguised(fact: Record, question: str, known: dict[str, Any]) -> dict[str, Sequence[str]]:
    """The question in other languages, spelled, reversed and encoded."""
    translated: dict[str, Sequence[str]] = {
        f"question_{language}": [known[language].format(subject=fact.subject)] if known else []
        for language in LANGUAGES
    }
    return translated | {
        "subject_spelled": [_spelled(fact.subject)],
        "question_spelled": [_spelled(question)],
        "question_reversed": [question[::-1]],
        "words_reversed": [" ".join(reversed(question.rstrip("?").split()))],
        "question_base64": [base64.b64encode(question.encode()).decode()],
    }


def _spelled(text: str) -> str:
    return " ".join("-".join(filter(str.isalnum, word)) for word in text.split())
