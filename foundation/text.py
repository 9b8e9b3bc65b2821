"""Words of a text, compared without case, diacritics and punctuation; things with their number."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

SURROGATES = re.compile("[\ud800-\udfff]")  # unpaired: bytes that were no text
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


ARTICLES = {"a", "an", "the"}
# Words that carry no answer: no claim consists of them or is supported by them.
FUNCTION_WORDS = words(
    "a also an and are as at be been but by called for from had has have he her his in "
    "indeed is it its known name named not of on or she so that the their there they this "
    "to was were which who whose with "
)


def holds(text: str, wanted: Iterable[str]) -> bool:
    """Whether normalised ``text`` holds one of ``wanted``, as whole words."""
    padded = f" {normalise(text)} "
    return any(f" {words} " in padded for phrase in wanted if (words := normalise(phrase)))


def find(text: str, phrase: str) -> tuple[int, int] | None:
    """Where ``phrase`` stands in ``text`` as whole words; as it is written, else normalised.

    Returns:
        Start and end, in characters; ``None`` where it does not stand there.
    """
    for match in re.finditer(re.escape(phrase), text):
        if _whole(text, *match.span()):
            return match.span()
    wanted = normalise(phrase).split()
    spans = [match.span() for match in re.finditer(r"\w+", text)]
    held = [normalise(text[start:end]) for start, end in spans]
    for at in range(len(held) - len(wanted) + 1) if wanted else ():
        if held[at : at + len(wanted)] == wanted:
            return spans[at][0], spans[at + len(wanted) - 1][1]
    return None


def _whole(text: str, start: int, end: int) -> bool:
    """Whether a span ends where words do."""
    inside = text[start:end]
    cut_before = text[:start][-1:].isalnum() and inside[:1].isalnum()
    cut_after = text[end:][:1].isalnum() and inside[-1:].isalnum()
    return not (cut_before or cut_after) and bool(inside)


def counted(count: int, what: str, several: str = "") -> str:
    """A number of things, as in "1 passage" and "2 passages".

    Args:
        count: The number.
        what: One of them.
        several: More of them, where that is not ``what`` with an s.
    """
    return f"{count:,} {what if count == 1 else several or f'{what}s'}"


@lru_cache(maxsize=8192)
def lemma(word: str) -> str:
    """The base form of a normalised word in English."""
    import simplemma

    return normalise(simplemma.lemmatize(word, lang="en")) or word


@lru_cache(maxsize=4096)
def is_word(word: str) -> bool:
    """Whether a word is one of English, and so perhaps no name."""
    import simplemma

    return simplemma.is_known(word.lower(), lang="en")
