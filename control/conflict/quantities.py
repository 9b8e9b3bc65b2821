"""Numbers with units in a text, and how two of them relate.

Units and their names come from Unicode's CLDR (through babel) and are converted by pint; spelled
numbers are read by text2num. quantulum3, which does all of it, took 3.8 s for its first quantity,
reads English only and raises on "between 5 and 10 km" with the scikit-learn of today. Names of
cents and pence come from num2words: CLDR has none.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Literal

from control.conflict.dates import LANGUAGES
from foundation.text import normalise

if TYPE_CHECKING:
    import pint

Relation = Literal["same", "compatible", "contradictory"]
Bound = Literal["", "about", "least", "more", "most", "less"]

# What text2num leaves out of the numbers that have a word.
YEARS = range(1000, 2200)  # numbers without a unit that are taken for years
MULTIPLES = {
    **dict.fromkeys(("dozen", "dozens", "dutzend", "douzaine", "docena"), 12.0),
    **dict.fromkeys(("half", "halb", "halbe", "halben", "demi", "demie", "medio", "media"), 0.5),
    **dict.fromkeys(("quarter", "quarters", "viertel"), 0.25),
    **dict.fromkeys(("anderthalb", "eineinhalb"), 1.5),
    **dict.fromkeys(("pair", "couple", "paar", "paire"), 2.0),
    "hundred": 100.0,
    "thousand": 1000.0,
}
FRACTIONS = {"half": 0.5, "quarter": 0.25, "third": 1 / 3}


def _phrases(text: str) -> list[str]:
    return text.split("|")


BOUNDS: dict[str, Bound] = {
    **dict.fromkeys(
        _phrases(
            "at least|no earlier than|minimum|minimum of|a minimum of|no less than|not less than|"
            "no fewer than|≥|mindestens|au moins|al menos|como minimo"
        ),
        "least",
    ),
    **dict.fromkeys(
        _phrases(
            "more than|over|above|after|exceeding|longer than|greater than|>|"
            "mehr als|uber|nach|plus de|apres|mas de|despues de"
        ),
        "more",
    ),
    **dict.fromkeys(
        _phrases(
            "at most|up to|no later than|not later than|maximum|maximum of|a maximum of|"
            "no more than|within|not more than|no longer than|≤|hochstens|maximal|bis zu|"
            "au plus|jusqu a|como maximo|hasta"
        ),
        "most",
    ),
    **dict.fromkeys(
        _phrases(
            "less than|under|below|fewer than|before|shorter than|<|"
            "weniger als|unter|vor|moins de|avant|menos de|antes de"
        ),
        "less",
    ),
    **dict.fromkeys(
        _phrases(
            "about|around|almost|nearly|approximately|approx|roughly|circa|ca|some|~|≈|"
            "an estimated|estimated|etwa|ungefahr|rund|environ|unos"
        ),
        "about",
    ),
}
BOUNDS |= dict.fromkeys(
    _phrases(
        "exactly|precisely|just|only|a total of|in|on|since|as of|seit|genau|"
        "nur|depuis|exactement|desde|exactamente"
    ),
    "",
)

AFTER: dict[str, Bound] = {
    "or more": "least",
    "or longer": "least",
    "and above": "least",
    "or older": "least",
    "+": "least",
    "or less": "most",
    "or fewer": "most",
}
LONGEST_BOUND = 3  # words
LONGEST_UNIT = 5  # words: "kilogram-force per square centimeter" is longer than anyone writes
LONGEST_SYMBOL = 3  # letters of a unit that is no word
SHORTEST_PLURAL = 2  # letters; "ms" are no metres
LONGEST_EXPRESSION = 20  # characters of a unit that only pint knows
ABOUT = 0.05  # of the value; how far "about" reaches, unless the number is rounder than that
ROUND = 1000.0  # a number without digits below this one may be a rounded one
CONVERTED = 0.02  # of the value; how far a rounded conversion ("5 miles", "8 km") may be off
EXACT = 1e-6
ROUNDED_UNITS = ("currency", "ordinal")  # their decimals are exact

HUNDREDTH = re.compile(r"c[eé]nt(?:s|imes?|imos?|avos?)?$", re.IGNORECASE)
SHORTEST_SUBUNIT = 4  # letters; "sent", "para" and "fils" are words
POWERS = {"square": 2, "cubic": 3}
WIDTHS = ("long", "short", "narrow")  # of CLDR's patterns

NUMBER = re.compile(
    r"\d+\s\d+/[1-9]\d*(?![\d/])|\d+/[1-9]\d*(?![\d/])"
    r"|\d{1,3}(?:([,.'’ ])\d{3})(?:\1\d{3})*(?:[.,]\d+)?(?![\d])|\d+(?:[.,]\d+)?"
)
GROUPED = re.compile(r"\d{1,3}([,.'’ ])\d{3}(?:\1\d{3})*")
ORDINAL = re.compile(r"(?:st|nd|rd|th|ère|er|ème|e|º|ª)(?!\w)")


@dataclass(frozen=True)
class Reading:
    """One meaning of a quantity.

    Attributes:
        kind: What it measures: pint's dimensions, ``currency``, or empty for a bare number.
        unit: Its name, which tells US dollars from euros.
        low: The smallest value, in the base unit.
        high: The largest value, in the base unit.
        raw: The value as written, in its own unit.
        step: Of its last digit that counts, in the base unit.
        rounded: Whether it may stand for a more exact one.
    """

    kind: str
    unit: str
    low: float
    high: float
    raw: float
    step: float
    rounded: bool


@dataclass(frozen=True)
class Quantity:
    """A number in a text.

    Attributes:
        readings: What it means; several where the notation ("1.500") or the unit ("pounds") has
            several meanings.
        shown: Digits with the unit's symbol.
        bound: How the words around it bound it.
        unit_words: The normalised words of the unit.
        units: What the unit may be.
        counts: Whether a noun follows instead of a unit: "24 boats".
    """

    readings: tuple[Reading, ...]
    shown: str
    bound: Bound = ""
    unit_words: tuple[str, ...] = ()
    units: tuple["Unit", ...] = ()
    counts: bool = False

    def to(self, other: "Quantity") -> "Quantity | None":
        """The range from this one to ``other``, if there is one."""
        found = tuple(
            replace(last, low=first.low, raw=math.nan)
            for first in self.readings
            for last in other.readings
            if (first.kind, first.unit) == (last.kind, last.unit) and first.low < last.high
        )
        shown = f"{self.shown.split(' ')[0]}\N{EN DASH}{other.shown}"
        return replace(other, readings=found, shown=shown) if found else None

    def plus(self, other: "Quantity") -> "Quantity | None":
        """Their sum, if ``other`` continues this one: "6 feet 2 inches"."""
        found = tuple(
            replace(
                first, low=first.low + last.low, high=first.high + last.high, step=last.step,
                raw=math.nan,
            )
            for first in self.readings
            for last in other.readings
            if first.kind and first.kind == last.kind and 0 < last.step < first.step
            and _continues(first, last) and last.low < first.step
        )  # fmt: skip
        shown = f"{self.shown} {other.shown}"
        return replace(self, readings=found, shown=shown) if found else None


def _continues(first: Reading, last: Reading) -> bool:
    """Whether the unit of ``last`` may be a part of the other: inches, or cents of one currency."""
    if first.kind == "currency":
        return first.unit == last.unit and last.low < last.raw
    return first.unit != last.unit


def negated(found: Quantity) -> Quantity:
    """The quantity with a minus."""

    def flip(reading: Reading) -> Reading:
        offset = next((unit.offset for unit in found.units if unit.name == reading.unit), 0.0)
        low = 2 * offset - reading.low
        return replace(reading, low=low, high=low, raw=-reading.raw)

    return replace(found, readings=tuple(map(flip, found.readings)), shown=f"-{found.shown}")


def relate(one: Quantity, two: Quantity) -> Relation:
    """The closest relation that any of their readings have."""
    if (one.counts and two.unit_words) or (two.counts and one.unit_words):
        return "contradictory"  # "4 apples", "4 kg"
    found = {_relate(a, one.bound, b, two.bound) for a in one.readings for b in two.readings}
    closest: tuple[Relation, ...] = ("same", "compatible", "contradictory")
    return next((relation for relation in closest if relation in found), "contradictory")


def _relate(a: Reading, a_bound: Bound, b: Reading, b_bound: Bound) -> Relation:
    if a.kind != b.kind or (a.kind == "currency" and a.unit != b.unit):
        return _relate_kinds(a, a_bound, b, b_bound)
    if a.unit != b.unit and not a.kind and a.raw == b.raw and a_bound == b_bound:
        return "compatible"  # "50" and "50 %"
    if a_bound == b_bound and _close(a.low, b.low) and _close(a.high, b.high):
        return "same"
    if a_bound == b_bound and a_bound in ("least", "more", "most", "less"):
        return "contradictory"  # two limits of one thing
    if not a_bound and not b_bound and a.low == a.high and b.low == b.high:
        return _relate_points(a, b)
    (a_low, a_high), (b_low, b_high) = _interval(a, a_bound), _interval(b, b_bound)
    agree = a_low <= b_high and b_low <= a_high
    if a.low < a.high and b.low < b.high:  # of two ranges, one holds the other
        agree = (a_low <= b_low and b_high <= a_high) or (b_low <= a_low and a_high <= b_high)
    return "compatible" if agree else "contradictory"


def _relate_kinds(a: Reading, a_bound: Bound, b: Reading, b_bound: Bound) -> Relation:
    """Relate quantities of two kinds, of which one may be short for the other."""
    if {a.kind, b.kind} == {"", "ordinal"}:
        return "same" if a.raw == b.raw else "contradictory"  # "World War II", "the Second"
    short, long = sorted((a, b), key=lambda each: len(each.unit))
    # "30" or "30 degrees" may be short for "30 °C"
    if short.unit and not (short.unit == "degree" and long.kind == "[temperature]"):
        return "contradictory"
    relation = _relate(_bare(a), a_bound, _bare(b), b_bound)
    return "compatible" if relation == "same" else relation


def _bare(reading: Reading) -> Reading:
    """The reading in its own unit, without it."""
    reading = replace(reading, kind="", unit="")
    if math.isnan(reading.raw):
        return reading
    factor = reading.raw / reading.low if reading.low else 1.0
    step = abs(reading.step * factor)
    return replace(reading, low=reading.raw, high=reading.raw, step=step)


def _close(one: float, two: float) -> bool:
    return math.isclose(one, two, rel_tol=EXACT)


def _relate_points(a: Reading, b: Reading) -> Relation:
    apart = abs(a.low - b.low)
    coarse, fine = (a, b) if a.step > b.step else (b, a)
    near = apart <= CONVERTED * max(abs(a.low), abs(b.low))
    decimal = math.log10(a.step / b.step) if a.step > 0 and b.step > 0 else 0.5
    converted = a.unit != b.unit and a.kind not in ROUNDED_UNITS and bool(a.kind)
    if converted and not math.isclose(decimal, round(decimal), abs_tol=EXACT):
        return "same" if near and apart <= coarse.step / 2 + EXACT else "contradictory"
    rounded = coarse.rounded or converted
    if rounded and coarse.step > fine.step and near and apart <= coarse.step / 2 * (1 + EXACT):
        return "compatible"
    return "contradictory"


def _interval(reading: Reading, bound: Bound) -> tuple[float, float]:
    if bound in ("least", "more"):
        return math.nextafter(reading.low, math.inf) if bound == "more" else reading.low, math.inf
    if bound in ("most", "less"):
        high = math.nextafter(reading.high, -math.inf) if bound == "less" else reading.high
        return -math.inf, high
    if bound == "about":
        size = max(abs(reading.low), abs(reading.high))
        far = max(min(reading.step / 2, 2 * ABOUT * size), ABOUT * size)
        if reading.kind == "" and reading.low in YEARS:  # "about 1850" is a year
            far = min(far, reading.step / 2 + 2)
        return reading.low - far, reading.high + far
    return reading.low, reading.high


# Numbers and units


def spelled(text: str, is_english: "frozenset[str]") -> str:
    """The text with spelled numbers as digits.

    Args:
        text: In one of the languages of `LANGUAGES`.
        is_english: Those of its words that are English.
    """
    from text_to_num import alpha2digit

    try:
        found = alpha2digit(text, "en", 0)
        others = [
            word
            for word in text.split()
            if word.isalpha() and not word.isupper() and word not in is_english
        ]
        if found == text and others:
            for language in LANGUAGES[1:]:
                other = alpha2digit(text, language, 0)
                if other != text and any(word not in other for word in others):
                    return str(other)
    except (ValueError, OverflowError):
        return text
    return str(found)


def numbers(text: str) -> tuple[tuple[float, float, bool], ...]:
    """The values of a number in digits, each with the step of its last digit and roundness."""
    if "/" in text:
        whole, _, fraction = text.rpartition(" ")
        over, under = fraction.split("/")
        value = float(whole or 0) + float(over) / float(under)
        return ((value, 1 / float(under), False),) if math.isfinite(value) else ()
    found = []
    if GROUPED.fullmatch(text) or re.fullmatch(r"\d{1,3}([,.'’ ])\d{3}(?:\1\d{3})*[.,]\d+", text):
        body, mark = text, re.search(r"[,.'’ ]", text)
        group = mark.group() if mark else ","
        decimal = re.search(r"[.,](\d+)$", text)
        if decimal and decimal.group()[0] != group:
            body = text[: decimal.start()].replace(group, "") + "." + decimal[1]
        else:
            body = text.replace(group, "")
        found.append(body)
        if group in ",." and text.count(group) == 1 and body.isdigit() and text[0] != "0":
            found.append(text.replace(group, "."))
        if text[0] == "0":
            found = [text.replace(group, ".")]
    else:
        found.append(text.replace(",", "."))
    # The first is the likelier one: a comma groups, a point is decimal.
    if len(found) > 1 and "." in text:
        found.reverse()
    read = []
    for body in found:
        try:
            value = float(body)
        except ValueError:  # "000.000.000,5" is no number in any notation
            continue
        if not math.isfinite(value):
            continue
        decimals = len(body.partition(".")[2])
        digits = body.partition(".")[0]
        zeros = len(digits) - len(digits.rstrip("0")) if value and not decimals else 0
        step = 10.0 ** (zeros - decimals)
        read.append((value, step, decimals > 0 or step >= ROUND))
    return tuple(read)


@dataclass(frozen=True)
class Unit:
    """A unit of measurement.

    Attributes:
        kind: What it measures.
        name: In English, as CLDR or pint has it.
        symbol: To show.
        single: To show after 1, where it differs.
        scale: Base units in one of it.
        offset: Of its zero, in base units.
    """

    kind: str
    name: str
    symbol: str
    scale: float = 1.0
    offset: float = 0.0
    single: str = ""


def quantity(text: str, units: tuple[Unit, ...], multiple: float = 1.0) -> Quantity | None:
    """The quantity of a number in digits.

    Args:
        text: The number.
        units: What its unit may be; empty for a bare number.
        multiple: What to multiply it by.

    Returns:
        ``None`` if the number is larger than a float.
    """
    readings = []
    read = [
        (value * multiple, step * multiple, is_round or multiple >= ROUND)
        for value, step, is_round in numbers(text)
        if math.isfinite(value * multiple)
    ]
    for value, step, is_round in read:
        for unit in units or (Unit("", "", ""),):
            base = value * unit.scale + unit.offset
            exact = unit.kind in ROUNDED_UNITS and multiple < ROUND and step < ROUND
            readings.append(
                Reading(
                    unit.kind, unit.name, base, base, value, step * unit.scale,
                    is_round and not exact,
                )
            )  # fmt: skip
    if not readings:
        return None
    value = read[0][0]
    shown = str(int(value)) if value == int(value) else f"{value:.12g}"
    symbol = units[0].symbol if units else ""
    if units and value == 1:
        symbol = units[0].single or symbol
    return Quantity(tuple(readings), f"{shown} {symbol}".strip(), units=units)


@lru_cache(maxsize=4096)
def units(words: str) -> tuple[Unit, ...]:
    """What a unit as written may be; empty if it is none."""
    key = " ".join(words.split())
    names = _unit_names()
    found = _currency_codes().get(key) or names.get(_key(key)) or ()
    if not found and key.endswith("s") and len(key) > SHORTEST_PLURAL:
        found = names.get(key[:-1], ())  # "kgs"
    if found or len(key) > LONGEST_EXPRESSION:
        return found
    if square := re.fullmatch(r"sq\.? (\w+)", key):
        return _pint_unit(f"{square[1]}**2", key)
    if key in ("C", "F"):  # without the sign of degrees, more often than coulombs and farads
        return _pint_unit(f"deg{key}", f"°{key}")
    if not re.fullmatch(r"[A-Za-z]+(?:/[A-Za-z]+)?\d?", key):
        return ()
    # Into a word, pint would read a prefix and a symbol: "cats" are centi-atmospheres.
    is_word = len(key) > LONGEST_SYMBOL and "/" not in key
    if is_word and not any(not prefix for prefix, *_ in _registry().parse_unit_name(key)):
        return ()
    return _pint_unit(re.sub(r"(?<=[a-z])(\d)$", r"**\1", key), key)


def multiple(word: str, currency: bool) -> float | None:
    """What a word after a number multiplies it by, such as "million"; ``None`` if it does not."""
    known = _multiples()
    if word.casefold() in MULTIPLES:
        return MULTIPLES[word.casefold()]
    if currency or word.isupper() or len(word) > 1 or word == "k":
        return known.get(word.casefold().rstrip("."))
    return None


@cache
def unit_words() -> frozenset[str]:
    """The normalised words that are names of units."""
    return frozenset(
        word for name in _unit_names() for word in name.split() if len(word) >= LONGEST_SYMBOL
    )


def _key(name: str) -> str:
    """A unit's name without case, where it is a word: "mW" is not "MW"."""
    if any(len(part) > LONGEST_SYMBOL for part in re.split(r"[\s/]", name)):
        return normalise(name)
    return name


