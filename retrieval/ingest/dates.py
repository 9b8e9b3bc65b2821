"""Dates in texts, fields and file names, in ISO 8601 as far as they are given."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from foundation.errors import InputError

if TYPE_CHECKING:
    import regex

EARLIEST = 1400  # no document that is dated in our calendar's numbers is much older
FARTHEST = 5  # years to come from which a document may hold; beyond, a year is rather misspelt
# Month names of CLDR in these languages; those that mean two months in two of them are left out.
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "nb", "fi", "pl", "cs")
MONTHS = 12
SHORTEST_NAME = 3  # letters of a month
DAY_LENGTH, MONTH_LENGTH, YEAR_LENGTH = map(len, ("2000-01-01", "2000-01", "2000"))
KEPT_LINES = 256  # of one text: each is looked at in up to four ways
# Seconds between the creation and the last change of an office file, below which a program made
# it: its dates then may be those of the program's template (python-docx: 0 s, python-pptx: 102 s).
LEAST_WRITING = 300

YEAR = r"(?P<y>[12]\d{3})(?![\d%€$])"
IN_FIGURES = rf"(?<![\d.])(?P<a>\d{{1,2}})(?P<s>[./-])\s?(?P<b>\d{{1,2}})(?P=s)\s?{YEAR}"
MONTH = r"(?P<m>\L<months>)\b\.?"
DAY = r"(?P<d>\d{1,2})(?:st|nd|rd|th|er|\.|º|ª)?"
JOINT = r"[\s.,/-]{0,3}(?:day\s+)?(?:of\s+|de\s+|del\s+)?"
DATE = (
    rf"(?<![\d.]){YEAR}(?P<s>[-/.])(?P<m>\d{{1,2}})(?:(?P=s)(?P<d>\d{{1,2}}))?(?!\d)(?!-\d)"
    rf"|{IN_FIGURES}"
    rf"|(?<![\d./-])(?P<m>0[1-9]|1[0-2])[/.]{YEAR}(?![\d/.-]\d)"
    rf"|(?<!\w)(?:{DAY}{JOINT})?{MONTH}{JOINT}{YEAR}"
    rf"|(?<!\w){MONTH}\s*{DAY},?\s+{YEAR}"
    rf"|(?<!\w){YEAR}[\s-]{MONTH}(?:[\s-](?P<d>\d{{1,2}})\b)?"
    r"|(?P<y>[12]\d{3})年\s?(?P<m>\d{1,2})月(?:\s?(?P<d>\d{1,2})日)?"
    rf"|(?<![\w.,/$€£#–-]){YEAR}(?![\w/–-])(?![.,]\d)"
)
ANY_YEAR = re.compile(r"[12]\d{3}")
RANGE_BEFORE = re.compile(r"\d\w{0,2}\s*(?:[-–—/]|to|and)\s*$")
RANGE_AFTER = re.compile(r"\s*(?:[-–—]|to|until|through)\s*(?:\w+ )?\d")
LONGEST_JOIN = 16  # characters between the two dates of a period
IN_NAME = re.compile(
    r"(?<!\d)(?P<y>[12]\d{3})(?:(?P<s>[-_.]?)(?P<m>0[1-9]|1[0-2])"
    r"(?:(?P=s)(?P<d>0[1-9]|[12]\d|3[01]))?)?(?![\d.]?\d)"
)
GIVEN = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?", re.ASCII)
IN_PDF = re.compile(r"(?:D:)?([12]\d{3})(\d\d)(\d\d)(?!\d{1,5}$)")


@dataclass(frozen=True)
class Found:
    """A date in a text.

    Attributes:
        iso: In ISO 8601, of which day or month may lack; empty if it is none, or ends a period.
        start: Where it begins in the text, in characters.
        end: Where it ends.
        begins_period: Whether "to" or a dash and another date follow.
    """

    iso: str
    start: int
    end: int
    begins_period: bool = False

    @property
    def is_year(self) -> bool:
        """Whether it is a year alone."""
        return len(self.iso) == YEAR_LENGTH


def parse_dated(given: str) -> str:
    """Return a date that a user gives, in ISO 8601.

    Args:
        given: YYYY-MM-DD, YYYY-MM or YYYY.

    Raises:
        InputError: It is none of these, or is more than five years ahead or before 1400.
    """
    text = given.strip()
    shape = GIVEN.fullmatch(text)
    iso = _iso(*shape.groups()) if shape else ""
    if not iso:
        raise InputError(
            f"--dated {given!r} is not a date; give YYYY-MM-DD, YYYY-MM or YYYY, such as 2025-03-01"
        )
    if not may_hold(iso):
        raise InputError(
            f"--dated {text} is more than {FARTHEST} years ahead or before {EARLIEST}; "
            "give the date from which the document holds"
        )
    return iso


def stated_date(value: object) -> str:
    """Return the date of a field in ISO 8601, be it to come; empty if it is none or impossible."""
    if isinstance(value, date):
        iso = value.isoformat()[:DAY_LENGTH]
    elif isinstance(value, str | int) and not isinstance(value, bool):
        packed = IN_PDF.match(str(value).strip())
        iso = _iso(*packed.groups()) if packed else ""
        iso = iso or next((each.iso for each in _search(str(value)) if may_hold(each.iso)), "")
    else:
        return ""
    return iso if may_hold(iso) else ""


def office_dates(created: str, modified: str) -> dict[str, object]:
    """Return the dates in an office file's properties that say when it was written.

    Args:
        created: As the file states it, in ISO 8601 with its time; empty if it does not.
        modified: Likewise.
    """
    try:
        taken = datetime.fromisoformat(modified) - datetime.fromisoformat(created)
    except (ValueError, TypeError):  # one is missing, or only one has a time zone
        return {}
    return {"modified": modified} if abs(taken.total_seconds()) >= LEAST_WRITING else {}


def first_date(text: str) -> str:
    """Return the first date of a text that a document may have, in ISO 8601; empty if none."""
    return next((found.iso for found in _search(text) if is_possible(found.iso)), "")


def dates_in_name(stem: str) -> list[str]:
    """Return the dates in a file's name that a document may have, in ISO 8601."""
    packed = [_iso(*match.group("y", "m", "d")) for match in IN_NAME.finditer(stem)]
    found = [each.iso for each in find_dates(stem.replace("_", " "))]
    return list(filter(is_possible, [*packed, *found]))


