"""Words and names of two answer spans: which are the same, and which short for another."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from control.conflict.pieces import VERSION
from control.conflict.spans import Span, Word, spelled_out
from foundation.text import normalise

SPELLING = 0.9  # Indel similarity of two names from which on one is a spelling of the other
SHORTEST_SPELLING = 6  # letters; shorter words that differ are different words
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
STROKES = str.maketrans({"ø": "o", "ł": "l", "đ": "d"})  # Unicode does not decompose these
LONGEST_ABBREVIATION = 4  # letters: "Blvd"
LEAST_LEFT_OUT = 2  # letters: "Ann" is not short for "Anna"


@dataclass
class Match:
    """How the words of two spans match.

    Attributes:
        count: How many do.
        exact: Whether all of these say the same, none less than the other.
        one: The rest of the first span.
        two: The rest of the second.
    """

    count: int
    exact: bool
    one: list[Word]
    two: list[Word]


def match_words(one: Span, two: Span) -> Match:
    """Match the words of two spans, the closest first."""
    match = Match(0, True, list(one.words), list(two.words))
    if match.one and _joined_keys(match.one) == _joined_keys(match.two):
        return Match(len(match.one), True, [], [])
    for same in (_equal, _similar):
        _pair(match, match.one, match.two, same)
    for mine, its in ((match.one, match.two), (match.two, match.one)):
        _pair_acronyms(match, mine, its)
    for mine, its in ((match.one, match.two), (match.two, match.one)):
        _pair(match, mine, its, _contracts)
        _pair(match, mine, its, _shortens, exact=False)
    _pair_countries(match, match.one, match.two, two)
    _pair_countries(match, match.two, match.one, one)
    return match


def _pair(
    match: Match,
    mine: list[Word],
    its: list[Word],
    agree: Callable[[Word, Word], bool],
    exact: bool = True,
) -> None:
    for word in list(mine):
        other = next((other for other in its if agree(word, other)), None)
        if other is not None:
            mine.remove(word)
            its.remove(other)
            match.count += 1
            match.exact = match.exact and exact


def _pair_acronyms(match: Match, mine: list[Word], its: list[Word]) -> None:
    for word in list(mine):
        if run := spelled_out(word, its):
            mine.remove(word)
            del its[run[0] : run[1]]
            match.count += 1


def _pair_countries(match: Match, mine: list[Word], its: list[Word], other: Span) -> None:
    """Pair countries with places in them: "Norway", "Oslo"; "United States", "New Mexico"."""
    for word in [word for word in mine if word.entity in other.implied | other.divided]:
        inside = [one for one in its if one.entity][:1]
        if not inside and word.entity in other.divided:
            inside = list(its)
        if inside:
            mine.remove(word)
            its[:] = [one for one in its if one not in inside]
            match.count, match.exact = match.count + 1, False


def _contracts(short: Word, long: Word) -> bool:
    """Whether the letters, without vowels, are those of a longer word: "St", "Ltd"."""
    a, b = normalise(short.raw), normalise(long.raw)
    if not 1 < len(a) <= LONGEST_ABBREVIATION or len(b) < len(a) + LEAST_LEFT_OUT:
        return False
    rest = iter(b)
    return (
        (a[0], a[-1]) == (b[0], b[-1])
        and re.search("[aeiou]", a) is None
        and all(letter in rest for letter in a)
    )


def _joined_keys(given: Sequence[Word]) -> str:
    return " ".join(normalise(word.raw) for word in given)


def _shortens(short: Word, long: Word) -> bool:
    """Whether one is the initial or the first letters of a name, or a version of releases."""
    a, b = normalise(short.raw), normalise(long.raw)
    if VERSION.match(long.key):
        return long.key.startswith(f"{short.key}.")
    if not (short.raw[0].isupper() and long.raw[0].isupper() and b.startswith(a)):
        return False
    if b.startswith(f"{a} "):
        return True  # "Weiss", "Weiss-Keller"
    return len(a) == 1 or (len(a) <= LONGEST_ABBREVIATION and len(b) >= len(a) + LEAST_LEFT_OUT)


def _equal(one: Word, two: Word) -> bool:
    return one.key == two.key or (one.entity != "" and one.entity == two.entity)


def _similar(one: Word, two: Word) -> bool:
    """Whether one is another spelling of the other."""
    from rapidfuzz.distance import OSA
    from rapidfuzz.fuzz import ratio

    a, b = one.key, two.key
    forms = [
        {normalise(word.raw.casefold().translate(table)) for table in (UMLAUTS, STROKES)}
        for word in (one, two)
    ]
    if forms[0] & forms[1]:
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
