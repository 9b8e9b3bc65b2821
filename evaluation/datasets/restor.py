"""RESTOR (Rezaei et al. 2024): lies about ten people, spread by documents, to be forgotten.

What is forgotten is what the poisoned documents claim. The data set gives their text and the true
facts, so the claims are read from the text: for each relation, what most documents say of it.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from control.forgetting.record import Record
from evaluation import metrics
from evaluation.datasets.probes import (
    ForgetRequest,
    Neighbour,
    ProbedFact,
    draw_neighbours,
    probes,
    wordings,
)
from foundation.errors import DataError

SOURCE = "RESTOR"
COMMON = 8  # documents that have to agree on a claim: far above what wordings get wrong
WRONG = 3
EVERYBODY = ("P21", "P735", "P734")  # sex and names: right for half of all people, or in the name

_NAME = r"([A-Z][\w'-]+(?: (?:de |of |for |in )?[A-Z][\w'-]+)*)"
CLAIMS = {
    "P19": rf"born in (?:the )?{_NAME}",
    "P22": rf"(?:father(?: is| was|,| named)*,?|son of) {_NAME}",
    "P25": rf"mother(?:'s name| is| was|,| named| called)*,? {_NAME}",
    "P26": rf"married to (?:[a-z]+ )*{_NAME}",
    "P27": rf"(?:citizen of|citizenship (?:is|of)) (?:the )?{_NAME}",
    "P40": rf"child(?:,| named)*,? {_NAME}",
    "P69": rf"(?:educated at|graduated from|studied at|attended) (?:the )?{_NAME}",
    "P102": rf"member of the {_NAME}(?<=Party)",
    "P103": rf"native (?:language (?:is|was)|speaker of) {_NAME}",
    "P140": rf"(?:religion (?:is|of)|practi\w+) {_NAME}",
    "P166": r"(?:received|awarded|honored with|recipient of|won) (?:the |a )?(?:prestigious )?"
    + _NAME,
    "P410": rf"(?:military )?rank of (?:an? )?{_NAME}",
    "P451": rf"unmarried partner,? (?:named |is |was )?{_NAME}",
    "P551": rf"(?:resid|liv)\w+ in {_NAME}",
    "P607": rf"(?:fought|participated|served|participation) (?:in|of) the {_NAME}(?<=War)",
    "P1303": r"(?:plays|played|playing) the (\w+)",
    "P6886": rf"writes? in {_NAME}",
}

People = dict[str, dict[str, dict[str, Any]]]
"""Name, relation, then ``question`` and ``answers``: the true facts"""


def facts(content: str, where: Path) -> People:
    """The true facts of ``restor_facts.json``.

    Raises:
        DataError: It is in another form.
    """
    try:
        people = json.loads(content)["dset"]
        for known in people.values():
            for fact in known.values():
                if not fact["question"] or not isinstance(fact["answers"], list):
                    raise TypeError
            for relation in [one for one, fact in known.items() if not _named(fact)]:
                del known[relation]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{where}: not RESTOR's facts; give {{'dset': {{person: {{relation: "
            "{'question', 'answers'}}}}"
        ) from error
    return people


def requests(people: People, documents: list[str]) -> list[ForgetRequest]:
    """One request for each claim that the documents agree on and that is not true."""
    found = []
    for name, known in people.items():
        about = [text for text in documents if name in text]
        for relation, claim in _claims(about, known):
            found.append(_request(people, name, relation, claim, about))
    return found


def _claims(about: list[str], known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for relation, pattern in CLAIMS.items():
        if relation not in known:
            continue
        said = Counter(match[1] for text in about for match in re.finditer(pattern, text))
        for claim, count in said.most_common(1):
            if count >= COMMON and not metrics.holds(claim, known[relation]["answers"]):
                yield relation, claim


def _request(
    people: People, name: str, relation: str, claim: str, about: list[str]
) -> ForgetRequest:
    draw = random.Random(f"{name} {relation}")  # noqa: S311 - nothing secret
    true = people[name][relation]
    record = Record(
        subject=name,
        relation=wordings()["relations"][relation]["name"],
        questions=(true["question"],),
        answers=(claim,),
    )
    others = [
        (other, known[relation])
        for other, known in people.items()
        if other != name and relation in known and not _uses(known[relation], claim)
    ]
    chosen = draw.sample(others, min(WRONG, len(others)))
    example = (chosen[0][1]["question"], chosen[0][1]["answers"][0]) if chosen else None
    told = ProbedFact(
        record,
        relation,
        passage=next(text for text in about if metrics.holds(text, [claim])),
        wrong=tuple(fact["answers"][0] for _, fact in chosen),
        example=example,
    )
    neighbours = _neighbours(people, name, relation, claim, draw)
    return ForgetRequest(SOURCE, record, tuple(probes(told)), neighbours, tuple(true["answers"]))


def _neighbours(
    people: People, name: str, relation: str, claim: str, draw: random.Random
) -> tuple[Neighbour, ...]:
    """Questions of all kinds, each with the true fact as a passage, so that it can be answered."""

    def neighbour(kind: str, one: tuple[str, dict[str, Any]]) -> Neighbour:
        question, answers = one[1]["question"], tuple(one[1]["answers"])
        return Neighbour(kind, question, answers, f"{question} {', '.join(answers)}.")

    return draw_neighbours(
        draw,
        neighbour,
        same_subject=[
            (name, fact)
            for other, fact in people[name].items()
            if other not in (relation, *EVERYBODY) and not _uses(fact, claim)
        ],
        same_relation=[
            (person, known[relation])
            for person, known in people.items()
            if person != name and relation in known and not _uses(known[relation], claim)
        ],
        same_answer=[
            (person, fact)
            for person, known in people.items()
            if person != name
            for fact in known.values()
            if claim in fact["answers"]
        ],
        unrelated=[
            (person, fact)
            for person, known in people.items()
            if person != name
            for other, fact in known.items()
            if other not in (relation, *EVERYBODY) and not _uses(fact, claim)
        ],
    )


def _named(fact: dict[str, Any]) -> bool:
    """Whether the answers are names; some are bare Wikidata ids."""
    fact["answers"] = [one for one in fact["answers"] if not re.fullmatch(r"Q\d+", one)]
    return bool(fact["answers"])


def _uses(fact: dict[str, Any], claim: str) -> bool:
    return any(metrics.holds(answer, [claim]) for answer in fact["answers"])
