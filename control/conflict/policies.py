"""Whom the answer follows where documents disagree.

Passages whose claims are the same are a group. A policy chooses between groups; where it cannot,
every claim is told with its sources.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapidfuzz import fuzz

from control import prompts
from control.conflict import answerability, values
from control.conflict.dates import find_dates
from control.conflict.sources import CORRECTION, DATE, Citation, Policy, SourceClaim
from control.conflict.verdict import NEUTRAL_TRUST
from control.conflict.versions import Version, find_version
from control.forgetting.parts import parts
from control.prompts import Prompt, Quote
from foundation.tables import rows_alone
from foundation.text import FUNCTION_WORDS, holds, normalise, words

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    from control.conflict.reader import AnswerReader, Reading

# Probability from which a passage counts as claiming something: of 120 questions to several
# passages each (`training/documents.jsonl`), it finds 85 % of the disagreements, and 80 % of those
# that it finds are some; from 0.5 on 87 and 79 %, from 0.8 on 82 and 83 %.
LEAST_ANSWERS = 0.6
# The same where nothing but documents may be answered from: of 845 questions to the five most
# similar of 171 held-out documents (`fulcrum eval sources --task held-out`), 62 % of those that one
# answers are answered from here on, and 9 % of those that all leave open; from 0.6 on 79 and 19 %,
# from 0.7 on 76 and 16 %.
LEAST_ALONE = 0.9
# In place of a title. A text without one the reader takes for an answer to the question, as drafts
# are, which need not name what they are about.
UNTITLED = "Passage"
# Characters in common, in percent, from which two passages say nearly the same. Documents about one
# thing (`training/documents.jsonl`, 204 pairs) have 39 to 48 in common, versions that were worded
# anew (`training/dated.jsonl`, 450) 41 to 52; those in which a number was amended more than 90.
NEARLY_SAME = 70
MOST_SENTENCES = 32  # of a passage that are read alone
NUMBERS = re.compile(r"\d+")
DISAGREE = "The documents disagree:"  # before what each of them claims
HEAD = 120  # characters of a passage where a document may be named: a line
ORDER: dict[Policy | None, tuple[str, ...]] = {  # of what decides
    None: ("trusted", "replaces", "newest", "version"),
    "newest": ("replaces", "newest", "version"),
    "trusted": ("trusted",),
    "majority": ("majority",),
    "all": (),
}
UNDECIDED: dict[Policy | None, str] = {
    "trusted": ": all are trusted alike",
    "majority": ": no claim has more documents than the others",
}
ANY = "*"  # of what a document replaces: every earlier one
WHY = {
    "newest": "the newest document",
    "version": "the latest version that answers",
    "trusted": "the most trusted document",
    "majority": "most documents",
    "replaces": "the document that replaces the others",
}


@dataclass(frozen=True)
class PassageClaim:
    """A claim of a passage, and what is known of its document.

    Attributes:
        claim: The claim; its group is not yet known.
        document: The id of the document.
        title: Of the document.
        replaces: Titles or dates of documents that this one says it replaces.
        sentence: The sentence of the passage that holds the claim.
        head: The beginning of the passage.
        versions: That the title of the document, its field for it and the name of its file give.
        telling: Whether the sentence can be told alone: it is in the text, and no heading.
        file: What the file of the document is called; empty if it was given.
    """

    claim: SourceClaim
    document: str
    title: str = ""
    replaces: tuple[str, ...] = ()
    sentence: str = ""
    head: str = ""
    versions: tuple[Version, ...] = ()
    telling: bool = True
    file: str = ""


@dataclass(frozen=True)
class ToldClaim:
    """A claim as it is told beside others.

    Attributes:
        line: The claim and the names of its sources.
        passages: Ids of these.
    """

    line: str
    passages: tuple[str, ...]


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


def origin(node: "NodeWithScore") -> str:
    """What a passage is from, as it is read; where a correction is from is none of what it says."""
    return "" if node.node_id.startswith(CORRECTION) else prompts.origin(node.metadata)


def date_of(node: "NodeWithScore") -> str:
    """The date of a passage's document, in ISO 8601; empty if not known."""
    return str(node.metadata.get("date", ""))


def passage_text(node: "NodeWithScore") -> str:
    """A passage as it is read, with what it is from before it."""
    return prompts.with_title(origin(node) or UNTITLED, node.text)


def passage_claims(
    read: "Sequence[tuple[NodeWithScore, Reading]]", alone: bool = False
) -> list[PassageClaim]:
    """The claims of the passages that claim something.

    Args:
        read: Passages, each with what the reader found in it.
        alone: Whether nothing else may be answered from, so that they have to be surer.
    """
    least = LEAST_ALONE if alone else LEAST_ANSWERS
    files = prompts.file_names(prompts.path(node) for node, _ in read)
    return [
        replace(_passage_claim(node, reading), file=files[prompts.path(node)])
        for node, reading in read
        if reading.answer and reading.answers >= least
    ]


