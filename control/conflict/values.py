"""The value of an answer span, and whether two spans that answer one question agree."""

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from itertools import product
from typing import TypeVar

from control.conflict.dates import PartialDate, weekday
from control.conflict.notations import dates_in
from control.conflict.pieces import GRAMMAR, VERSION
from control.conflict.quantities import Relation, relate, unit_words
from control.conflict.spans import Span, Word, clean, compact, read_span
from control.conflict.words import match_words
from foundation.text import lemma, normalise, words

T = TypeVar("T")
LONGEST = 400  # characters; longer texts are no answer spans: only their words are compared
YES_NO = words(
    "am is are was were do does did has have had can could may might must shall should "
    "will would isnt arent doesnt didnt ist sind war hat haben kann darf wird est peut es"
)
NEGATING = re.compile(r"^(?:un|in|im|il|ir|dis|non)(?=\w{4})")
ASKS_NUMBER = re.compile(
    r"\b(?:how (?:many|much|long|old|tall|far|fast|big|large|heavy|high|deep|wide|often|hot)"
    r"|wie (?:viel|viele|lange|alt|hoch|weit|gro(?:ß|ss))|combien|cu[aá]nt[oa]s?)\b",
    re.IGNORECASE,
)


def compare(question: str, a: str, b: str) -> Relation:
    """How two answer spans of one question relate.

    Args:
        question: That both answer.
        a: The one span; English, German, French and Spanish dates, numbers and units are read.
        b: The other.

    Returns:
        ``same`` if they are notations of one value, ``compatible`` if one is more precise than the
        other or a part of it, ``contradictory`` if at most one of them is right.
    """
    a, b = clean(a), clean(b)
    if compact(a) == compact(b):
        return "same"
    a, b = _of_code(a, b), _of_code(b, a)
    if not a or not b:
        return "compatible"  # what claims nothing contradicts nothing
    if max(len(a), len(b)) > LONGEST:
        return _compare_long(a, b)
    years = any(
        any(reading.month or reading.years for reading in found.readings)
        for text in (a, b)
        for found in dates_in(text, False)
    )
    versions = any(VERSION.search(text) for text in (a, b))
    one, two = read_span(a, years, versions), read_span(b, years, versions)
    known = _keys(question) | {word.key for word in one.words + two.words}
    one, two = _without_prefixes(one, known), _without_prefixes(two, known)
    if one.agrees or two.agrees or _asks_yes_no(question):
        return _compare_agreement(question, one, two)
    if one.negative != two.negative:
        # "none" is a number
        nothing, number = (one, two) if one.negative else (two, one)
        zero = any(each.low == 0 for found in number.quantities for each in found.readings)
        return "same" if zero and not nothing.words and not number.words else "contradictory"
    return _compare_values(question, one, two)


def normalised(question: str, text: str) -> str:
    """The span as it is shown: ISO dates, digits with the symbols of units, names as written.

    Args:
        question: That it answers.
        text: The span.
    """
    text = clean(text)
    return text if len(text) > LONGEST else read_span(text, False, False).shown


def agrees(question: str, says: str, answer: str) -> bool:
    """Whether an answer's span says what another one does: its value, or a part of its words."""
    relation = compare(question, says, answer)
    shared = set(normalise(says).split()) & set(normalise(answer).split())
    return relation == "same" or (relation == "compatible" and bool(shared))


def group(question: str, texts: Sequence[str]) -> list[int]:
    """The group of each span: those that agree share one, those that contradict never do.

    Args:
        question: That all of them answer.
        texts: The spans.

    Returns:
        A number per span, from 0 in the order of first appearance. A span that is compatible with
        two groups joins the first one in which it contradicts nothing.
    """
    members: list[list[str]] = []
    numbers = []
    for text in texts:
        relations = [[compare(question, text, other) for other in each] for each in members]
        fits = [at for at, each in enumerate(relations) if "contradictory" not in each]
        at = next((at for at in fits if "same" in relations[at]), fits[0] if fits else len(members))
        if at == len(members):
            members.append([])
        members[at].append(text)
        numbers.append(at)
    return numbers


def _compare_values(question: str, one: Span, two: Span) -> Relation:
    """Compare dates with dates, quantities with quantities, and words with words."""
    shared, values = _value_relations(one, two)
    match = match_words(one, two)
    if "contradictory" in values or not (shared or match.count):
        return "contradictory" if "contradictory" in values else _compare_disjoint(one, two)
    # A word of the question tells nothing new: "the Elbe", "the Elbe river".
    asked = _keys(question)
    exact = match.exact and not (
        any(w.title for w in match.one) and any(w.title for w in match.two)
    )
    extra = [
        [word for word in rest if not word.title and word.key not in asked]
        for rest in (match.one, match.two)
    ]
    if all(extra):
        counts = one.quantities + two.quantities
        counted = one.quantities and two.quantities and not any(each.unit_words for each in counts)
        # "3,000 people" and "3,000 inhabitants" are one number; "12 EUR per day" is not "per year".
        lenient = counted and ASKS_NUMBER.search(question) and not all(map(_measures, extra))
        return "compatible" if lenient else "contradictory"
    if shared == 1 and _unit_asked(asked, one, two):
        values = [] if values == ["compatible"] else values
    return "compatible" if any(extra) or not exact or "compatible" in values else "same"


