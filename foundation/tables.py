"""Rows of tables as passages have them: "column: value; column: value", a line each."""

import re
from dataclasses import dataclass
from itertools import pairwise

# A row; the group is its first column.
ROW = re.compile(r"[ \t]*([^\s:;][^:;\n]*):[ \t][^;\n]*(?:;[ \t][^:;\n]+:[ \t][^;\n]*)+")
LINE = re.compile(r"[^\n]*\n?")
BEFORE_ROWS = 160  # characters before a table, such as its title, that are read with each row
CELL = re.compile(r"(?:([^:;\n]+):[ \t]+)?(.*?)(?:;[ \t]+|$)")


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        column: Its column's name; empty where it has none.
        value: What stands in it.
        start: Its first character in the text.
    """

    column: str
    value: str
    start: int

    @property
    def end(self) -> int:
        """The character after its last one."""
        return self.start + len(self.value)


def find_rows(text: str) -> list[tuple[int, int]]:
    """Where rows of tables stand in a text: next to each other, beginning with the same column.

    The first of them may follow the title of its document on the same line.

    Returns:
        (start, end) in characters, in order, without the ends of the lines.
    """
    lines = [line for line in LINE.finditer(text) if line.group()]
    found: dict[int, int] = {}
    for one, next_one in pairwise(lines):
        following = ROW.fullmatch(next_one.group().rstrip("\n"))
        if following is None:
            continue
        begins = re.search(rf"(?:^|: ){re.escape(following[1])}:[ \t]", one.group())
        start = (
            one.start() + (begins.group().startswith(": ") * 2 + begins.start()) if begins else 0
        )
        line = one.group().rstrip("\n")
        if begins and ROW.fullmatch(line[start - one.start() :]):
            found[start] = one.start() + len(line)
            found[next_one.start()] = next_one.start() + len(next_one.group().rstrip("\n"))
    return sorted(found.items())


def rows_alone(text: str) -> list[tuple[str, int, int]]:
    """The rows of a text as texts of their own, each after what stands before the first of them.

    Returns:
        Text, and (start, end) of the row in the whole text, which are the last characters of it.
    """
    spans = find_rows(text)
    first = spans[0][0] if spans else 0
    before = text[max(0, first - BEFORE_ROWS) : first]
    return [(before + text[start:end], start, end) for start, end in spans]


def without_rows(text: str) -> str:
    """What a text holds besides rows of tables."""
    left, done = "", 0
    for start, end in find_rows(text):
        left, done = left + text[done:start], end
    return left + text[done:]


def cells(text: str, start: int, end: int) -> list[Cell]:
    """The cells of a row that stands at (start, end) of a text."""
    return [
        Cell((match[1] or "").strip(), match[2].strip(), match.start(2))
        for match in CELL.finditer(text, start, end)
        if match[2].strip()
    ]