@cache
def _registry() -> "pint.UnitRegistry[float]":
    import pint

    return pint.UnitRegistry(autoconvert_offset_to_baseunit=True, cache_folder=None)


def _pint_unit(expression: str, symbol: str) -> tuple[Unit, ...]:
    registry = _registry()
    try:
        unit = registry.parse_units(expression.removeprefix("10 "))
        factor = 10.0 if expression.startswith("10 ") else 1.0
        zero = registry.Quantity(0.0, unit).to_base_units()
        one = registry.Quantity(factor, unit).to_base_units()
    except Exception:
        return ()
    kind = str(zero.dimensionality)
    if kind == "dimensionless":  # angles and bytes are no bare numbers; percents are
        kind = "" if str(zero.units) == "dimensionless" else str(zero.units)
    name = str(unit).replace("_", " ")
    scale, offset = float(one.magnitude - zero.magnitude), float(zero.magnitude)
    return (Unit(kind, name, f"{unit:~P}" or symbol, scale, offset),)


@cache
def _currency_codes() -> dict[str, tuple[Unit, ...]]:
    """Currencies by code and symbol, as written."""
    from babel import Locale

    found: dict[str, tuple[Unit, ...]] = {}
    for language in ("en", "en_GB", "en_CA", *LANGUAGES[1:]):
        locale = Locale.parse(language)
        for code, symbol in locale._data["currency_symbols"].items():
            if not symbol.isalpha():
                found.setdefault(symbol, (_currency(code),))
    for code in map(str, Locale("en").currencies):
        found[code] = (_currency(code),)
    return found


