"""Aliases: names of the same entity in other languages and other forms."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import cache

from control.conflict.dates import find_dates
from control.forgetting.record import MOST_TEXTS, Record
from foundation.text import normalise

LANGUAGES = ("en", "fr", "de", "es", "it", "pt", "nl")
LEAST_LETTERS = 3  # of an alias; shorter ones are words of some language
# The prefixes of time zones that are named after a city.
CONTINENTS = ("Africa", "America", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")
# Common names that Unicode's CLDR lacks for the country.
COMMON_NAMES = {
    "AE": ("UAE",),
    "BA": ("Bosnia",),
    "CD": ("Democratic Republic of the Congo", "DR Congo", "DRC", "Congo-Kinshasa", "Zaire"),
    "CG": ("Republic of the Congo", "Congo-Brazzaville"),
    "CI": ("Ivory Coast",),
    "CN": ("People's Republic of China",),
    "CV": ("Cabo Verde",),
    "CZ": ("Czech Republic",),
    "GB": ("UK", "U.K.", "Great Britain", "Britain"),
    "HK": ("Hong Kong",),
    "KP": ("Democratic People's Republic of Korea",),
    "KR": ("Republic of Korea",),
    "MK": ("Macedonia",),
    "MO": ("Macau", "Macao"),
    "NL": ("Holland",),
    "RU": ("Russian Federation",),
    "SZ": ("Swaziland",),
    "TL": ("East Timor",),
    "TR": ("Turkey", "Turkiye"),
    "US": ("USA", "U.S.A.", "United States of America"),
    "VA": ("Vatican",),
}
ABBREVIATIONS = (
    (re.compile(r"\bSt\.? (?=[A-Z])"), "Saint "),
    (re.compile(r"\bSaint (?=[A-Z])"), "St "),
    (re.compile(r"\bMt\.? (?=[A-Z])"), "Mount "),
    (re.compile(r"\bMount (?=[A-Z])"), "Mt "),
    (re.compile(r"\bFt\.? (?=[A-Z])"), "Fort "),
    (re.compile(r"\bDr\.? (?=[A-Z])"), "Doctor "),
    (re.compile(r" & "), " and "),
    (re.compile(r" and (?=[A-Z])"), " & "),
    (re.compile(r"^[Tt]he (?=\w)"), ""),
)
# Forms of a date in English, as patterns of CLDR; DAY stands for "3rd".
DAY = "'3rd'"
DATE_FORMS = (
    *("d MMMM y", "MMMM d, y", f"{DAY} 'of' MMMM y", f"{DAY} MMMM y", f"MMMM {DAY}, y"),
    *("d MMM y", "MMM d, y", "y-MM-dd", "dd/MM/y", "d/M/y", "MM/dd/y", "M/d/y"),
)
NUMBERS = range(100)  # are written in words as well, in English
YEARS = range(1000, 2200)  # the same, in every language


def other_names(name: str) -> tuple[str, ...]:
    """Names of the same entity in other languages and forms, without the name itself.

    Countries, continents, languages, currencies and cities that a time zone is named after come
    from Unicode's CLDR, what the people of a country are called from countryinfo; dates, years and
    the numbers up to 99 in their common forms. Names that differ only in case, diacritics or
    punctuation are omitted, since matching ignores these.
    """
    found = [*_expanded(name), *_dates(name), *_numbers(name)]
    for entity in _entities_of(name):
        found += _names()[entity]
        if entity.startswith("currency") and " " in name:  # the Peruvian sol is called the sol
            found.append(name.rsplit(maxsplit=1)[-1])
    found += _demonyms_of(name)
    other: dict[str, str] = {}
    for each in found:
        bare = normalise(each)
        if len(bare) >= LEAST_LETTERS or bare.isdigit():
            other.setdefault(bare, each)
    other.pop(normalise(name), None)
    return tuple(other.values())


def _entities_of(name: str) -> list[str]:
    """The entities of a name in any of its forms: "The Netherlands" is "Netherlands"."""
    forms = dict.fromkeys(map(normalise, (name, *_expanded(name))))
    return list(dict.fromkeys(entity for form in forms for entity in _entities().get(form, ())))


def _demonyms_of(name: str) -> list[str]:
    found = [each.split() for each in _entities_of(name)]
    return [one for kind, code, *_ in found if kind == "territory" for one in _demonyms(code)]


@cache
def _demonyms(code: str) -> tuple[str, ...]:
    """What the people of a country are called, which is an adjective of its name, too."""
    from countryinfo import CountryInfo

    try:
        found = CountryInfo(code).demonym()
    except LookupError:  # a territory, or a code that is none
        return ()
    return tuple(each.strip() for each in found.split(",") if each.strip()) if found else ()


def with_aliases(record: Record) -> Record:
    """The record with further names of its subject and answers added to those it has.

    That of a text's wording stays as it is: no name is searched for.
    """
    if record.scope == "verbatim":
        return record
    return replace(
        record,
        aliases=_added(record.aliases, record.names),
        answer_aliases=_added(record.answer_aliases, record.spans),
    )


def _added(given: tuple[str, ...], names: Iterable[str]) -> tuple[str, ...]:
    known = {normalise(name) for name in names}
    # "German" is a language, too, but here it was added for Germany.
    people = {normalise(one) for name in names for one in _demonyms_of(name)}
    added = {
        normalise(other): other
        for name in names
        for other in other_names(name)
        if normalise(other) not in known and normalise(name) not in people
    }
    return (*given, *list(added.values())[: max(0, MOST_TEXTS - 1 - len(given))])


def _expanded(name: str) -> Iterator[str]:
    for pattern, other in ABBREVIATIONS:
        if pattern.search(name):
            yield pattern.sub(other, name)


def _numbers(name: str) -> Iterator[str]:
    words = normalise(name)
    if words.isascii() and words.isdigit() and str(int(words)) == words:
        yield from _spoken(int(words))
    elif number := _spoken_numbers().get(words):
        yield number


@cache
def _spoken_numbers() -> dict[str, str]:
    """Numbers and years by their words in English."""
    return {
        normalise(form): str(number)
        for number in (*NUMBERS, *YEARS)
        for form in _spoken(number, LANGUAGES[:1])
    }


def _spoken(number: int, languages: Sequence[str] = LANGUAGES) -> list[str]:
    """A number, or a year, in words; none of other numbers."""
    from num2words import num2words

    if number in NUMBERS:
        return [num2words(number)]
    written = [num2words(number, lang=each, to="year") for each in languages if number in YEARS]
    return [*written, *(each.replace(" and ", " ") for each in written[:1])]


def _dates(name: str) -> Iterator[str]:
    """Other forms of a date; of two dates if day and month are ambiguous."""
    from babel.dates import format_date
    from num2words import num2words

    text = name.strip()
    for found in find_dates(text, years=False):
        for one in found.readings if found.stop - found.start == len(text) else ():
            if one.years is None or one.month is None or one.day is None:
                continue
            day = date(one.years[0], one.month, one.day)
            nth = f"'{num2words(day.day, to='ordinal_num')}'"
            for form in DATE_FORMS:
                yield format_date(day, form.replace(DAY, nth), "en")
            for language in LANGUAGES:
                yield format_date(day, "long", language)


@cache
def _names() -> dict[str, tuple[str, ...]]:
    """All names of each entity, the English ones first."""
    named: dict[str, dict[str, None]] = {}
    for language in LANGUAGES:
        for entity, name in _named(language):
            for part in re.split(r"\s*[()\[\]]\s*", name):  # Myanmar (Burma)
                if part and not part[0].isdigit():
                    named.setdefault(entity, {})[part] = None
    for code, names in COMMON_NAMES.items():
        named[f"territory {code}"].update(dict.fromkeys(names))
    return {entity: tuple(names) for entity, names in named.items()}


def _named(language: str) -> Iterator[tuple[str, str]]:
    """The entities that Unicode's CLDR names in a language, each with one of its names."""
    from babel import Locale
    from babel.core import get_global

    locale = Locale(language)
    for code, name in locale.territories.items():
        yield f"territory {code}", name
    for code, name in locale.languages.items():
        yield f"language {code}", name
    plurals = locale._data["currency_names_plural"]
    for code, name in locale.currencies.items():
        for form in (name, *plurals.get(code, {}).values()):
            yield f"currency {code}", form
    for zone in get_global("zone_territories"):
        continent, *_, place = zone.split("/")
        city = locale.time_zones.get(zone, {}).get("city")
        if continent in CONTINENTS and (city or language == "en"):
            yield f"city {zone}", city or place.replace("_", " ")


@cache
def _entities() -> dict[str, list[str]]:
    """The entities of each normalised name."""
    entities: dict[str, list[str]] = {}
    for entity, names in _names().items():
        for name in names:
            known = entities.setdefault(normalise(name), [])
            if entity not in known:
                known.append(entity)
    return entities


@cache
def name_words() -> Counter[str]:
    """The normalised words of such names, and how many entities have each in one of theirs."""
    found: dict[str, set[str]] = {}
    for name, those in _entities().items():
        for word in name.split():
            found.setdefault(word, set()).update(those)
    return Counter({word: len(those) for word, those in found.items()})


@cache
def long_names() -> tuple[str, ...]:
    """Such names of several words, normalised; also with their words in reverse order."""
    several = [name.split() for name in _entities() if " " in name]
    return tuple(" ".join(words) for name in several for words in (name, name[::-1]))


def entities(name: str) -> Sequence[str]:
    """The entities of a normalised name: ``territory NO``, ``city Europe/Oslo``; often none."""
    return _entities().get(name, ())
