"""Amounts and dates of a text in any notation, compared by what they mean.

Names of units, currencies, magnitudes and months in several languages are those of Unicode's CLDR
(by babel), conversions are pint's, numbers in words text2num's.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pint
from babel import Locale, UnknownLocaleError
from text_to_num import alpha2digit

from evaluation.judges.readings import plain

LANGUAGES = ("en", "en_GB", "fr", "de", "es", "it", "pt", "nl")
WORDS_IN = ("en", "fr", "de", "es", "it", "pt", "nl")  # number words that text2num knows
NUMBER = re.compile(r"(?<![\w.,])[-+]?\d+(?:[.,' ]\d{3})*(?:[.,]\d+)?(?![\d])|(?<![\w.])\.\d+")
ROMAN = re.compile(r"\bM{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})\b")
ROMAN_DIGITS = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
TOKEN = re.compile(r"[A-Za-z]+[23]?|[^\sA-Za-z0-9]")
LONGEST_UNIT = 5  # tokens: "kilometers per hour" has three, "km/h" three
MAGNITUDES = {
    "k": 1e3,
    "mn": 1e6,
    "mio": 1e6,
    "bn": 1e9,
    "mrd": 1e9,
    "tn": 1e12,
    "dozen": 12.0,
    "grand": 1e3,
}
HUNDRED = ("hundred", 100.0)
# Digits that a rounded number must show to tell the exact one: with two, 120 would tell 121; with a
# magnitude in words ("1.4 million") two are enough, since nobody would write more.
ROUNDED_DIGITS, ROUNDED_MAGNITUDE_DIGITS = 3, 2
CONVERTED_DIGITS = 2  # in another unit: "a year" tells 12 months, and neither 10 nor 18
SHORTEST_CODE = 4  # digits of a number that may be a code, and stands in any grouping
PHONE_DIGITS = 7  # last digits that tell a number with or without its prefixes
DIGIT_RUN = re.compile(r"(?<!\w)\+?\(?\d(?:[ \-./()]{0,2}\d)*(?!\w)")
CLOCK = re.compile(r"(?<![\d:.])(\d{1,2})(?:[:.h](\d{2}))?\s?([ap]\.?m\b)?(?![\d:])", re.IGNORECASE)
NOON = 12
SCALED = re.compile(r"\b(\d+\.\d+) (10{3,})\b")  # "two point five million" becomes 2.5 1000000
HALVES = (
    (re.compile(r"\b(\d+) and a half\b", re.IGNORECASE), r"\1.5"),
    (re.compile(r"\ban? (\w+) and a half\b", re.IGNORECASE), r"1.5 \1"),
    (re.compile(r"\bhalf an? (?=\w)", re.IGNORECASE), "0.5 "),
)
SMALL_WORDS = {"a", "an", "at", "in", "per", "the", "to"}  # units or symbols as well
FILLERS = {"of", "the", "in", "de", "del", "den", "der", "am", "le", "im", "year"}
ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th|er|re|eme|e|o|a|\.(?=\s*[A-Za-z]))\b|(?<=\d)\.(?=\s)")
NUMERIC_DATE = re.compile(r"(?<!\d)(\d{1,4})\s?([-/.])\s?(\d{1,2})\s?\2\s?(\d{1,4})(?!\d)")
MOST_DAYS, MONTHS, CENTURY = 31, 12, 100
YEAR = re.compile(r"'?\d{4}|\d{3}|'\d{2}")


Token = tuple[str, int, int]
"""A token with its place"""


@dataclass(frozen=True)
class Amount:
    """A number with what it counts.

    Attributes:
        start: Its first character.
        end: The character after it, unit included.
        value: The number.
        step: Half of its last digit that is shown, in the same unit.
        digits: Significant digits that are shown.
        unit: Name of its unit in pint or code of its currency; empty for a plain number.
        scaled: Whether a magnitude ("million", "k") was written with it.
    """

    start: int
    end: int
    value: float
    step: float
    digits: int
    unit: str = ""
    scaled: bool = False


@dataclass(frozen=True)
class Date:
    """A date or a part of one; 0 stands for what is not said.

    Attributes:
        start: Its first character.
        end: The character after it.
        day: Of the month.
        month: Of the year.
        year: With its century.
    """

    start: int
    end: int
    day: int = 0
    month: int = 0
    year: int = 0


def digits(text: str) -> list[str]:
    """The text with its number words as digits, once for each language that has some."""
    found = [text]
    for language in WORDS_IN:
        said = alpha2digit(text, language, threshold=0)
        for half, number in HALVES if language == "en" else ():
            said = half.sub(number, said)
        said = SCALED.sub(lambda match: f"{float(match[1]) * float(match[2]):.0f}", said)
        # "eighteen eighty-nine" is read as 18 89
        said = re.sub(r"\b(1\d|20) (\d\d)\b(?![.,]?\d)", r"\1\2", said) if said != text else said
        if said not in found:
            found.append(said)
    roman = ROMAN.sub(lambda match: _roman(match[0]), text)
    return found if roman == text else [*found, roman]


def _roman(numeral: str) -> str:
    """A Roman numeral in digits; one or two letters stay, for they may be words."""
    if len(numeral) < 3:  # noqa: PLR2004
        return numeral
    values = [ROMAN_DIGITS[letter] for letter in numeral]
    following = [*values[1:], 0]
    return str(sum(-one if one < nxt else one for one, nxt in zip(values, following, strict=True)))


def amounts(text: str) -> list[Amount]:
    """All numbers of a text that is written in digits; an ambiguous one stands there repeatedly."""
    found = []
    for match in NUMBER.finditer(text):
        if re.match(r"\s\d", text[match.end() :]):
            continue  # part of a longer number that text2num has not put together
        for value, step, shown in _numbers(match[0]):
            found += _with_unit(text, match.start(), match.end(), value, step, shown)
    return found + list(_compound(found))


def code(text: str) -> str:
    """The digits of a text that is a code or a telephone number; empty for any other text."""
    number = DIGIT_RUN.fullmatch(text.strip())
    found = re.sub(r"\D", "", text)
    return found if number and len(found) >= SHORTEST_CODE else ""


def codes(text: str) -> Iterator[tuple[str, int, int]]:
    """The digits of each run of digits in a text, however they are grouped, and its place."""
    for match in DIGIT_RUN.finditer(text):
        yield re.sub(r"\D", "", match[0]), *match.span()


def same_code(wanted: str, said: str) -> bool:
    """Whether two codes are the same, or end in the same digits of a telephone number."""
    short = min(len(wanted), len(said))
    return wanted == said or (
        short >= PHONE_DIGITS and wanted[-PHONE_DIGITS:] == said[-PHONE_DIGITS:]
    )


def clock(text: str) -> int | None:
    """The minutes of the day that a text names, if it is a time of day and nothing else."""
    match = CLOCK.fullmatch(text.strip())
    if not match or not (match[2] or match[3]):
        return None
    return _minutes(match)


def clocks(text: str) -> Iterator[tuple[int, int, int]]:
    """The times of day in a text, in minutes, with their places; afternoons in both notations."""
    for match in CLOCK.finditer(text):
        if match[2] or match[3]:
            minutes = _minutes(match)
            yield minutes, *match.span()
            if not match[3] and int(match[1]) <= NOON:
                yield minutes + NOON * 60, *match.span()


def _minutes(match: re.Match[str]) -> int:
    hour = int(match[1])
    if match[3]:
        hour = hour % NOON + NOON * match[3].casefold().startswith("p")
    return 60 * hour + int(match[2] or 0)


def same_amount(wanted: Amount, said: Amount) -> bool:
    """Whether ``said`` tells ``wanted``, within the rounding that its notation shows."""
    if said.unit and not wanted.unit:
        return False
    alike = not said.unit or said.unit == wanted.unit
    alike |= said.unit == "degree" and wanted.unit.startswith("deg")  # of which scale is not said
    unit = wanted.unit if alike else None
    if unit is not None:
        if said.value == wanted.value:
            return True
        least = ROUNDED_MAGNITUDE_DIGITS if said.scaled else ROUNDED_DIGITS
        return said.digits >= least and abs(said.value - wanted.value) <= _rounding(said)
    converted = _convert(said, wanted.unit)
    if converted is None:
        return False
    value, step = converted
    if said.digits < CONVERTED_DIGITS:
        step = 0
    return abs(value - wanted.value) < step + wanted.step


def _rounding(said: Amount) -> float:
    """Half of the last significant digit: what "8,850" may have been rounded by."""
    return said.step * 10 ** max(_trailing_zeros(said), 0)


def _trailing_zeros(said: Amount) -> int:
    last = round(said.value / (2 * said.step))
    return len(str(last)) - len(str(last).rstrip("0")) if last else 0


def _numbers(written: str) -> Iterator[tuple[float, float, int]]:
    """What a number may mean: "1,234" is one thousand or one and a bit."""
    text = written.replace(" ", "").replace("'", "")
    whole, point, fraction = re.fullmatch(r"(.*?)([.,]?)(\d*)", text).groups()  # type: ignore[union-attr]
    readings = set()
    if re.fullmatch(r"[-+]?[1-9]\d{0,2}(?:([.,])\d{3})(?:\1\d{3})*", text):
        readings.add(re.sub("[.,]", "", text))
    if point:
        whole, _, fraction = text.rpartition(point)
    if not (point and point in whole):
        readings.add(re.sub("[.,]", "", whole) + ("." + fraction if point else fraction))
    for one in readings:
        _, _, after = one.partition(".")
        shown = one.lstrip("+-0.").replace(".", "")
        shown = shown if after else shown.rstrip("0")
        yield float(one), 0.5 * 10 ** -len(after), max(len(shown), 1)


def _with_unit(
    text: str, start: int, end: int, value: float, step: float, shown: int
) -> list[Amount]:
    """The number with each unit that may stand behind it, or the currency before it."""
    behind = [(one[0], end + one.end()) for one in TOKEN.finditer(text[end : end + 60])]
    if behind and re.search(r"[\d\n]", text[end : behind[0][1] - len(behind[0][0])]):
        behind = []
    scales = [(1.0, 0, end)]
    if behind:
        word = behind[0][0].casefold()
        scaled = [(scale, 1, behind[0][1]) for scale in _magnitudes().get(word, ())]
        scales = scaled if scaled and word not in _units() else scales + scaled
        if len(behind) > 1 and (word, behind[1][0].casefold()) == ("-", HUNDRED[0]):
            scales.append((HUNDRED[1], 2, behind[1][1]))
    before = text[:start].rstrip().split()
    code = before[-1].casefold().strip("(") if before else ""
    found = []
    for scale, used, stop in scales:
        base = (value * scale, step * scale, shown)
        currencies = [unit for unit in _units().get(code, ()) if re.fullmatch("[A-Z]{3}", unit)]
        found += [
            Amount(text.rindex(before[-1], 0, start), stop, *base, unit, scale != 1)
            for unit in currencies
        ]
        units: list[tuple[str, int]] = []
        for length in range(min(LONGEST_UNIT, len(behind) - used), 0, -1):
            words = "".join(one for one, _ in behind[used : used + length]).casefold()
            words = words.replace('"', "''")  # inches, in ASCII
            if words in _units():
                units += [(unit, behind[used + length - 1][1]) for unit in _units()[words]]
                break
        found += [Amount(start, at, *base, unit, scale != 1) for unit, at in units]
        article = bool(units) and behind[used][0].casefold() in SMALL_WORDS  # "1,340 a month"
        if (not units and not currencies) or article:
            found.append(Amount(start, stop, *base, "", scale != 1))
    return found


def _compound(found: list[Amount]) -> Iterator[Amount]:
    """Sums such as 5 ft 7 in."""
    for first, second in itertools.product([one for one in found if one.unit], repeat=2):
        if not 0 <= second.start - first.end <= len(" and ") or second.unit == first.unit:
            continue
        converted = _convert(second, first.unit)
        if converted and 0 < converted[0] < 1:
            yield Amount(
                first.start,
                second.end,
                first.value + converted[0],
                converted[1],
                first.digits + second.digits,
                first.unit,
            )


def _convert(said: Amount, unit: str) -> tuple[float, float] | None:
    """Value and step in another unit; ``None`` where it measures something else."""
    registry = _registry()
    try:
        low, value, high = (
            registry.Quantity(said.value + shift, said.unit).to(unit).magnitude
            for shift in (-said.step, 0, said.step)
        )
    except (pint.errors.PintError, AttributeError, ValueError):
        return None
    return value, (high - low) / 2


@lru_cache(maxsize=1)
def _registry() -> pint.UnitRegistry:
    return pint.UnitRegistry(autoconvert_offset_to_baseunit=True)


@lru_cache(maxsize=1)
def _units() -> Mapping[str, frozenset[str]]:
    """From how a unit or currency is written, without spaces, to its names in pint or its code."""
    known: dict[str, set[str]] = defaultdict(set)
    for locale in _locales():
        for written, unit in (*_unit_names(locale), *_currency_names(locale)):
            known[_key(plain(written))].add(unit)
    known.pop("", None)
    return {written: frozenset(units) for written, units in known.items()}


def _unit_names(locale: Locale) -> Iterator[tuple[str, str]]:
    data: Any = locale._data
    for name, widths in data["unit_patterns"].items():
        unit = _pint_name(name)
        for forms in widths.values() if unit else ():
            for case, pattern in forms.items() if hasattr(forms, "items") else ():
                if case != "per" and str(pattern).startswith("{0}"):
                    yield str(pattern).removeprefix("{0}"), unit or ""


def _currency_names(locale: Locale) -> Iterator[tuple[str, str]]:
    data: Any = locale._data
    for code, names in data["currency_names_plural"].items():
        for name in names.values():
            yield str(name), str(code)
    for table in (data["currency_names"], data["currency_symbols"]):
        for code, name in table.items():
            yield str(name), str(code)
            yield str(code), str(code)


def _key(written: str) -> str:
    return "".join(TOKEN.findall(written)).casefold()


def _pint_name(name: str) -> str | None:
    """A unit of CLDR, such as ``speed-kilometer-per-hour``, as pint calls it."""
    _, _, unit = name.partition("-")
    unit = unit.replace("-per-", "/").replace("square-", "square_").replace("cubic-", "cubic_")
    unit = unit.replace("-", "_")
    unit = re.sub(r"(square|cubic)_(\w+)", lambda m: f"{m[2]}**{2 + (m[1] == 'cubic')}", unit)
    unit = {"celsius": "degC", "fahrenheit": "degF", "tonne": "metric_ton"}.get(unit, unit)
    try:
        _registry().Unit(unit)
    except (pint.errors.PintError, AttributeError, ValueError, TypeError):
        return None
    return unit


@lru_cache(maxsize=1)
def _magnitudes() -> Mapping[str, frozenset[float]]:
    known: dict[str, set[float]] = defaultdict(set)
    for word, scale in (*MAGNITUDES.items(), HUNDRED):
        known[word].add(scale)
    for locale in _locales():
        for forms in locale.compact_decimal_formats.values():
            for patterns in forms.values():
                for power, pattern in patterns.items():
                    written = getattr(pattern, "pattern", str(pattern))
                    word = plain(re.sub(r"[0'\s.\u00a0]", "", written)).casefold()
                    zeros = len(re.sub(r"[^0]", "", written)) - 1
                    if word.isalpha():
                        known[word].add(float(power) / 10**zeros)
    return {word: frozenset(scales) for word, scales in known.items()}


def _locales() -> list[Locale]:
    found = []
    for language in LANGUAGES:
        try:
            found.append(Locale.parse(language))
        except UnknownLocaleError:  # pragma: no cover - all are in babel
            continue
    return found


def dates(text: str) -> list[Date]:
    """All dates of a text that is written in digits and has a month in it."""
    found = []
    for match in NUMERIC_DATE.finditer(text):
        first, second, third = int(match[1]), int(match[3]), int(match[4])
        orders = {(first, second, third), (second, first, third), (third, second, first)}
        for day, month, year in orders:
            if 0 < day <= MOST_DAYS and 0 < month <= MONTHS:
                found.append(Date(*match.span(), day, month, year))
    tokens = [
        (one[0].casefold(), *one.span())
        for one in re.finditer(r"'?\d+|[A-Za-z]+", ORDINAL.sub(lambda end: " " * len(end[0]), text))
        if one[0].casefold() not in FILLERS
    ]
    for at, (word, start, end) in enumerate(tokens):
        for month in _months().get(word, ()):
            before = tokens[at - 1] if at else ("", start, start)
            found += _around(before, month, tokens[at + 1 : at + 3], start, end)
    return found


def _around(
    before: Token, month: int, after: Sequence[Token], start: int, end: int
) -> Iterator[Date]:
    """Day and year on both sides of a month's name."""
    years = [_year(token) for token, _, _ in after]
    if _is_day(before[0]):
        year = years[0] if years else 0
        yield Date(before[1], after[0][2] if year else end, int(before[0]), month, year)
    elif after and _is_day(after[0][0]):
        year = years[1] if len(years) > 1 else 0
        yield Date(start, after[1][2] if year else after[0][2], int(after[0][0]), month, year)
    elif years and years[0]:
        yield Date(start, after[0][2], 0, month, years[0])
    else:
        yield Date(start, end, 0, month, 0)


