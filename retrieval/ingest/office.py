"""Office files: .docx, .pptx and .xlsx, which are ZIP archives of XML."""

import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import DocumentError
from retrieval.ingest.content import Content, check_size, guard, page_mark
from retrieval.ingest.dates import office_dates
from retrieval.ingest.markup import first_heading, html_to_markdown
from retrieval.ingest.tables import to_cell, to_parts

if TYPE_CHECKING:
    from lxml import etree
    from pptx.slide import Slide

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # begins the formats before 2007, and encrypted files
ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
# Bytes of all parts unpacked. Text of that size takes some 30 times as much memory in a tree;
# pictures are not unpacked and not counted.
LONGEST_UNPACKED = 100_000_000
CORE_PROPERTIES = "docProps/core.xml"
DOCX_MARGIN = re.compile(r"word/(?:header|footer)\d*\.xml")
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".emf", ".wmf", ".wdp")
MEDIA = (*PICTURES, ".mp3", ".mp4", ".m4a", ".m4v", ".mov", ".avi", ".wmv", ".wav", ".ttf", ".otf")
DOCX_STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='Subtitle'] => p:fresh
p[style-name='Code'] => pre:separator('\\n')
"""


@contextmanager
def open_archive(path: Path, what: str) -> Iterator[zipfile.ZipFile]:
    """Open a file that is a ZIP archive, after a check of what it would unpack to.

    Args:
        path: The file.
        what: Its format, for messages.

    Raises:
        DocumentError: it is damaged, encrypted, of an older format, or unpacks to too much; also
            for any error while it is open, since the libraries answer damage with many kinds.
    """
    with path.open("rb") as file:
        if file.read(len(OLE)) == OLE:
            file.seek(0)
            if any(ENCRYPTED in block for block in iter(lambda: file.read(1 << 20), b"")):
                raise DocumentError(
                    f"{path} is an encrypted {what} file; remove its password first"
                )
            raise DocumentError(
                f"{path} is in a format from before 2007; save it as {what} and try again"
            )
    try:
        with zipfile.ZipFile(path) as archive:
            # What an entry states is all that zipfile unpacks of it.
            unpacked = sum(
                entry.file_size
                for entry in archive.infolist()
                if not entry.filename.lower().endswith(MEDIA)
            )
            check_size(path, unpacked, LONGEST_UNPACKED, f"{what} (unpacked)")
            yield archive
    except (DocumentError, MemoryError, OSError):
        raise
    except Exception as error:
        raise DocumentError(
            f"{path} is not a readable {what} file; open and save it anew"
        ) from error


def read_docx(path: Path) -> Iterator[Content]:
    """Yield the text of a Word document: headings, lists, tables and footnotes.

    Raises:
        DocumentError: as `open_archive`.
    """
    import mammoth

    with open_archive(path, ".docx") as archive, path.open("rb") as file:
        properties, margin = _properties(archive), _margin(archive)
        html = mammoth.convert_to_html(
            file, style_map=DOCX_STYLES, convert_image=lambda _: []
        ).value
        text = html_to_markdown(html)
    yield Content(
        text, title=first_heading(text), markdown=True, properties=properties, margin=margin
    )


def read_pptx(path: Path) -> Iterator[Content]:
    """Yield the text of a presentation: each slide's title, texts, tables, charts and notes.

    Raises:
        DocumentError: as `open_archive`.
    """
    from pptx import Presentation

    with open_archive(path, ".pptx") as archive:
        properties = _properties(archive)
        deck = Presentation(str(path))
        slides = [_slide(number, slide) for number, slide in enumerate(deck.slides, start=1)]
        title = deck.core_properties.title or None
    text = "\n\n".join(slides)
    yield Content(text, title=first_heading(text) or title, markdown=True, properties=properties)


def read_xlsx(path: Path) -> Iterator[Content]:
    """Yield the tables of a workbook, sheet by sheet; a big sheet in several parts.

    Formulas give the value that was last saved. Hidden sheets are left out.

    Raises:
        DocumentError: as `open_archive`.
    """
    from openpyxl import load_workbook

    with open_archive(path, ".xlsx") as archive:
        properties = _properties(archive)
        book = load_workbook(path, read_only=True, data_only=True, keep_links=False)
        small: list[str] = []
        for sheet in book.worksheets:
            if sheet.sheet_state != "visible":
                continue
            sheet.reset_dimensions()  # some programs state a wrong one
            *parts, last = chain([""], to_parts(_values(sheet), f"# {to_cell(sheet.title)}"))
            for part in parts[1:]:
                yield Content(part, markdown=True, properties=properties)
            small.append(last)
    yield Content("\n\n".join(filter(None, small)), markdown=True, properties=properties)


def _properties(archive: zipfile.ZipFile) -> dict[str, object]:
    """Return the dates of an office file's core properties."""
    created, modified = (
        next((str(tag.text or "") for tag in _tags(archive, CORE_PROPERTIES, name)), "")
        for name in ("created", "modified")
    )
    return office_dates(created, modified)


