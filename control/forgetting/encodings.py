"""Decoders of encoded text: base64, hexadecimal, escapes, rot13, reversed."""

import base64
import binascii
import codecs
import html
import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote

DEEPEST = 3  # nested encodings that are decoded; each may at most double the text
LETTERS_SHARE = 0.75  # of a decoded text that is letters and spaces; random bytes have far fewer
SHORTEST = 3  # characters of a decoded text
BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{6,}={0,2}|[A-Za-z0-9+/_-]{4,}={1,2}")
FOLDED_BASE64 = re.compile(r"(?<=[A-Za-z0-9+/]{60})\r?\n(?=[A-Za-z0-9+/])")  # lines of an e-mail
BASE32 = re.compile(r"\b[A-Z2-7]{8,}={0,6}")
HEX = re.compile(r"(?:0x|\\x|\b)[0-9a-fA-F]{2}(?:[\s,:-]{0,2}(?:0x|\\x)?[0-9a-fA-F]{2}){2,}\b")
BITS = re.compile(r"\b[01]{7,8}(?:[\s,]*[01]{7,8}){2,}\b")
CODES = re.compile(r"\b1?\d{2}(?:[\s,;-]+1?\d{2}){2,}\b")
ESCAPES = re.compile(r"\\u\{?([0-9a-fA-F]{4,5})\}?|U\+([0-9a-fA-F]{4,5})\s?")
TAGS = re.compile("[\U000e0020-\U000e007e]+")  # invisible doubles of the ASCII characters
TAG_OFFSET = 0xE0000
NUMBERED = re.compile(r"(?:\b\d{1,2}[.):]\s*[^\W\d_](?![^\W_])[^\w]*){3,}")  # letters in a list
# Cheap tests for encoded text: digits, and letters in sequences that words do not have.
DIGITS = re.compile(r"\d\D*\d\D*\d")
ODD = re.compile(r"[a-z][A-Z]|[A-Za-z]\d|\d[A-Za-z]|[A-Z2-7]{8}|\w=")
SMALL_SHARE = 0.1  # of a text's words; the built-in passages have 0.17 and more
SMALL_WORDS = {
    *("the", "of", "is", "was", "what", "who", "which", "in", "and", "to", "a", "where", "when"),
    *("how", "did", "does", "name", "me", "for", "tell"),
}


def readable(text: str) -> list[str]:
    """The text, and the text with its encoded parts decoded, as far as they are recognised.

    Returns:
        The text itself first; then with its encoded parts decoded, level by level; then, if the
        result is more like a sentence, in rot13 or reversed.
    """
    found = [text]
    words = text.split()
    for _ in range(DEEPEST):
        decoded = _decoded_once(found[-1])
        if decoded == found[-1] or len(decoded) > 2 * len(text) + 100:
            break
        found.append(decoded)
    small = _small_words(words)
    if small < SMALL_SHARE * len(words):  # otherwise it is a plain sentence
        found += [other for other in transformed(text) if _small_words(other.split()) > small]
    return list(dict.fromkeys(found))


def _decoded_once(text: str) -> str:
    """The text with its encoded parts decoded once."""
    text = _escapes(text)
    if DIGITS.search(text):
        text = NUMBERED.sub(lambda run: "".join(filter(str.isalpha, run.group())) + " ", text)
        text = _decoded(text, BITS, _bits)
        text = _decoded(text, CODES, _codes)
    if ODD.search(text):
        text = _decoded(text, HEX, _hex)
        text = _decoded(text, BASE32, _base32)
        if "\n" in text:
            text = FOLDED_BASE64.sub("", text)
        text = _decoded(text, BASE64, _base64)
    return text


def transformed(text: str) -> list[str]:
    """The text in rot13, reversed, with each word reversed, and with the words in reverse order."""
    words = text.split()
    return [
        codecs.encode(text, "rot13"),
        text[::-1],
        " ".join([word[::-1] for word in words]),
        " ".join(reversed(words)),
    ]


def _small_words(words: Sequence[str]) -> int:
    return sum(word.lower() in SMALL_WORDS for word in words)


def _text(data: bytes) -> str | None:
    """The bytes as text, if they decode to words."""
    try:
        decoded = data.decode()
    except UnicodeDecodeError:
        return None
    letters = sum(char.isalpha() or char.isspace() for char in decoded)
    if len(decoded) < SHORTEST or not decoded.replace("\n", " ").replace("\t", " ").isprintable():
        return None
    return decoded if letters >= LETTERS_SHARE * len(decoded) else None


def _decoded(text: str, pattern: re.Pattern[str], decode: Callable[[str], bytes | None]) -> str:
    """The text with the matches of a pattern decoded, where that gives words."""

    def replace(match: re.Match[str]) -> str:
        try:
            data = decode(match.group())
        except (ValueError, OverflowError):
            return match.group()
        decoded = _text(data) if data else None
        return match.group() if decoded is None else f" {decoded} "

    return pattern.sub(replace, text)


def _base64(token: str) -> bytes | None:
    bare = re.sub(r"[\s=]", "", token)
    word = bare.islower() or bare.isupper() or bare[1:].islower()
    if word and "=" not in token:  # as ordinary words are written
        return None
    return base64.urlsafe_b64decode(
        bare.replace("+", "-").replace("/", "_") + "=" * (-len(bare) % 4)
    )


def _base32(token: str) -> bytes | None:
    bare = token.rstrip("=")
    return base64.b32decode(bare + "=" * (-len(bare) % 8))


def _hex(token: str) -> bytes:
    return binascii.unhexlify(re.sub(r"0x|\\x|[\s,:-]", "", token))


def _bits(token: str) -> bytes:
    groups = re.split(r"[\s,]+", token)
    groups = groups if len(groups) > 1 else re.findall("[01]{8}", token)
    return bytes(int(bits, 2) for bits in groups)


def _codes(token: str) -> bytes:
    return bytes(int(code) for code in re.findall(r"\d+", token))


def _escapes(text: str) -> str:
    if "&" in text:
        text = html.unescape(text)
    if "%" in text:
        text = unquote(text)
    if "\\u" in text or "U+" in text:
        text = ESCAPES.sub(lambda match: chr(int(match.group(1) or match.group(2), 16)), text)
    if not text.isascii():
        text = TAGS.sub(
            lambda match: " " + "".join(chr(ord(c) - TAG_OFFSET) for c in match.group()), text
        )
    return text
