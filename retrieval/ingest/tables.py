"""Tables: from files of rows to Markdown, and from Markdown to rows that stand for themselves."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import TextIO

from foundation.errors import DocumentError
from retrieval.ingest import encodings
from retrieval.ingest.content import Content

DELIMITERS = ",;\t|"
SAMPLE_CHARACTERS = 65_536  # to find the delimiter in
UNCLOSED = "unexpected end of data"  # csv's error for a quotation without an end
SEPARATOR = re.compile(r"^\|(?:\s*:?-+:?\s*\|)+\s*$")
TABLE = re.compile(r"^\|.*\|\n\|(?: --- \|)+$", re.MULTILINE)
CELL_EDGE = re.compile(r"(?<!\\)\|")
NUMBER = re.compile(r"[-+(]?[$€£¥]?\s?\d[\d.,:/\s%)eE+-]*")


def read_csv(path: Path) -> Iterator[Content]:
    """Yield the table of a ``.csv`` or ``.tsv`` file; a big one in several parts with one header.

    Raises:
        DocumentError: it is binary, in no known encoding, or not made of rows.
    """
    with path.open(encoding=encodings.find_encoding(path), newline="", errors="replace") as file:
        delimiter = _delimiter(file.read(SAMPLE_CHARACTERS), path.suffix.lower())
        file.seek(0)
        _check_quotes(path, file, delimiter)
        file.seek(0)
        rows = csv.reader(file, delimiter=delimiter)
        try:
            for text in to_parts(rows):
                yield Content(text, markdown=True)
        except csv.Error as error:
            raise _not_a_table(path, rows.line_num, error) from error


def to_parts(rows: Iterable[Sequence[object]], heading: str = "") -> Iterator[str]:
    """Write rows as Markdown tables; yield parts of about ``encodings.PART_BYTES`` characters.

    Empty rows part tables. A row with a single cell is a line of text, such as the title of the
    table under it. Each part begins with ``heading`` and repeats the header of its table.
    """
    lines: list[str] = [heading] if heading else []
    size = 0
    header: list[str] | None = None  # of the table that is being written
    waiting: list[str] | None = None  # the first row of a table, until there is a second
    for row in rows:
        cells = _without_empty_end([to_cell(value) for value in row])
        filled = sum(1 for cell in cells if cell)
        if filled == 0 or (filled == 1 and header is None):
            lines += [*_lone(waiting), "", *filter(None, cells)]
            header = waiting = None
            continue
        if header is None and waiting is None:
            waiting = cells
            continue
        if waiting is not None:
            width = max(len(waiting), len(cells))
            named = is_header(waiting, width)
            header = waiting if named else [""] * width
            lines += ["", *begin_table(header), *([] if named else [to_line(waiting)])]
            waiting = None
        line = to_line(cells)
        lines.append(line)
        size += len(line)
        if size > encodings.PART_BYTES:
            yield "\n".join(lines)
            lines, size = [*([heading] if heading else []), "", *begin_table(header or [])], 0
    if size or waiting is not None or any(line and line != heading for line in lines):
        yield "\n".join([*lines, *_lone(waiting)])


def to_cell(value: object) -> str:
    """A value as the text of a cell, in one line."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(" ") if value.time() != time() else value.date().isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float):
        return f"{value:.12g}"  # 0.1 + 0.2 is 0.3 to whoever filled the table in
    return " ".join(str(value).split())


def is_header(cells: Sequence[str], width: int) -> bool:
    """Whether the first row names the columns: a name for each, no two alike, none a number."""
    named = [cell for cell in cells if cell]
    return (
        len(named) >= max(1, width - 1)  # the corner of a cross table is often empty
        and len(set(named)) == len(named)
        and not any(NUMBER.fullmatch(cell) for cell in named)
    )


def to_line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def begin_table(header: Sequence[str]) -> list[str]:
    """The first two lines of a Markdown table."""
    return [to_line(header), "|" + " --- |" * len(header)]


def rows_of(lines: Sequence[str]) -> list[str]:
    """Write each row of a Markdown table so that it can be read without the rest of the table.

    Of 200 questions about 600 airports, vectors alone rank the passage with the row first for
    55.5 % in this form, 38.0 % as Markdown with the header in each passage, 26.5 % with it once
    (MiniLM; ``docs/results/conversion``).

    Args:
        lines: Of the table, header and separator first.

    Returns:
        For each row "column: value; column: value" without its empty cells.
    """
    header, *rows = (_cells(line) for line in lines if not SEPARATOR.match(line))
    return [text for row in rows if (text := _row(header, row))]


def is_table(lines: Sequence[str]) -> bool:
    """Whether lines of Markdown are a table."""
    return len(lines) > 1 and lines[0].startswith("|") and bool(SEPARATOR.match(lines[1]))


def _row(header: Sequence[str], cells: Sequence[str]) -> str:
    names = [*header, *[""] * (len(cells) - len(header))]
    pairs = zip(names, cells, strict=False)
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in pairs if cell)


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in CELL_EDGE.split(inner)]


def _lone(cells: list[str] | None) -> list[str]:
    return [] if cells is None else ["", "; ".join(filter(None, cells))]


def _without_empty_end(cells: list[str]) -> list[str]:
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _check_quotes(path: Path, file: TextIO, delimiter: str) -> None:
    """Check that each quotation ends, for one that does not hides the rows after it.

    A quotation mark within a quoted cell that is not doubled is common, and read as csv does.
    """
    rows = csv.reader(file, delimiter=delimiter, strict=True)
    line = 1  # where the row begins
    try:
        for _ in rows:
            line = rows.line_num + 1
    except csv.Error as error:
        file.seek(0)
        is_odd = sum(text.count('"') for text in file) % 2
        if is_odd or str(error) == UNCLOSED:
            raise _not_a_table(path, line, error) from error


def _not_a_table(path: Path, line: int, error: csv.Error) -> DocumentError:
    return DocumentError(f"{path}, line {line}: not a table ({error}); check its quotation marks")


def _delimiter(sample: str, suffix: str) -> str:
    if suffix == ".tsv":
        return "\t"
    try:
        return csv.Sniffer().sniff(sample, DELIMITERS).delimiter
    except csv.Error:  # a single column, or rows too different
        return ","
