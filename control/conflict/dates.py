"""Dates in a text, as precise as it gives them."""

import re
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Literal

from control.conflict.sources import DATE
from foundation.text import normalise

if TYPE_CHECKING:
    from dateparser.date import DateDataParser

HALF_DAY = range(1, 13)  # hours that may be of the morning or of the evening
LANGUAGES = ("en", "de", "fr", "es")
Order = Literal["DMY", "MDY"]
# Two days that share no year, month, day, hour or minute: what dateparser takes from them differs.
BASES = (datetime(2001, 1, 31, 3, 7), datetime(2008, 6, 15, 14, 41))
TIME = (
    r"\d{1,2} o['’]clock\b(?: [ap]\.?m\b\.?)?"
    r"|\d{1,2}[:.]\d\d(?::\d\d)?\s?(?:[ap]\.?m\b\.?|uhr\b|h\b)?"
    r"|\d{1,2}\s?(?:[ap]\.?m\b\.?|uhr\b)"
)
TIMES = re.compile(rf"(?<![\w.:,])(?:{TIME}|noon\b|midnight\b)(?![\w:])", re.IGNORECASE)
CLOCK = re.compile(r"\d[\d.]*:|[a-z]", re.IGNORECASE)  # "17.30" alone is a number
NUMERIC = re.compile(
    r"(?<![\w./-])(?:\d{4}([-/.])\d{1,2}\1\d{1,2}|\d{4}-(?:0[1-9]|1[0-2])|(?:0?[1-9]|1[0-2])/\d{4}"
    r"|(?P<day>\d{1,2})([-/.])(?P<month>\d{1,2})\3(?:\d{4}|\d\d))(?![\w/-]|\.\d)"
)
# What looks like a day and a month, and is none: "3 may enter", "one may climb"; "on 3 may at" is.
VERB = re.compile(
    r"(?<!\bon )(?<!\bby )(?<!\bfrom )(?<!\bsince )(?<!\buntil )\d\S*\s+(?:may|march)(?=\s+[a-z])"
)
DECADE = re.compile(r"(?<!\w)(?:the |les années |die )?(\d{3}0)(?:['’]?s|er)(?: Jahren?)?(?!\w)")
CENTURY = re.compile(
    r"(?<!\w)(?:the |le |el |das |im )?(\d{1,2})(?:st|nd|rd|th|er|e|ème|\.)?"
    r"[ -](?:century|centuries|Jahrhunderts?|siècle)(?!\w)",
    re.IGNORECASE,
)
# Right before a date: which side of it is meant. "Before the 2023 check" is before 2023; "after the
# 2023 check" is not after it, for the rest of 2023 is after the check too.
SIDE = re.compile(
    r"\b(?P<not>(?:not|no|never) )?"
    r"(?:(?P<earlier>before|prior to|until|till|earlier than|pre-?)(?P<event> the)?"
    r"|(?P<later>after|later than|post-?)|since|(?P<from>from))(?: the year)? *$",
    re.IGNORECASE,
)
ONWARDS = re.compile(r" on(?:wards?)?\b", re.IGNORECASE)  # right after a date: "from 2023 on"
Side = Literal["as of", "before", "after", "since"]
COVERED: dict[Side, str] = {  # the dates of a period
    "as of": "{} or earlier",
    "before": "before {}",
    "after": "after {}",
    "since": "{} or later",
}
YEAR = re.compile(r"(?<![\w.,$€£])(?<!\d-)(?:1\d|20|21)\d\d(?![\w.,]*\w|\s?[%€$£])")


@dataclass(frozen=True)
class PartialDate:
    """A point or a span of time; what is ``None`` was not given.

    Attributes:
        years: The first and the last year.
        month: In 1 to 12.
        day: Of the month.
        minute: Of the day, in 0 to 1439.
        half_open: Whether this is the afternoon's reading of a time such as "8:30", so that it is
            compatible with a written "20:30", and not the same.
    """

    years: tuple[int, int] | None = None
    month: int | None = None
    day: int | None = None
    minute: int | None = None
    half_open: bool = False

    def __str__(self) -> str:
        """In ISO 8601 as far as it goes; a span of years with a slash."""
        text = ""
        if self.years is not None:
            first, last = self.years
            text = f"{first:04}" if first == last else f"{first:04}/{last:04}"
        if self.month is not None:
            text = f"{text or '-'}-{self.month:02}"
        if self.day is not None:
            text = f"{text}-{self.day:02}"
        if self.minute is not None:
            text = f"{text}T" if text else text
            text += f"{self.minute // 60:02}:{self.minute % 60:02}"
        return text

    def covers(self, other: "PartialDate") -> bool:
        """Whether all that is given of this date is so of the other: 2019 covers 3 May 2019."""
        mine, its = self.years, other.years
        if mine is not None and (its is None or its[0] < mine[0] or mine[1] < its[1]):
            return False
        fields = (
            (self.month, other.month),
            (self.day, other.day),
            (self.minute, other.minute),
        )
        return all(own in (None, theirs) for own, theirs in fields)

    def excludes(self, other: "PartialDate") -> bool:
        """Whether no time is both."""
        mine, its = self.years, other.years
        if mine is not None and its is not None and (mine[0] > its[1] or its[0] > mine[1]):
            return True
        fields = ((self.month, other.month), (self.day, other.day))
        if any(None not in pair and pair[0] != pair[1] for pair in fields):
            return True
        if self.minute is None or other.minute is None:
            return False
        return self.minute != other.minute


