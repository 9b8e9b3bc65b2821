"""What an answer span says: its dates, quantities and words, and whether it is negated."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache

from control.conflict.dates import PartialDate, find_dates, weekday
from control.conflict.notations import in_digits
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
    Unit,
    multiple,
    negated,
    quantity,
    units,
)
from foundation.text import FUNCTION_WORDS, lemma, normalise, words

ENDS = 2  # of a range
LONGEST_NAME = 4  # words of a country or a city
LONGEST_SYMBOL = 2  # letters; "in" after "3 people" is no unit
# The closed classes of the four languages: words that say nothing about which answer it is.
GRAMMAR = FUNCTION_WORDS | words(
    "yet already still am any being could do does did can may might must shall should will would "
    "having "
    "i you we us our your my me him them what when where why how there here then about into "
    "der die das den dem des ein eine einen einem einer eines und oder im am zu zum zur von vom "
    "bei mit auf ist sind war waren wird es er sie ja "
    "le la les l un une du au aux et ou est sont en dans il elle ils elles ce c d "
    "per por el los las lo una unos unas y del al son era por con "
)
NEGATIONS = words(
    "no not never none neither nor without cannot isnt arent nein nicht nie kein "
    "keine keinen ohne non pas jamais sans nunca sin ningun ninguna nothing nobody noone"
)
LACKS = words("without ohne sans sin")
AGREEMENTS = words("yes yeah yep true correct indeed certainly oui ja jawohl si sure right")
NEGATED = re.compile(r"\b(\w+?)n['’]t\b", re.IGNORECASE)
JOINTS = ("to", "-", "\N{EN DASH}", "\N{EM DASH}", "bis", "à", "a", "and", "or", "und", "et", "y")
ARTICLES = ("a", "an", "one", "ein", "eine", "einen", "un", "une", "una")
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
WHOLE = re.compile(r"\d+(?:[.,]\d+)?")  # a number that "and a half" may be added to
CURRENCY = re.compile(r"([^\W\d_]{0,3}[^\w\s.,;:()/+-]|\b[A-Z]{3})\s?$")
ANDS = ("and", "und", "et", "y")


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


@dataclass
class Piece:
    """A word or a quantity, with its place in the text.

    Attributes:
        start: Its first character.
        stop: The character after its last one.
        raw: As written; of a quantity its number.
        quantity: If it is one.
    """

    start: int
    stop: int
    raw: str
    quantity: Quantity | None = None


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
        is_time = found.readings[0].minute is not None and found.readings[0].years is None
        (span.times if is_time else span.dates).append(found.readings)
        rest = rest[: found.start] + " " * (found.stop - found.start) + rest[found.stop :]
        if len(found.readings) == 1:
            shown.append((found.start, found.stop, str(found.readings[0])))
    pieces = _Reader(rest, versions).read()
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


@cache
def _titles() -> frozenset[str]:
    from nameparser.config import CONSTANTS

    return frozenset(CONSTANTS.titles)


@lru_cache(maxsize=4096)
def _entity(name: str) -> tuple[str, ...]:
    """The countries, cities and languages of a name, each city with its country behind it."""
    from babel.core import get_global

    from control.forgetting.aliases import entities

    for entity in entities(name):
        kind, _, code = entity.partition(" ")
        if kind == "language" or (kind == "territory" and code.isalpha()):  # no "World"
            return (entity,)
        if kind == "city":
            return (entity, f"territory {get_global('zone_territories')[code]}")
    return ()


def _divided(name: str) -> frozenset[str]:
    """The countries, mostly one, of which a state, province or the like has this name (ISO 3166-2).

    None where it is a country or a city itself: "Luxembourg", which is a province of Belgium, too.
    """
    known = _entity(normalise(name))[:1]
    placed = any(each.startswith(("territory", "city")) for each in known)
    return frozenset() if placed else _divisions().get(name, frozenset())


@cache
def _divisions() -> dict[str, frozenset[str]]:
    """The countries by the names of what they are divided into."""
    import pycountry

    found: dict[str, set[str]] = {}
    for each in pycountry.subdivisions:
        found.setdefault(each.name, set()).add(f"territory {each.country_code}")
    return {name: frozenset(countries) for name, countries in found.items()}


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
        span.divided |= _divided(" ".join(piece.raw for piece in part))
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
            if run[0].raw[:1].isupper() and (found := _entity(key)):
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


class _Reader:
    """Reads the words and the quantities of a text, in order."""

    def __init__(self, text: str, versions: bool) -> None:
        self.text = text
        self.versions = versions
        self.tokens = list(TOKEN.finditer(text))
        self.at = 0
        self.pieces: list[Piece] = []

    def read(self) -> list[Piece]:
        """All pieces, ranges and sums as one."""
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            kind = next(name for name, value in token.groupdict().items() if value is not None)
            raw = token.group()
            piece: Piece | None = None
            if kind == "opaque":
                piece = self._opaque(token)
            elif kind == "number" and not (self.versions and "." in raw):
                piece = self._bounded(self._quantity(raw, token.start()))
            elif kind == "word" and normalise(raw) in MULTIPLES:
                piece = self._bounded(self._multiple_word(token))
            if piece is None:
                piece = Piece(token.start(), token.end(), raw)
            self.at += 1
            self._skip_to(piece.stop)
            self.pieces.append(piece)
        return _joined(self.pieces)

    def _skip_to(self, stop: int) -> None:
        while self.at < len(self.tokens) and self.tokens[self.at].start() < stop:
            self.at += 1

    def _next(self, stop: int) -> re.Match[str] | None:
        """The first token from character ``stop`` on."""
        return next((token for token in self.tokens[self.at :] if token.start() >= stop), None)

    def _opaque(self, token: re.Match[str]) -> Piece:
        """Text that is no number: a score, a version, an address; or a range "2-3 weeks"."""
        raw = token.group()
        ends = re.fullmatch(r"(\d+)-(\d+)", raw)
        if ends and int(ends[1]) < int(ends[2]):
            last = self._quantity(ends[2], token.start() + ends.start(2))
            if last is not None and last.quantity is not None:
                first = quantity(ends[1], last.quantity.units)
                both = first and first.to(last.quantity)
                if both:
                    return Piece(token.start(), last.stop, raw, both)
        if raw[0] == "+":
            raw = re.sub(r"\D", "", raw)
        elif raw[0].isdigit() and "@" not in raw:
            raw = re.sub(r"[^\d.]+", ":", raw)
        return Piece(token.start(), token.end(), raw)

    def _quantity(self, number: str, start: int) -> Piece | None:
        """The quantity of the number at ``start``, with its unit and what multiplies it."""
        stop = start + len(number)
        if ordinal := ORDINAL.match(self.text, stop):
            found = quantity(number, (Unit("ordinal", "ordinal", ""),))
            shown = self.text[start : ordinal.end()]
            if found is None:
                return None
            return Piece(start, ordinal.end(), number, replace(found, shown=shown))
        last = self.pieces[-1] if self.pieces and self.pieces[-1].quantity else None
        before = CURRENCY.search(self.text, last.stop if last else 0, start)  # "3 EUR 20 cents"
        currency = units(before[1]) if before else ()
        whole = WHOLE.fullmatch(number) is not None
        added, stop = self._fraction(stop) if whole else (0.0, stop)
        factor, stop = self._multiples(stop, bool(currency))
        if whole and not added:
            added, stop = self._fraction(stop)
        if added:
            number = str(float(number.replace(",", ".")) + added)
        keys: tuple[str, ...] = ()
        given = currency
        if before and currency:
            keys = (currency[0].symbol,)
        else:
            of = re.match(r" of (?:an?|1) (?=\w)", self.text[stop:]) if factor < 1 else None
            given, keys, stop = self._unit(stop + of.end() if of else stop)
        found = quantity(number, given, factor)
        if found is None:
            return None
        noun = self._next(stop)
        counted = noun and noun.group("word") and noun.group().islower() and not given
        counts = bool(counted and noun and normalise(noun.group()) not in GRAMMAR)
        found = replace(found, unit_words=keys, counts=counts)
        if before and currency:
            start = before.start(1)
        elif self.text[:start].endswith("-") and not self.text[: start - 1].rstrip()[-1:].isalnum():
            start, found = start - 1, negated(found)
        return Piece(start, stop, number, found)

    def _fraction(self, stop: int) -> tuple[float, int]:
        """The fraction behind a number, "and a half", and the character after it."""
        fraction = re.match(r" and (?:an? |1 )?(half|quarter|third)s?\b", self.text[stop:])
        return (FRACTIONS[fraction[1]], stop + fraction.end()) if fraction else (0.0, stop)

    def _multiples(self, stop: int, currency: bool) -> tuple[float, int]:
        """What the words behind a number multiply it by, and the character after them."""
        factor = 1.0
        while token := self._next(stop):
            word = token.group()
            if word == "." and factor > 1 and token.start() == stop:
                if self._next(stop + 1) is None:
                    break
                stop += 1  # "4 Mio. €"
                continue
            near = currency or len(word) > 1 or token.start() == stop  # "5K", but "5 K"
            by = multiple(word, currency) if token.group("word") and near else None
            if re.fullmatch(r"10{2,}", word):  # "3.2 million" is "3.2 1000000" by now
                by = float(word)
            if by is None:
                break
            factor, stop = factor * by, token.end()
        return factor, stop

    def _unit(self, stop: int) -> tuple[tuple[Unit, ...], tuple[str, ...], int]:
        """The unit from ``stop`` on, its words, and the character after it."""
        tokens = [token for token in self.tokens[self.at :] if token.start() >= stop]
        for length in range(min(LONGEST_UNIT, len(tokens)), 0, -1):
            end = tokens[length - 1].end()
            text = self.text[tokens[0].start() : end]
            if text in FUNCTION_WORDS and length < len(tokens):
                continue  # "5 in Oslo"
            if found := units(text):
                speed = re.match(r" (?:per|pro|par|por) (\w+)", self.text[end:])
                if speed and found[0].kind == "[length]":
                    rate = units(f"{found[0].symbol}/{speed[1]}")
                    found, end = (rate, end + speed.end()) if rate else (found, end)
                return found, tuple(normalise(text).split()), end
        # An adjective may stand between: "14 working days".
        if len(tokens) > 1 and tokens[0].group("word"):
            text = tokens[1].group()
            if len(text) > LONGEST_SYMBOL and (found := units(text)):
                return found, tuple(normalise(text).split()), stop
        return (), (), stop

    def _multiple_word(self, token: re.Match[str]) -> Piece | None:
        """A number that is a word only: "a dozen boats", "half an hour", "every half hour"."""
        of = re.match(r" (?:an?|1|of)(?: an?| 1)? (?=\w)", self.text[token.end() :])
        self.at += 1
        given, keys, stop = self._unit(token.end() + (of.end() - 1 if of else 0))
        self.at -= 1
        value = quantity("1", given, MULTIPLES[normalise(token.group())])
        if value is None:
            return None
        stop = stop if given else token.end()
        start = token.start()
        if self.pieces and self.pieces[-1].quantity is None and self.pieces[-1].raw in ARTICLES:
            start = self.pieces.pop().start
        return Piece(start, stop, token.group(), replace(value, unit_words=keys))

    def _bounded(self, piece: Piece | None) -> Piece | None:
        """The quantity with the words around it that bound it, or its sign."""
        if piece is None or piece.quantity is None:
            return piece
        before = self.pieces
        while before and before[-1].start >= piece.start:
            before.pop()  # the symbol of its currency
        if before and normalise(before[-1].raw) in ("minus", "moins", "menos"):
            piece.start, piece.quantity = before.pop().start, negated(piece.quantity)
        for length in range(min(LONGEST_BOUND, len(before)), 0, -1):
            last = before[-length:]
            phrase = " ".join(normalise(each.raw) or each.raw for each in last)
            if phrase in BOUNDS and not any(each.quantity for each in last):
                piece.quantity = replace(piece.quantity, bound=BOUNDS[phrase])
                del before[-length:]
                return piece
        for phrase, bound in AFTER.items():
            if after := re.match(rf"\s?{re.escape(phrase)}(?!\w)", self.text[piece.stop :]):
                piece.quantity = replace(piece.quantity, bound=bound)
                piece.stop += after.end()
                break
        return piece


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces with ranges ("5 to 10 km"), sums ("6 feet 2 inches") and "a month" as one."""
    done: list[Piece] = []
    for piece in pieces:
        if piece.quantity is None:
            done.append(piece)
            if piece is pieces[-1]:
                _join_article(done)
        elif not (_join_range(done, piece) or _join_sum(done, piece)):
            done.append(piece)
    return done


