"""The words and the quantities of a text, in order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from foundation.text import FUNCTION_WORDS, normalise, words

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
JOINTS = ("to", "-", "\N{EN DASH}", "\N{EM DASH}", "bis", "à", "a", "and", "or", "und", "et", "y")
ARTICLES = ("a", "an", "one", "ein", "eine", "einen", "un", "une", "una")
ANDS = ("and", "und", "et", "y")
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


def find_pieces(text: str, versions: bool) -> list[Piece]:
    """The words and the quantities of a text, ranges and sums as one.

    Args:
        text: Without its dates.
        versions: Whether a number such as 3.11 is a version.
    """
    return _joined(_Reader(text, versions).read())


class _Reader:
    """Reads the words and the quantities of a text, in order."""

    def __init__(self, text: str, versions: bool) -> None:
        self.text = text
        self.versions = versions
        self.tokens = list(TOKEN.finditer(text))
        self.at = 0
        self.pieces: list[Piece] = []

    def read(self) -> list[Piece]:
        """All pieces, ranges and sums as several."""
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
        return self.pieces

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
            is_verb = text in FUNCTION_WORDS  # "40 villages are": no area
            if len(text) > LONGEST_SYMBOL and not is_verb and (found := units(text)):
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