@dataclass(frozen=True)
class FoundDate:
    """A date and its place in the text.

    Attributes:
        start: Its first character.
        stop: The character after its last one.
        readings: What it means; two where month and day may be either.
    """

    start: int
    stop: int
    readings: tuple[PartialDate, ...]


@dataclass(frozen=True)
class Period:
    """The time that a question asks about: a day, month or year, or one side of it.

    Attributes:
        date: In ISO 8601.
        side: Which one; "until 2023" is before it, "in 2023" is as of it, and "from 2023 on" and
            "not before 2023" are since it.
    """

    date: str
    side: Side = "as of"

    def __str__(self) -> str:
        """As in "before 2023"."""
        return f"{self.side} {self.date}"

    @property
    def covered(self) -> str:
        """The dates that it covers, in words."""
        return COVERED[self.side].format(self.date)

    def covers(self, date: str) -> bool:
        """Whether a document of a date may tell what held then.

        One of the day, month or year itself tells what held as of and since it.
        """
        if self.side == "as of":
            return date[: len(self.date)] <= self.date
        shared = min(len(date), len(self.date))
        one, other = date[:shared], self.date[:shared]
        return {"before": one < other, "after": one > other, "since": one >= other}[self.side]


@dataclass(frozen=True)
class NamedPeriod:
    """A period and its place in a text.

    Attributes:
        period: What is named.
        start: The first character of the date, or of the words before it that tell the side.
        stop: The character after the last one of the date, or of the words that tell the side.
        sided: Whether words at ``start`` tell the side.
    """

    period: Period
    start: int
    stop: int
    sided: bool


def find_dates(text: str, years: bool) -> list[FoundDate]:
    """The dates in ``text``, in order, none overlapping another.

    Args:
        text: In one of `LANGUAGES`, or in ISO 8601.
        years: Whether a number such as 1987 is a year.
    """
    found: list[FoundDate] = []
    for one in _candidates(text, years):
        if one.readings and all(
            one.stop <= other.start or other.stop <= one.start for other in found
        ):
            found.append(one)
    return sorted(found, key=lambda one: one.start)


def periods_in(text: str) -> list[NamedPeriod]:
    """The days, months and years that a text names; both where a date can be read in two ways."""
    return [
        _with_side(text, found, iso)
        for found in find_dates(text, years=True)
        for iso in map(str, found.readings)
        if DATE.fullmatch(iso)
    ]


def periods_named(text: str) -> set[Period]:
    """The days, months and years that a text names, each with the side that it means."""
    return {each.period for each in periods_in(text)}


def tells_of(named: set[Period], asked: Period) -> bool:
    """Whether what a text names has the time asked about; a date itself may be of any side."""
    return any(each.date == asked.date and asked.side in ("as of", each.side) for each in named)


def _with_side(text: str, found: FoundDate, iso: str) -> NamedPeriod:
    """A date of a text with the side of it that is meant."""
    match, onwards = SIDE.search(text[: found.start]), ONWARDS.match(text, found.stop)
    if match is None or (match["from"] and not onwards):  # "the letter from 3 May 2023"
        return NamedPeriod(Period(iso), found.start, found.stop, False)
    side: Side = "since"
    if match["earlier"] and not match["not"]:
        side = "before"
    elif match["later"]:
        side = "as of" if match["not"] else "after"
    stop = onwards.end() if onwards and match["from"] else found.stop
    start = found.start if match["event"] else match.start()
    return NamedPeriod(Period(iso, side), start, stop, start < found.start)


def weekday(word: str) -> str | None:
    """The English name of a day of the week, if a normalised word is one, or its plural."""
    return _weekdays().get(word) or _weekdays().get(word.removesuffix("s"))


