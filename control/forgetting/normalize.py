"""Phrases in a text in any spelling: lookalikes, leetspeak, letter by letter, encoded."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from control.forgetting.encodings import readable, transformed
from control.forgetting.variants import (
    LEET,
    SHORT,
    WORD,
    TextVariant,
    folded_text,
    plain_view,
    spelled_view,
    views,
)

Value = TypeVar("Value")
Place = tuple[int, int]

INITIALS = 3  # letters
MERGED = 5  # letters from which words may be merged, as in "NewYork"
INNER_DIGIT = re.compile(r"[a-z][0134578]+[a-z]")
# Signs of obfuscation: Greek or Cyrillic letters, invisible ones, digits in words, spelled letters.
ODD = re.compile(
    r"[\u0370-\u052f\u200b-\u200f\u2060\ufeff\uff21-\uff5a\U0001d400-\U0001d7ff]"
    r"|[a-z][013457@$]+[a-z]|(?:\b\w[\s.*_-]){4,}",
    re.IGNORECASE,
)
# Where words meet in a name without a sign between them: "peruLima", "lima2".
BORDER = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")


def plain(text: str) -> str:
    """The words of a text without case, diacritics, lookalikes, invisible signs and leetspeak.

    Digits are replaced by letters only inside a word ("L1ma"), so years and numbers are kept.
    """
    return " ".join(plain_words(text).words)


def words_of(texts: Iterable[str]) -> set[str]:
    """The words of several texts, as of `plain`."""
    return {word for text in texts for word in plain(text).split()}


def plain_words(text: str) -> TextVariant:
    """The words of `plain` and their places in the text."""
    view = plain_view(*folded_text(text))
    words = [word.translate(LEET) if INNER_DIGIT.search(word) else word for word in view.words]
    return replace(view, words=words)


def find(text: str, phrases: Collection[str]) -> list[tuple[int, int, str]]:
    """Where phrases occur in a text, in any spelling but not encoded.

    Whole words are compared as normalised by ``plain``, the last one also with a plural s.

    Returns:
        (start, end, phrase) in characters of ``text``, in order.
    """
    return sorted(set(_scan(views(text), phrases)))


def holds(text: str, phrases: Collection[str]) -> bool:
    """Whether one of the phrases is in the text or encoded in it."""
    return bool(phrases) and (any(_scan(views(text), phrases)) or hides(text, phrases))


def hides(text: str, phrases: Collection[str]) -> bool:
    """Whether one of the phrases is encoded in the text, for example reversed."""
    if not phrases:
        return False
    opened, others, swapped = _hidden(text)
    # Reversed or in rot13 a short word is often another word.
    return (
        any(_scan(opened, phrases))
        or any(len(found.replace(" ", "")) >= SHORT for *_, found in _scan(others, phrases))
        or any(" " in found for *_, found in _scan([swapped], phrases))
    )


@lru_cache(maxsize=256)
def _hidden(text: str) -> tuple[list[TextVariant], list[TextVariant], TextVariant]:
    """Variants of the decoded text; of rot13 and reversed text; with the words in reverse order."""
    opened = [view for reading in readable(text)[1:] for view in views(reading)]
    *others, swapped = (plain_view(*folded_text(reading)) for reading in transformed(text))
    return opened, others, swapped


def forms(phrase: str) -> set[str]:
    """All normalised spellings under which a phrase is looked up."""
    folded, places = folded_text(phrase)
    words = " ".join(WORD.findall(folded))
    found = {words}
    initials = " ".join(spelled_view(folded, places).words)
    if len(initials) >= INITIALS:  # J.K. Rowling and JK Rowling; but "us" is no U.S.
        found.add(initials)
    merged = words.replace(" ", "")
    if " " in words and len(merged) >= MERGED:
        found.add(merged)
    # "birds" matches "bird"; a name such as Williams does not match William, nor "francés" France.
    if phrase.islower() and phrase.isascii() and words.endswith("s") and len(words) > SHORT:
        found.add(words[:-1])
    return {form for form in found if form}


def scan(
    views: Sequence[TextVariant],
    starts: Mapping[str, Collection[int]],
    phrases: Mapping[str, Value],
) -> Iterator[tuple[int, int, Value]]:
    """Look up every sequence of words that could be a phrase.

    Args:
        views: Variants of the text.
        starts: By a phrase's first word, the lengths in words of such phrases.
        phrases: The value of a phrase, by its form.

    Yields:
        (start, end, value), repeated if two variants agree.
    """
    for view in views:
        words = view.words
        for place, word in enumerate(words):
            for length in starts.get(word, ()):
                last = place + length - 1
                if last >= len(words):
                    continue
                run = " ".join(words[place : last + 1])
                if length > 1 and run not in phrases and run[-1] == "s":
                    run = run[:-1]
                if run in phrases:
                    yield view.spans()[place][0], view.spans()[last][1], phrases[run]
            # "Perus" is Peru's in German; "bus" is no "bu".
            if word[-1] == "s" and len(word) > SHORT and 1 in starts.get(word[:-1], ()):
                yield *view.spans()[place], phrases[word[:-1]]


def _scan(views: Sequence[TextVariant], phrases: Collection[str]) -> Iterator[tuple[int, int, str]]:
    """Where phrases occur in the variants of a text, as of `scan`."""
    for start, end, found in scan(views, *_compiled(tuple(phrases))):
        for phrase in found:
            yield start, end, phrase


@lru_cache(maxsize=256)
def _compiled(phrases: tuple[str, ...]) -> tuple[dict[str, set[int]], dict[str, list[str]]]:
    starts: dict[str, set[int]] = {}
    keys: dict[str, list[str]] = {}
    for phrase in phrases:
        for form in forms(phrase):
            first, *rest = form.split(" ")
            starts.setdefault(first, set()).add(1 + len(rest))
            keys.setdefault(form, []).append(phrase)
    return starts, keys


def outside(places: Iterable[Place], longer: Sequence[Place]) -> list[Place]:
    """The places that are not part of a longer one: Guatemala City does not give Guatemala."""
    return [
        (start, end)
        for start, end in places
        if not any(a <= start and end <= b and b - a > end - start for a, b in longer)
    ]


def legible(text: str, places: Sequence[Place]) -> tuple[str, list[Place]]:
    """The text for the embedding model: unchanged, or normalised if its spelling is obfuscated."""
    if not ODD.search(text):
        return text, list(places)
    normalised, spots, done = "", list[Place](), 0
    for start, end in sorted(places):
        if start >= done:
            normalised += f"{_normalised(text[done:start])} "
            spots.append((len(normalised), len(normalised) + end - start))
            normalised += f"{text[start:end]} "
            done = end
    return normalised + _normalised(text[done:]), spots


def _normalised(text: str) -> str:
    end = "?" if text.rstrip().endswith("?") else ""
    return " ".join(views(text)[-1].words) + end


def spaced(name: str) -> tuple[str, list[int]]:
    """A name with spaces where words meet in it, and the place of each of its characters."""
    pieces, places, done = BORDER.split(name), list[int](), 0
    for piece in pieces:
        places += range(done, done + len(piece))
        done += len(piece)
        places.append(done)  # the space after it
    return " ".join(pieces), places