def _value_relations(one: Span, two: Span) -> tuple[int, list[Relation]]:
    """How many kinds of values both have, and how the values of each kind relate."""
    kinds = (
        _match(one.dates, two.dates, _relate_dates),
        _match(one.times, two.times, _relate_dates),
        _match(one.quantities, two.quantities, relate),
    )
    relations = [relation for _, relation in kinds if relation is not None]
    return sum(both for both, _ in kinds), relations


def _compare_disjoint(one: Span, two: Span) -> Relation:
    """Compare spans without a word and without a kind of value in common."""
    if one.empty and two.empty:
        return "same" if one.negative and two.negative else "contradictory"
    if one.empty or two.empty:
        return "contradictory" if one.negative or two.negative else "compatible"
    for short, long in ((one, two), (two, one)):  # "Will" says a part of "Will Smith"
        if short.shown in long.shown.split() and normalise(short.shown) in GRAMMAR:
            return "compatible"
    # "March" and "12:00" may both be right; a date and an amount may not.
    points = not any(span.words or span.quantities for span in (one, two))
    return "compatible" if points else "contradictory"


def _measures(extra: Sequence[Word]) -> bool:
    return any(normalise(word.raw) in unit_words() or weekday(word.key) for word in extra)


def _compare_agreement(question: str, one: Span, two: Span) -> Relation:
    """Compare two spans of which at least one says yes or no."""
    if one.negative != two.negative:
        return "contradictory"
    asked = _keys(question)
    one, two = (
        replace(span, words=[word for word in span.words if word.key not in asked])
        for span in (one, two)
    )
    if one.empty or two.empty:
        return "same" if one.empty and two.empty else "compatible"
    return _compare_values(question, one, two)


def _without_prefixes(span: Span, known: Set[str]) -> Span:
    """The span with "unsafe" as "not safe", where the question or a span has "safe"."""
    words, negative = [], span.negative
    for word in span.words:
        bare = NEGATING.sub("", word.key)
        opposed = bare != word.key and bare in known
        words.append(replace(word, raw=bare, key=bare) if opposed else word)
        negative ^= opposed
    return replace(span, words=words, negative=negative)


def _of_code(span: str, other: str) -> str:
    """The name of a currency in place of its code, if the other span does not have that."""
    from babel import Locale

    if span in other.split():  # "PHP", "PHP 8"
        return span
    return str(Locale("en").currencies.get(span, span))


def _compare_long(a: str, b: str) -> Relation:
    one, two = words(a) - GRAMMAR, words(b) - GRAMMAR
    if one == two:
        return "same"
    return "compatible" if one <= two or two <= one else "contradictory"


def _match(
    one: Sequence[T], two: Sequence[T], relation: Callable[[T, T], Relation]
) -> tuple[bool, Relation | None]:
    """Whether both lists have values, and their relation: each matched to the closest one left."""
    if not one or not two:
        return False, "compatible" if one or two else None
    short, long = sorted((list(one), list(two)), key=len)
    result: Relation = "same"
    for value in short:
        relations = [relation(value, other) for other in long]
        closest: Relation = "same" if "same" in relations else "compatible"
        if closest not in relations:
            return True, "contradictory"
        del long[relations.index(closest)]
        result = closest if result == "same" else result
    return True, "compatible" if long else result


def _relate_dates(one: tuple[PartialDate, ...], two: tuple[PartialDate, ...]) -> Relation:
    if set(one) & set(two):
        return "same"
    for a, b in product(one, two):
        if not a.excludes(b):
            return "compatible"
    return "contradictory"


def _unit_asked(asked: Set[str], one: Span, two: Span) -> bool:
    """Whether the quantities differ only by a unit that the question gives."""
    if len(one.quantities) != 1 or len(two.quantities) != 1:
        return False
    a, b = one.quantities[0], two.quantities[0]
    if a.bound != b.bound or a.unit_words == b.unit_words or (a.unit_words and b.unit_words):
        return False
    return all(lemma(word) in asked for word in a.unit_words + b.unit_words)


def _keys(text: str) -> frozenset[str]:
    return frozenset(lemma(word) for word in normalise(text).split())


def _asks_yes_no(question: str) -> bool:
    first = normalise(question).split()[:1]
    return bool(first) and first[0] in YES_NO and not re.search(r"\bor\b|\boder\b|\bou\b", question)