def _candidates(text: str, years: bool) -> Iterator[FoundDate]:
    for match in NUMERIC.finditer(text):
        orders: tuple[Order, ...] = ("DMY", "MDY")
        if match[3] == ".":
            orders = ("DMY",)  # no locale of CLDR writes month.day.year
        read = dict.fromkeys(each for order in orders if (each := _read(match.group(), order)))
        yield FoundDate(match.start(), match.end(), tuple(read))
    for match in _named().finditer(text):
        date = None if VERB.match(text, match.start()) else _read(match.group(), "DMY")
        yield FoundDate(match.start(), match.end(), (date,) if date else ())
    for match in DECADE.finditer(text):
        first = int(match[1])
        last = first + 99 if first % 100 == 0 else first + 9
        yield FoundDate(match.start(), match.end(), (PartialDate((first, last)),))
    for match in CENTURY.finditer(text):
        first = 100 * (int(match[1]) - 1) + 1
        yield FoundDate(match.start(), match.end(), (PartialDate((first, first + 99)),))
    for match in TIMES.finditer(text):
        clock = re.sub(r" o['’]clock", ":00", match.group())
        time = _read(clock, "DMY") if CLOCK.search(match.group()) else None
        if time is None or time.minute is None:
            continue
        spoken = re.search(r"[a-zA-Z]", clock)
        both = not spoken and time.minute // 60 in HALF_DAY and not match.group().startswith("0")
        later = (PartialDate(minute=(time.minute + 720) % 1440, half_open=True),) if both else ()
        yield FoundDate(match.start(), match.end(), (time, *later))
    if years:
        for match in YEAR.finditer(text):
            year = int(match.group())
            yield FoundDate(match.start(), match.end(), (PartialDate((year, year)),))


@cache
def _weekdays() -> dict[str, str]:
    from babel import Locale

    english = Locale("en").days["format"]["wide"]
    return {
        normalise(name): english[day]
        for language in LANGUAGES
        for day, name in Locale(language).days["format"]["wide"].items()
    }


@cache
def _named() -> re.Pattern[str]:
    """Matches a date whose month is a word; a month alone must be written in full, as a name."""
    from babel import Locale

    full, short = set[str](), set[str]()
    for language in LANGUAGES:
        months = Locale(language).months["format"]
        full.update(months["wide"].values())
        short.update(name.rstrip(".") for name in months["abbreviated"].values())
    short |= {name[:3] for name in Locale("en").months["format"]["wide"].values()} | {"Sept"}
    month = "|".join(sorted(map(re.escape, full | short), key=len, reverse=True))
    alone = "|".join(
        name for each in ("en", "de") for name in Locale(each).months["format"]["wide"].values()
    )
    day = r"\d{1,2}(?:st|nd|rd|th|er|\.|º)?"
    joint = r"[\s,./-]{0,3}(?:of |de |del |d['’])?"
    four = r"\d{4}(?!\d)"
    return re.compile(
        rf"(?<![\w.,])(?:(?:the |le |el |den |am )?{day}{joint}(?:{month})\b\.?(?:{joint}{four})?"
        rf"|{four}{joint}(?:{month})\b\.?(?:{joint}{day}(?!\w))?"
        rf"|(?:{month})\b\.?\s{{0,2}}(?:the )?{day}(?![\d:])(?:{joint}{four})?"
        rf"|(?:{month})\b\.?{joint}{four})(?!\w)|(?<!\w)(?:{alone})(?!\w)",
        # A month alone keeps its capital letter: "may", "march" and "august" are words.
        re.IGNORECASE,
    )


@cache
def _parsers(order: Order) -> tuple["DateDataParser", ...]:
    from dateparser.date import DateDataParser

    return tuple(
        DateDataParser(
            languages=list(LANGUAGES),
            settings={
                "PARSERS": ["absolute-time"],
                "RELATIVE_BASE": base,
                "DATE_ORDER": order,
                "PREFER_LOCALE_DATE_ORDER": False,
                "PREFER_DATES_FROM": "current_period",
                "PREFER_DAY_OF_MONTH": "current",
                "RETURN_TIME_AS_PERIOD": True,
            },
        )
        for base in BASES
    )


def _read(text: str, order: Order) -> PartialDate | None:
    """What both readings of a date agree on: the rest is what dateparser filled in."""
    if text.islower() and text.isalpha() and text not in ("noon", "midnight"):
        return None  # see _named
    try:
        one, two = (parser.get_date_data(text).date_obj for parser in _parsers(order))
    except (ValueError, OverflowError, TypeError, AttributeError, IndexError):
        return None
    if one is None or two is None:
        return None
    has_time = TIMES.fullmatch(text) is not None
    date = PartialDate(
        years=(one.year, one.year) if one.year == two.year else None,
        month=one.month if one.month == two.month else None,
        day=one.day if one.day == two.day else None,
        minute=60 * one.hour + one.minute if has_time else None,
    )
    return date if any(each is not None for each in astuple(date)[:-1]) else None
