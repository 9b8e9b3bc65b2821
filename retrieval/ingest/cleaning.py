"""Clean texts of any origin: characters that every store accepts, and a test for junk."""

import re
import unicodedata
from functools import cache
from itertools import pairwise

SOFT_HYPHEN = "\u00ad"
RUN = re.compile(r"[^\W_]+")
# A run of letters and digits above this length is no word of a language with spaces; German
# compounds of everyday text stay below it.
LONGEST_WORD = 30
WINDOW = 2_000  # characters judged together
LEAST_JUDGED = 200  # characters; shorter texts, such as a part number, are never junk
# Share of the characters, spaces aside, that stand in words.
LEAST_WORDS = 0.2
LEAST_DISTINCT = 3


def clean(text: str) -> str:
    """Return text that every store accepts and that words are found in.

    No NUL, no lone surrogate, Unix line ends, no soft hyphens; compatibility characters such as
    ligatures and wide letters by their plain ones (NFKC), except where that changes what is
    said: in superscripts, subscripts and fractions (10⁶ is not 106).
    """
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = _normalise(text.replace(SOFT_HYPHEN, ""))
    return re.sub(r"\n[ \t\n]*\n", "\n\n", text).strip().lstrip("\ufeff")


def is_junk(text: str) -> bool:
    """Whether a text has hardly any words, as a hex dump, base64 or one repeated letter."""
    if len(text) < LEAST_JUDGED:
        return False
    runs = RUN.findall(text.lower())
    words = [word for run in RUN.findall(text) for word in _words(run)]
    visible = sum(map(len, text.split()))
    return (
        sum(map(len, words)) < LEAST_WORDS * visible
        or len({*words, *(run for run in runs if not run.isalpha())}) < LEAST_DISTINCT
    )


def has_words(text: str) -> bool:
    """Whether any part of a text is not junk."""
    return any(not is_junk(text[start : start + WINDOW]) for start in range(0, len(text), WINDOW))


def _normalise(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    return text.translate({ord(char): _plain(char) for char in set(text) if not char.isascii()})


@cache
def _plain(character: str) -> str:
    kind = unicodedata.decomposition(character).partition(">")[0]
    if kind in {"<super", "<sub", "<fraction"}:
        return character
    return unicodedata.normalize("NFKC", character)


def _words(run: str) -> list[str]:
    if not run.isalpha():
        return []
    if run.isascii() or run.lower() != run.upper():
        return [run] if len(run) <= LONGEST_WORD and _is_cased_as_word(run) else []
    return list(run)  # a script without case: mostly one without spaces, and each sign counts


def _is_cased_as_word(run: str) -> bool:
    if run.islower() or run.isupper() or run.istitle():
        return True
    changes = sum(a.isupper() != b.isupper() for a, b in pairwise(run))
    return changes <= len(run) / 3  # McDonald, camelCase, PhD; not QmFzZTY0
