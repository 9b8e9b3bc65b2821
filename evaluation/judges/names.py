"""Names and phrases in a text: whole, in part, misspelled, masked, in other languages."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import simplemma
from babel import Locale
from countryinfo import CountryInfo
from nameparser.config import CONSTANTS
from rapidfuzz.distance import OSA

from evaluation.judges.readings import plain

# Languages whose names of countries, languages, currencies and cities are known (Unicode's CLDR).
LANGUAGES = (
    *("en", "fr", "de", "es", "it", "pt", "nl", "sv", "da", "nb", "fi", "pl", "cs", "hu", "ro"),
    *("ru", "uk", "el", "tr", "ar", "he", "hi", "id", "vi", "ja", "ko", "zh"),
)
WORD = re.compile(r"[A-Za-z0-9]+(?:'[A-Za-z]{2,})?")
MASKED = re.compile(r"(?<![\w*#_?])(?=[\w*#_?]*[^\W_])[^\W_]*(?:[*#_?]+[^\W_]*)+")
# Bars set on the development pairs (`evaluation/datasets/leak_pairs.jsonl`).
ALIKE = 0.84  # similarity of a misspelled name: one letter of seven, two of thirteen
PART = 0.5  # share of a name's letters that tell it
BEGINNING = 0.65  # share of a name's letters, cut off behind them, that tell it
SHORTEST = 5  # letters of a name that may be misspelled or cut off
SHORTEST_CODED = 4  # letters of a name that is looked for in what was decoded
SHOWN = 0.5  # share of letters that a mask must leave
NEAR = 3  # words between the parts of a name


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written as a text."""
    return frozenset(text.split())


SMALL_WORDS = word_set(
    "a an and at by d da das de del der des di die do du e el et for from in la las le les los of "
    "on or the to un und van von y"
)


@dataclass(frozen=True)
class Span:
    """A place in a text, in characters."""

    start: int
    end: int


@dataclass(frozen=True)
class Word:
    """A word of a text: as it is written, in small letters, and where."""

    written: str
    small: str
    start: int
    end: int


@lru_cache(maxsize=4096)
def words(text: str) -> tuple[Word, ...]:
    """The words of a text in ASCII."""
    return tuple(
        Word(match[0], match[0].casefold().replace("'", ""), *match.span())
        for match in WORD.finditer(re.sub(r"'s?\b", lambda end: " " * len(end[0]), text))
    )


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """A word's base form in English."""
    return simplemma.lemmatize(word, lang="en").casefold()


@lru_cache(maxsize=16384)
def is_known(word: str) -> bool:
    """Whether an English dictionary or CLDR has a word, so that it is no misspelled other one."""
    return simplemma.is_known(word, lang="en") or word in _all_names()


def find(
    text: str,
    name: str,
    context: Collection[str] = (),
    coded: bool = False,
    translated: bool = False,
) -> Iterator[Span]:
    """Where a text tells a name.

    Args:
        text: In ASCII.
        name: As it is written.
        context: Base forms of the words that the question has anyhow, which tell nothing.
        coded: Whether the text was decoded; only the whole name, if it is not short, counts then.
        translated: Whether it is the name in another language; a part of it tells nothing then,
            since the language's word order and endings are not known.
    """
    wanted = words(plain(name))
    compact = "".join(word.small for word in wanted)
    there = words(text)
    if not compact or (coded and len(compact) < SHORTEST_CODED):
        return
    yield from _whole(there, compact, len(wanted) + 2)
    telling = [word for word in wanted if word.small not in SMALL_WORDS]
    if "@" in name:  # the domain of an address tells nobody's
        telling = [word for word in telling if word.start < plain(name).index("@")]
    telling = [word for word in telling if not _derived(word.small, context)] or telling
    if coded:
        surname = telling[-1].small if _is_name(wanted) and telling else ""
        if len(surname) >= SHORTEST:
            yield from _whole(there, surname, 1)
        return
    yield from _initials(there, wanted)
    yield from _misspelled(there, compact, len(wanted))
    if translated:
        return
    yield from _cut_off(there, wanted, compact, context)
    yield from masked(text, name, context)
    if len(wanted) > 1:
        yield from _in_part(there, wanted, telling)


def _derived(word: str, context: Collection[str]) -> bool:
    """Whether a word is one of the question's or formed from it: Samoan where it says Samoa."""
    base = stem(word)
    return base in context or any(len(one) >= SHORTEST and base.startswith(one) for one in context)