def _is_day(token: str) -> bool:
    return token.isdigit() and 0 < int(token) <= MOST_DAYS


def _year(token: str) -> int:
    return int(token.lstrip("'")) if YEAR.fullmatch(token) else 0


def same_date(wanted: Date, said: Date) -> bool:
    """Whether a date tells another: all that both say agrees, and it says the month and one more.

    A day and month without the year tell most of a date, as do a month and its year; a month or a
    year alone does not.
    """
    pairs = ((wanted.day, said.day), (wanted.month, said.month))
    if any(one and other and one != other for one, other in pairs):
        return False
    if wanted.year and said.year and said.year not in {wanted.year, wanted.year % CENTURY}:
        return False
    shared = [bool(one and other) for one, other in (*pairs, (wanted.year, said.year))]
    parts = sum(map(bool, (wanted.day, wanted.month, wanted.year)))
    return shared[1] and sum(shared) >= min(parts, 2)


@lru_cache(maxsize=1)
def _months() -> Mapping[str, frozenset[int]]:
    known: dict[str, set[int]] = defaultdict(set)
    for locale in _locales():
        for context in ("format", "stand-alone"):
            for width in ("wide", "abbreviated"):
                for month, name in locale.months[context].get(width, {}).items():
                    known[plain(name).casefold().strip(".")].add(month)
    return {name: frozenset(months) for name, months in known.items() if len(name) > 1}