def _margin(archive: zipfile.ZipFile) -> str:
    """Return the text of a Word document's page headers and footers, a paragraph a line."""
    return "\n".join(
        "".join(run.text or "" for run in paragraph.iter("{*}t"))
        for name in sorted(filter(DOCX_MARGIN.fullmatch, archive.namelist()))
        for paragraph in _tags(archive, name, "p")
    )


def _tags(archive: zipfile.ZipFile, part: str, name: str) -> "Iterator[etree._Element]":
    """Yield the tags of a name in a part of the file; none if it is missing or damaged."""
    from lxml import etree

    if part in archive.namelist():
        parser = etree.XMLParser(recover=True, resolve_entities=False)
        root = etree.fromstring(archive.read(part), parser)
        if root is not None:
            yield from root.iter(f"{{*}}{name}")


def _values(sheet: Any) -> Iterator[list[object]]:
    for row in sheet.iter_rows():
        yield [_value(cell) for cell in row]


def _value(cell: Any) -> object:
    if isinstance(cell.value, float | int) and str(cell.number_format).endswith("%"):
        return f"{cell.value * 100:.12g}%"
    return cell.value


def _slide(number: int, slide: "Slide") -> str:
    heading = slide.shapes.title
    title = to_cell(heading.text_frame.text) if heading is not None else ""
    blocks = [page_mark(number), f"# {title or f'Slide {number}'}"]
    shapes = [shape for shape in slide.shapes if heading is None or shape != heading]
    blocks += _blocks(sorted(shapes, key=lambda shape: (shape.top or 0, shape.left or 0)))
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        blocks.append(guard(slide.notes_slide.notes_text_frame.text))
    return "\n\n".join(block for block in blocks if block.strip())


def _blocks(shapes: Iterable[Any]) -> Iterator[str]:
    for shape in shapes:
        if hasattr(shape, "shapes"):  # a group
            yield from _blocks(shape.shapes)
        elif getattr(shape, "has_table", False):
            yield from to_parts([[cell.text for cell in row.cells] for row in shape.table.rows])
        elif getattr(shape, "has_chart", False):
            yield from _chart(shape.chart)
        elif shape.has_text_frame:
            paragraphs = shape.text_frame.paragraphs
            lines = [("  " * line.level, to_cell(line.text)) for line in paragraphs]
            yield "\n".join(
                f"{indent}- {text}" if indent else text for indent, text in lines if text
            )


def _chart(chart: Any) -> Iterator[str]:
    if chart.has_title and chart.chart_title.has_text_frame:
        yield guard(chart.chart_title.text_frame.text)
    for plot in chart.plots:
        series = list(plot.series)
        rows = zip(plot.categories, *(one.values for one in series), strict=False)
        table = [["", *(one.name for one in series)], *([str(name), *its] for name, *its in rows)]
        yield from to_parts(table)
