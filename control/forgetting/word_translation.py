"""Word-by-word translation of questions from French, German or Spanish into English.

The embedding model is English only, but nearly insensitive to word order: a word list is enough to
recognise what is asked, without a second model. Masks such as "[X]" are kept.
"""

import re
from functools import cache
from pathlib import Path

from foundation.text import normalise, words

WORDS_FILE = Path(__file__).with_name("word_translations.txt")
LEAST_PART = 3  # letters of either part of a German compound
LINKS = ("", "s", "es", "n", "en")  # linking letters between the parts of a compound
PIECE = re.compile(r"\[[XY]\]|[^\W_]+|[^\w\s'’]")
ENGLISH = words(
    "the of is are was what which who when where how does do did and or to in on by for with from "
    "has have his her its it this that name can tell me please"
)

Lexicon = dict[str, str]


def translated(text: str, least: int = 1) -> str | None:
    """The text in English, word by word; ``None`` if it is English or of an unknown language.

    Args:
        text: The text.
        least: How many more function words of the language it has than of English.
    """
    pieces = PIECE.findall(text)
    words_in_text = [normalise(piece) for piece in pieces if piece[0].isalpha()]
    best, lexicon = least - 1, None
    for markers, words_of in _languages():
        # German "was" and "in" count for neither language.
        own = sum(word in markers and word not in ENGLISH for word in words_in_text)
        lead = own - sum(word in ENGLISH and word not in markers for word in words_in_text)
        if lead > best:
            best, lexicon = lead, words_of
    if lexicon is None:
        return None
    return " ".join(piece if piece[0] == "[" else _word(piece, lexicon) for piece in pieces)


def _word(piece: str, lexicon: Lexicon) -> str:
    bare = normalise(piece)
    if bare in lexicon:
        return lexicon[bare]
    for cut in range(len(bare) - LEAST_PART, LEAST_PART - 1, -1):
        for link in LINKS:
            head, tail = bare[:cut], bare[cut:]
            if tail.startswith(link) and head in lexicon and tail[len(link) :] in lexicon:
                return f"{lexicon[head]} {lexicon[tail[len(link) :]]}"
    return piece


@cache
def _languages() -> list[tuple[frozenset[str], Lexicon]]:
    """For French, German and Spanish: its function words, and its word list."""
    languages: list[tuple[set[str], Lexicon]] = [(set(), {}), (set(), {}), (set(), {})]
    is_function_word = True
    for line in WORDS_FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            is_function_word = False
            continue
        english, _, others = line.partition(":")
        for (markers, lexicon), foreign in zip(languages, others.split("|"), strict=True):
            for word in map(normalise, foreign.split()):
                lexicon.setdefault(word, english)
                if is_function_word:
                    markers.add(word)
    return [(frozenset(markers), lexicon) for markers, lexicon in languages]
