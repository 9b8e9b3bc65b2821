"""The value of an answer span, and whether two spans that answer one question agree."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from control.conflict.dates import PartialDate, weekday
from control.conflict.quantities import Relation, relate, unit_words
from control.conflict.spans import (
    GRAMMAR,
    VERSION,
    Span,
    Word,
    clean,
    compact,
    dates_in,
    lemma,
    read_span,
    spelled_out,
)
from foundation.text import normalise, words

SHORTEST_NAME = 2  # letters of a short form that is always the same one: "St", "Mt"
LONGEST_ABBREVIATION = 4  # letters
LONGEST_NAME = 4  # words of a country or a city
LONGEST = 400  # characters; longer texts are no answer spans: only their words are compared
YES_NO = words("am is are was were do does did has have had can could may might must shall should "
    "will would isnt arent doesnt didnt ist sind war hat haben kann darf wird est peut es")  # fmt: skip
ASKS_VALUE = re.compile(
    r"\b(?:how (?:many|much|long|old|tall|far|fast|big|large|heavy|high|deep|wide|often|hot)"
    r"|wie (?:viel|viele|lange|alt|hoch|weit|gro(?:ß|ss))|combien|cu[aá]nt[oa]s?)\b",
    re.IGNORECASE,
)
SPELLING = 0.9  # Indel similarity of two names from which on one is a spelling of the other
SHORTEST_SPELLING = 6  # letters; shorter words that differ are different words
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})


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
    relations: list[Relation] = []
    shared = 0
    pairs: list[tuple[Sequence[object], Sequence[object], object]] = [
        (one.dates, two.dates, _relate_dates),
        (one.times, two.times, _relate_dates),
        (one.quantities, two.quantities, relate),
    ]
    for mine, its, relation in pairs:
        if mine and its:
            relations.append(_match(mine, its, relation))
            shared += 1
        elif mine or its:
            relations.append("compatible")
    if "contradictory" in relations:
        return "contradictory"
    matched, exact, extra_one, extra_two = _match_words(one, two)
    if matched or shared:
        if any(word.title for word in extra_one) and any(word.title for word in extra_two):
            exact = False
        extra_one = [word for word in extra_one if not word.title]
        extra_two = [word for word in extra_two if not word.title]
    asked = _keys(question)
    if matched or shared:
        # A word of the question tells nothing new: "the Elbe", "the Elbe river".
        extra_one = [word for word in extra_one if word.key not in asked]
        extra_two = [word for word in extra_two if word.key not in asked]
        if _units_asked(question, one, two):
            relations = [
                "same" if each == "compatible" and shared == 1 else each for each in relations
            ]
    if extra_one and extra_two:
        strong = unit_words()
        counts = [each for span in (one, two) for each in span.quantities]
        values_only = (
            one.quantities
            and two.quantities
            and not any(each.unit_words for each in counts)
            and ASKS_VALUE.search(question)
        )
        if not values_only or all(
            any(normalise(word.raw) in strong or weekday(word.key) for word in extra)
            for extra in (extra_one, extra_two)
        ):
            return "contradictory"
        return "compatible"
    if not matched and not shared and (one.words or two.words):
        nothing = not (one.words or one.dates or one.times or one.quantities) or not (
            two.words or two.dates or two.times or two.quantities
        )
        return "compatible" if nothing and not (one.negative or two.negative) else "contradictory"
    if not matched and not shared:
        both = (one.dates or one.times or one.quantities) and (
            two.dates or two.times or two.quantities
        )
        if both:
            # "March" and "12:00" may both be right; a date and an amount may not.
            times = not (one.quantities or two.quantities)
            return "compatible" if times else "contradictory"
        return "same" if one.negative and two.negative else "contradictory"
    if extra_one or extra_two or not exact or "compatible" in relations:
        return "compatible"
    return "same"


def _compare_agreement(question: str, one: Span, two: Span) -> Relation:
    """Compare two spans of which at least one says yes or no."""
    if one.negative != two.negative:
        return "contradictory"
    asked = _keys(question)
    rest = [
        replace(span, words=[word for word in span.words if word.key not in asked])
        for span in (one, two)
    ]
    empty = [not (span.words or span.dates or span.times or span.quantities) for span in rest]
    if all(empty):
        return "same"
    return "compatible" if any(empty) else _compare_values(question, *rest)


def _compare_long(a: str, b: str) -> Relation:
    one, two = words(a) - GRAMMAR, words(b) - GRAMMAR
    if one == two:
        return "same"
    return "compatible" if one <= two or two <= one else "contradictory"


def _match(one: Sequence[object], two: Sequence[object], relation: object) -> Relation:
    """The relation of two lists of values, each value matched to the closest one left."""
    short, long = sorted((list(one), list(two)), key=len)
    found: list[Relation] = []
    for value in short:
        ranked = [(relation(value, other), at) for at, other in enumerate(long)]  # type: ignore[operator]
        for wanted in ("same", "compatible"):
            at = next((at for each, at in ranked if each == wanted), None)
            if at is not None:
                found.append(wanted)  # type: ignore[arg-type]
                del long[at]
                break
        else:
            return "contradictory"
    return "compatible" if long or "compatible" in found else "same"


def _relate_dates(one: tuple[PartialDate, ...], two: tuple[PartialDate, ...]) -> Relation:
    if set(one) & set(two):
        return "same"
    for a, b in product(one, two):
        if (a.minute is not None and a.half_open) or (b.minute is not None and b.half_open):
            if a.minute == b.minute:
                return "same"
            continue
        if not a.excludes(b):
            return "compatible"
    return "contradictory"


def _units_asked(question: str, one: Span, two: Span) -> bool:
    """Whether the quantities differ only by a unit that the question gives."""
    if len(one.quantities) != 1 or len(two.quantities) != 1:
        return False
    a, b = one.quantities[0], two.quantities[0]
    if a.bound != b.bound or a.unit_words == b.unit_words or (a.unit_words and b.unit_words):
        return False
    asked = _keys(question)
    return all(lemma(word) in asked for word in a.unit_words + b.unit_words)


# Words


def _match_words(one: Span, two: Span) -> tuple[int, bool, list[Word], list[Word]]:
    """How many words match, whether all of them exactly, and the rest of either side."""
    left, right = list(one.words), list(two.words)
    if left and _joined_keys(left) == _joined_keys(right):
        return len(left), True, [], []
    matched, exact = 0, True
    for same in (_equal, _similar):
        for word in list(left):
            other = next((other for other in right if same(word, other)), None)
            if other is not None:
                left.remove(word)
                right.remove(other)
                matched += 1
    for mine, its in ((left, right), (right, left)):
        for word in list(mine):
            if run := spelled_out(word, its):
                mine.remove(word)
                del its[run[0] : run[1]]
                matched += 1
    for mine, its in ((left, right), (right, left)):
        for word in list(mine):
            other = next((other for other in its if _abbreviates(word, other)), None)
            if other is not None:
                mine.remove(word)
                its.remove(other)
                matched += 1
                exact = exact and _contracts(word.key, other.key)
    for mine, its, span in ((left, right, two), (right, left, one)):
        for word in list(mine):
            city = next((other for other in its if other.entity and other is not word), None)
            if city is not None and word.entity in span.implied:  # "Oslo", "Norway"
                mine.remove(word)
                its.remove(city)
                matched, exact = matched + 1, False
    return matched, exact, left, right


def _contracts(short: str, long: str) -> bool:
    """Whether the letters without vowels are those of a longer word: "St", "Ltd"."""
    rest = iter(long)
    return (
        len(short) > 1
        and short[-1] == long[-1]
        and not re.search("[aeiou]", short)
        and all(letter in rest for letter in short)
    )


def _joined_keys(given: Sequence[Word]) -> str:
    return " ".join(normalise(word.raw) for word in given)


def _abbreviates(short: Word, long: Word) -> bool:
    """Whether one is short for the other: "A.", "St", "Alex"; or a version for its releases."""
    a, b = short.key, long.key
    if VERSION.match(b):
        return b.startswith(f"{a}.")
    if not (short.raw[0].isupper() and long.raw[0].isupper() and a[0] == b[0]):
        return False
    if len(a) == 1 or len(a) > LONGEST_ABBREVIATION or len(b) < len(a) + SHORTEST_NAME:
        return len(a) == 1
    return b.startswith(a) or _contracts(a, b)


def _equal(one: Word, two: Word) -> bool:
    return one.key == two.key or (one.entity != "" and one.entity == two.entity)


def _similar(one: Word, two: Word) -> bool:
    """Whether one is another spelling of the other."""
    from rapidfuzz.distance import OSA
    from rapidfuzz.fuzz import ratio

    a, b = one.key, two.key
    if normalise(one.raw.casefold().translate(UMLAUTS)) == normalise(
        two.raw.casefold().translate(UMLAUTS)
    ):
        return True
    if " " in a + b or "." in a + b or a[0] != b[0] or min(len(a), len(b)) < SHORTEST_SPELLING - 1:
        return False
    if any(char.isdigit() for char in a + b):
        return False
    if sorted(a) == sorted(b) and OSA.distance(a, b) == 1:
        return True  # theatre, theater
    if max(len(a), len(b)) < SHORTEST_SPELLING:
        return False
    names = one.raw[0].isupper() and two.raw[0].isupper()
    return ratio(a, b) >= 100 * SPELLING or (not names and _british(a, b))


def _british(a: str, b: str) -> bool:
    """Whether lower-case words differ in one letter only, and not at the end."""
    from rapidfuzz.distance import OSA

    return a[-1] == b[-1] and len(a) != len(b) and OSA.distance(a, b) == 1


def _keys(text: str) -> frozenset[str]:
    return frozenset(lemma(word) for word in normalise(text).split())


def _asks_yes_no(question: str) -> bool:
    first = normalise(question).split()[:1]
    return bool(first) and first[0] in YES_NO and not re.search(r"\bor\b|\boder\b|\bou\b", question)