def _passage_claim(node: "NodeWithScore", reading: "Reading") -> PassageClaim:
    place = reading.start - len(passage_text(node)) + len(node.text)  # titles are read before it
    sentence, known = _sentence(node.text, place), node.metadata
    return PassageClaim(
        SourceClaim(
            node.node_id,
            reading.answer,
            date_of(node),
            float(known.get("trust", NEUTRAL_TRUST)),
            reading.answers,
        ),
        node.node.ref_doc_id or node.node_id,
        str(known.get("title", "")),
        tuple(filter(None, str(known.get("replaces", "")).split("; "))),
        sentence,
        node.text[:HEAD],
        _versions(node),
        place >= 0 and _says_more(sentence, f"{known.get('title')} {known.get('heading')}"),
    )


def other_versions(
    kept: "Sequence[NodeWithScore]", found: "Sequence[NodeWithScore]"
) -> "list[NodeWithScore]":
    """The passages found that are of another version of a kept one's document.

    Little tells which of several versions a filter keeps. Versions are told by the names of their
    documents, which differ in that alone; or in their numbers alone, and they say nearly the same.

    Args:
        kept: Passages.
        found: Those that they were chosen from, and any others.
    """
    series = {version.series for each in kept for version in _versions(each)}
    ids = {each.node_id for each in kept}
    return [
        each
        for each in found
        if each.node_id not in ids
        and (
            any(version.series in series for version in _versions(each))
            or any(_nearly_same(each, one) for one in kept)
        )
    ]


def _nearly_same(a: "NodeWithScore", b: "NodeWithScore") -> bool:
    one, other = (NUMBERS.sub("", str(node.metadata.get("title", ""))) for node in (a, b))
    return one == other and fuzz.ratio(a.text, b.text) >= NEARLY_SAME


def _says_more(sentence: str, headings: str) -> bool:
    """Whether a sentence has a word that is not in the headings above it, and comes to an end."""
    more = any(word.isalpha() for word in words(sentence) - words(headings))
    return more and not sentence.endswith((",", ":"))


def ways_to_ask(question: str, date: str) -> list[str]:
    """The questions for which a passage is read.

    A document that is dated no later than what the question names may tell what held then, without
    naming that date; so it is asked without the date too.

    Args:
        question: The question.
        date: Of the document; empty if not known.
    """
    found, named = find_dates(question, years=True), _date_named(question)
    if not named or len(found) != 1 or not date or date[: len(named)] > named:
        return [question]
    before = question[: found[0].start].split()
    if before and normalise(before[-1]) in FUNCTION_WORDS:
        before.pop()  # "in 2021"
    rest = question[found[0].stop :].lstrip(" ,")
    space = " " if before and rest[:1].isalnum() else ""
    undated = f"{' '.join(before)}{space}{rest}"
    return [question, undated] if normalise(undated) else [question]


def read(
    reader: "AnswerReader", asked: "Sequence[tuple[str, Sequence[NodeWithScore]]]"
) -> "list[list[tuple[NodeWithScore, Reading]]]":
    """Read passages, each for its question, all in one batch.

    Args:
        reader: The reader.
        asked: Questions, each with its passages.

    Returns:
        For each question its passages with what the reader found, by the way to ask that is surer.
    """
    passages = [
        (at, node, (way, origin(node) or UNTITLED, node.text))
        for at, (question, nodes) in enumerate(asked)
        for node in nodes
        for way in ways_to_ask(question, date_of(node))
    ]
    surest: dict[tuple[int, str], Reading] = {}
    readings = read_passages(reader, [each for _, _, each in passages])
    for (at, node, _), reading in zip(passages, readings, strict=True):
        known = surest.get((at, node.node_id))
        if known is None or reading.answers > known.answers:
            surest[at, node.node_id] = reading
    return [
        [(node, surest[at, node.node_id]) for node in nodes] for at, (_, nodes) in enumerate(asked)
    ]


def read_passages(reader: "AnswerReader", asked: Sequence[tuple[str, str, str]]) -> "list[Reading]":
    """Read passages whole, and each of their sentences alone.

    How likely a passage answers is told by all of it, and by the names that it lacks; which words
    of it answer, by the surest of these readings. So they are found in more of the held-out texts:
    of documents 74 instead of 66 % have half of the answer's words or more, of texts about several
    things 73 instead of 64.

    Args:
        reader: The reader.
        asked: Questions, each with the title and the text of a passage.

    Returns:
        Places are those in the text with its title.
    """
    whole = [(question, prompts.with_title(title, text)) for question, title, text in asked]
    alone = [
        (place, start, (question, prompts.with_title(title, sentence)), len(sentence))
        for place, (question, title, text) in enumerate(asked)
        for start, sentence in _sentences(text)
    ]
    readings = reader.read([*whole, *(pair for _, _, pair, _ in alone)])
    found = readings[: len(whole)]
    likely = [each.answers for each in found]
    for (place, start, (_, titled), size), each in zip(alone, readings[len(whole) :], strict=True):
        within = each.start - (len(titled) - size)
        if each.answer and within >= 0 and each.answers > found[place].answers:
            before = len(whole[place][1]) - len(asked[place][2])
            found[place] = replace(each, start=before + start + within)
    return [
        replace(each, answers=answerability.probability(*pair, answers))
        for each, pair, answers in zip(found, whole, likely, strict=True)
    ]


