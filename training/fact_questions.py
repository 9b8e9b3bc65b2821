"""Questions in and out of the scope of facts, for the classifier of forgotten facts.

Made from the calibration relations, ``rewrites.toml`` and ``routing.toml`` alone: no relation and
no wording of the test split takes part.
"""

import random
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from control.forgetting.record import Record
from control.forgetting.segments import Turns
from training import rewrites
from training.rewrites import relation_rows

HERE = Path(__file__).parent
CASES = 2  # of each relation
MOST_FORMS = 4  # of one record
NEIGHBOURS = 12  # other relations' questions about one subject
OTHERS = 3  # the relation's own questions about another subject
WITH_RELATION = 0.8  # share of records that say their relation

OPENINGS = ("Tell me about {s}.", "What do you know about {s}?", "Let's talk of {s}.")
# What the answers of a relation are, where further questions about them can be asked.
ANSWER_KINDS = {
    "city": ("capital", "headquarters", "city", "residence", "location"),
    "country": ("country", "country of foundation"),
    "person": (
        *("president", "governor", "spouse", "author", "founder", "chief executive", "architect"),
        *("inventor", "singer", "creator", "lead actor", "discoverer", "leader", "winner"),
    ),
    "time": ("year of publication", "year of foundation", "year of construction", "date"),
}
# What X wrote: of the author X this asks the book's relation backwards.
ROUND = ("notable works", "first book")


@dataclass(frozen=True)
class ScopeQuestion:
    """A question about a record, and whether it asks for the record's fact.

    Attributes:
        kind: Of probe or of neighbour.
        text: The question.
        asks: Whether it is in scope.
        history: What was said before.
    """

    kind: str
    text: str
    asks: bool
    history: Turns = ()


@dataclass(frozen=True)
class RecordQuestions:
    """A record, and questions about it."""

    record: Record
    questions: tuple[ScopeQuestion, ...]


@dataclass(frozen=True)
class Relation:
    """What can be asked about a kind of subject."""

    kind: str
    noun: str
    wordings: tuple[str, ...]
    vague: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name in the bank and in ``routing.toml``."""
        return f"{self.kind}/{self.noun}"


@cache
def bank_file() -> dict[str, Any]:
    """What ``routing.toml`` holds."""
    return tomllib.loads((HERE / "routing.toml").read_text(encoding="utf-8"))


@cache
def relations() -> list[Relation]:
    """All relations, with the wordings of both files."""
    merged: dict[tuple[str, str], Relation] = {}
    for kind, spec in rewrites.wording_bank().items():
        for noun, *texts in spec.get("attributes", ()):
            asked = tuple(text for text in texts if text[0] != rewrites.VAGUE)
            vague = tuple(text[1:] for text in texts if text[0] == rewrites.VAGUE)
            merged[kind, noun] = Relation(kind, noun, asked, vague)
    for kind, spec in bank_file().items():
        if kind in ("templates", "held", "described", "general"):
            continue
        for noun, values in spec.items():
            if noun == "names":
                continue
            known = merged.get((kind, noun), Relation(kind, noun, ()))
            merged[kind, noun] = replace(
                known,
                wordings=tuple(dict.fromkeys([*known.wordings, *values["en"]])),
                foreign=tuple(values.get(tongue, [""])[0] for tongue in ("fr", "de", "es")),
                answers=tuple(values["answers"]),
            )
    return list(merged.values())


@cache
def names() -> dict[str, list[str]]:
    """Subjects of each kind."""
    found: dict[str, list[str]] = {}
    for kind, spec in (*rewrites.wording_bank().items(), *bank_file().items()):
        if isinstance(spec, dict) and "names" in spec:
            found[kind] = list(spec["names"])
        elif isinstance(spec, dict) and "relation" in spec:
            found[kind] = [row["subject"] for row in relation_rows(spec["relation"])]
    return found


def _asking(draw: random.Random) -> list[Relation]:
    """The relations with half of their wordings; records have their forms from the others."""
    found = []
    for one in relations():
        wordings = draw.sample(one.wordings, len(one.wordings))
        found.append(replace(one, wordings=tuple(wordings[: (len(wordings) + 1) // 2])))
    return found


def build_cases(seed: int = 0) -> list[RecordQuestions]:
    """Records of made-up and real facts, each with questions in and out of its scope."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    made = []
    for place, one in enumerate(relations()):
        if one.answers and len(one.wordings) > 1:
            made += [_build_case(place, draw) for _ in range(CASES)]
    made += list(_build_described_cases(draw))
    return made


