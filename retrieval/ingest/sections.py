"""Read the structure of Markdown that the readers wrote: sections, pages, tables and code.

LlamaIndex's `MarkdownNodeParser` cuts at headings too. It hashes the whole document for each
section, which is quadratic, and knows neither pages nor tables.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from retrieval.ingest.content import FENCE, GUARD, PAGE_MARK
from retrieval.ingest.tables import is_table, rows_of

HEADING = re.compile(r"(#{1,6})[ \t]+(\S.*)")


class Kind(Enum):
    """What a block is."""

    PROSE = "prose"
    ROW = "row"
    CODE = "code"


@dataclass(frozen=True)
class Block:
    """A paragraph or list, a row of a table, or lines of code.

    Attributes:
        kind: Which of them.
        text: A row says its columns; code is without its fence.
        page: On which it begins, from 1; ``None`` if the document has no pages.
    """

    kind: Kind
    text: str
    page: int | None


@dataclass
class Section:
    """The blocks under a heading.

    Attributes:
        path: The headings that they stand under, outermost first.
        blocks: In order, without those of the headings below.
    """

    path: tuple[str, ...]
    blocks: list[Block] = field(default_factory=list)


def read_sections(text: str) -> Iterator[Section]:
    """Yield the sections of Markdown, in order; those without blocks are left out."""
    above: list[tuple[int, str]] = []
    section = Section(())
    page: int | None = None
    for paragraph in _paragraphs(text):
        first = paragraph[0]
        if mark := PAGE_MARK.fullmatch(first):
            page = int(mark[1])
        elif heading := HEADING.match(first):
            if section.blocks:
                yield section
            level = len(heading[1])
            above = [each for each in above if each[0] < level]
            above.append((level, heading[2].replace(GUARD, "").rstrip(" #")))
            section = Section(tuple(title for _, title in above))
        elif first == FENCE:
            section.blocks.append(Block(Kind.CODE, "\n".join(paragraph[1:]), page))
        elif is_table(paragraph):
            section.blocks += [Block(Kind.ROW, row, page) for row in rows_of(paragraph)]
        elif prose := "\n".join(paragraph).replace(GUARD, "").strip():
            section.blocks.append(Block(Kind.PROSE, prose, page))
    if section.blocks:
        yield section


def _paragraphs(text: str) -> Iterator[list[str]]:
    """Yield groups of lines: paragraphs, tables, code after its fence, single headings."""
    group: list[str] = []
    in_code = False
    for line in text.split("\n"):
        if line == FENCE:
            if group:
                yield group
            group = [] if in_code else [FENCE]
            in_code = not in_code
        elif in_code:
            group.append(line)
        elif not line.strip() or PAGE_MARK.fullmatch(line) or HEADING.match(line):
            if group:
                yield group
            group = []
            if line.strip():
                yield [line]
        elif group and line.startswith("|") != group[0].startswith("|"):
            yield group
            group = [line]
        else:
            group.append(line)
    if group:
        yield group
