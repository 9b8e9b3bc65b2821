"""What a text says once it is decoded: other scripts, lookalikes, codes, spelled-out words."""

import base64
import binascii
import codecs
import html
import json
import re
import string
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import resources

from anyascii import anyascii
from babel import Locale

LEET = ("0o", "1i", "3e", "4a", "5s", "7t", "@a", "$s", "!i"), ("1l",)
LETTERS = string.ascii_lowercase
FLAG = re.compile("([\U0001f1e6-\U0001f1ff])([\U0001f1e6-\U0001f1ff])")
FIRST_FLAG = 0x1F1E6
# Letters one by one, with the same kind of mark between them, at least three.
SPELLED = re.compile(r"(?<![^\W_])[^\W_](?:[\W_]{1,3}[^\W_]){2,}(?![^\W_])")
DOTTED = re.compile(r"(?<![^\W_])[^\W_](?:([-.*_|/+·~,])[^\W_])(?:\1[^\W_])+(?![^\W_])")
BASE64 = re.compile(r"[A-Za-z0-9+/_-]{6,}={0,2}")
BASE32 = re.compile(r"\b[A-Z2-7]{8,}={0,6}")
HEX = re.compile(r"(?:0x)?\b[0-9a-fA-F]{2}(?:[\s:,]*(?:0x|\\x)?[0-9a-fA-F]{2}){2,}\b")
BITS = re.compile(r"\b[01]{8}(?:[\s,]*[01]{8}){2,}\b")
CODES = re.compile(r"\b\d{2,3}(?:[\s,]+\d{2,3}){2,}\b")


@dataclass(frozen=True)
class Reading:
    """A text as it may be meant.

    Attributes:
        text: In ASCII letters, with its own case and punctuation.
        coded: Whether it was decoded, so that short words may stand in it by chance.
        backwards: Whether it was read from its end; its numbers are others then.
        original: The text before it was brought into ASCII; empty where it was decoded.
    """

    text: str
    coded: bool = False
    original: str = ""
    backwards: bool = False


@lru_cache(maxsize=1024)
def plain(text: str) -> str:
    """A text in ASCII: compatible forms, flags and diacritics replaced, other scripts transcribed.

    Letters of another script inside a Latin word are lookalikes, and are read as what they look
    like.
    """
    shown = FLAG.sub(_country, unicodedata.normalize("NFKC", html.unescape(text)))
    shown = "".join(char for char in shown if unicodedata.category(char) not in {"Cf", "Mn"})
    latin = re.sub(r"[^\W\d_]+", lambda word: _as_latin(word[0]), shown)
    return "".join(
        f" {anyascii(char)} " if _is_currency(char) else anyascii(char) for char in latin
    )


@lru_cache(maxsize=4096)
def readings(text: str) -> tuple[Reading, ...]:
    """All readings of a text, the plain one first."""
    first = plain(text)
    found = {first: Reading(first, original=text)}
    lookalike = anyascii("".join(_lookalikes().get(char, char) for char in text))
    found.setdefault(lookalike, Reading(lookalike))
    for one in (first, lookalike):
        for decoded in _decoded(one):
            if decoded.strip():
                backwards = decoded == one[::-1]
                found.setdefault(decoded, Reading(decoded, coded=True, backwards=backwards))
    return tuple(found.values())


def _decoded(text: str) -> Iterator[str]:
    for pattern in (SPELLED, DOTTED):
        for match in pattern.finditer(text):
            joined = re.sub(r"[\W_]+", "", match[0])
            yield joined
            if joined.isalpha():
                yield joined[::-1]
    yield text[::-1]
    yield urllib.parse.unquote(text)
    yield codecs.encode(text, "rot13")
    for pairs in LEET:
        yield re.sub(r"\S*[0-9@$!]\S*", partial(_unleet, pairs), text)
    yield from _unpacked(text)
    yield from _initials(text)


def _unpacked(text: str) -> Iterator[str]:
    """What was encoded as bytes or as the numbers of characters."""
    decoders: tuple[tuple[re.Pattern[str], Callable[[str], bytes]], ...] = (
        (BASE64, lambda code: base64.b64decode(code + "=" * (-len(code) % 4), altchars=b"-_")),
        (BASE64, lambda code: base64.b64decode(code + "=" * (-len(code) % 4))),
        (BASE32, lambda code: base64.b32decode(code + "=" * (-len(code) % 8))),
        (HEX, lambda code: bytes.fromhex(re.sub(r"0x|\\x|[\s:,]", "", code))),
        (BITS, lambda code: bytes(int(bits, 2) for bits in re.findall(r"[01]{8}", code))),
        (CODES, lambda code: bytes(int(number) for number in re.findall(r"\d+", code))),
    )
    for pattern, decode in decoders:
        for match in pattern.finditer(text):
            try:
                decoded = decode(match[0].rstrip("=")).decode()
            except (ValueError, binascii.Error):
                continue
            if decoded.isprintable():
                yield plain(decoded)


def _initials(text: str) -> Iterator[str]:
    """The first letters of all lines, and of all words ("L as in Lion, I as in ...")."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    for words in ([line[0] for line in lines], *lines):
        first = "".join(word.lstrip("\"'([*-#")[:1] for word in words)
        if first.isalpha():
            yield first
    yield "".join(re.findall(r"\b([A-Za-z]) (?:as in|for|like|wie|comme|como)\b", text))


def _unleet(pairs: tuple[str, ...], found: re.Match[str]) -> str:
    """A word of letters and digits with its digits as letters; a number stays."""
    word = found[0]
    if not any(map(str.isalpha, word)):
        return word
    both = (*pairs, *LEET[0])
    return word.translate({ord(one[0]): one[1] for one in reversed(both)})


def _is_currency(char: str) -> bool:
    return not char.isascii() and unicodedata.category(char) == "Sc"


def _country(flag: re.Match[str]) -> str:
    code = "".join(chr(ord("A") + ord(letter) - FIRST_FLAG) for letter in flag.groups())
    return f" {Locale('en').territories.get(code, code)} "


def _as_latin(word: str) -> str:
    scripts = {unicodedata.name(char, "").split(" ")[0] for char in word}
    if "LATIN" not in scripts or len(scripts) == 1:
        return word
    return "".join(_lookalikes().get(char, char) for char in word)


@lru_cache(maxsize=1)
def _lookalikes() -> dict[str, str]:
    """From letters of other scripts to the Latin letter that they look like (Unicode TR39)."""
    table = resources.files("confusable_homoglyphs") / "confusables.json"
    like: dict[str, str] = {}
    for char, others in json.loads(table.read_text(encoding="utf-8")).items():
        latin = [one["c"] for one in others if one["c"].isascii() and one["c"].isalpha()]
        if len(char) == 1 and not char.isascii() and latin:
            same_case = [one for one in latin if one.isupper() == char.isupper()]
            like[char] = (same_case or latin)[0]
    return like
