"""What an answer span says: its dates, quantities and words, and whether it is negated."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from control.conflict.dates import FoundDate, PartialDate, find_dates, weekday
from control.conflict.notations import in_digits
from control.conflict.pieces import GRAMMAR, Piece, find_pieces
from control.conflict.places import LONGEST_NAME, divided, entity
from control.conflict.quantities import BOUNDS, Quantity, quantity, units
from foundation.text import FUNCTION_WORDS, lemma, normalise, words

ENDS = 2  # of a range
NEGATIONS = words(
    "no not never none neither nor without cannot isnt arent nein nicht nie kein "
    "keine keinen ohne non pas jamais sans nunca sin ningun ninguna nothing nobody noone"
)
LACKS = words("without ohne sans sin")
AGREEMENTS = words("yes yeah yep true correct indeed certainly oui ja jawohl si sure right")
NEGATED = re.compile(r"\b(\w+?)n['’]t\b", re.IGNORECASE)
ROMAN = {
    "X" * (number // 10) + unit: number
    for number in range(1, 40)
    for unit in [("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")[number % 10]]
}


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
        divided: The countries of its states and provinces.
        dates: Readings of each date; times of day are in ``times``.
        times: Readings of each time of day.
        quantities: Its numbers, with their units.
        negative: Whether it is negated.
        agrees: Whether it says yes or no in so many words.
        shown: The text with its values normalised.
    """

    words: list[Word] = field(default_factory=list)
    implied: set[str] = field(default_factory=set)
    divided: set[str] = field(default_factory=set)
    dates: list[tuple[PartialDate, ...]] = field(default_factory=list)
    times: list[tuple[PartialDate, ...]] = field(default_factory=list)
    quantities: list[Quantity] = field(default_factory=list)
    negative: bool = False
    agrees: bool = False
    shown: str = ""

    @property
    def empty(self) -> bool:
        """Whether it holds no word and no value."""
        return not (self.words or self.dates or self.times or self.quantities)


def clean(text: str) -> str:
    """The text in compatibility form (NFKC), with single spaces and without outer punctuation."""
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/").replace("\N{MINUS SIGN}", "-")
    return " ".join(text.split()).strip(" .,;:!?\"'“”„«»*_")


def compact(text: str) -> str:
    """Text that tells two texts apart, without case where it has no unit, and without hyphens."""
    text = re.sub(r"(?<=[^\W\d_])[-'’.](?=\w)", "", text)
    return text if any(map(str.isdigit, text)) else text.casefold()


@lru_cache(maxsize=4096)
def read_span(text: str, years: bool, versions: bool) -> Span:
    """What a span says.

    Args:
        text: The span, from `clean`.
        years: Whether a number such as 1987 is a year.
        versions: Whether a number such as 3.11 is a version.
    """
    raw = NEGATED.sub(r"\1 not", in_digits(text).replace("can't", "can not"))
    span = Span()
    shown: list[tuple[int, int, str]] = []
    rest = raw
    for found in find_dates(raw, years):
        if _is_measured(raw, found):
            continue
        is_time = found.readings[0].minute is not None and found.readings[0].years is None
        (span.times if is_time else span.dates).append(found.readings)
        rest = rest[: found.start] + " " * (found.stop - found.start) + rest[found.stop :]
        if len(found.readings) == 1:
            shown.append((found.start, found.stop, str(found.readings[0])))
    pieces = find_pieces(rest, versions)
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


def spelled_out(word: Word, others: Sequence[Word]) -> tuple[int, int] | None:
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


def _is_measured(text: str, found: FoundDate) -> bool:
    """Whether what looks like a year is a number with its unit: "1500 mm"."""
    follows = re.match(r" ?([^\W\d_]+)", text[found.stop :])
    word = follows[1] if follows and text[found.start : found.stop].isdigit() else ""
    is_name = word.istitle()  # "in 1850 Watt"
    return bool(word and not is_name and word not in FUNCTION_WORDS and units(word))


@cache
def name_titles() -> frozenset[str]:
    """Words before names, normalised: "mr", "prof"."""
    from nameparser.config import CONSTANTS

    return frozenset(CONSTANTS.titles)


def _bound_dates(span: Span, text: str) -> None:
    """Turn the years of a range or behind a bound into a span of years."""
    years = [each[0].years for each in span.dates if each[0].month is None and each[0].years]
    if len(span.dates) == len(years) == ENDS:
        first, last = years
        if re.search(r"between|from|\d\s?[-\u2013\u2014]\s?\d|\d (?:to|until|bis) \d", text) and (
            first is not None and last is not None and first[0] < last[1]
        ):
            span.dates[:] = [(PartialDate((first[0], last[1])),)]
    elif len(span.dates) == 1 == len(years) and years[0] is not None:
        before = normalise(text.split(str(years[0][0]), maxsplit=1)[0])
        low, high = years[0]
        bound = next((b for phrase, b in BOUNDS.items() if phrase == before), "")
        spans = {"more": (high + 1, 9999), "less": (0, low - 1), "about": (low - 5, high + 5)}
        if bound in spans:
            span.dates[:] = [(PartialDate(spans[bound]),)]


