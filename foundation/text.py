"""Words of a text, compared without case, diacritics and punctuation."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

SHORT = 2000  # characters; results for shorter texts, which are compared often, are cached


def normalise(text: str) -> str:
    """Return text without case, diacritics and punctuation, words separated by one space."""
    return _normalise_cached(text) if len(text) <= SHORT else _normalise(text)


def _normalise(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(re.findall(r"\w+", bare))


_normalise_cached = lru_cache(maxsize=8192)(_normalise)


def words(text: str) -> set[str]:
    """Return the normalised words of ``text``."""
    return set(normalise(text).split())


def holds(text: str, wanted: Sequence[str]) -> bool:
    """Whether normalised ``text`` holds one of ``wanted``, as whole words."""
    padded = f" {normalise(text)} "
    return any(f" {words} " in padded for phrase in wanted if (words := normalise(phrase)))