def _currency(code: str) -> Unit:
    return Unit("currency", code, code)


@cache
def _unit_names() -> dict[str, tuple[Unit, ...]]:
    """Units by their names and symbols in CLDR; a name may have several: "pounds"."""
    found: dict[str, dict[Unit, None]] = {}
    for name, given in chain(_measures(), _currency_names(), _subunit_names()):
        found.setdefault(_key(name), {}).update(dict.fromkeys(given))
    return {name: tuple(given) for name, given in found.items()}


def _measures() -> Iterator[tuple[str, tuple[Unit, ...]]]:
    """Names and symbols of the units of measurement."""
    from babel import Locale

    by_id: dict[str, tuple[Unit, ...]] = {}
    for language in ("en", "en_GB", *LANGUAGES[1:]):
        for cldr, widths in Locale.parse(language)._data["unit_patterns"].items():
            if cldr not in by_id:
                by_id[cldr] = _cldr_unit(cldr)
            forms = [item for width in WIDTHS for item in widths.get(width, {}).items()]
            for form, pattern in forms:
                name = str(pattern).replace("{0}", "").strip().rstrip(".")
                # "m" is short for months and minutes, too, but not after a number in a text.
                if form not in ("per", "gender") and name and name != "m":
                    yield name, by_id[cldr]
    yield "m", by_id["length-meter"]
    for name in ("kilo", "kilos"):
        yield name, by_id["mass-kilogram"]


