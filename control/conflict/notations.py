"""Numbers, years, times of day, sums and frequencies in words, as one writes them in digits."""

import re
from functools import lru_cache

from control.conflict.dates import FoundDate, find_dates
from control.conflict.quantities import MULTIPLES, spelled, units
from foundation.text import is_word

# Notations that text2num leaves in words: "an hour and a half", "an hour and 30 minutes".
SUM = re.compile(
    r"(?<![\d.,])\b(an?|une?|una|eine?|\d+) ([^\W\d_]{3,})"
    r"(?: (?:and|et|y) (?:an? |1 )?(half|demie?|media|quarter)\b|(?=,? (?:and )?\d))",
    re.IGNORECASE,
)
YEAR_IN_WORDS = re.compile(r"\b(1[3-9]|20|1[0-2](?= [6-9])) (?:(\d\d)|oh (\d))\b")
CLOCK = re.compile(
    r"(?<![\d.,])\b(?:an? )?(?:half[ -]past|(?P<before>halb)|half(?= \d+$)"
    r"|(?:(?P<quarter>quarter|viertel)|(?P<minutes>\d\d?)(?P<said> minute[ns]?)?)"
    r" (?:past|after|nach|(?P<to>to|till|vor)))"
    r" (?P<hour>1[0-2]|[1-9])(?![\d:.,/])(?: o['’]clock)?",
    re.IGNORECASE,
)
PART_OF_DAY = re.compile(r"(:\d\d|o['’]clock) in the (?:(morning)|afternoon|evening)\b")
OFTEN = {"once": "1 time", "twice": "2 times", "thrice": "3 times"}
OFTEN_WORD = re.compile(
    r"\b(?:twice|thrice"
    r"|(?<!at )once(?=$| every | (?:(?:an?|per|each) )?(?:hour|dai|day|week|month|year)))\b",
    re.IGNORECASE,
)
PER = {"daily": "day"} | {f"{unit}ly": unit for unit in ("hour", "week", "month", "year")}
PER_WORD = re.compile(rf"(?<=time[s ])( ?)({'|'.join(PER)}|each|every)\b")
HOURS = re.compile(  # "14.00 to 20.00", unless it is of euros
    r"(?<![\w.,€$£])(?:[01]\d|[1-9]|2[0-4])\.[0-5]\d\s*(?:to|until|till|[-–—])\s*"
    r"(?:[01]\d|[1-9]|2[0-4])\.[0-5]\d(?![\d.,%€$£])(?= ?(?P<unit>[^\W\d_]*))"
)
SPOKEN_MINUTES = (5, 10, 20, 25)  # that nobody says "minutes" after


@lru_cache(maxsize=4096)
def dates_in(text: str, years: bool) -> tuple[FoundDate, ...]:
    """The dates of a span; see `find_dates`."""
    return tuple(find_dates(in_digits(text), years))


@lru_cache(maxsize=4096)
def in_digits(text: str) -> str:
    """The text with numbers, years, times of day, sums and frequencies in digits."""
    known = frozenset(word for word in re.findall(r"[^\W\d_]+", text) if is_word(word))
    # "two-year": a hyphen before a unit
    text = re.sub(
        r"(?<=[^\W\d_])-(?=([^\W\d_]{4,}))", lambda at: " " if units(at[1]) else "-", text
    )
    text = HOURS.sub(lambda at: at[0] if units(at["unit"]) else at[0].replace(".", ":"), text)
    text = re.sub(r"\b(?:nil|naught)\b", "0", text).replace(" oh-", " oh ")
    text = _spoken(spelled(text, known), text)
    text = re.sub(r"\b(?:an?|1) 3rd\b(?! \w+ of)", "1/3", text)
    return re.sub(r"\b(\d) thirds\b", r"\1/3", text)


def _spoken(text: str, written: str) -> str:
    """The text with years, times of day, sums and frequencies as one writes them in digits.

    Args:
        text: With spelled numbers as digits.
        written: The text before: "19 83" is no year, and "10 to 8" no time, where it is there.
    """

    def year(found: re.Match[str]) -> str:
        return found[0] if found[0] in written else found[1] + (found[2] or f"0{found[3]}")

    def clock(found: re.Match[str]) -> str:
        hour = int(found["hour"])
        minutes = int(found["minutes"] or (15 if found["quarter"] else 30))
        if found["minutes"] and not found["said"]:
            is_range = found["to"] and minutes < hour  # perhaps: "five to ten"
            if found[0] in written or is_range or minutes not in SPOKEN_MINUTES:
                return found[0]
        minute = (hour * 60 + (-minutes if found["to"] or found["before"] else minutes)) % 720
        return f"{minute // 60 or 12}:{minute % 60:02}"

    def summed(found: re.Match[str]) -> str:
        whole = int(found[1]) if found[1].isdigit() else 1
        return (
            f"{whole + MULTIPLES.get(found[3] or '', 0)} {found[2]}"
            if units(found[2])
            else found[0]
        )

    text = CLOCK.sub(clock, YEAR_IN_WORDS.sub(year, text))
    text = PART_OF_DAY.sub(lambda found: f"{found[1]} {'ap'[not found[2]]}m", text)
    text = re.sub(r"\bhalf an? (?=dozen|10{3,})", "0.5 ", SUM.sub(summed, text))
    text = OFTEN_WORD.sub(lambda found: OFTEN[found[0].casefold()], text)
    return PER_WORD.sub(lambda found: f"{found[1]}per {PER.get(found[2], '')}".rstrip(), text)
