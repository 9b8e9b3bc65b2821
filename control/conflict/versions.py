"""The version that the name of a document gives: "manual-v2.1.pdf", "Data sheet, revision C"."""

import re
from dataclasses import dataclass

MARKED = (
    r"(?<![^\W_])(?:v|ver|version|r|rev|revision|ed|edition|issue|release|draft)[\s._-]*"
    r"(?P<marked>\d+(?:[._-]\d+)*|[a-z])(?![^\W_])"
)
DOTTED = r"(?<![\w.])(?P<dotted>\d+(?:\.\d+)+)(?!\w|\.\d)"
VERSION = re.compile(f"{MARKED}|{DOTTED}", re.IGNORECASE)
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


def find_version(name: str) -> Version | None:
    """The version in the name of a document; ``None`` where there is none or are several.

    Args:
        name: A title, a file's name without its ending, or a question that names one.
    """
    found = list(VERSION.finditer(name))
    if len(found) != 1:
        return None
    [match] = found
    written = (match["marked"] or match["dotted"]).lower()
    parts = tuple(map(int, NUMBER.findall(written)))
    series = f"{name[: match.start()]}*{name[match.end() :]}".lower()
    return Version((series, bool(parts)), parts or (ord(written),))