def _currency_names() -> Iterator[tuple[str, tuple[Unit, ...]]]:
    """Names of currencies, and last words of them: "dollars" are those with a plain sign."""
    from babel import Locale
    from babel.core import get_global

    symbols = Locale("en").currency_symbols
    money = {item[0] for items in get_global("territory_currencies").values() for item in items}
    for language in LANGUAGES:
        locale = Locale(language)
        plurals = locale._data["currency_names_plural"]
        last: dict[str, set[str]] = {}
        # Gold has a code, but is no currency: "or" is a word.
        for code, name in (
            (code, name) for code, name in locale.currencies.items() if code in money
        ):
            for form in {name, *plurals.get(code, {}).values()}:
                yield form, (_currency(code),)
                last.setdefault(form.split()[-1], set()).add(code)
        for word, codes in last.items():
            plain = [code for code in codes if len(symbols.get(code, code)) == 1]
            if len(plain) == 1 or (len(codes) == 1 and not plain):
                yield word, (_currency((plain or list(codes))[0]),)


def _subunit_names() -> Iterator[tuple[str, tuple[Unit, ...]]]:
    """Names of parts of currencies; "cents" and their kin are of all that have hundredths."""
    from babel.numbers import get_currency_precision
    from num2words import CONVERTER_CLASSES

    found: dict[str, set[str]] = {"p": {"GBP"}, "\N{CENT SIGN}": {"USD"}}
    hundredths: set[str] = set()
    for language in LANGUAGES:
        for code, (_, parts) in CONVERTER_CLASSES[language].CURRENCY_FORMS.items():
            for name in parts[:2]:
                if HUNDREDTH.match(name):
                    hundredths.add(code)
                    found[name] = hundredths
                elif len(name) > SHORTEST_SUBUNIT or not name.isascii():
                    found.setdefault(name, set()).add(code)
    for name, codes in found.items():
        yield (
            name,
            tuple(
                Unit("currency", code, name, 10.0 ** -max(2, get_currency_precision(code)))
                for code in sorted(codes)
            ),
        )


