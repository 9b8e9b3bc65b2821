"""Variants of a text's words: as written, and with obfuscation removed."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

# Letters that look like Latin ones and that Unicode does not decompose into them (Unicode's
# confusables.txt, Cyrillic and Greek, on case-folded letters).
LOOKALIKES = dict(
    zip(
        "авекмнорстухіјѕһԁԛԝґӏьαβεηικμνορτυχωϲϳ",
        "abekmhopctyxijshdqwrlbabenikuvoptuxwcj",
        strict=True,
    )
)
LIGATURES = {"æ": "ae", "œ": "oe", "ð": "d", "þ": "th", "\u0131": "i", "ȷ": "j", "ⱥ": "a"}
# Latin letters with strokes and hooks, small capitals, letters in squares and circles, flags.
LETTER_BLOCKS = ((0x00C0, 0x0250), (0x0250, 0x02B0), (0x1D00, 0x1D80), (0x1F110, 0x1F200))
LETTER_NAME = re.compile(
    r"LATIN (?:SMALL |CAPITAL )?LETTER (?:SMALL CAPITAL |TURNED |REVERSED |OPEN |SCRIPT )?([A-Z])"
    r"(?: WITH [A-Z ]+)?$|REGIONAL INDICATOR SYMBOL LETTER ([A-Z])$"
)
BLANKS = "\u2800\u3164\u115f\u1160\uffa0"  # look empty, but count as signs or letters
# "1" has two readings: i in L1ma and l in Ber1in.
LEET = str.maketrans("03457891@$€+!|", "oeastbgiasetii")
LEET_L = str.maketrans("03457891@$€+!|", "oeastbglasetll")
SHORT = 4  # letters; shorter phrases are never searched for in parts of words
CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # written without spaces: each character is a word
LETTER = rf"[^\W_{CJK}]"
WORD = re.compile(rf"{LETTER}+|[{CJK}]")
# L-I-M-A and U.S.: the same separator between all letters.
SPELLED = re.compile(
    rf"(?<!{LETTER}){LETTER}(?:([\W_]{{1,4}}){LETTER}(?:\1{LETTER})+|\.\s?{LETTER})(?!{LETTER})"
)
SIGNS = r"[-.*_/~+|\\\u2010\u2011·•]{1,2}"
NEW_LINE = r"[-\u2010\u2011][ \t]{0,8}\n[ \t]{0,8}"  # of a word that is hyphenated at a line's end
BROKEN = re.compile(rf"(?<!{LETTER}){LETTER}++(?:(?:{SIGNS}|{NEW_LINE}){LETTER}++)+")
LEETED = re.compile(rf"(?:{LETTER}|[@$€+!|])+")
# Cheap tests of whether one of them may match.
SINGLE_LETTERS = b"\1\1"
BREAK = re.compile(rf"{LETTER}(?:{SIGNS}|{NEW_LINE}){LETTER}")
LEET_SIGN = re.compile(r"[a-z][0-9@$€+!|]|[0-9@$€+!|][a-z]")


Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class TextVariant:
    """One reading of a text: its normalised words, and what gives their spans in the original."""

    words: list[str]
    spans: Callable[[], Spans]


def views(text: str) -> list[TextVariant]:
    """The plain words of a text, then its other variants as far as they occur.

    Those have spelled letters joined, words split by signs joined, and leetspeak read as letters.
    """
    folded, places = folded_text(text)
    found = [plain_view(folded, places)]
    lengths = bytes([min(len(word), 2) for word in found[0].words])
    if SINGLE_LETTERS in lengths and SPELLED.search(folded):
        found.append(spelled_view(folded, places))
        if any(len(word) > SHORT and word[0] in "ai" for word in found[-1].words):
            found.append(spelled_view(folded, places, article=True))
    if BREAK.search(folded):
        found.append(_united_view(folded, places, BROKEN, _rejoined))
    if LEET_SIGN.search(folded):
        found += [
            _united_view(folded, places, LEETED, partial(_leet, table)) for table in (LEET, LEET_L)
        ]
    return found


def plain_view(folded: str, places: Sequence[int]) -> TextVariant:
    """The words of a folded text as written; ``places`` are those of its characters."""
    return TextVariant(WORD.findall(folded), cache(lambda: _spans(folded, places)))


def _spans(folded: str, places: Sequence[int], start: int = 0, end: int | None = None) -> Spans:
    """The spans in the original of the words in a part of the folded text."""
    return [
        (places[match.start()], places[match.end() - 1] + 1)
        for match in WORD.finditer(folded, start, len(folded) if end is None else end)
    ]


def spelled_view(folded: str, places: Sequence[int], article: bool = False) -> TextVariant:
    """Words, with runs of single letters joined; ``article``: except a first a or I."""

    def unite(run: str) -> str:
        letters = WORD.findall(run)
        first = article and letters[0] in "ai"
        return f"{letters[0]} {''.join(letters[1:])}" if first else "".join(letters)

    return _united_view(folded, places, SPELLED, unite)


def _united_view(
    folded: str, places: Sequence[int], pattern: re.Pattern[str], unite: Callable[[str], str]
) -> TextVariant:
    """Words, with each match of the pattern replaced by ``unite`` of it."""
    words = WORD.findall(pattern.sub(lambda run: unite(run.group()), folded))

    def spans() -> Spans:
        found: Spans = []
        done = 0
        for run in pattern.finditer(folded):
            found += _spans(folded, places, done, run.start())
            done = run.end()
            old = _spans(folded, places, run.start(), done)
            new = WORD.findall(unite(run.group()))
            if len(new) == len(old):
                found += old
            elif new:
                # A first article keeps its own span; the rest spans the remainder of the run.
                found += old[: len(new) - 1]
                rest = old[len(new) - 1][0] if old else places[run.start()]
                found.append((rest, places[done - 1] + 1))
        return found + _spans(folded, places, done)

    return TextVariant(words, cache(spans))


def _rejoined(run: str) -> str:
    words = WORD.findall(run)
    whole = "".join(words)
    return whole if len(whole) >= SHORT else run


def _leet(table: dict[int, int], run: str) -> str:
    """A run of letters and signs read as letters, if it contains both."""
    bare = run.rstrip("!|+")
    return bare.translate(table) if LEET_SIGN.search(bare) else run


def folded_text(text: str) -> tuple[str, Sequence[int]]:
    """The text without case, diacritics and lookalikes, and the place of each of its characters."""
    if text.isascii():
        return text.lower(), range(len(text))
    folded = text.translate(_FOLD)
    pieces = [_FOLD[ord(char)] for char in text]
    if len(folded) == len(text) and all(len(piece) == 1 for piece in pieces):
        return folded, range(len(text))
    return folded, [place for place, piece in enumerate(pieces) for _ in piece]


class _Fold(dict[int, str]):
    """Each character without case, diacritics and obfuscation, computed on first use."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if char in BLANKS:
            folded = " " if char == "\u2800" else ""
        else:
            folded = "".join(
                _LETTERS.get(part, part)
                for part in unicodedata.normalize("NFKD", char).casefold()
                if unicodedata.category(part) not in ("Mn", "Me", "Cf")
            )
        self[code] = folded
        return folded


def _letters() -> dict[str, str]:
    table = dict(LOOKALIKES)
    for first, last in LETTER_BLOCKS:
        for code in range(first, last):
            if found := LETTER_NAME.search(unicodedata.name(chr(code), "")):
                letter = found.group(1) or found.group(2)
                table[chr(code)] = table[chr(code).casefold()] = letter.lower()
    return table | LIGATURES


_LETTERS = _letters()
_FOLD = _Fold()
