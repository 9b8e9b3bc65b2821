"""Words of a text, compared without case, diacritics and punctuation."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

SHORT = 2000  # characters; texts up to here are compared again and again with many others


def normalise(text: str) -> str:
    """Case, diacritics and punctuation removed, words separated by one space."""
    return _remembered(text) if len(text) <= SHORT else _normalised(text)


def _normalised(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(re.findall(r"\w+", bare))


_remembered = lru_cache(maxsize=8192)(_normalised)


def words(text: str) -> set[str]:
    """The words of ``text``, normalised."""
    return set(normalise(text).split())


def holds(text: str, wanted: Sequence[str]) -> bool:
    """Whether ``text`` holds one of ``wanted`` as whole words, after normalising both."""
    padded = f" {normalise(text)} "
    return any(f" {words} " in padded for phrase in wanted if (words := normalise(phrase)))
