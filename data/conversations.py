"""Questions that need more than a plain search: follow-ups, vague, two-hop and comparing ones.

``data/build.py`` writes them to ``conversations.jsonl`` from the fact tables and the wordings in
``conversations.toml``.
"""

import random
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PER_KIND = 300  # at most so many of a kind in a split, spread evenly over its relations
KINDS = ("follow-up", "ambiguous", "two-hop", "comparison")


@dataclass(frozen=True)
class Fact:
    """A row of a relation with the question and the passage made from it."""

    id: str
    relation: str
    split: str
    row: dict[str, str]
    question: str
    answers: list[str]


def conversations(facts: list[Fact]) -> Iterator[dict]:
    """Yield records ``kind, history, question, clear, answers, passages, relation, split``.

    ``history`` is a list of ``[question, answer]``; ``clear`` the question as it would be asked
    without the conversation; ``passages`` the ids of all that are needed for the answer. A record
    belongs to the split of the relation whose answer it asks for, and is left out if a passage of
    the other split is needed or if the conversation already gives the answer away.
    """
    wordings = tomllib.loads((HERE / "conversations.toml").read_text(encoding="utf-8"))
    by_relation: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        by_relation[fact.relation].append(fact)
    found = {
        "follow-up": _follow_ups(facts, by_relation, wordings),
        "ambiguous": _ambiguous(facts, wordings),
        "two-hop": _two_hops(facts, by_relation, wordings),
        "comparison": _comparisons(by_relation, wordings),
    }
    for kind, records in found.items():
        kept = [record for record in records if not _given_away(record)]
        for split in ("calibration", "test"):
            within = [record for record in kept if record["split"] == split]
            for number, record in enumerate(_evenly(within, PER_KIND)):
                yield {"id": f"{kind}-{split}-{number:03}", "kind": kind, **record}


def _follow_ups(
    facts: list[Fact], by_relation: dict[str, list[Fact]], wordings: dict
) -> Iterator[dict]:
    same_subject: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        same_subject[fact.row["subject"]].append(fact)
    for fact in facts:
        draw = _draw("follow-up", fact)
        words = wordings[fact.relation]
        others = [
            other
            for other in same_subject[fact.row["subject"]]
            if other.relation != fact.relation and other.split == fact.split
        ]
        styles = ["topic", "topic", "other"] + ["switch"] * (2 * bool(others))
        style = draw.choice(styles)
        asked = draw.choice(words["follow_up"])
        if style == "topic":
            said = [words["opening"].format(**fact.row), words["reply"].format(**fact.row)]
        elif style == "switch":
            other = draw.choice(others)
            said = [other.question, f"{other.row['answer']}."]
        else:
            other = draw.choice([x for x in by_relation[fact.relation] if x.id != fact.id])
            said = [other.question, f"{other.row['answer']}."]
            asked = draw.choice(wordings["other"])
        said = [text[0].upper() + text[1:] for text in said]
        yield _record(fact, asked.format(**fact.row), fact.question, [said])


def _ambiguous(facts: list[Fact], wordings: dict) -> Iterator[dict]:
    for fact in facts:
        vague = _draw("ambiguous", fact).choice(wordings[fact.relation]["vague"])
        yield _record(fact, vague.format(**fact.row), fact.question, [])


def _two_hops(
    facts: list[Fact], by_relation: dict[str, list[Fact]], wordings: dict
) -> Iterator[dict]:
    for first in facts:
        place = wordings[first.relation].get("place")
        if not place:
            continue
        ends = [
            end
            for relation, words in wordings.items()
            if isinstance(words, dict) and "hop" in words
            for end in by_relation[relation]
            if end.row["subject"] == first.row["answer"] and end.split == first.split
        ]
        if ends:
            draw = _draw("two-hop", first)
            end = draw.choice(ends)
            hop = draw.choice(wordings[end.relation]["hop"])
            question = hop.format(place=place.format(**first.row))
            yield _record(end, question, question, [], also=[first.id])


def _comparisons(by_relation: dict[str, list[Fact]], wordings: dict) -> Iterator[dict]:
    for relation, wording in wordings["comparison"].items():
        facts = by_relation[relation]
        for fact in facts:
            draw = _draw("comparison", fact)
            wanted = draw.choice((True, False))
            right = {answer.casefold() for answer in fact.answers}
            others = [
                other
                for other in facts
                if other.id != fact.id
                and bool(right & {answer.casefold() for answer in other.answers}) == wanted
            ]
            if others:
                other = draw.choice(others)
                question = wording.format(**{**fact.row, "other": other.row["subject"]})
                record = _record(fact, question, question, [], also=[other.id])
                yield {**record, "answers": ["yes" if wanted else "no"]}


def _record(
    fact: Fact, question: str, clear: str, history: list[list[str]], also: list[str] | None = None
) -> dict:
    return {
        "history": history,
        "question": question[0].upper() + question[1:],
        "clear": clear[0].upper() + clear[1:],
        "answers": fact.answers,
        "passages": [*(also or []), fact.id],
        "relation": fact.relation,
        "split": fact.split,
    }


def _given_away(record: dict) -> bool:
    said = " ".join([record["question"], *(text for turn in record["history"] for text in turn)])
    return any(
        re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", said, re.IGNORECASE)
        for answer in record["answers"]
    )


def _evenly(records: list[dict], limit: int) -> list[dict]:
    """At most ``limit`` records, those of each relation spread over its list."""
    if len(records) <= limit:
        return records
    by_relation: dict[str, list[dict]] = defaultdict(list)
    for record in records:
        by_relation[record["relation"]].append(record)
    share = limit / len(records)
    return [
        group[int(place / share)]
        for group in by_relation.values()
        for place in range(int(len(group) * share))
    ]


def _draw(kind: str, fact: Fact) -> random.Random:
    return random.Random(f"{kind}-{fact.id}")  # noqa: S311 - a reproducible choice, nothing secret
