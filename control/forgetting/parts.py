"""The parts of a text that can be removed: sentences, items of lists, rows of tables."""

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise

from foundation.tables import LINE, find_rows

ABBREVIATIONS = {
    *("dr", "prof", "mr", "mrs", "ms", "st", "mt", "sr", "jr", "rev", "gen", "col", "sgt", "lt"),
    *("e.g", "i.e", "etc", "vs", "cf", "al", "ca", "approx", "no", "vol", "fig", "p", "pp", "ed"),
    *("u.s", "u.k", "inc", "ltd", "co", "corp", "jan", "feb", "aug", "sept", "oct", "nov", "dec"),
}
# A line that ends like this, or is followed by a lower-case letter, continues in the next one.
CONTINUES = re.compile(
    r"(?:,|-|\b(?:a|an|and|are|as|at|by|called|for|from|in|is|of|on|or|that|the|to|was|were|with))"
    r"[ \t]*$"
)
PROSE = 45  # characters from which a line counts as wrapped, unless it ends in punctuation
SIGN = re.compile(r"[.!?:;|…]['\")\]”’]*\s*$")
ITEM = re.compile(r"^[ \t]*(?:[-*•|>#]|\d{1,3}[.)]|[A-Za-z][.)]|[QA]:)")
END = re.compile(r"(?<![.!?…])[.!?…]++[\"')\]”’]*+\s++(?=[^\sa-z])|[。\uff01\uff1f]+")
LAST_WORD = re.compile(r"[^\W\d_][\w.]*$")
LONGEST_ABBREVIATION = 8  # characters
LIST_SIGN = re.compile(r";\s+")
LEAST_ITEMS = 2  # semicolons in a sentence that make it a list
REFERENCE = re.compile(
    r"\b(?:it|its|itself|he|him|his|she|hers?|they|them|theirs?|this|that|these|those|there|here)\b"
    r"|\b[Tt]he (?:country|nation|state|city|town|capital|author|writer|poet|novelist|painter"
    r"|artist|composer|musician|film|movie|book|novel|work|play|company|firm|university|college"
    r"|school|man|woman|person|actor|actress|singer|player|athlete|scientist|inventor|element"
    r"|symbol|animal|species|dish|building|lake|river|mountain|island|god|goddess|answer|former"
    r"|latter|same)\b",
    re.IGNORECASE,
)


def parts(text: str) -> list[tuple[int, int]]:
    """The parts of a text: (start, end) of each; together they are the whole text."""
    found: list[tuple[int, int]] = []
    rows = {text.rfind("\n", 0, start) + 1 for start, _ in find_rows(text, alone=False)}
    for start, end in _blocks(text, rows):
        if start in rows:
            found.append((start, end))
            continue
        for first, last in _sentences(text[start:end]):
            found += _items(text, start + first, start + last)
    return found


def has_reference(part: str) -> bool:
    """Whether a sentence has a pronoun or another reference to something named before."""
    return REFERENCE.search(part) is not None


def joined(kept: Iterable[str]) -> str:
    """The text of the parts that are kept, with its original inner spacing, trimmed."""
    whole = "".join(kept)
    whole = "\n".join(line.rstrip(" \t") for line in whole.split("\n"))
    whole = re.sub(r"\n{3,}", "\n\n", whole).strip()
    return whole[:-1].rstrip() + "." if whole.endswith(";") else whole


def _blocks(text: str, rows: Collection[int]) -> Iterator[tuple[int, int]]:
    """Lines, with those of wrapped prose joined."""
    start = 0
    lines = list(LINE.finditer(text))[:-1]
    for line, following in pairwise(lines):
        of_table = line.start() in rows or following.start() in rows
        if of_table or not _wrapped(line.group(), following.group()):
            yield start, line.end()
            start = line.end()
    if start < len(text):
        yield start, len(text)


def _wrapped(line: str, following: str) -> bool:
    bare = line.rstrip()
    if not bare or not following.strip() or ITEM.match(following) or SIGN.search(bare):
        return False
    if CONTINUES.search(bare) or following.lstrip()[0].islower():
        return True
    continues = bare[-1].isalnum() or bare[-1] in ",-"
    return (
        continues and len(bare) >= PROSE and not (ITEM.match(line) or "|" in bare or "\t" in bare)
    )


def _sentences(block: str) -> Iterator[tuple[int, int]]:
    # NLTK's Punkt does the same, but its import adds a second to the first question.
    cuts = [end.end() for end in END.finditer(block) if not _abbreviated(block, end)]
    yield from pairwise([0, *(cut for cut in cuts if cut < len(block)), len(block)])


def _abbreviated(block: str, end: re.Match[str]) -> bool:
    """Whether a full stop belongs to an abbreviation or an initial."""
    if not end.group().startswith("."):
        return False
    before = LAST_WORD.search(block, max(0, end.start() - LONGEST_ABBREVIATION), end.start())
    word = before.group().lower() if before else ""
    return len(word) == 1 or word in ABBREVIATIONS


def _items(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    signs = list(LIST_SIGN.finditer(text, start, end))
    cuts = [sign.end() for sign in signs] if len(signs) >= LEAST_ITEMS else []
    yield from pairwise([start, *cuts, end])
