"""Decode text files of any encoding; big files in parts."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from foundation.errors import DocumentError

# Longest mark first: that of UTF-32 little-endian begins with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
COMMON_ENCODING = "cp1252"  # Western European Windows; for printable text Latin-1 is the same
PART_BYTES = 2_000_000  # about 3,600 passages, 20 s of embedding on two cores
BLOCK_BYTES = 1 << 20
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
CUTS = ("\n\n", "\n", ". ", " ")  # where to part a text, best first


def has_byte_order_mark(data: bytes) -> bool:
    """Say whether the bytes begin with a mark that names their encoding."""
    return any(data.startswith(mark) for mark, _ in BYTE_ORDER_MARKS)


def read_texts(path: Path) -> Iterator[str]:
    """Yield the text of a file; one beyond ``PART_BYTES`` in parts of about that size.

    A part ends with a paragraph if it can. The file is decoded once to its end before the first
    part is yielded, and never held as a whole.

    Raises:
        DocumentError: it is binary, or in no known encoding.
    """
    if path.stat().st_size <= PART_BYTES:
        yield _decode(path, path.read_bytes())
        return
    with path.open(encoding=find_encoding(path), errors="replace") as file:
        rest, blank = "", True
        while block := file.read(PART_BYTES):
            text = rest + block
            ends = (text.rfind(cut, len(text) // 2) + len(cut) for cut in CUTS if cut in text)
            end = next((end for end in ends if end > len(text) // 2), len(text))
            rest = text[end:]
            if text[:end].strip():
                yield text[:end]
                blank = False
        if blank or rest.strip():
            yield rest


def _decode(path: Path, data: bytes) -> str:
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError as error:
                raise unknown_encoding(path) from error
    if b"\0" in data:
        raise _binary(path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        encoding = "utf-8" if _is_damaged_utf8(data) else _guess(path, data)
        return data.decode(encoding, "replace")


def _is_damaged_utf8(data: bytes) -> bool:
    """Whether bytes are meant as UTF-8, though some are not: most characters beyond ASCII are.

    In other encodings of letters one after the other seldom makes a character of UTF-8.
    """
    beyond = [character for character in data.decode("utf-8", "replace") if character > "\x7f"]
    return beyond.count(REPLACEMENT) <= len(beyond) / 2


def find_encoding(path: Path) -> str:
    """Return the encoding in which all of a file can be decoded; it is never held as a whole.

    In UTF-8 some bytes may be damaged.

    Raises:
        DocumentError: it is binary, or in no known encoding.
    """
    with path.open("rb") as file:
        start = file.read(BLOCK_BYTES)
    marked = next((known for mark, known in BYTE_ORDER_MARKS if start.startswith(mark)), "")
    encoding = marked or "utf-8"
    unsound = _first_unsound(path, encoding, binary=not marked)
    if unsound is None:
        return encoding
    if marked:
        raise unknown_encoding(path)
    if _is_damaged_utf8(start + unsound):
        return encoding
    encoding = _guess(path, unsound)
    if _first_unsound(path, encoding) is not None:
        raise unknown_encoding(path)
    return encoding


def _first_unsound(path: Path, encoding: str, *, binary: bool = False) -> bytes | None:
    """The first block of a file that cannot be decoded; ``None`` where all can.

    Args:
        path: The file.
        encoding: Of it.
        binary: Whether a zero byte is an error.

    Raises:
        DocumentError: it holds one.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    unsound = None
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            if binary and b"\0" in block:
                raise _binary(path)
            try:
                if unsound is None:
                    decoder.decode(block)
            except UnicodeDecodeError:
                unsound = block
    try:
        decoder.decode(b"", final=unsound is None)
    except UnicodeDecodeError:
        unsound = block
    return unsound


def _guess(path: Path, data: bytes) -> str:
    from charset_normalizer import from_bytes  # only for old encodings

    guesses = from_bytes(data, cp_exclusion=["utf_16_be", "utf_16_le", "utf_32"])
    best = guesses.best()
    if best is None:
        raise unknown_encoding(path) from None
    # A short text fits many code pages alike; the commonest is then the likeliest.
    common = next((g for g in guesses if COMMON_ENCODING in g.could_be_from_charset), best)
    as_good = common.chaos <= best.chaos and common.coherence >= best.coherence
    return COMMON_ENCODING if as_good and common is not best else best.encoding


def unknown_encoding(path: Path) -> DocumentError:
    """The error for a file in no known encoding."""
    return DocumentError(f"{path} is in no known text encoding; save it as UTF-8 and try again")


def _binary(path: Path) -> DocumentError:
    return DocumentError(f"{path} holds binary data, not text; give a text version of it")