def _read_words(span: Span, pieces: Sequence[Piece], text: str) -> None:
    """Fill the words of a span, its negation and its yes."""
    plain = [piece for piece in pieces if piece.quantity is None]
    for part in _parts(plain, text):
        before = text[: part[0].start].rstrip()
        if (
            span.words
            and normalise(part[0].raw) in NEGATIONS
            and re.search(r"(?:,|\bbut)$", before)
        ):
            break  # "coal, but not oil"
        start, stop, named = _entity_in(part)
        span.divided |= divided(" ".join(piece.raw for piece in part))
        _read_part(span, part[:start], text)
        raw = " ".join(piece.raw for piece in part[start:stop])
        if named:
            span.words.append(Word(raw, normalise(raw), entity=named[0]))
            span.implied.update(named[1:])
        _read_part(span, part[stop:], text)
    for word in list(span.words):  # "World Trade Organization (WTO)" says it twice
        if spelled_out(word, [other for other in span.words if other is not word]):
            span.words.remove(word)


def _entity_in(part: Sequence[Piece]) -> tuple[int, int, tuple[str, ...]]:
    """The longest run of words that names a country, a city or a language, and its entities."""
    for length in range(min(LONGEST_NAME, len(part)), 0, -1):
        for start in range(len(part) - length + 1):
            run = part[start : start + length]
            name = " ".join(piece.raw.replace(".", "") for piece in run)
            key = "usa" if name == "US" else normalise(name)  # "us" is a word
            if run[0].raw[:1].isupper() and (found := entity(key)):
                return start, start + length, found
    return len(part), len(part), ()


def _parts(pieces: Sequence[Piece], text: str) -> Iterator[list[Piece]]:
    """The pieces between commas, without symbols and leading grammar."""
    part: list[Piece] = []
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
        elif part or key not in GRAMMAR or _is_name(piece.raw, text):
            part.append(piece)
    if part:
        yield part


def _is_name(raw: str, text: str) -> bool:
    """Whether a word of the grammar is written as a name: "IT", "The Who"."""
    letters = raw.replace(".", "")
    if len(letters) == 1:
        return letters.isupper() and not text.rstrip().partition(letters)[2]  # "grade B"
    if letters.isupper():
        return not (text.isupper() and " " in text.strip())
    # "the symbol Au" and "Doctor Who", but "It is", "Bank Of England" and "On 5 May"
    after = rf"[^\s.!?:;] {re.escape(raw)}(?!\w| [^\W\d_a-z])"
    return raw[:1].isupper() and (raw == text or re.search(after, text) is not None)


def _read_part(span: Span, part: Sequence[Piece], text: str) -> None:
    titles = True
    titled = [piece for piece in part if piece.raw[:1].isupper()]
    for at, piece in enumerate(part):
        raw = piece.raw.replace(".", "") if piece.raw[0].isalpha() else piece.raw
        key = normalise(raw) if raw[:1].isalpha() and "@" not in raw else raw.casefold()
        if key in LACKS and (span.words or span.quantities):
            span.words.append(Word(raw, key))  # "coffee without sugar"
            continue
        if key in NEGATIONS:
            span.negative = True
            span.agrees = span.agrees or (key in ("no", "nein", "non") and len(part) == 1)
            continue
        if key in AGREEMENTS:
            span.agrees = True
            continue
        initial = len(raw) == 1 and raw.isupper() and len(titled) > 1
        if key in GRAMMAR and not initial and not _is_name(raw, text):
            continue
        later = part[at + 1 :]
        named = bool(later) and later[0].raw[:1].isupper() and raw[:1].isupper()
        titles = titles and named and key in name_titles()
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
    double_name = re.fullmatch(r"[A-Z]\w*(?:-[A-Z]\w*)+", raw)
    # A letter, an acronym, a name or a number has no base form.
    if len(key) == 1 or raw.isupper() or double_name or not raw[:1].isalpha():
        yield Word(raw, key)
        return
    if "@" in raw or "://" in raw:
        yield Word(raw, raw.casefold())
        return
    for one, low in zip(re.split(r"[-'’]", raw), key.split(), strict=False):
        if low and low != "s":
            yield Word(one or raw, lemma(low))
