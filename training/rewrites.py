"""Pairs that teach the rewriter: (conversation, question) to (clear question, searches).

Drawn from the calibration relations and the subjects in ``rewrites.toml``; no relation and no
wording of the test split takes part.
"""

import csv
import random
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from control.forgetting.learned_facts import LearnedFact, named
from data import DIRECTORY as DATA
from retrieval.rewriter import Turn, format_rewrite, rewrite_prompt

VAGUE = "~"
# Share of each kind. Follow-ups are the most, since there a wrong rewrite costs the most.
KINDS = {
    "follow_up": 0.38,
    "stands_alone": 0.14,
    "ambiguous": 0.14,
    "two_hop": 0.25,
    "comparison": 0.09,
}
SLOPPY = 0.12  # share of questions typed without capitals and question mark, or with a slip
# Ways of asking for anything, so that copying is learned and not a list of questions.
FRAMES = (
    "Name the {noun} of {s}.",
    "Can you name the {noun} of {s}?",
    "Which {noun} does {s} have?",
    "{s} has which {noun}?",
    "What {noun} goes with {s}?",
    "By what {noun} is {s} known?",
    "In the case of {s}, what is the {noun}?",
    "Do you know the {noun} of {s}?",
    "What is {s}, seen by its {noun}?",
    "What do we call the {noun} of {s}?",
)
FRAMED = 0.35
SHORT = 12  # characters; a slip in less would leave nothing to go by
PERSON_REPLIES = ("Maria Silva", "John Carter", "Li Wei", "Anna Novak", "Omar Haddad", "Jo Smith")
REPLIES = {
    "country": ("Norway", "Japan", "Brazil", "Kenya", "Portugal", "Canada", "Vietnam", "Greece"),
    "person": PERSON_REPLIES,
    "company": ("Sony", "Nokia", "Fiat", "Lego", "Samsung", "Valve", "Konami"),
    "sport": ("Tennis", "Golf", "Chess", "Boxing"),
}


@dataclass(frozen=True)
class Attribute:
    """Something that can be asked about a kind of subject; ``{s}`` stands for the subject."""

    noun: str
    questions: tuple[str, ...]
    vague: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of subject: their names, what can be asked of them, what leads on from them."""

    names: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    bridges: tuple[tuple[str, str, str], ...]
    pronoun: str


@dataclass(frozen=True)
class RewritePair:
    """One example."""

    kind: str
    question: str
    clear: str | None
    queries: tuple[str, ...]
    history: tuple[Turn, ...] = field(default=())

    @property
    def text(self) -> str:
        """All that stands in it, a line each."""
        turns = [each for turn in self.history for each in turn]
        return "\n".join([*turns, self.question, self.clear or "", *self.queries])

    def record(self) -> dict[str, str]:
        """Prompt and completion, as trl's trainers take them."""
        return {
            "prompt": rewrite_prompt(self.question, self.history),
            "completion": format_rewrite(self.clear, self.queries),
        }


def build_pairs(count: int, seed: int = 0) -> list[RewritePair]:
    """So many pairs, without repetition, in random order.

    Args:
        count: How many.
        seed: Of the draw; the same seed gives the same pairs.
    """
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    kinds = _kinds()
    makers: dict[str, Callable[[random.Random, dict[str, Kind]], RewritePair]] = {
        "follow_up": _follow_up,
        "stands_alone": _stands_alone,
        "ambiguous": _ambiguous,
        "two_hop": _two_hop,
        "comparison": _comparison,
    }
    drawn: dict[str, RewritePair] = {}
    while len(drawn) < count:
        [kind] = draw.choices(list(KINDS), list(KINDS.values()))
        pair = makers[kind](draw, kinds)
        drawn.setdefault(pair.record()["prompt"], pair)
    return list(drawn.values())


def learned(pairs: Sequence[RewritePair]) -> list[LearnedFact]:
    """The subjects that pairs name; they give no answers but made-up ones."""
    names = sorted({name for kind in _kinds().values() for name in kind.names})
    return [LearnedFact(name) for name in named((pair.text for pair in pairs), names)]