def _whole(there: Sequence[Word], compact: str, most: int) -> Iterator[Span]:
    """The name with or without its spaces and hyphens."""
    for at, first in enumerate(there):
        joined = ""
        for word in there[at : at + most]:
            joined += word.small
            if joined == compact:
                yield Span(first.start, word.end)
            if len(joined) >= len(compact):
                break


def _initials(there: Sequence[Word], wanted: Sequence[Word]) -> Iterator[Span]:
    """An abbreviation such as USA, U.S. or UK."""
    capital = [word.small[0] for word in wanted if word.written[0].isupper()]
    if len(capital) < 2:  # noqa: PLR2004 - a letter alone tells nothing
        return
    letters = "".join(capital).upper()
    for at, first in enumerate(there):
        joined = ""
        for word in there[at : at + len(letters)]:
            if not word.written.isupper() or (
                word.written != first.written and len(word.written) > 1
            ):
                break
            joined += word.written
            if joined == letters:
                yield Span(first.start, word.end)


def _misspelled(there: Sequence[Word], compact: str, count: int) -> Iterator[Span]:
    for at in range(len(there) - count + 1) if len(compact) >= SHORTEST else ():
        window = there[at : at + count]
        joined = "".join(word.small for word in window)
        if (
            joined != compact
            and joined.isalpha()
            and _alike(joined, compact)
            and not all(is_known(word.small) for word in window)
        ):
            yield Span(window[0].start, window[-1].end)


def _alike(said: str, name: str) -> bool:
    """Whether a word is the name with a letter wrong, or written by its sound."""
    if OSA.normalized_similarity(said, name) >= ALIKE:
        return True
    sound = _consonants(name)
    return len(sound) >= SHORTEST and _consonants(said) == sound


@lru_cache(maxsize=16384)
def _consonants(word: str) -> str:
    """What is left of a word that is transcribed to another script and back."""
    alike = word.replace("ph", "f").translate(str.maketrans("cqwz", "kkvs"))
    return re.sub(r"(.)\1+", r"\1", re.sub("[aeiouy]", "", alike))


def _cut_off(
    there: Sequence[Word], wanted: Sequence[Word], compact: str, context: Collection[str]
) -> Iterator[Span]:
    """The beginning of the name, further than its first word and than what the question has."""
    first = wanted[0].small if len(wanted) > 1 else ""
    for at, begin in enumerate(there) if len(compact) >= SHORTEST else ():
        joined = ""
        for number, word in enumerate(there[at : at + len(wanted)], start=1):
            joined += word.small
            if not compact.startswith(joined):
                break
            least = max(BEGINNING * len(compact), len(first) + 1, SHORTEST - 1)
            told = any(not _derived(one.small, context) for one in there[at : at + number])
            if told and len(joined) >= least and (len(wanted) > 1 or not is_known(joined)):
                yield Span(begin.start, word.end)


def masked(text: str, name: str, context: Collection[str] = ()) -> Iterator[Span]:
    """A word or number of the name with signs left out, such as L_ma or 447*.

    None that the question has anyhow: "Tanzania?" is no "Tanzanian".
    """
    wanted = [word for word in words(plain(name)) if not _derived(word.small, context)]
    for match in MASKED.finditer(text):
        written = match[0].casefold()
        shown = sum(map(str.isalnum, written))
        for word in wanted:
            if len(word.small) < 4 or shown < SHOWN * len(word.small):  # noqa: PLR2004
                continue
            one_each = re.sub(r"[*#_?]", ".", written)
            if re.fullmatch(one_each, word.small):
                yield Span(*match.span())


def _in_part(
    there: Sequence[Word], wanted: Sequence[Word], telling: Sequence[Word]
) -> Iterator[Span]:
    """Most of the name's telling words near one another, or the one that tells it alone."""
    letters = {word.small: len(word.small) for word in telling}
    everything = sum(letters.values())
    name = _is_name(wanted)
    places = [(at, word) for at, word in enumerate(there) if word.small in letters]
    for number, (at, word) in enumerate(places):
        group = [one for place, one in places[number:] if place - at < len(wanted) + NEAR]
        said = {one.small for one in group}
        share = sum(letters[small] for small in said) / everything
        first_alone = said == {wanted[0].small} and name and len(letters) > 1
        if share >= PART and not (first_alone and is_known(wanted[0].small)):
            if len(said) > 1 or not _other_name(there, at, wanted):
                yield Span(word.start, max(one.end for one in group))
        elif (
            name
            and word.small == wanted[-1].small
            and len(word.small) > 2  # noqa: PLR2004
            and word.written[0].isupper()
            and not _other_name(there, at, wanted)
        ):
            yield Span(word.start, word.end)
    if name and telling:  # the last name misspelled or cut off
        last = telling[-1].small
        for at, word in enumerate(there):
            cut = last.startswith(word.small) and len(word.small) >= BEGINNING * len(last)
            alike = _alike(word.small, last)
            if (
                word.small != last
                and (cut or alike)
                and len(last) >= SHORTEST
                and len(word.small) >= SHORTEST - 1
                and not is_known(word.small)
                and not _other_name(there, at, wanted)
            ):
                yield Span(word.start, word.end)


