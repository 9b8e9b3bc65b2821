"""Whom the answer follows where documents disagree.

Passages whose claims are the same are a group. A policy chooses between groups; where it cannot,
every claim is told with its sources.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from control.conflict import values
from control.conflict.dates import NamedPeriod, Period, periods_in, periods_named, tells_of
from control.conflict.passage_claims import PassageClaim
from control.conflict.sources import CORRECTION, Citation, Policy, SourceClaim
from control.conflict.versions import find_version, is_earlier
from foundation.text import FUNCTION_WORDS, holds, normalise, words

DISAGREE = "The documents disagree:"  # before what each of them claims
UNNAMED = "a document without a title"
WITHHELD = "a document whose name is not told"
ORDER: dict[Policy | None, tuple[str, ...]] = {  # of what decides
    None: ("trusted", "replaces", "newest", "version", "titled"),
    "newest": ("replaces", "newest", "version"),
    "trusted": ("trusted",),
    "majority": ("majority",),
    "all": (),
}
UNDECIDED: dict[Policy | None, str] = {
    "trusted": "all are trusted alike",
    "majority": "no claim has more documents than the others",
}
ANY = "*"  # of what a document replaces: every earlier one
WHY = {
    "newest": "the newest document that answers",
    "version": "the latest version that answers",
    "trusted": "the most trusted document",
    "majority": "most documents",
    "replaces": "the document that replaces the others",
    "titled": "the document whose title has most of the question's words",
}


@dataclass(frozen=True)
class ToldClaim:
    """A claim as it is told beside others.

    Attributes:
        says: The claim.
        names: Of its sources.
        passages: Ids of these.
    """

    says: str
    names: tuple[str, ...]
    passages: tuple[str, ...]

    @property
    def line(self) -> str:
        """The claim and the names of its sources."""
        return f"- {self.says} ({'; '.join(self.names)})"


@dataclass(frozen=True)
class Settlement:
    """What the documents claim, and which of it the answer follows.

    Attributes:
        claims: Of the passages, with their groups.
        disagree: Whether they contradict each other.
        reason: In one sentence, whom the answer follows and why; empty where they agree.
        told: Every claim that is followed, where nothing decides between them or the policy is
            ``all``; else empty.
        quoted: The sentence that holds the claim to follow, from the passage that is surest of it;
            empty where none can be told alone.
    """

    claims: tuple[SourceClaim, ...] = ()
    disagree: bool = False
    reason: str = ""
    told: tuple[ToldClaim, ...] = ()
    quoted: str = ""

    @property
    def text(self) -> str:
        """What is told, each claim on a line of its own; empty where one is followed."""
        return "\n".join([DISAGREE, *(each.line for each in self.told)]) if self.told else ""

    @property
    def citations(self) -> list[Citation]:
        """The passages of each claim in ``text``."""
        found, start = [], len(DISAGREE) + 1
        for each in self.told:
            found.append(Citation(start, start + len(each.line), each.passages))
            start += len(each.line) + 1
        return found

    @property
    def pinned(self) -> bool:
        """Whether a pinned correction answers."""
        return any(claim.source.startswith(CORRECTION) for claim in self.claims)

    @property
    def decided(self) -> bool:
        """Whether the documents disagree, and one of their claims is followed."""
        groups = {claim.group for claim in self.claims if claim.followed}
        return self.disagree and len(groups) == 1

    @property
    def followed(self) -> list[str]:
        """What the documents that are followed claim."""
        return [claim.says for claim in self.claims if claim.followed]

    @property
    def set_aside(self) -> set[str]:
        """Ids of the passages that claim something which the answer does not follow."""
        return {claim.source for claim in self.claims if not claim.followed}


def settle(
    question: str,
    passages: Sequence[PassageClaim],
    policy: Policy | None = None,
    as_of: str = "",
    today: str = "",
) -> Settlement:
    """Group the claims of passages and choose between the groups.

    Args:
        question: What they answer.
        passages: Those that claim something, best first; of pinned corrections, the latest first.
        policy: ``newest``, ``trusted``, ``majority`` or ``all``. By default trust decides, then
            dates and versions, then whose title has most of the question's words; where none does,
            all are told.
        as_of: A date in ISO 8601; what is dated later is not followed. Without one, what held on
            the date that the question names is followed, if a document tells and no pinned
            correction answers.
        today: In ISO 8601; where neither says otherwise, what is dated later is not in force, and
            not followed if anything else claims an answer.
    """
    if not passages:
        return Settlement()
    passages = _surest(passages)
    groups = values.group(question, [each.claim.says for each in passages])
    grouped = [
        replace(each, claim=replace(each.claim, group=group))
        for each, group in zip(passages, groups, strict=True)
    ]
    in_force = [each for each in grouped if not as_of or Period(as_of).covers(each.claim.date)]
    if not in_force:
        claims = tuple(each.claim for each in grouped)
        return Settlement(claims, reason=f"What the documents claim is dated later than {as_of}.")
    pinned = any(each.claim.source.startswith(CORRECTION) for each in in_force)
    scope, missing = f"as of {as_of}" if as_of else "", ""
    if not (as_of or pinned or policy == "all"):
        periods = _periods(question, in_force)
        scope, in_force = _named(question, periods, in_force)
        missing = _missing(periods, scope)
        if not scope:
            scope, in_force = _in_force(in_force, today)
    groups_followed, reason = _decide(question, grouped, in_force, policy, scope)
    followed = [each for each in in_force if each.claim.group in groups_followed]
    told = _told(followed) if reason and len(groups_followed) > 1 else ()
    if reason and not (as_of or pinned) and (coming := _coming(grouped, followed, today)):
        reason = f"{reason.removesuffix('.')}; what is dated {coming} is not yet in force."
    if reason and missing:
        reason = f"{reason.removesuffix('.')}; {missing}."
    elif reason and not scope and _lacks_version(question, in_force):
        reason = f"{reason.removesuffix('.')}; none of them is the version that the question names."
    return replace(_following(grouped, groups_followed, reason), told=told)


def _periods(question: str, passages: Sequence[PassageClaim]) -> list[NamedPeriod]:
    """The times that the question asks about, each once.

    What every claim's sentence names alike tells none of them from another: it is a number, or the
    date of a condition, as in "boats registered before 2010".
    """
    shared = set.intersection(*(periods_named(each.sentence) for each in passages))
    named = {each.period: each for each in periods_in(question)}
    return [each for period, each in named.items() if not tells_of(shared, period)]


def _missing(periods: Sequence[NamedPeriod], scope: str) -> str:
    """Why the times that the question asks about decide nothing; empty where one does."""
    if len({each.start for each in periods}) > 1:
        return "the question names several dates, which decide nothing"
    if len(periods) > 1:
        return "the date in the question can be read in two ways, and decides nothing"
    return f"none of them is dated {periods[0].period.covered}" if periods and not scope else ""


def _named(
    question: str, periods: Sequence[NamedPeriod], passages: list[PassageClaim]
) -> tuple[str, list[PassageClaim]]:
    """The time or version that the question names, and the passages that tell what holds there.

    Of a time these are the passages in which the claim's sentence names it too, or else those whose
    dates it covers; if there are none, or neither is named, nothing and all passages.
    """
    if len(periods) == 1:
        period = periods[0].period
        telling = [each for each in passages if tells_of(periods_named(each.sentence), period)]
        dated = [each for each in passages if each.claim.date]
        held = telling or [each for each in dated if period.covers(each.claim.date)]
        if held:
            return str(period), held
    if asked := find_version(question):
        covered = [one for one in passages if any(map(asked.covers, one.versions))]
        if covered:
            return "in the version that the question names", covered
    return "", passages


def _in_force(passages: list[PassageClaim], today: str) -> tuple[str, list[PassageClaim]]:
    """Those not dated later than today, or else those that hold first, and from when on."""
    in_force = [each for each in passages if not is_to_come(each.claim.date, today)]
    if in_force:
        return "", in_force
    first = min(each.claim.date for each in passages)
    return f"as of {first}", [each for each in passages if each.claim.date == first]


def _coming(grouped: Sequence[PassageClaim], followed: Sequence[PassageClaim], today: str) -> str:
    """The first date to come of what is not followed, for a reason; empty if there is none."""
    groups = {each.claim.group for each in followed}
    dates = [each.claim.date for each in grouped if each.claim.group not in groups]
    return min((each for each in dates if is_to_come(each, today)), default="")


def is_to_come(date: str, today: str) -> bool:
    """Whether all of a day, month or year lies after a day."""
    return bool(today) and date > today


def _lacks_version(question: str, passages: Sequence[PassageClaim]) -> bool:
    """Whether the question names a version, as the documents do, and none of theirs."""
    asked = find_version(question)
    known = [version for each in passages for version in each.versions]
    return asked is not None and bool(known) and not any(map(asked.covers, known))


def _decide(
    question: str,
    grouped: Sequence[PassageClaim],
    in_force: Sequence[PassageClaim],
    policy: Policy | None,
    scope: str,
) -> tuple[set[int], str]:
    """The groups to follow, and why.

    Args:
        question: The question.
        grouped: All passages.
        in_force: Those of which some are followed.
        policy: As of `settle`.
        scope: What they have in common, such as "as of 2021"; empty where they are all.
    """
    remaining = {each.claim.group for each in in_force}
    pinned = [each.claim.group for each in in_force if each.claim.source.startswith(CORRECTION)]
    if len({each.claim.group for each in grouped}) == 1:
        return remaining, ""
    if pinned:
        several = len(set(pinned)) > 1
        which = "the latest of the pinned corrections" if several else "a pinned correction"
        return {pinned[0]}, f"The answer follows {which}."
    if len(remaining) == 1:
        held = f"held {scope}" if scope else "is in force"
        return remaining, f"The documents disagree; the answer follows what {held}."
    chosen, why, in_force = _choose(question, in_force, policy)
    if chosen is not None:
        version = _version(in_force, chosen) if why == "version" else ""
        undated = _undated(in_force) if why == "newest" else ""
        why = "; ".join(filter(None, [f"{WHY[why]}{version} {scope}".strip(), undated]))
        return {chosen}, f"The documents disagree; the answer follows {why}."
    if policy == "all":
        return remaining, "The documents disagree; every claim is told."
    remaining = {each.claim.group for each in in_force}
    why = UNDECIDED.get(policy) or _undated(in_force)
    why = ": ".join(filter(None, ["nothing decides between them", why]))
    return remaining, f"The documents disagree, and {why}."


def _version(passages: Sequence[PassageClaim], group: int) -> str:
    """The version of a group's documents, for a reason."""
    latest = max(
        (version for each in passages if each.claim.group == group for version in each.versions),
        key=lambda version: version.number,
    )
    return f" ({latest})"


