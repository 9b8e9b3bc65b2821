"""Words of a text, compared without case, diacritics and punctuation."""

import re
import unicodedata
from collections.abc import Sequence


def normalise(text: str) -> str:
    """Case, diacritics and punctuation removed, words separated by one space."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(re.findall(r"\w+", bare))


def words(text: str) -> set[str]:
    """The words of ``text``, normalised."""
    return set(normalise(text).split())


def holds(text: str, wanted: Sequence[str]) -> bool:
    """Whether ``text`` holds one of ``wanted`` as whole words, after normalising both."""
    padded = f" {normalise(text)} "
    return any(f" {words} " in padded for phrase in wanted if (words := normalise(phrase)))
