"""Built-in facts to forget: the corpus states them and the packaged model knows many by heart."""

import random
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from control.forgetting.record import Record
from data import DIRECTORY as DATA
from evaluation import metrics
from evaluation.datasets.conflicts import spread
from evaluation.datasets.probes import (
    OF_EACH_KIND,
    ORDINARY,
    ForgetRequest,
    Neighbour,
    ProbedFact,
    draw_neighbours,
    probes,
    wordings,
)
from foundation.text import normalise

if TYPE_CHECKING:
    from data.conversations import Fact

PASSAGES = DATA / "passages.jsonl"
SOURCE = "built-in"
TOLD_FORMS = 2  # question forms that the record holds; the others are probes it has not seen
WRONG = 3  # wrong options beside the right one


@dataclass(frozen=True)
class Corpus:
    """All built-in facts.

    Attributes:
        facts: In the order of their relations.
        passages: By the fact's id.
        forms: Question templates by relation.
    """

    facts: tuple["Fact", ...]
    passages: dict[str, str]
    forms: dict[str, list[str]]


@cache
def corpus() -> Corpus:
    """The facts as the corpus was built from them."""
    from data import build

    facts, passages, forms = [], {}, {}
    for path in sorted((DATA / "relations").glob("*.toml")):
        forms[path.stem] = tomllib.loads(path.read_text(encoding="utf-8"))["questions"]
        for passage, _, _, fact in build.facts(path.stem):
            facts.append(fact)
            passages[fact.id] = passage["text"]
    return Corpus(tuple(facts), passages, forms)


def requests(split: str, limit: int | None = None) -> list[ForgetRequest]:
    """Facts of a split with their probes and neighbours, every relation in its share."""
    known = corpus()
    chosen = spread([fact for fact in known.facts if fact.split == split], limit)
    beside = _NeighbourFinder(known.facts)
    return [_request(fact, known, beside) for fact in chosen]


def ordinary(split: str, limit: int, apart_from: Iterable[ForgetRequest]) -> list[Neighbour]:
    """Questions about subjects that none of the requests is about."""
    taken = [one.fact.subject for one in apart_from]
    free = [
        fact
        for fact in corpus().facts
        if fact.split == split and not metrics.holds(fact.question, taken)
    ]
    return [_neighbour(ORDINARY, fact) for fact in spread(free, limit)]


def _request(fact: "Fact", known: Corpus, beside: "_NeighbourFinder") -> ForgetRequest:
    from data.build import sentence_case

    relation = wordings()["relations"][fact.relation]
    forms = [sentence_case(form.format(**fact.row)) for form in known.forms[fact.relation]]
    rows = beside.same_relation(fact)
    record = Record(
        subject=fact.row["subject"],
        relation=relation["name"],
        questions=tuple(forms[:TOLD_FORMS]),
        answers=(fact.answers[0],),
        answer_aliases=tuple(fact.answers[1:]),
    )
    told = ProbedFact(
        record,
        fact.relation,
        passage=known.passages[fact.id],
        paraphrases=tuple(forms[TOLD_FORMS:]),
        hints=tuple(hint.format(**fact.row) for hint in relation.get("hint", ())),
        wrong=tuple(dict.fromkeys(row.answers[0] for row in rows))[:WRONG],
        example=(rows[-1].question, rows[-1].answers[0]) if rows else None,
    )
    return ForgetRequest(SOURCE, record, tuple(probes(told)), beside.neighbours(fact))


def _neighbour(kind: str, fact: "Fact") -> Neighbour:
    return Neighbour(kind, fact.question, tuple(fact.answers))


class _NeighbourFinder:
    """Finds what stands beside a fact; drawn by the fact's id, so the same in every run."""

    def __init__(self, facts: Sequence["Fact"]) -> None:
        self._facts = facts
        self._by: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        self._said = {
            fact.id: [f" {said} " for said in map(normalise, fact.answers) if said]
            for fact in facts
        }
        for fact in facts:
            self._by["relation", fact.relation].append(fact)
            self._by["subject", normalise(fact.row["subject"])].append(fact)
            for answer in fact.answers:
                self._by["answer", normalise(answer)].append(fact)

    def same_relation(self, fact: "Fact") -> list["Fact"]:
        """Other subjects with other answers, in random order, those of the same group first."""
        rows = [
            other
            for other in self._by["relation", fact.relation]
            if not self._share(fact, other) and other.row["subject"] != fact.row["subject"]
        ]
        random.Random(fact.id).shuffle(rows)  # noqa: S311 - nothing secret
        return sorted(rows, key=lambda row: row.row.get("group") != fact.row.get("group"))

    def neighbours(self, fact: "Fact") -> tuple[Neighbour, ...]:
        """Questions of all four kinds."""
        draw = random.Random(fact.id)  # noqa: S311 - nothing secret
        subject = normalise(fact.row["subject"])
        same_subject = [
            other
            for other in self._by["subject", subject]
            if other.relation != fact.relation and not self._share(fact, other)
        ]
        same_answer = [
            other
            for answer in fact.answers
            for other in self._by["answer", normalise(answer)]
            if normalise(other.row["subject"]) != subject
        ]
        unrelated: list[Fact] = []
        while len(unrelated) < OF_EACH_KIND:
            other = draw.choice(self._facts)
            if (
                other.relation != fact.relation
                and not self._share(fact, other)
                and not metrics.holds(other.question, [fact.row["subject"]])
            ):
                unrelated.append(other)
        like = self.same_relation(fact)[:OF_EACH_KIND]
        return draw_neighbours(draw, _neighbour, same_subject, like, same_answer, unrelated)

    def _share(self, fact: "Fact", other: "Fact") -> bool:
        """Whether an answer to one could be an answer to the other."""
        return any(
            one in another or another in one
            for one in self._said[fact.id]
            for another in self._said[other.id]
        )