def _undated(passages: Sequence[PassageClaim]) -> str:
    """That dates are missing, for a reason."""
    dated = [bool(each.claim.date) for each in passages]
    if all(dated):
        return ""
    return "not all of them have a date" if any(dated) else "none has a date"


def _surest(passages: Sequence[PassageClaim]) -> list[PassageClaim]:
    """The surest claim of each document: one that lists many things contradicts nobody by that."""
    best: dict[str, PassageClaim] = {}
    for each in passages:
        known = best.get(each.document)
        if known is None or (each.claim.confidence or 0) > (known.claim.confidence or 0):
            best[each.document] = each
    return list(best.values())


def _following(passages: Sequence[PassageClaim], groups: set[int], reason: str = "") -> Settlement:
    claims = tuple(replace(each.claim, followed=each.claim.group in groups) for each in passages)
    telling = [each for each in passages if each.claim.group in groups and each.telling]
    surest = max(telling, key=lambda each: each.claim.confidence or 0.0, default=None)
    return Settlement(claims, bool(reason), reason, quoted=surest.sentence if surest else "")


def _choose(
    question: str, passages: Sequence[PassageClaim], policy: Policy | None
) -> tuple[int | None, str, Sequence[PassageClaim]]:
    """The group to follow, and why; ``None`` where there is none; and the passages in question.

    Those are all but earlier versions of others.
    """
    asked = words(question) - FUNCTION_WORDS
    rules: dict[str, Callable[[Sequence[PassageClaim]], Any]] = {
        "replaces": lambda group: _replacing(group, passages),
        "trusted": lambda group: max(each.claim.trust for each in group),
        "newest": lambda group: max(each.claim.date for each in group),
        "version": lambda group: len(group) == len(passages),  # of what is no earlier version
        "majority": lambda group: len({each.document for each in group}),
        "titled": lambda group: max(len(asked & words(each.title)) for each in group),
    }
    for name in ORDER[policy]:
        if policy is None and name == "newest" and not all(each.claim.date for each in passages):
            continue  # an undated document may be newer
        if name == "version":
            passages = [each for each in passages if not _is_earlier(each, passages)]
        if name == "titled" and not _of_one_form([each.title for each in passages]):
            continue
        groups = list(dict.fromkeys(each.claim.group for each in passages))
        ranks = [rules[name]([p for p in passages if p.claim.group == group]) for group in groups]
        best = max(ranks)
        if ranks.count(best) == 1:
            return groups[ranks.index(best)], name, passages
    return None, "", passages