def _build_case(place: int, draw: random.Random) -> RecordQuestions:
    asking = _asking(draw)
    one, whole = asking[place], relations()[place]
    subject, other = draw.sample(names()[one.kind], 2)
    unasked = [text for text in whole.wordings if text not in one.wordings]
    wordings = [*unasked, *one.wordings[1:]]
    count = draw.randint(1, min(MOST_FORMS, len(wordings)))
    answer = draw.choice(one.answers)
    fill = {"n": one.noun, "s": subject, "a": answer, "o": other, "k": one.kind}
    wrong = [text for text in one.answers if text != answer] or ["something else"]
    fill |= {"w": draw.choice(wrong), "v": draw.choice(wrong)}
    record = Record(
        subject,
        relation=one.noun if draw.random() < WITH_RELATION else "",
        questions=tuple(text.format(s=subject) for text in wordings[:count]),
        answers=(answer,),
        id="r1",
    )
    siblings = [other for other in asking if other.kind == one.kind and other.noun != one.noun]
    questions = [*_ask_relation(one, one.wordings, fill, True, draw)]
    for sibling in draw.sample(siblings, min(len(siblings), 2)):
        own = dict(fill, n=sibling.noun)
        wrong = list(sibling.answers) or ["something else", "nothing"]
        own |= {"a": draw.choice(wrong), "w": draw.choice(wrong), "v": draw.choice(wrong)}
        questions += _ask_relation(sibling, sibling.wordings, own, False, draw)
    spare = [text for sibling in siblings for text in sibling.wordings]
    for text in draw.sample(spare, min(len(spare), NEIGHBOURS)):
        questions.append(ScopeQuestion("neighbour", text.format(**fill), False))
    questions += [
        ScopeQuestion("other subject", text.format(s=other), False)
        for text in draw.sample(wordings, min(len(wordings), OTHERS))
    ]
    general = draw.sample(bank_file()["templates"]["general"], 4)
    questions += [ScopeQuestion("general", text.format(**fill), False) for text in general]
    questions += _ask_by_answer(one, fill, draw)
    return RecordQuestions(record, tuple(questions))


def _ask_relation(
    one: Relation, wordings: Sequence[str], fill: dict[str, str], asks: bool, draw: random.Random
) -> Iterator[ScopeQuestion]:
    """Questions for a relation of the subject, of every kind of probe."""
    templates = bank_file()["templates"]
    subject = fill["s"]
    for text in wordings:
        yield ScopeQuestion("paraphrase", text.format(s=subject), asks)
    for text in one.vague:
        yield ScopeQuestion("vague", text.format(s=subject), asks)
    for text in filter(None, one.foreign):
        yield ScopeQuestion("foreign", text.format(s=subject), asks)
    for kind, texts in templates.items():
        if kind in ("general", "polite"):
            continue
        for text in draw.sample(texts, 1 if kind != "plain" else 2):
            asked = draw.choice(wordings).format(s=subject)
            yield ScopeQuestion(kind, text.format(q=asked, **fill), asks)
    for _ in range(2):
        text = draw.choice(wordings)
        carried = text.replace("{s}'s", "its").format(s="it")
        opening = draw.choice(OPENINGS)
        history = (
            (opening.format(s=subject), draw.choice(["Gladly.", f"{subject} is well known."])),
        )
        yield ScopeQuestion("follow-up", f"{draw.choice(['', 'And '])}{carried}", asks, history)
        before = ((draw.choice(wordings).format(s=fill["o"]), f"{fill['w']}."),)
        yield ScopeQuestion(
            "follow-up", f"{draw.choice(['What about', 'And'])} {subject}?", asks, before
        )
    if asks:
        history = ((f"Tell me about {subject}.", "Gladly."),)
        yield ScopeQuestion("follow-up", f"And the {one.noun}?", asks, history)


def _ask_by_answer(
    one: Relation, fill: dict[str, str], draw: random.Random
) -> Iterator[ScopeQuestion]:
    """Questions that say the answer and not the subject."""
    held = bank_file()["held"]
    for text in draw.sample(held["asks"], 4):
        yield ScopeQuestion("reverse", text.format(**fill), True)
    for text in held["backwards"].get(one.key, ()):
        yield ScopeQuestion("reverse", text.format(**fill), True)
    kinds = [kind for kind, nouns in ANSWER_KINDS.items() if one.noun in nouns]
    others = [text for kind in kinds for text in held[kind]]
    backwards = {text for texts in held["backwards"].values() for text in texts}
    for text in (*draw.sample(held["other"], 4), *others):
        if text not in backwards:
            yield ScopeQuestion("same answer", text.format(**fill), False)
    about = [
        text
        for other in relations()
        if other.kind in kinds and other.noun not in (one.noun, *ROUND)
        for text in other.wordings
    ]
    for text in draw.sample(about, min(len(about), NEIGHBOURS)):
        yield ScopeQuestion("same answer", text.format(s=fill["a"]), False)


def _build_described_cases(draw: random.Random) -> Iterator[RecordQuestions]:
    """Records whose questions describe the subject instead of naming it."""
    kinds = {"athlete_sport": "person", "author": "book", "company_country": "company"}
    kinds |= {"us_state_capital": "state", "landmark_country": "landmark", "mythology": "god"}
    for relation, ways in bank_file()["described"].items():
        rows = relation_rows(relation)
        for row, other in zip(draw.sample(rows, 12), draw.sample(rows, 12), strict=True):
            asking = _asking(draw)
            asked = [one for one in asking if one.kind == kinds[relation] and one.answers]
            one, sibling = draw.sample(asked, 2)
            first, *rest = draw.sample(one.wordings, len(one.wordings))
            record = Record(
                row["subject"],
                questions=(first.format(s=ways[0].format(**row)),),
                answers=(draw.choice(one.answers),),
                id="r1",
            )
            questions = [
                ScopeQuestion("described", text.format(s=way.format(**row)), True)
                for text in (first, *rest[:2])
                for way in ways
            ]
            if row != other:
                questions += [
                    ScopeQuestion("other described", text.format(s=way.format(**other)), False)
                    for text in (first, *rest[:1])
                    for way in ways
                ]
            questions += [
                ScopeQuestion("described otherwise", text.format(s=way.format(**row)), False)
                for text in draw.sample(sibling.wordings, 1)
                for way in ways
            ]
            yield RecordQuestions(record, tuple(questions))