def _sentences(text: str) -> list[tuple[int, str]]:
    """The sentences of a text with their places; none of one, or where rows are read alone."""
    found = [] if rows_alone(text) else parts(text)
    cut = [(start, text[start:end]) for start, end in found[:MOST_SENTENCES]]
    spans = [(start + len(each) - len(each.lstrip()), each.strip()) for start, each in cut]
    return [(start, each) for start, each in spans if each] if len(spans) > 1 else []


def with_quote(prompt: Prompt, reader: "AnswerReader | None") -> Prompt:
    """A prompt with the sentence of its passages that surest claims an answer, if one does."""
    if reader is None or not prompt.texts:
        return prompt
    readings = read_passages(reader, [(prompt.question, UNTITLED, text) for text in prompt.texts])
    text, reading = max(zip(prompt.texts, readings, strict=True), key=lambda each: each[1].answers)
    if not reading.answer or reading.answers < LEAST_ANSWERS:
        return prompt
    before = len(prompts.with_title(UNTITLED, text)) - len(text)
    sentence = _sentence(text, reading.start - before)
    return replace(prompt, quote=Quote(sentence, reading.answer, reading.answers))


def _versions(node: "NodeWithScore") -> tuple[Version, ...]:
    title = str(node.metadata.get("title", ""))
    names = [title, Path(prompts.path(node)).stem]
    if stated := node.metadata.get("version"):
        names.append(f"{title} version {stated}")
    return tuple(found for name in names if (found := find_version(name)) is not None)


def _sentence(text: str, place: int) -> str:
    """The sentence of a text, or the row of a table, in which a character stands, on one line.

    All of the text where it stands in what is read before it.
    """
    for start, end in parts(text):
        if start <= place < end:
            return " ".join(text[start:end].split())
    return " ".join(text.split())


def settle(
    question: str,
    passages: Sequence[PassageClaim],
    policy: Policy | None = None,
    as_of: str = "",
) -> Settlement:
    """Group the claims of passages and choose between the groups.

    Args:
        question: What they answer.
        passages: Those that claim something, best first; of pinned corrections, the latest first.
        policy: ``newest``, ``trusted``, ``majority`` or ``all``. By default trust decides, then
            dates and versions; where none does, all are told.
        as_of: A date in ISO 8601; what is dated later is not followed. Without one, what held on
            the date that the question names is followed, if a document tells and no pinned
            correction answers.
    """
    if not passages:
        return Settlement()
    passages = _surest(passages)
    groups = values.group(question, [each.claim.says for each in passages])
    grouped = [
        replace(each, claim=replace(each.claim, group=group))
        for each, group in zip(passages, groups, strict=True)
    ]
    in_force = [each for each in grouped if _by(each, as_of)]
    if not in_force:
        claims = tuple(each.claim for each in grouped)
        return Settlement(claims, reason=f"What the documents claim is dated later than {as_of}.")
    pinned = any(each.claim.source.startswith(CORRECTION) for each in in_force)
    scope, early = f"as of {as_of}" if as_of else "", ""
    if not (as_of or pinned or policy == "all"):
        scope, in_force = _named(question, in_force)
        early = "" if scope else _date_named(question)
    groups_followed, reason = _decide(grouped, in_force, policy, scope)
    told = _told(in_force) if reason and len(groups_followed) > 1 else ()
    if reason and early:
        reason = f"{reason.removesuffix('.')}; none of them is dated {early} or earlier."
    elif reason and not scope and _lacks_version(question, in_force):
        reason = f"{reason.removesuffix('.')}; none of them is the version that the question names."
    return replace(_following(grouped, groups_followed, reason), told=told)


def _by(passage: PassageClaim, date: str) -> bool:
    """Whether a passage is not dated later than a day, month or year; any is, without one."""
    return not date or passage.claim.date[: len(date)] <= date