def _join_article(done: list[Piece]) -> None:
    """Read "a month" and "under an hour" as one of a unit, if the text says nothing else."""
    *before, last = done
    if not before or before[-1].raw.casefold() not in ARTICLES or len(last.raw) <= LONGEST_SYMBOL:
        return
    phrase = " ".join(normalise(each.raw) for each in before[:-1])
    if phrase and phrase not in BOUNDS:
        return
    if (found := units(last.raw)) and (value := quantity("1", found)):
        value = replace(value, unit_words=(normalise(last.raw),), bound=BOUNDS.get(phrase, ""))
        done[:] = [Piece(before[-1].start, last.stop, "1", value)]


def _join_range(done: list[Piece], last: Piece) -> bool:
    """Join "5 to" with "10 km"; "5 and" only behind "between"."""
    if len(done) <= 1 or done[-1].raw.casefold() not in JOINTS or last.quantity is None:
        return False
    first = done[-2].quantity
    opening = "".join(each.raw.casefold() for each in done[-3:-2])
    between = opening in ("between", "entre", "zwischen")
    if first is None or (done[-1].raw.casefold() in ANDS and not between):
        return False
    single = NUMBER.fullmatch(done[-2].raw)  # "3-4" is one already
    if last.quantity.units and not first.units and single:
        first = quantity(done[-2].raw, last.quantity.units) or first
    both = first.to(last.quantity)
    if both is None:
        return False
    opened = between or opening in ("from", "von", "de")
    start = done[-3 if opened else -2].start
    del done[-3 if opened else -2 :]
    done.append(Piece(start, last.stop, last.raw, both))
    return True


def _join_sum(done: list[Piece], last: Piece) -> bool:
    """Join "6 feet" with "2 inches"."""
    back = 2 if len(done) > 1 and done[-1].raw in (*ANDS, ",") else 1
    first = done[-back].quantity if done else None
    both = first.plus(last.quantity) if first is not None and last.quantity is not None else None
    if both is None:
        return False
    start = done[-back].start
    del done[-back:]
    done.append(Piece(start, last.stop, last.raw, both))
    return True