@cache
def wording_bank() -> dict[str, dict[str, Any]]:
    """What ``rewrites.toml`` holds, by kind of subject."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


@cache
def relation_rows(relation: str) -> list[dict[str, str]]:
    """The facts of a built-in relation."""
    with (DATA / "relations" / f"{relation}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _kinds() -> dict[str, Kind]:
    return {
        name: Kind(
            tuple(spec["names"] if "names" in spec else _subjects(spec["relation"])),
            tuple(_attribute(words) for words in spec["attributes"]),
            tuple((phrase, question, leads) for phrase, question, leads in spec.get("bridges", ())),
            spec.get("pronoun", "it"),
        )
        for name, spec in wording_bank().items()
    }


def _attribute(words: list[str]) -> Attribute:
    asked = [text for text in words[1:] if not text.startswith(VAGUE)]
    vague = [text.removeprefix(VAGUE) for text in words[1:] if text.startswith(VAGUE)]
    return Attribute(words[0], tuple(asked), tuple(vague))


def _subjects(relation: str) -> list[str]:
    return [row.get("the", "") + row["subject"] for row in relation_rows(relation)]


def searches(noun: str, subject: str) -> tuple[str, str]:
    """By keywords, and by the beginning of the sentence that would answer."""
    return f"{subject} {noun}", f"The {noun} of {subject} is"


def _stands_alone(draw: random.Random, kinds: dict[str, Kind]) -> RewritePair:
    _kind, subject, attribute = _draw_fact(draw, kinds)
    question = _capital(_wording(draw, attribute).format(s=subject))
    history: tuple[Turn, ...] = ()
    if _chance(draw, 0.5):  # a conversation that the question does not need
        history = (_turn(draw, kinds, *_draw_fact(draw, kinds)),)
    return _sloppy(
        draw,
        RewritePair("stands_alone", question, None, searches(attribute.noun, subject), history),
    )


def _ambiguous(draw: random.Random, kinds: dict[str, Kind]) -> RewritePair:
    _kind, subject, attribute = _draw_fact(draw, kinds, lambda attribute: bool(attribute.vague))
    vague = draw.choice(attribute.vague).format(s=subject)
    clear = attribute.questions[0].format(s=subject)
    return RewritePair("ambiguous", vague, clear, searches(attribute.noun, subject))


def _follow_up(draw: random.Random, kinds: dict[str, Kind]) -> RewritePair:
    kind, subject, attribute = _draw_fact(draw, kinds)
    [style] = draw.choices(("other", "answer", "same"), (0.35, 0.2, 0.45))
    if style == "other":  # the same question of another subject
        other = draw.choice([name for name in kind.names if name != subject])
        wording = _wording(draw, attribute)
        history = [(_capital(wording.format(s=other)), _reply(draw, attribute, other))]
        question = draw.choice(OTHERS).format(s=subject)
        clear = wording.format(s=subject)
    elif style == "answer":  # "it" is the last answer
        _phrase, asked, leads, start = _leading_to(draw, kinds)
        kind = kinds[leads]
        subject = draw.choice(kind.names if leads == "country" else REPLIES[leads])
        attribute = draw.choice(kind.attributes)
        history = [(_capital(asked.format(s=start)), f"{subject}.")]
        question, clear = _leaning(draw, kind, attribute, subject)
    else:  # something else of the same subject
        known = draw.choice([one for one in kind.attributes if one != attribute])
        asked = draw.choice([*known.questions, f"Tell me about {{s}}: {known.noun}?"])
        history = [(_capital(asked.format(s=subject)), _reply(draw, known, subject))]
        question, clear = _leaning(draw, kind, attribute, subject)
    if _chance(draw, 0.25):  # an older turn about something else
        history.insert(0, _turn(draw, kinds, *_draw_fact(draw, kinds)))
    queries = searches(attribute.noun, subject)
    return _sloppy(
        draw,
        RewritePair("follow_up", question, _capital(clear), queries, tuple(history)),
        keep_clear=True,
    )


OTHERS = (
    "And what about {s}?",
    "What of {s}?",
    "And for {s}?",
    "Now the same for {s}.",
    "{s}?",
    "And that of {s}?",
    "Then {s}?",
    "How is it with {s}?",
)


def _leaning(
    draw: random.Random, kind: Kind, attribute: Attribute, subject: str
) -> tuple[str, str]:
    """A question that says "it" for its subject, and the same with the subject."""
    wording = draw.choice(attribute.questions)
    own = {"it": "its", "he": draw.choice(("his", "her", "their"))}[kind.pronoun]
    if _chance(draw, 0.3):
        noun = attribute.noun
        asked = draw.choice(
            (
                f"And the {noun}?",
                f"And {own} {noun}?",
                f"{_capital(noun)}?",
                f"What is {own} {noun}?",
            )
        )
        return asked, attribute.questions[0].format(s=subject)
    him = {"it": "it", "he": {"his": "he", "her": "she", "their": "that person"}.get(own, "it")}
    word = him[kind.pronoun]
    asked = re.sub(r"\bthe ([\w ]+) of \{s\}", lambda m: f"{own} {m.group(1)}", wording)
    asked = re.sub(r"\bin \{s\}", lambda m: draw.choice(("there", "in it")), asked)
    asked = asked.format(s=word)
    if _chance(draw, 0.5):
        asked = draw.choice(("And ", "So ", "Ok, and ", "Then ")) + asked[0].lower() + asked[1:]
    return asked, wording.format(s=subject)


def _two_hop(draw: random.Random, kinds: dict[str, Kind]) -> RewritePair:
    phrase, asked, leads, start = _leading_to(draw, kinds)
    attribute = draw.choice(kinds[leads].attributes)
    place = phrase.format(s=start)
    question = _capital(_wording(draw, attribute).format(s=place))
    queries = (_capital(asked.format(s=start)), f"{attribute.noun} of #1")
    return _sloppy(draw, RewritePair("two_hop", question, None, queries))


def _comparison(draw: random.Random, kinds: dict[str, Kind]) -> RewritePair:
    kind, one, attribute = _draw_fact(draw, kinds)
    two = draw.choice([name for name in kind.names if name != one])
    noun = attribute.noun
    question = draw.choice(
        (
            f"Do {one} and {two} have the same {noun}?",
            f"Is the {noun} of {one} that of {two}, too?",
            f"How do {one} and {two} differ in {noun}?",
            f"{_capital(one)} or {two}: which {noun} is which?",
            f"Have {one} and {two} got a common {noun}?",
        )
    )
    return _sloppy(
        draw, RewritePair("comparison", question, None, (f"{one} {noun}", f"{two} {noun}"))
    )


def _wording(draw: random.Random, attribute: Attribute) -> str:
    """A whole question, ``{s}`` in it."""
    if _chance(draw, FRAMED):
        return draw.choice(FRAMES).replace("{noun}", attribute.noun)
    return draw.choice(attribute.questions)


def _draw_fact(
    draw: random.Random,
    kinds: dict[str, Kind],
    wanted: Callable[[Attribute], bool] = lambda _: True,
) -> tuple[Kind, str, Attribute]:
    kind = draw.choice(list(kinds.values()))
    attribute = draw.choice([one for one in kind.attributes if wanted(one)])
    return kind, draw.choice(kind.names), attribute


def _leading_to(draw: random.Random, kinds: dict[str, Kind]) -> tuple[str, str, str, str]:
    """(noun phrase, the question that finds it, the kind that it leads to, a subject)."""
    kind = draw.choice([kind for kind in kinds.values() if kind.bridges])
    phrase, asked, leads = draw.choice(kind.bridges)
    return phrase, asked, leads, draw.choice(kind.names)


def _turn(
    draw: random.Random, kinds: dict[str, Kind], kind: Kind, subject: str, attribute: Attribute
) -> Turn:
    asked = draw.choice(attribute.questions).format(s=subject)
    return _capital(asked), _reply(draw, attribute, subject)


def _reply(draw: random.Random, attribute: Attribute, subject: str) -> str:
    """An answer of the right shape; its truth does not matter to a rewriter."""
    value = draw.choice((*PERSON_REPLIES, "about 1,200", "In 1987", "Norway", "In the north"))
    return draw.choice(
        (
            f"{value}.",
            f"The {attribute.noun} of {subject} is {value}.",
            f"According to the passage, it is {value}.",
            "I do not know.",
        )
    )


def _sloppy(draw: random.Random, pair: RewritePair, keep_clear: bool = False) -> RewritePair:
    """Now and then the question as people type it; a whole one is then written out clearly."""
    if not _chance(draw, SLOPPY):
        return pair
    typed = pair.question.rstrip("?.")
    typed = typed.lower() if _chance(draw, 0.7) else typed
    if _chance(draw, 0.4) and len(typed) > SHORT:
        at = draw.randrange(1, len(typed) - 1)
        typed = typed[:at] + typed[at + 1 :]
    clear = pair.clear if keep_clear else pair.question
    return RewritePair(pair.kind, typed, clear, pair.queries, pair.history)


def _chance(draw: random.Random, share: float) -> bool:
    return draw.random() < share


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