def is_possible(iso: str) -> bool:
    """Whether a document may have this date: one that is neither to come nor too long ago."""
    return bool(iso) and iso <= date.today().isoformat() and int(iso[:YEAR_LENGTH]) >= EARLIEST


def may_hold(iso: str) -> bool:
    """Whether a document may hold from this date on: a possible one, or one a few years ahead."""
    last = f"{date.today().year + FARTHEST}-12-31"
    return bool(iso) and iso <= last and int(iso[:YEAR_LENGTH]) >= EARLIEST


@lru_cache(KEPT_LINES)
def find_dates(text: str) -> list[Found]:
    """Return the dates in a text, in order: with a day, of a month, or a year alone.

    A date in figures whose day and month could be exchanged (3/4/2021) gives its year alone,
    unless another one of the text shows their order.
    """
    return list(_search(text))


def with_clear_order(text: str) -> str:
    """Write dates in figures in ISO 8601 if one of them shows whether the day comes first."""
    pattern = re.compile(rf"(?<![/-]){IN_FIGURES}")
    day_first = _is_day_first(pattern.finditer(text))
    if day_first is None:
        return text

    def written(match: re.Match[str]) -> str:
        return match[0] if match["s"] == "." else _iso_of(match, day_first) or match[0]

    return pattern.sub(written, text)


@cache
def weekdays() -> frozenset[str]:
    """The names of the days of the week and their short forms, in lower case."""
    from babel import Locale

    return frozenset(
        name.lower().rstrip(".")
        for language in LANGUAGES
        for width in ("wide", "abbreviated")
        for name in Locale(language).days["format"][width].values()
    )


@cache
def _months() -> dict[str, int]:
    from babel import Locale

    names: dict[str, set[int]] = {"sept": {9}}
    for language in LANGUAGES:
        months = Locale(language).months
        for context in ("format", "stand-alone"):
            for width in ("wide", "abbreviated"):
                for number, name in months[context][width].items():
                    names.setdefault(name.lower().rstrip("."), set()).add(number)
    return {
        name: min(numbers)
        for name, numbers in names.items()
        if len(numbers) == 1 and not name.isdigit() and len(name) >= SHORTEST_NAME
    }


@cache
def _pattern() -> "regex.Pattern[str]":
    import regex

    return regex.compile(DATE, regex.IGNORECASE, months=_months())


def _search(text: str) -> Iterator[Found]:
    if not ANY_YEAR.search(text):
        return
    matches = list(_pattern().finditer(text))
    day_first = _is_day_first(matches)
    for match in matches:
        if iso := _iso_of(match, day_first):
            start, end = match.span()
            ends = RANGE_BEFORE.search(text, max(0, start - LONGEST_JOIN), start)
            begins = RANGE_AFTER.match(text, end, end + LONGEST_JOIN)
            yield Found("" if ends else iso, start, end, bool(begins))


def _iso_of(match: re.Match[str], day_first: bool | None) -> str:
    """The date of a match of `DATE` or `IN_FIGURES`; empty if there is none such."""
    year, day, month = match.group("y", "a", "b")
    if not day:
        month = match["m"]
        return _iso(year, _months().get(str(month).lower(), month), match["d"])
    if match["s"] == "." or int(day) == int(month):
        day_first = True
    if day_first is None:
        return _iso(year)
    return _iso(year, month, day) if day_first else _iso(year, day, month)


def _is_day_first(matches: Iterable[re.Match[str]]) -> bool | None:
    """Whether dates in figures have the day first; ``None`` if they do not show it."""
    seen = {
        int(match["a"]) > MONTHS
        for match in matches
        if match["a"] and match["s"] != "." and max(int(match["a"]), int(match["b"])) > MONTHS
    }
    return seen.pop() if len(seen) == 1 else None


def _iso(year: str, month: str | int | None = None, day: str | None = None) -> str:
    """Return a date in ISO 8601; empty if there is none such."""
    try:
        whole = date(int(year), int(month or 1), int(day or 1)).isoformat()
    except ValueError:
        return ""
    return whole[: DAY_LENGTH if day else MONTH_LENGTH if month else YEAR_LENGTH]
