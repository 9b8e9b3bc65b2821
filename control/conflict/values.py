"""The value of an answer span, and whether two spans that answer one question agree."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import product

from control.conflict.claims import FUNCTION_WORDS
from control.conflict.dates import FoundDate, PartialDate, find_dates, weekday
from control.conflict.quantities import (
    AFTER,
    BOUNDS,
    FRACTIONS,
    LONGEST_BOUND,
    LONGEST_UNIT,
    MULTIPLES,
    NUMBER,
    ORDINAL,
    Quantity,
    Reading,
    Relation,
    Unit,
    multiple,
    quantity,
    relate,
    spelled,
    unit_words,
    units,
)
from foundation.text import normalise, words

SHORTEST_NAME = 2  # letters of a short form that is always the same one: "St", "Mt"
LONGEST_ABBREVIATION = 4  # letters
LONGEST_NAME = 4  # words of a country or a city
LONGEST = 400  # characters; longer texts are no answer spans: only their words are compared
# The closed classes of the four languages: words that say nothing about which answer it is.
GRAMMAR = FUNCTION_WORDS | words(
    "am any being could do does did can may might must shall should will would have having "
    "i you we us our your my me him them what when where why how there here then about into "
    "der die das den dem des ein eine einen einem einer eines und oder im am zu zum zur von vom "
    "bei mit auf ist sind war waren wird es er sie ja "
    "le la les l un une du au aux et ou est sont en dans il elle ils elles ce c d "
    "per por el los las lo una unos unas y del al son era por con "
)
NEGATIONS = words("no not never none neither nor without cannot isnt arent nein nicht nie kein "
    "keine keinen ohne non pas jamais sans nunca sin ningun ninguna nothing nobody noone")  # fmt: skip
AGREEMENTS = words("yes yeah yep true correct indeed certainly oui ja jawohl si sure right")
YES_NO = words("am is are was were do does did has have had can could may might must shall should "
    "will would isnt arent doesnt didnt ist sind war hat haben kann darf wird est peut es")  # fmt: skip
ASKS_VALUE = re.compile(
    r"\b(?:how (?:many|much|long|old|tall|far|fast|big|large|heavy|high|deep|wide|often|hot)"
    r"|wie (?:viel|viele|lange|alt|hoch|weit|gro(?:ß|ss))|combien|cu[aá]nt[oa]s?)\b",
    re.IGNORECASE,
)
NEGATED = re.compile(r"\b(\w+?)n['’]t\b", re.IGNORECASE)
JOINTS = ("to", "-", "–", "—", "bis", "à", "a", "and", "or", "und", "et", "y")
ARTICLES = ("a", "an", "one", "ein", "eine", "einen", "un", "une", "una")
SPELLING = 0.9  # Indel similarity of two names from which on one is a spelling of the other
SHORTEST_SPELLING = 6  # letters; shorter words that differ are different words
ROMAN = {
    "X" * (number // 10) + unit: number
    for number in range(1, 40)
    for unit in [("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")[number % 10]]
}
TOKEN = re.compile(
    r"(?P<opaque>\S+@\S+|(?:https?://|www\.)\S+|\+\d[\d\s()/-]{5,}\d|\d+(?:\.\d+){2,}|\d+:\d+|(?<![\d.,])\d{1,2}-\d{1,2}(?![\d-]))"
    rf"|(?P<number>{NUMBER.pattern.replace(chr(92) + '1', chr(92) + '3')})"
    r"|(?P<letters>(?:[^\W\d_]\.)+[^\W\d_](?!\w)\.?)"
    r"|(?P<word>[^\W\d_]\w*(?:['’-][^\W\d_]\w*)*)"
    r"|(?P<symbol>[^\s\w])"
)
VERSION = re.compile(r"\d+(?:\.\d+){2}")
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})


@dataclass(frozen=True)
class Word:
    """A word that carries a part of the answer.

    Attributes:
        raw: As written.
        key: Its normalised base form.
        entity: The country, city or language that it names, if any.
        title: Whether it is a title before a name.
    """

    raw: str
    key: str
    entity: str = ""
    title: bool = False


@dataclass
class Span:
    """What an answer span says.

    Attributes:
        words: Of its text, without grammar, numbers and dates.
        implied: The countries of its cities.
        dates: Readings of each date; times of day are in ``times``.
        times: Readings of each time of day.
        quantities: Its numbers, with their units.
        negative: Whether it is negated.
        agrees: Whether it says yes or no in so many words.
        shown: The text with its values normalised.
    """

    words: list[Word] = field(default_factory=list)
    implied: set[str] = field(default_factory=set)
    dates: list[tuple[PartialDate, ...]] = field(default_factory=list)
    times: list[tuple[PartialDate, ...]] = field(default_factory=list)
    quantities: list[Quantity] = field(default_factory=list)
    negative: bool = False
    agrees: bool = False
    shown: str = ""


@dataclass
class _Piece:
    """A word or a quantity in order, with its place in the text."""

    start: int
    stop: int
    raw: str
    quantity: Quantity | None = None


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
    a, b = _clean(a), _clean(b)
    if _compact(a) == _compact(b):
        return "same"
    if not a or not b:
        return "compatible"  # what claims nothing contradicts nothing
    if max(len(a), len(b)) > LONGEST:
        return _compare_long(a, b)
    years = any(
        any(reading.month or reading.years for reading in found.readings)
        for text in (a, b)
        for found in _dates(text, False)
    )
    versions = any(VERSION.search(text) for text in (a, b))
    one, two = _span(a, years, versions), _span(b, years, versions)
    if one.agrees or two.agrees or _asks_yes_no(question):
        return _compare_agreement(question, one, two)
    if one.negative != two.negative:
        # "none" is a number
        nothing, number = (one, two) if one.negative else (two, one)
        zero = any(each.low == 0 for found in number.quantities for each in found.readings)
        return "same" if zero and not nothing.words and not number.words else "contradictory"
    return _compare_values(question, one, two)


def normalised(question: str, text: str) -> str:  # noqa: ARG001 - may decide how a value is read
    """The span as it is shown: ISO dates, digits with the symbols of units, names as written.

    Args:
        question: That it answers.
        text: The span.
    """
    text = _clean(text)
    return text if len(text) > LONGEST else _span(text, False, False).shown


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
    return all(_lemma(word) in asked for word in a.unit_words + b.unit_words)


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
            if run := _spelled_out(word, its):
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


def _spelled_out(word: Word, others: Sequence[Word]) -> tuple[int, int] | None:
    """The run of words whose initials ``word`` consists of."""
    letters = word.raw.replace(".", "")
    if not (letters.isupper() and letters.isalpha() and len(letters) > 1):
        return None
    owners = [
        (at, part) for at, o in enumerate(others) for part in re.split(r"[\s-]+", o.raw) if part
    ]
    at = "".join(part[0] for _, part in owners).upper().find(letters)
    if at < 0 or not owners[at][1][0].isupper():
        return None
    return owners[at][0], owners[at + len(letters) - 1][0] + 1


def _keys(text: str) -> frozenset[str]:
    return frozenset(_lemma(word) for word in normalise(text).split())


@lru_cache(maxsize=8192)
def _lemma(word: str) -> str:
    """The base form of a normalised word in English."""
    import simplemma

    return normalise(simplemma.lemmatize(word, lang="en")) or word


@lru_cache(maxsize=4096)
def _known(word: str) -> bool:
    import simplemma

    return simplemma.is_known(word.lower(), lang="en")


@cache
def _titles() -> frozenset[str]:
    from nameparser.config import CONSTANTS

    return frozenset(CONSTANTS.titles)


@lru_cache(maxsize=4096)
def _entity(name: str) -> tuple[str, ...]:
    """The countries, cities and currencies of a name, each city with its country behind it."""
    from babel.core import get_global

    from control.forgetting.aliases import entities

    for entity in entities(name):
        kind, _, code = entity.partition(" ")
        if kind == "language" or (kind == "territory" and code.isalpha()):  # no "World"
            return (entity,)
        if kind == "city":
            return (entity, f"territory {get_global('zone_territories')[code]}")
    return ()


# Reading a span


def _clean(text: str) -> str:
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
    text = unicodedata.normalize("NFKC", text).replace("⁄", "/").replace("−", "-")
    return " ".join(text.split()).strip(" .,;:!?\"'“”„«»*_")


@lru_cache(maxsize=4096)
def _dates(text: str, years: bool) -> tuple[FoundDate, ...]:
    return tuple(find_dates(_digits(text), years))


@lru_cache(maxsize=4096)
def _digits(text: str) -> str:
    known = frozenset(word for word in re.findall(r"[^\W\d_]+", text) if _known(word))
    # "two-year": a hyphen before a unit
    text = re.sub(
        r"(?<=[^\W\d_])-(?=([^\W\d_]{4,}))", lambda at: " " if units(at[1]) else "-", text
    )
    text = spelled(text, known)
    text = re.sub(r"\b(?:an?|1) 3rd\b(?! \w+ of)", "1/3", text)
    return re.sub(r"\b(\d) thirds\b", r"\1/3", text)


@lru_cache(maxsize=4096)
def _span(text: str, years: bool, versions: bool) -> Span:
    raw = NEGATED.sub(r"\1 not", _digits(text).replace("can't", "can not"))
    span = Span()
    shown: list[tuple[int, int, str]] = []
    rest = raw
    for found in find_dates(raw, years):
        is_time = found.readings[0].minute is not None and found.readings[0].years is None
        (span.times if is_time else span.dates).append(found.readings)
        rest = rest[: found.start] + " " * (found.stop - found.start) + rest[found.stop :]
        if len(found.readings) == 1:
            shown.append((found.start, found.stop, str(found.readings[0])))
    pieces = _joined(_pieces(rest, versions))
    if span.dates:
        _bound_dates(span, raw)
    for piece in pieces:
        if piece.quantity is not None:
            span.quantities.append(piece.quantity)
            shown.append((piece.start, piece.stop, piece.quantity.shown))
    _read_words(span, pieces, rest)
    last = 0
    for start, stop, value in sorted(shown):
        if start >= last:
            span.shown += raw[last:start] + value
            last = stop
    span.shown += raw[last:]
    return span


def _bound_dates(span: Span, text: str) -> None:
    """Turn the years of a range or behind a bound into a span of years."""
    years = [each[0].years for each in span.dates if each[0].month is None and each[0].years]
    if len(span.dates) == 2 == len(years):  # noqa: PLR2004
        first, last = years
        if re.search(r"between|from|\d\s?[-–—]\s?\d|\d (?:to|until|bis) \d", text) and (
            first is not None and last is not None and first[0] < last[1]
        ):
            span.dates[:] = [(PartialDate((first[0], last[1])),)]
    elif len(span.dates) == 1 == len(years) and years[0] is not None:
        before = normalise(text.split(str(years[0][0]))[0])
        low, high = years[0]
        bound = next((b for phrase, b in BOUNDS.items() if phrase == before), "")
        spans = {"more": (high + 1, 9999), "less": (0, low - 1), "about": (low - 5, high + 5)}
        if bound in spans:
            span.dates[:] = [(PartialDate(spans[bound]),)]


def _pieces(text: str, versions: bool) -> list[_Piece]:
    """The words and the quantities of a text, in order."""
    tokens = list(TOKEN.finditer(text))
    pieces: list[_Piece] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        kind, raw = token.lastgroup, token.group()
        if kind is None or kind not in token.groupdict():
            kind = next(name for name, value in token.groupdict().items() if value is not None)
        piece = _Piece(token.start(), token.end(), raw)
        at += 1
        if kind == "number" and versions and "." in raw:
            kind = "version"
        if kind == "opaque":
            numbers = re.fullmatch(r"(\d+)-(\d+)", raw)
            if numbers and int(numbers[1]) < int(numbers[2]):
                last, at = _quantity(text, tokens, at - 1, numbers[2], token.start(2))
                if last is not None and last.quantity is not None:
                    both = quantity(numbers[1], last.quantity.units)
                    both = both and both.to(last.quantity)
                    if both:
                        last.start, last.quantity = token.start(), both
                    pieces.append(last)
                    continue
            if raw[0].isdigit() and "@" not in raw:
                piece.raw = re.sub(r"[^\d.]+", ":", raw)
            elif raw[0] == "+":
                piece.raw = re.sub(r"\D", "", raw)
        elif kind == "number":
            number, at = _quantity(text, tokens, at - 1, raw, token.start())
            if number is not None:
                _take_before(pieces, number, text)
                while at < len(tokens) and tokens[at].start() < number.stop:
                    at += 1
                pieces.append(number)
                continue
        elif kind == "word" and normalise(raw) in MULTIPLES:
            read, at = _multiple_word(text, tokens, at - 1, pieces)
            if read is not None:
                pieces.append(read)
                continue
        pieces.append(piece)
    return pieces


def _quantity(
    text: str, tokens: Sequence[re.Match[str]], at: int, number: str, start: int
) -> tuple[_Piece | None, int]:
    """The quantity whose number is token ``at``, and the token after it."""
    stop = tokens[at].end()
    at += 1
    before = re.search(r"([^\W\d_]{0,3}[^\w\s.,;:()/+-]|\b[A-Z]{3})\s?$", text[:start])
    currency = units(before[1]) if before else ()
    factor = 1.0
    if ordinal := ORDINAL.match(text, stop):
        at += 1 if at < len(tokens) and tokens[at].start() < ordinal.end() else 0
        found = quantity(number, (Unit("ordinal", "ordinal", ""),))
        if found is None:
            return None, at
        shown = text[start : ordinal.end()]
        return _Piece(start, ordinal.end(), number, replace(found, shown=shown)), at
    added, stop, at = _fraction(text, tokens, stop, at)
    while at < len(tokens):
        word = tokens[at].group()
        if word == "." and factor > 1 and tokens[at].start() == stop and at + 1 < len(tokens):
            at += 1  # "4 Mio. €"
            continue
        if word.isdigit() and word.strip("0") == "1" and len(word) > 2:  # noqa: PLR2004 - "3.2 1000000"
            by: float | None = float(word)
        else:
            near = bool(currency) or len(word) > 1 or tokens[at].start() == stop  # "5K", but "5 K"
            by = multiple(word, bool(currency)) if tokens[at].group("word") and near else None
        if by is None or (by < 1 and factor >= 1 and normalise(word) in FRACTIONS):
            break
        factor *= by
        stop = tokens[at].end()
        at += 1
    if not added:
        added, stop, at = _fraction(text, tokens, stop, at)
    of = re.match(r" of (?:an?|1) (?=\w)", text[stop:])
    if of and factor < 1:
        while at < len(tokens) and tokens[at].start() < stop + of.end():
            at += 1
    found_units: tuple[Unit, ...] = currency
    unit_text = ""
    if not currency:
        first = at
        for skip in (0, 1):  # an adjective may stand between: "14 working days"
            for length in range(min(LONGEST_UNIT, len(tokens) - first - skip), 0, -1):
                begin, end = tokens[first + skip].start(), tokens[first + skip + length - 1].end()
                if skip and (length > 1 or not tokens[first].group("word")):
                    continue
                unit_text = text[begin:end]
                if skip and len(unit_text) <= 2:  # noqa: PLR2004 - "3 people in Oslo": no inches
                    continue
                if unit_text == "in" and end < len(text.rstrip()):
                    continue
                if found_units := units(unit_text):
                    if not skip:
                        at, stop = first + length, end
                    break
            if found_units or len(tokens) <= first + 1:
                break
    found = quantity(number, found_units, factor)
    if found is None:
        return None, at
    if added:
        more = quantity(str(float(number.replace(",", ".")) + added), found_units, factor)
        found = more or found
    begin = start
    if currency and before:
        begin = before.start(1)
    elif start and text[start - 1] in "-" and not text[: start - 1].rstrip()[-1:].isalnum():
        begin, found = start - 1, _negated(found)
    noun = at < len(tokens) and tokens[at].group("word") and tokens[at].group().islower()
    counts = bool(noun and not found_units and normalise(tokens[at].group()) not in GRAMMAR)
    found = replace(found, counts=counts)
    unit_keys = tuple(normalise(unit_text).split()) if found_units and not currency else ()
    if currency:
        unit_keys = (currency[0].symbol,)
    return _Piece(begin, stop, number, replace(found, unit_words=unit_keys)), at


def _fraction(
    text: str, tokens: Sequence[re.Match[str]], stop: int, at: int
) -> tuple[float, int, int]:
    """The fraction behind a number, "and a half", the character and the token after it."""
    fraction = re.match(r" and (?:an? |1 )?(half|quarter|third)s?\b", text[stop:])
    if fraction is None:
        return 0.0, stop, at
    stop += fraction.end()
    while at < len(tokens) and tokens[at].start() < stop:
        at += 1
    return FRACTIONS[fraction[1]], stop, at


def _negated(found: Quantity) -> Quantity:
    def flip(reading: Reading) -> Reading:
        offset = next((u.offset for u in found.units if u.name == reading.unit), 0.0)
        low = 2 * offset - reading.low
        return replace(reading, low=low, high=low, raw=-reading.raw)

    return replace(found, readings=tuple(map(flip, found.readings)), shown=f"-{found.shown}")


def _take_before(pieces: list[_Piece], number: _Piece, text: str) -> None:
    """Move the words before a number that bound it, or its sign, into the quantity."""
    assert number.quantity is not None  # noqa: S101 - by construction
    while pieces and pieces[-1].start >= number.start:
        pieces.pop()  # the symbol of its currency
    if pieces and normalise(pieces[-1].raw) in ("minus", "moins", "menos"):
        number.start = pieces.pop().start
        number.quantity = _negated(number.quantity)
    for length in range(min(LONGEST_BOUND, len(pieces)), 0, -1):
        last = pieces[-length:]
        if any(piece.quantity for piece in last):
            continue
        phrase = " ".join(normalise(piece.raw) or piece.raw for piece in last)
        if phrase in BOUNDS:
            number.quantity = replace(number.quantity, bound=BOUNDS[phrase])
            del pieces[-length:]
            return
    for phrase, bound in AFTER.items():
        if after := re.match(rf"\s?{re.escape(phrase)}(?!\w)", text[number.stop :]):
            number.quantity = replace(number.quantity, bound=bound)
            number.stop += after.end()
            return


def _multiple_word(
    text: str, tokens: Sequence[re.Match[str]], at: int, pieces: list[_Piece]
) -> tuple[_Piece | None, int]:
    """A number that is a word only: "a dozen boats", "half an hour", "every half hour"."""
    token = tokens[at]
    stop, after = token.end(), at + 1
    if after < len(tokens) and tokens[after].group() in ("a", "an", "of", "1"):
        after += 1
    found: tuple[Unit, ...] = ()
    if after < len(tokens):
        found = units(tokens[after].group()) if len(tokens[after].group()) > 1 else ()
    value = quantity("1", found, MULTIPLES[normalise(token.group())])
    if value is None:
        return None, at + 1
    at = at + 1
    keys: tuple[str, ...] = ()
    if found:
        stop, at = tokens[after].end(), after + 1
        keys = (normalise(tokens[after].group()),)
    piece = _Piece(token.start(), stop, token.group(), replace(value, unit_words=keys))
    if pieces and pieces[-1].quantity is None and pieces[-1].raw in ARTICLES:
        piece.start = pieces.pop().start
    _take_before(pieces, piece, text)
    return piece, at


def _joined(pieces: list[_Piece]) -> list[_Piece]:
    """The pieces with ranges ("5 to 10 km"), sums ("6 feet 2 inches") and "a month" as one."""
    done: list[_Piece] = []
    for piece in pieces:
        if (
            piece.quantity is None and done and done[-1].quantity is None
            and done[-1].raw.casefold() in ARTICLES and len(piece.raw) > 2  # noqa: PLR2004
            and (len(done) == 1 or " ".join(normalise(o.raw) for o in done[:-1]) in BOUNDS)
            and (found := units(piece.raw)) and piece is pieces[-1]
        ):  # fmt: skip
            bound = BOUNDS.get(" ".join(normalise(other.raw) for other in done[:-1]), "")
            value = quantity("1", found)
            keys = (normalise(piece.raw),)
            value = value and replace(value, unit_words=keys, bound=bound)
            done[:] = [_Piece(done[0].start, piece.stop, "1", value)]
            continue
        if piece.quantity is not None and len(done) > 1 and done[-1].raw in JOINTS:
            first = done[-2].quantity
            between = len(done) > 2 and done[-3].raw.casefold() in ("between", "entre", "zwischen")  # noqa: PLR2004
            if first is not None and (done[-1].raw not in ("and", "und", "et", "y") or between):
                bare = all(reading.kind == "" for reading in first.readings)
                if bare and piece.quantity.readings[0].kind:
                    first = quantity(done[-2].raw, piece.quantity.units) or first
                if both := first.to(piece.quantity):
                    start = done[-2].start
                    del done[-2:]
                    if between:
                        start = done.pop().start
                    elif done and done[-1].raw.casefold() in ("from", "von", "de"):
                        start = done.pop().start
                    done.append(_Piece(start, piece.stop, "", both))
                    continue
        if piece.quantity is not None and done:
            back = 2 if done[-1].raw in ("and", "und", "et", "y", ",") and len(done) > 1 else 1
            first = done[-back].quantity
            if first is not None and (both := first.plus(piece.quantity)):
                start = done[-back].start
                del done[-back:]
                done.append(_Piece(start, piece.stop, "", both))
                continue
        done.append(piece)
    return done


def _read_words(span: Span, pieces: Sequence[_Piece], text: str) -> None:
    """Fill the words of a span, its negation and its yes."""
    plain = [piece for piece in pieces if piece.quantity is None]
    for part in _parts(plain, text):
        before = text[: part[0].start].rstrip()
        if span.words and normalise(part[0].raw) in NEGATIONS and re.search(r"(?:,|\bbut)$", before):
            break  # "coal, but not oil"
        start, stop, named = _entity_in(part)
        _read_part(span, part[:start], text)
        raw = " ".join(piece.raw for piece in part[start:stop])
        if named:
            span.words.append(Word(raw, normalise(raw), entity=named[0]))
            span.implied.update(named[1:])
        _read_part(span, part[stop:], text)
    for word in list(span.words):  # "World Trade Organization (WTO)" says it twice
        if _spelled_out(word, [other for other in span.words if other is not word]):
            span.words.remove(word)


def _entity_in(part: Sequence[_Piece]) -> tuple[int, int, tuple[str, ...]]:
    """The longest run of words that names a country, a city or a language, and its entities."""
    for length in range(min(LONGEST_NAME, len(part)), 0, -1):
        for start in range(len(part) - length + 1):
            run = part[start : start + length]
            name = " ".join(piece.raw.replace(".", "") for piece in run)
            if run[0].raw[:1].isupper() and (found := _entity(normalise(name))):
                return start, start + length, found
    return len(part), len(part), ()


def _parts(pieces: Sequence[_Piece], text: str) -> Iterator[list[_Piece]]:
    """The pieces between commas, without symbols and leading grammar."""
    part: list[_Piece] = []
    for piece in pieces:
        key = normalise(piece.raw)
        if not key:
            if part and piece.raw in ",;/()&":
                yield part
                part = []
        elif key in AGREEMENTS | NEGATIONS:
            if part:
                yield part
                part = []
            yield [piece]
        elif key in ("and", "or", "und", "oder", "et", "ou", "y", "o") and part:
            yield part
            part = []
        elif part or key not in GRAMMAR or _is_acronym(piece.raw, text):
            part.append(piece)
    if part:
        yield part


def _is_acronym(raw: str, text: str) -> bool:
    letters = raw.replace(".", "")
    if len(letters) == 1:
        return letters.isupper() and not text.rstrip().partition(letters)[2]  # "grade B"
    return letters.isupper() and not (text.isupper() and " " in text.strip())


def _read_part(span: Span, part: Sequence[_Piece], text: str) -> None:
    titles = True
    titled = [piece for piece in part if piece.raw[:1].isupper()]
    for at, piece in enumerate(part):
        raw, key = piece.raw.replace(".", "") if piece.raw[0].isalpha() else piece.raw, ""
        key = normalise(raw) if raw[:1].isalpha() and "@" not in raw else raw.casefold()
        if key in NEGATIONS:
            span.negative = True
            span.agrees = span.agrees or key in ("no", "nein", "non") and len(part) == 1
            continue
        if key in AGREEMENTS:
            span.agrees = True
            continue
        initial = len(raw) == 1 and raw.isupper() and len(titled) > 1
        if key in GRAMMAR and not initial and not _is_acronym(raw, text):
            continue
        later = part[at + 1 :]
        named = bool(later) and later[0].raw[:1].isupper() and raw[:1].isupper()
        titles = titles and named and key in _titles()
        if titles:
            span.words.append(Word(raw, key, title=True))
            continue
        if at and raw in ROMAN and part[at - 1].raw[:1].isupper() and len(part[at - 1].raw) > 1:
            number = quantity(str(ROMAN[raw]), ())
            if number is not None:
                span.quantities.append(number)
            continue
        span.words += _keyed(raw, key)


def _keyed(raw: str, key: str) -> Iterator[Word]:
    if day := weekday(key):
        yield Word(raw, day.casefold())
        return
    if len(key) == 1 or raw.isupper():
        yield Word(raw, key)  # no word: a letter or an acronym
        return
    if re.fullmatch(r"(?:[A-Z]\w*)(?:-[A-Z]\w*)+", raw):
        yield Word(raw, key)  # a double name is one name
        return
    if not raw[:1].isalpha():
        yield Word(raw, key)
        return
    if "@" in raw or "://" in raw:
        yield Word(raw, raw.casefold())
        return
    for one, low in zip(re.split(r"[-'’]", raw), key.split(), strict=False):
        if low and low != "s":
            yield Word(one or raw, _lemma(low))


def _compact(text: str) -> str:
    """Text that tells two texts apart, without case where it has no unit, and without hyphens."""
    text = re.sub(r"(?<=[^\W\d_])[-'’.](?=\w)", "", text)
    return text if any(map(str.isdigit, text)) else text.casefold()


def _asks_yes_no(question: str) -> bool:
    first = normalise(question).split()[:1]
    return bool(first) and first[0] in YES_NO and not re.search(r"\bor\b|\boder\b|\bou\b", question)