def _named(question: str, passages: list[PassageClaim]) -> tuple[str, list[PassageClaim]]:
    """The date or version that the question names, and the passages that tell what holds there.

    At a date these are the passages in which the claim's sentence names it too, or else those dated
    no later; if there are none, or neither is named, nothing and all passages.
    """
    if date := _date_named(question):
        telling = [each for each in passages if date in _dates(each.sentence)]
        held = telling or [each for each in passages if each.claim.date and _by(each, date)]
        if held:
            return f"as of {date}", held
    if asked := find_version(question):
        covered = [one for one in passages if any(map(asked.covers, one.versions))]
        if covered:
            return "in the version that the question names", covered
    return "", passages


def _lacks_version(question: str, passages: Sequence[PassageClaim]) -> bool:
    """Whether the question names a version, as the documents do, and none of theirs."""
    asked = find_version(question)
    known = [version for each in passages for version in each.versions]
    return asked is not None and bool(known) and not any(map(asked.covers, known))


def _date_named(question: str) -> str:
    """The day, month or year that a question names; empty where it names none or several."""
    named = _dates(question)
    return named.pop() if len(named) == 1 else ""


def _dates(text: str) -> set[str]:
    """The days, months and years that a text names, in ISO 8601."""
    found = {str(each) for date in find_dates(text, years=True) for each in date.readings}
    return {date for date in found if DATE.fullmatch(date)}


def _decide(
    grouped: Sequence[PassageClaim],
    in_force: Sequence[PassageClaim],
    policy: Policy | None,
    scope: str,
) -> tuple[set[int], str]:
    """The groups to follow, and why.

    Args:
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
        return remaining, f"The documents disagree; the answer follows what held {scope}."
    chosen, why = _choose(in_force, policy)
    if chosen is not None:
        version = _version(in_force, chosen) if why == "version" else ""
        why = f"{WHY[why]}{version} {scope}".strip()
        return {chosen}, f"The documents disagree; the answer follows {why}."
    if policy == "all":
        return remaining, "The documents disagree; every claim is told."
    why = UNDECIDED.get(policy) or _undated(in_force)
    return remaining, f"The documents disagree, and nothing decides between them{why}."


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
    return ": not all of them have a date" if any(dated) else ": none has a date"


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


def _choose(passages: Sequence[PassageClaim], policy: Policy | None) -> tuple[int | None, str]:
    """The group to follow, and why; ``None`` where there is none."""
    series = set.intersection(*({each.series for each in one.versions} for one in passages))
    rules: dict[str, Callable[[Sequence[PassageClaim]], Any]] = {
        "replaces": lambda group: _replacing(group, passages),
        "trusted": lambda group: max(each.claim.trust for each in group),
        "newest": lambda group: max(each.claim.date for each in group),
        "version": lambda group: max(
            version.number
            for each in group
            for version in each.versions
            if version.series in series
        ),
        "majority": lambda group: len({each.document for each in group}),
    }
    order = ORDER[policy]
    groups = list(dict.fromkeys(each.claim.group for each in passages))
    members = {group: [each for each in passages if each.claim.group == group] for group in groups}
    for name in order:
        if policy is None and name == "newest" and not all(each.claim.date for each in passages):
            continue  # an undated document may be newer
        if name == "version" and not series:
            continue
        ranked = sorted(groups, key=lambda group: rules[name](members[group]), reverse=True)
        if rules[name](members[ranked[0]]) > rules[name](members[ranked[1]]):
            return ranked[0], name
    return None, ""


def _replacing(group: Sequence[PassageClaim], passages: Sequence[PassageClaim]) -> bool:
    """Whether a document of the group says that it replaces one outside, and none the group's."""
    outside = [each for each in passages if each not in group]
    return _names(group, outside) and not _names(outside, group)


def _names(ones: Sequence[PassageClaim], others: Sequence[PassageClaim]) -> bool:
    named = {name for each in ones for name in each.replaces if name}
    titles = [name for name in sorted(named) if not name.replace("-", "").isdigit()]
    return ANY in named or any(
        other.claim.date in named or holds(f"{other.title}\n{other.head}", titles)
        for other in others
    )


def _told(passages: Sequence[PassageClaim]) -> tuple[ToldClaim, ...]:
    """Every claim with its sources."""
    files: dict[str, set[str]] = {}
    for each in passages:
        files.setdefault(each.title, set()).add(each.file)
    told = []
    for group in dict.fromkeys(each.claim.group for each in passages):
        members = [each for each in passages if each.claim.group == group]
        names = dict.fromkeys(_name(each, len(files[each.title]) > 1) for each in members)
        line = f"- {members[0].claim.says} ({'; '.join(names)})"
        told.append(ToldClaim(line, tuple(each.claim.source for each in members)))
    return tuple(told)


def _name(passage: PassageClaim, with_file: bool) -> str:
    """What a document is called: its title and date; its file, where others share the title."""
    parts = (
        passage.title or "a document without a title",
        passage.file if with_file else "",
        passage.claim.date,
    )
    return ", ".join(part for part in parts if part)
