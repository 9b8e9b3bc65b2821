"""Where a text gives the answer of a record: in any spelling, in part, or in another notation."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from rapidfuzz import fuzz

from control.conflict.quantities import relate
from control.conflict.spans import Span, read_span
from control.forgetting.aliases import name_words
from control.forgetting.names import LEAST_TYPO, NameMatcher
from control.forgetting.normalize import Place, plain, words_of
from control.forgetting.parts import parts
from control.forgetting.record import TOO_COMMON, Record
from control.forgetting.variants import views

LONG = 7  # words; an answer of this length is a sentence, never searched for literally
# Share of a name's letters from which a part of it tells the whole: "da Vinci" has 0.47 and
# "William" of Shakespeare 0.39. Like the next three set on the examples of the tests alone.
PART = 0.45
LEAST_PART = 4  # letters of a part
LEAST_CUT = 8  # letters of a word that is recognised without its last two, as in "Shakespea"
SIMILAR = 75  # percent of the letters that a misspelled answer has in common with it, in order
GENERIC = 3  # entities from which a word of their names tells none of them: City, Islands
MOST_FORMS = 1_024  # records whose forms are cached
MOST_READ = 4_096  # sentences whose values are cached


@dataclass(frozen=True)
class AnswerForms:
    """The short answers of a record, prepared for being found.

    Attributes:
        names: Finds them and the parts that tell them, under the empty key.
        values: Those that are a date or a quantity with a unit.
        spelled: Phrases of which a similar spelling may stand for them, each with whether it is a
            name that is long enough to be known by one wherever it stands.
    """

    names: NameMatcher
    values: tuple[Span, ...]
    spelled: tuple[tuple[str, bool], ...] = ()


@lru_cache(maxsize=MOST_FORMS)
def answer_forms(record: Record) -> AnswerForms:
    """The forms by which the answers of a record are recognised."""
    short = [span for span in record.spans if len(span.split()) < LONG]
    own = words_of(record.names)
    told = dict.fromkeys(part for span in short for part in _parts(span, own))
    matcher = NameMatcher()
    if short:
        matcher.add("", [*short, *told])
    named = words_of(span for span in short if span[:1].isupper())
    spelled = tuple(
        (phrase, len(phrase) >= LEAST_TYPO and named.issuperset(phrase.split()))
        for phrase in matcher.phrases
        if not any(map(str.isdigit, phrase))
    )
    return AnswerForms(matcher, tuple(value for span in short if (value := _value(span))), spelled)


def find_words(text: str, record: Record) -> list[Place]:
    """Where the words of an answer, or of a part that tells it, stand in a text."""
    return answer_forms(record).names.find(text).get("", [])


def find_answers(text: str, record: Record) -> list[Place]:
    """Where a text gives an answer of fewer than ``LONG`` words of a record, in order.

    Returns:
        (start, end) in characters: of the words; of the whole sentence where it gives a date or a
        quantity in another notation, such as "394 feet" for "120 metres".
    """
    return sorted({*find_words(text, record), *find_values(text, record)})


def find_values(text: str, record: Record) -> list[Place]:
    """Where the sentences are that give the date or the quantity of an answer, in any notation."""
    values = answer_forms(record).values
    if not values:
        return []
    said = {(start, end): _read(text[start:end].strip()) for start, end in parts(text)}
    return [
        place
        for place, read in said.items()
        if any(_gives_date(value, read) or _gives_quantity(value, read) for value in values)
    ]


def find_misspelled(text: str, record: Record, names: bool = False) -> list[Place]:
    """Where words stand that are spelled much like an answer: "Anouc Trew" for "Anouk Trewin".

    Names of countries, languages, currencies and cities are none: Ireland is not Iceland.

    Args:
        text: The text.
        record: The record.
        names: Only longer names count, and each of their words has to be spelled much alike, since
            "written" is much like "writer", and "South Bridge" like "North Bridge".
    """
    phrases = [phrase for phrase, named in answer_forms(record).spelled if named or not names]
    found = []
    for view, length in product(views(text), {phrase.count(" ") + 1 for phrase in phrases}):
        for first in range(len(view.words) - length + 1):
            said = " ".join(view.words[first : first + length])
            if len(said) < LEAST_PART or name_words()[said]:
                continue
            if any(_alike(said, phrase, by_word=names) for phrase in phrases):
                found.append((view.spans()[first][0], view.spans()[first + length - 1][1]))
    return found


def _alike(said: str, phrase: str, by_word: bool) -> bool:
    """Whether words are spelled much alike, as a whole or each and from its first letter on."""
    if not by_word:
        return fuzz.ratio(said, phrase, score_cutoff=SIMILAR) > 0
    ones, others = said.split(" "), phrase.split(" ")
    return len(ones) == len(others) and all(
        one[0] == other[0] and fuzz.ratio(one, other, score_cutoff=SIMILAR)
        for one, other in zip(ones, others, strict=True)
    )


@lru_cache(maxsize=MOST_FORMS)
def name_parts(record: Record) -> frozenset[str]:
    """The normalised words of the subject's names that may stand for it."""
    return frozenset(
        word for word in words_of(record.names) if len(word) >= LEAST_PART and _telling(word, set())
    )


def answer_phrases(record: Record) -> list[str]:
    """Normalised phrases of which a text that gives an answer holds one.

    Returns:
        Empty where there is no such phrase: a value has too many notations, a long answer is given
        in other words.
    """
    forms = answer_forms(record)
    if forms.values or any(len(span.split()) >= LONG for span in record.spans):
        return []
    return forms.names.phrases


def _parts(span: str, own: set[str]) -> Iterator[str]:
    """Parts of a name that tell it, and words that tell it cut short."""
    words = span.split()
    kept = [plain(word) for word in words]
    telling = [] if len(words) > 1 else list(words)
    for first in range(len(words)):
        for last in range(first + 1, len(words) + 1):
            letters = sum(map(len, kept[first:last]))
            enough = letters >= PART * sum(map(len, kept)) or (last == len(words) == first + 1)
            named = words[last - 1][:1].isupper() and words[0][:1].isupper()
            tells = any(_telling(word, own) for word in kept[first:last])
            if last - first < len(words) and named and enough and tells and letters >= LEAST_PART:
                telling.append(" ".join(words[first:last]))
    yield from telling
    for part in telling:
        if " " not in part and len(part) >= LEAST_CUT:
            yield part[:-2]


def _telling(word: str, own: set[str]) -> bool:
    """Whether a normalised word of a name tells which one it is."""
    return word not in own and word not in TOO_COMMON and name_words()[word] < GENERIC


def _value(span: str) -> Span | None:
    read = _read(span)
    dated = len(read.dates) == 1 and all(date.day is not None for date in read.dates[0])
    measured = len(read.quantities) == 1 and any(one.kind for one in read.quantities[0].readings)
    return read if (dated and not read.quantities) or (measured and not read.dates) else None


@lru_cache(maxsize=MOST_READ)
def _read(text: str) -> Span:
    return read_span(text, True, False)


def _gives_date(value: Span, said: Span) -> bool:
    return any(
        (one.month, one.day) == (other.month, other.day) and other.years in (None, one.years)
        for date in value.dates
        for one in date
        for given in said.dates
        for other in given
    )


def _gives_quantity(value: Span, said: Span) -> bool:
    """Whether a quantity of ``said`` that is no range and no limit is one of the answer's."""
    return any(
        relate(one, other) in ("same", "compatible")
        for one in value.quantities
        for other in said.quantities
        if other.bound in ("", "about") and all(each.low == each.high for each in other.readings)
    )
