"""Examples for the Knowledge Filter: does this passage hold a clear answer to this question?

Made from the calibration relations alone. Whether the answer is *true* is not the filter's
business, so passages with a swapped answer count as answering.
"""

import json
import random
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from control.forgetting.learned_facts import LearnedFact
from data import DIRECTORY as DATA
from data.build import slug
from training.rewrites import VAGUE, relation_rows, searches, wording_bank

HERE = Path(__file__).parent
DEVELOPMENT = ("landmark_country", "mythology")  # held out: the threshold is chosen on them
WINDOW_WORDS = (35, 110)  # of passages cut from running text, as web chunks are
DIGIT = re.compile(r"\d")


@dataclass(frozen=True)
class VerdictExample:
    """A question, a passage, and whether the one answers the other."""

    relation: str
    kind: str
    question: str
    title: str
    text: str
    answers: bool


@dataclass(frozen=True)
class Material:
    """A fact with all that is needed to ask about it."""

    relation: str
    row: dict[str, str]
    question: str
    title: str
    text: str
    swapped: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


def build_examples(seed: int = 0) -> tuple[list[VerdictExample], list[VerdictExample]]:
    """Examples to learn from, and those of the held-out relations, each in random order."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    by_relation: dict[str, list[Material]] = defaultdict(list)
    for material in _materials():
        by_relation[material.relation].append(material)
    learn, develop = list[VerdictExample](), list[VerdictExample]()
    everything = [one for group in by_relation.values() for one in group]
    for relation, group in by_relation.items():
        held_out = relation in DEVELOPMENT
        strangers = [one for one in everything if (one.relation in DEVELOPMENT) == held_out]
        made = [
            example
            for material in group
            for example in _build_fact_examples(material, group, strangers, draw)
        ]
        (develop if held_out else learn).extend(made)
    draw.shuffle(learn)
    draw.shuffle(develop)
    return learn, develop


def learned(examples: Sequence[VerdictExample]) -> list[LearnedFact]:
    """The facts that the passages of examples state, true or swapped."""
    by_text, by_question = dict[str, LearnedFact](), dict[str, tuple[Material, ...]]()
    for one in _materials():
        by_text[one.text] = LearnedFact(one.question, one.right)
        by_text[one.swapped] = LearnedFact(one.question, one.wrong)
        by_question[one.question] = (*by_question.get(one.question, ()), one)
    found = []
    for example in examples:
        if example.text in by_text:
            found.append(by_text[example.text])
        for one in by_question.get(example.question, ()):
            for answers in (one.right, one.wrong):
                if example.answers and _mentions(example.text, answers):
                    found.append(LearnedFact(one.question, answers))
    return list(dict.fromkeys(found))


def _materials() -> Iterator[Material]:
    passages = {row["id"]: row for row in _read("passages.jsonl")}
    rows: dict[str, dict[str, str]] = {}
    for conflict in _read("conflicts.jsonl"):
        if conflict["split"] != "calibration":
            continue
        relation, passage = conflict["relation"], passages[conflict["id"]]
        if not any(key.startswith(f"{relation}-") for key in rows):
            for row in relation_rows(relation):
                rows[f"{relation}-{slug(row['subject'])}"] = row
        yield Material(
            relation,
            rows[conflict["id"]],
            conflict["question"],
            passage["title"],
            conflict["true_context"],
            conflict["context"],
            tuple(conflict["memory_answers"]),
            tuple(conflict["context_answers"]),
        )


def _read(name: str) -> Iterator[dict]:
    with (DATA / name).open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _build_fact_examples(
    fact: Material, group: Sequence[Material], strangers: Sequence[Material], draw: random.Random
) -> Iterator[VerdictExample]:
    """A dozen or so examples around one fact, about as many of each verdict."""
    wordings = _wordings()
    subject = fact.row.get("the", "") + fact.row["subject"]
    yield _example(fact, "own", fact.question, fact.text, True)
    yield _example(fact, "swapped", fact.question, fact.swapped, True)
    for wording in wordings["own"].get(fact.relation, ()):  # vague questions, and searches
        yield _example(fact, "own", wording.format(s=subject), fact.text, True)
    for column, wording in wordings["columns"].get(fact.relation, {}).items():
        stated = fact.row[column].casefold() in fact.text.casefold()
        yield _example(fact, "column", wording.format(**fact.row), fact.text, stated)
    for wording in draw.sample(wordings["absent"].get(fact.relation, []), 2):
        question = wording.format(s=subject)
        if not (DIGIT.search(fact.text) and re.match(r"When|In which year|How", question)):
            yield _example(fact, "absent", question, fact.text, False)
    searches = wordings["own"].get(fact.relation) or ["{s}"]
    for other in _neighbours(fact, group, draw):
        yield _example(fact, "other", fact.question, other.text, False, other.title)
        search = draw.choice(searches).format(s=subject)
        yield _example(fact, "other", search, other.text, False, other.title)
    stranger = draw.choice(strangers)
    if stranger.relation != fact.relation:
        yield _example(fact, "stranger", fact.question, stranger.text, False, stranger.title)
    yield from _build_cut_examples(fact, strangers, draw)


def _build_cut_examples(
    fact: Material, strangers: Sequence[Material], draw: random.Random
) -> Iterator[VerdictExample]:
    """Passages from which the answer was taken, and windows of running text."""
    if rest := _without(fact.text, fact.right):
        yield _example(fact, "stripped", fact.question, rest, False)
        if mixed := _without(draw.choice(strangers).text, fact.right):
            yield _example(fact, "stripped", fact.question, _shuffled(draw, rest, mixed), False)
    text, right = draw.choice(((fact.text, fact.right), (fact.swapped, fact.wrong)))
    window = _window(draw, f"{draw.choice(strangers).text} {text} {draw.choice(strangers).text}")
    saying = [part for part in _sentences(window) if _mentions(part, right)]
    # Where the answer stands without the subject, it may be another passage's.
    if not saying or any(_mentions(part, (fact.row["subject"],)) for part in saying):
        yield _example(fact, "window", fact.question, window, bool(saying))


def _example(
    fact: Material, kind: str, question: str, text: str, answers: bool, title: str = ""
) -> VerdictExample:
    return VerdictExample(fact.relation, kind, question, title or fact.title, text, answers)


def _neighbours(fact: Material, group: Sequence[Material], draw: random.Random) -> list[Material]:
    """Three others of the relation: one with the same answer, one of a like name, one at random."""
    others = [one for one in group if one.row["subject"] != fact.row["subject"]]
    same = [one for one in others if one.row["answer"] == fact.row["answer"]]
    words = set(fact.row["subject"].lower().split())
    like = max(
        others, key=lambda one: (len(words & set(one.row["subject"].lower().split())), one.title)
    )
    chosen = [like, draw.choice(others), *([draw.choice(same)] if same else [])]
    return list({one.title: one for one in chosen}.values())


@cache
def _wordings() -> dict[str, dict]:
    """By relation: other wordings of its question, questions on columns, those never answered."""
    columns = tomllib.loads((HERE / "verdicts.toml").read_text(encoding="utf-8"))
    own, absent = dict[str, list[str]](), dict[str, list[str]]()
    for spec in wording_bank().values():
        if relation := spec.get("relation"):
            first, *others = spec["attributes"]  # the first is what the relation is about
            vague = [text.removeprefix(VAGUE) for text in first if text[0] == VAGUE]
            own[relation] = [*vague[:1], *searches(first[0], "{s}")]
            told = " ".join(map(_bare, columns.get(relation, {}).values()))
            absent[relation] = [
                text
                for noun, *texts in others
                for text in texts
                if text[0] != VAGUE and noun.split()[-1] not in told and _bare(text) not in told
            ]
    return {"own": own, "columns": columns, "absent": absent}


def _bare(wording: str) -> str:
    """A wording without its subject, to compare those of the two files."""
    return re.sub(r"\{the\}|\{\w+\}", "{}", wording)


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) ", text)


def _without(text: str, answers: Sequence[str]) -> str:
    """The sentences that do not hold an answer; empty if too little is left to judge."""
    rest = [part for part in _sentences(text) if not _mentions(part, answers)]
    left = " ".join(rest)
    enough = len(rest) > 1 or len(left) > len(text) // 2
    return left if enough and not _mentions(left, answers) else ""


def _mentions(text: str, phrases: Sequence[str]) -> bool:
    return any(
        re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) for phrase in phrases
    )


def _shuffled(draw: random.Random, one: str, two: str) -> str:
    parts = [*_sentences(one), *_sentences(two)[:2]]
    draw.shuffle(parts)
    return " ".join(parts)


def _window(draw: random.Random, text: str) -> str:
    words = text.split()
    size = draw.randint(*WINDOW_WORDS)
    start = draw.randrange(max(1, len(words) - size))
    return " ".join(words[start : start + size])
