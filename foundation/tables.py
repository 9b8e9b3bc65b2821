"""Rows of tables as passages have them: "column: value; column: value", a line each."""

import re
from dataclasses import dataclass
from itertools import pairwise

# A row; the group is its first column.
ROW = re.compile(r"[ \t]*([^\s:;][^:;\n]*):[ \t][^;\n]*(?:;[ \t][^:;\n]+:[ \t][^;\n]*)+")
LINE = re.compile(r"[^\n]*\n?")
LEAST_SIGNS = 2  # semicolons of a row that has no other row beside it
LONGEST_CELL = 80  # characters of a cell of such a row, with its column
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


def find_rows(text: str, alone: bool = True) -> list[tuple[int, int]]:
    """Where rows of tables stand in a text: each on a line of its own.

    Lines next to each other that begin with the same column are rows. The first may follow the
    title of its document on the same line.

    Args:
        text: The text.
        alone: Whether a line of three cells is a row without another beside it, or else a list.

    Returns:
        (start, end) in characters, in order, without the ends of the lines.
    """
    lines = [line for line in LINE.finditer(text) if line.group()]
    found: dict[int, int] = {}
    for one, next_one in pairwise(lines):
        following = ROW.fullmatch(next_one.group().rstrip("\n"))
        if following is None:
            continue
        line = one.group().rstrip("\n")
        begins = re.search(rf"(?:^|(?<=: )){re.escape(following[1])}:[ \t]", line)
        if begins and ROW.fullmatch(line[begins.start() :]):
            found[one.start() + begins.start()] = one.start() + len(line)
            found[next_one.start()] = next_one.start() + len(next_one.group().rstrip("\n"))
    ends = set(found.values())
    for one in lines if alone else ():
        line = one.group().rstrip("\n")
        row = ROW.fullmatch(line) if one.start() + len(line) not in ends else None
        if row is None or line.count(";") < LEAST_SIGNS:
            continue
        # "Title: column: value": a cell seldom holds a colon.
        first = line[row.end(1) + 2 : line.index(";")]
        begin = row.end(1) + 2 if ": " in first else 0
        if max(map(len, line[begin:].split(";"))) <= LONGEST_CELL:  # else it is prose
            found[one.start() + begin] = one.start() + len(line)
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
