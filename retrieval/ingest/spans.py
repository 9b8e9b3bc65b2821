"""Tables of HTML in which cells span several rows or columns."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from retrieval.ingest.content import guard
from retrieval.ingest.tables import begin_table, to_line

if TYPE_CHECKING:
    from bs4 import Tag

CELLS = ("td", "th")
WIDEST = 100  # columns of a cell that states its span
HIGHEST = 65_534  # rows, as in browsers
MOST_GROWN = 50  # times its length without spans; the tree of a page has as many


@dataclass(frozen=True, eq=False)
class _Cell:
    text: str
    is_name: bool = False  # <th>
    width: int = 1
    height: int = 1


@dataclass(frozen=True)
class _Row:
    own: Sequence[_Cell]
    by_column: Sequence[_Cell]  # with those that reach into it from above
    in_head: bool  # <thead>

    def is_line(self) -> bool:
        return len(self.by_column) > 1 and len({*self.by_column}) == 1

    def is_header(self) -> bool:
        corner, *others = self.own
        return (
            len(self.by_column) > 1
            and (corner.is_name or not corner.text)
            and all(cell.is_name for cell in others)
        )


NO_CELL = _Cell("")


def write_out_spans(table: "Tag", plain: str) -> str:
    """Return a table with the value of a cell in each row and each column that it spans.

    The rows of a header become one, in which each column has its names from top to bottom ("Fare
    Adult"). A row of one cell that spans several columns is a line of text.

    Args:
        table: Its cells hold Markdown of one line.
        plain: The table as Markdown without regard to spans; what is no row of it stays. It is
            returned if no cell spans, or if the table would become too long.
    """
    cells = table.find_all(CELLS)
    if all(_height(cell) == _width(cell) == 1 for cell in cells):
        return plain
    left = MOST_GROWN * sum(len(to_line([cell.get_text()])) for cell in cells)
    rows = list[_Row]()
    for row in _rows(table):
        rows.append(row)
        written = row.own if row.is_line() else row.by_column
        left -= sum(len(to_line([cell.text])) for cell in written)
        if left < 0:
            return plain
    lines = [line for line in plain.split("\n") if line.strip() and not line.startswith("|")]
    titles = list(takewhile(_Row.is_line, rows))
    rows = rows[len(titles) :]
    size = _header_size(rows)
    names, begun = _names(rows[:size]), False
    for row in [*titles, *rows[size:]]:
        if row.is_line():
            lines += ["", guard(row.by_column[0].text)]
        elif not begun:
            left -= sum(map(len, names))
            if left < 0:
                return plain
            lines += ["", *begin_table(names)]
        begun = not row.is_line()
        if begun:
            lines.append(to_line([cell.text for cell in row.by_column]))
    return "\n".join(lines)


def widths(table: "Tag") -> list[int]:
    """Return how many cells stand in each row of a table, or reach into it from above."""
    found, reaching, ends = list[int](), 0, Counter[int]()
    for number, row in enumerate(table.find_all("tr")):
        cells = row.find_all(CELLS)
        reaching += len(cells) - ends[number]
        found.append(reaching)
        ends.update(number + _height(cell) for cell in cells)
    return found


def _rows(table: "Tag") -> Iterator[_Row]:
    """Yield the rows that have cells of their own."""
    above: dict[int, tuple[_Cell, int]] = {}  # by column, with the rows that it still reaches into
    part = None
    for row in table.find_all("tr"):
        if row.parent is not part:  # no cell reaches out of <thead>, <tbody> or <tfoot>
            part, above = row.parent, {}
        placed = {column: cell for column, (cell, _) in above.items()}
        own, column = list[_Cell](), 0
        for tag in row.find_all(CELLS):
            cell = _Cell(tag.get_text(), tag.name == "th", _width(tag), _height(tag))
            own.append(cell)
            while column in placed:
                column += 1
            for _ in range(cell.width):
                placed[column], above[column] = cell, (cell, cell.height)
                column += 1
        above = {place: (cell, left - 1) for place, (cell, left) in above.items() if left > 1}
        if own:
            columns = [placed.get(place, NO_CELL) for place in range(max(placed) + 1)]
            yield _Row(own, columns, row.parent is not None and row.parent.name == "thead")


def _header_size(rows: Sequence[_Row]) -> int:
    """Return how many rows name the columns: those of <thead> or of <th>, else the first.

    None do if the first row names itself, by a <th> before other cells.
    """
    if not rows:
        return 0
    first, in_head = rows[0].own, any(row.in_head for row in rows)
    header = takewhile(
        lambda row: not row.is_line() and (row.in_head if in_head else row.is_header()), rows
    )
    size = len(list(header)) or int(not any(cell.is_name for cell in first))
    # The names of groups of columns stand above those of the columns.
    grouped = {cell for cell in first if cell.width > 1}
    others = {*first} - grouped
    if size == 1 and not in_head and grouped and all(cell.height > 1 for cell in others):
        size = max(cell.height for cell in first)
    return min(size, len(rows) - 1)


def _names(rows: Sequence[_Row]) -> list[str]:
    columns = max((len(row.by_column) for row in rows), default=1)
    names = [dict[str, None]() for _ in range(columns)]
    for row in rows:
        for name, cell in zip(names, row.by_column, strict=False):
            name[cell.text] = None
    return [" ".join(filter(None, name)) for name in names]


def _width(cell: "Tag") -> int:
    return min(_stated(cell, "colspan"), WIDEST) or 1


def _height(cell: "Tag") -> int:
    return min(_stated(cell, "rowspan"), HIGHEST) or HIGHEST  # 0: all rows that follow


def _stated(cell: "Tag", name: str) -> int:
    stated = str(cell.get(name, "1")).strip()
    return int(stated[:6]) if stated.isdecimal() else 1
