"""The version that the name of a document gives: "manual-v2.1.pdf", "Data sheet, revision C"."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MARKED = (
    r"(?<![^\W_])(?:v|ver|version|r|rev|revision|ed|edition|issue|release|draft)[\s._-]*"
    r"(?P<marked>\d+(?:[._-]\d+)*|[a-z])(?![^\W_])"
)
DOTTED = r"(?<![\w.])(?P<dotted>\d+(?:\.\d+)+)(?!\w|\.\d)"
VERSION = re.compile(f"{MARKED}|{DOTTED}", re.IGNORECASE)
# The end of a file's name that tells one file of a title from the next: "rules_2", "notice-b".
INDEX = re.compile(
    r"(?<=[^\W_])[\s._-]+\(?(?P<index>\d{1,3}(?:[._-]\d{1,3})*|[a-z])\)?$", re.IGNORECASE
)
NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Version:
    """A version; one of another series tells nothing about which is later.

    Attributes:
        series: The name without it, and whether it is a number or a letter.
        number: Its parts, the first one counts most; of a letter its code point.
    """

    series: tuple[str, bool]
    number: tuple[int, ...]

    def __str__(self) -> str:
        """As it is written: "1.10", "C"."""
        of_numbers = self.series[1]
        return ".".join(map(str, self.number)) if of_numbers else chr(self.number[0]).upper()

    def covers(self, other: "Version") -> bool:
        """Whether another version is this one or a part of it, whatever the names: 2 and 2.1."""
        same_kind = self.series[1] == other.series[1]
        return same_kind and other.number[: len(self.number)] == self.number


def is_earlier(versions: Sequence[Version], others: Sequence[Version]) -> bool:
    """Whether one of the versions is earlier than one of others, of the same series."""
    return any(
        own.series == later.series and own.number < later.number
        for own in versions
        for later in others
    )


def find_version(name: str) -> Version | None:
    """The version in the name of a document; ``None`` where there is none or are several.

    Args:
        name: A title, a file's name without its ending, or a question that names one.
    """
    found = list(VERSION.finditer(name))
    if len(found) != 1:
        return None
    [match] = found
    return _version(match["marked"] or match["dotted"], name[: match.start()], name[match.end() :])


def find_index(file: str, title: str) -> Version | None:
    """The place of a file among others of the same title; ``None`` where its name tells none.

    Args:
        file: Its name, without its ending.
        title: Of the document, as its text gives it.
    """
    match = INDEX.search(file)
    if match is None or title in ("", file):
        return None
    return _version(match["index"], f"{title}: {file[: match.start()]}", "")


def _version(written: str, before: str, after: str) -> Version:
    parts = tuple(map(int, NUMBER.findall(written)))
    series = f"{before}*{after}".lower()
    return Version((series, bool(parts)), parts or (ord(written.lower()),))