def _cldr_unit(cldr: str) -> tuple[Unit, ...]:
    """The unit of an id such as ``speed-kilometer-per-hour``."""
    from babel import Locale

    name = cldr.partition("-")[2]
    over = [
        re.sub(r"^(square|cubic)-(\w+)", lambda m: f"{m[2]}**{POWERS[m[1]]}", part)
        for part in name.split("-per-")
    ]
    expression = (
        "10 year" if name == "decade" else "/".join(over).replace("-", "_")
    )  # pint's is a factor of ten
    shown = Locale("en")._data["unit_patterns"].get(cldr, {})
    width = "long" if cldr.startswith("duration") and "long" in shown else "short"
    forms = {
        form: str(pattern).replace("{0}", "").strip()
        for form, pattern in shown.get(width, {}).items()
    }
    symbol = forms.get("other", name)
    found = _pint_unit(expression, symbol) or (Unit(name, name.replace("-", " "), symbol),)
    return tuple(replace(each, symbol=symbol, single=forms.get("one", symbol)) for each in found)


@cache
def _multiples() -> dict[str, float]:
    """What CLDR writes after a number instead of zeros, without case."""
    from babel import Locale

    found = {"bn": 1e9, "k": 1e3}  # "bn" is what English papers write; CLDR has "B"
    for language in LANGUAGES:
        for width in ("long", "short"):
            for patterns in _forms(Locale(language)._data["compact_decimal_formats"][width]):
                for power, pattern in patterns:
                    text = re.sub(r"[0\s'\u00a0\u202f]", "", pattern)
                    if text and "0" in pattern:
                        zeros = pattern.count("0") - 1
                        found.setdefault(text.casefold().rstrip("."), float(power) / 10**zeros)
    return found


def _forms(formats: object) -> Iterator[list[tuple[str, str]]]:
    for form in formats.values():  # type: ignore[attr-defined]
        yield [(str(power), pattern.pattern) for power, pattern in form.items()]