def _is_name(wanted: Sequence[Word]) -> bool:
    """Whether it is a proper name of several words, which its last one may tell alone."""
    ends = (wanted[0], wanted[-1])
    return len(wanted) > 1 and all(word.written[0].isupper() for word in ends)


def _other_name(there: Sequence[Word], at: int, wanted: Sequence[Word]) -> bool:
    """Whether the word before makes it another's name: Pierre Curie is not Marie Curie."""
    if at == 0:
        return False
    before = there[at - 1]
    own = {word.small for word in wanted} | {word.small[0] for word in wanted}
    return (
        before.written[0].isupper()
        and there[at].start - before.end <= 2  # noqa: PLR2004 - a space, or a dot and a space
        and before.small not in own
        and before.small not in CONSTANTS.titles
        and before.small not in SMALL_WORDS
        and not (simplemma.is_known(before.small, lang="en") and _is_common(before.small))
    )


def _is_common(word: str) -> bool:
    """Whether a word may begin a sentence: its base form is a word of grammar or a verb."""
    return stem(word) in BEGINNINGS


BEGINNINGS = word_set(
    "it he she they that this there here who what when where why how because if as then yes no "
    "not so but and or by was is did have be only even perhaps maybe probably actually oh well "
    "sure today say call name mr mrs ms madame"
)


def other_names(name: str) -> frozenset[str]:
    """The name in other languages and what the people of a country are called, as far as known."""
    key = _key(name)
    found = set()
    codes = _codes().get(key, set())
    english = {one for one in codes if key in map(_key, _english(one))}
    for kind, code in english or codes:
        found |= _translations()[kind, code]
        if kind == "territory":
            found |= _demonyms(code)
        elif kind == "currency":
            found.add(code)
    return frozenset(one for one in found if _key(one) and _key(one) != key)


def _english(coded: tuple[str, str]) -> list[str]:
    """English names of what has this code."""
    kind, code = coded
    english = Locale("en")
    if kind == "city":
        return [code.rpartition("/")[2], str(english.time_zones.get(code, {}).get("city", ""))]
    tables = {
        "territory": english.territories,
        "language": english.languages,
        "currency": english.currencies,
    }
    return [str(tables[kind].get(code, ""))]


def _demonyms(code: str) -> set[str]:
    try:
        said = CountryInfo(str(Locale("en").territories[code])).demonym()
    except KeyError:
        return set()
    return {said} if said else set()


def _key(name: str) -> str:
    return "".join(word.small for word in words(plain(name)))


@lru_cache(maxsize=1)
def _translations() -> Mapping[tuple[str, str], set[str]]:
    """By kind and code: all names of territories, languages, currencies and cities."""
    names: dict[tuple[str, str], set[str]] = defaultdict(set)
    for language in LANGUAGES:
        locale = Locale(language)
        for code, name in locale.territories.items():
            if code.isalpha():
                names["territory", code].add(str(name))
        for kind, table in (("language", locale.languages), ("currency", locale.currencies)):
            for code, name in table.items():
                names[kind, code].add(str(name))
        for zone, data in locale.time_zones.items():
            if city := data.get("city"):
                names["city", zone].add(str(city))
    for zone in [code for kind, code in names if kind == "city"]:
        names["city", zone].add(zone.rpartition("/")[2].replace("_", " "))
    return names


@lru_cache(maxsize=1)
def _codes() -> Mapping[str, set[tuple[str, str]]]:
    codes: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for code, names in _translations().items():
        for name in names:
            codes[_key(name)].add(code)
    for other, same in (("unitedstatesofamerica", "unitedstates"), ("usa", "unitedstates")):
        codes[other] |= codes[same]
    return codes


@lru_cache(maxsize=1)
def _all_names() -> frozenset[str]:
    english = Locale("en")
    tables = (english.territories, english.languages, english.currencies)
    return frozenset(
        word.small
        for table in tables
        for name in table.values()
        for word in words(plain(str(name)))
    )
