"""Words of a text, compared without case, diacritics and punctuation."""

import re
import unicodedata


def normalise(text: str) -> str:
    """Case, diacritics and punctuation removed, words separated by one space."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(re.findall(r"\w+", bare))


def words(text: str) -> set[str]:
    """The words of ``text``, normalised."""
    return set(normalise(text).split())