def _is_earlier(passage: PassageClaim, others: Sequence[PassageClaim]) -> bool:
    """Whether one of the others is of a later version of a passage's document, and not older."""
    return any(
        is_earlier(passage.versions, other.versions)
        and not (other.claim.date and other.claim.date < passage.claim.date)
        for other in others
    )


def _of_one_form(titles: Sequence[str]) -> bool:
    """Whether all titles begin or end with the same word: "Ghana: capital", "Ghana: location".

    That one of others has the question's words is chance: "The pier: a history", "Letter from Ann".
    """
    kept = [[w for w in normalise(title).split() if w not in FUNCTION_WORDS] for title in titles]
    return all(kept) and any(len({title[at] for title in kept}) == 1 for at in (0, -1))


def _replacing(group: Sequence[PassageClaim], passages: Sequence[PassageClaim]) -> bool:
    """Whether a document of the group says that it replaces one outside, and none the group's."""
    outside = [each for each in passages if each not in group]
    return _names(group, outside) and not _names(outside, group)


def _names(ones: Sequence[PassageClaim], others: Sequence[PassageClaim]) -> bool:
    named = {name for each in ones for name in each.replaces if name}
    titles = [name for name in sorted(named) if not name.replace("-", "").isdigit()]
    return ANY in named or any(
        _is_dated(other.claim.date, named) or holds(f"{other.title}\n{other.head}", titles)
        for other in others
    )


def _is_dated(date: str, named: set[str]) -> bool:
    """Whether one of the names is the date of a document, be it the year of either alone."""
    return bool(date) and any(name.startswith(date) or date.startswith(name) for name in named)


def _told(passages: Sequence[PassageClaim]) -> tuple[ToldClaim, ...]:
    """Every claim with its sources."""
    files: dict[str, set[str]] = {}
    for each in passages:
        files.setdefault(each.title, set()).add(each.file)
    told = []
    for group in dict.fromkeys(each.claim.group for each in passages):
        members = [each for each in passages if each.claim.group == group]
        names = tuple(dict.fromkeys(_name(each, len(files[each.title]) > 1) for each in members))
        ids = tuple(each.claim.source for each in members)
        told.append(ToldClaim(members[0].claim.says, names, ids))
    return tuple(told)


def _name(passage: PassageClaim, with_file: bool) -> str:
    """What a document is called: its title and date; its file, where others share the title."""
    parts = (
        passage.title or UNNAMED,
        passage.file if with_file else "",
        passage.claim.date,
    )
    return ", ".join(part for part in parts if part)
