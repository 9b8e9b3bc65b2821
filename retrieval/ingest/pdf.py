"""PDF: the text of each page, with headings from the outline."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from foundation.errors import DocumentError
from retrieval.ingest.cleaning import clean
from retrieval.ingest.content import LONGEST_TEXT, Content, guard, page_mark

PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
LINE_END_HYPHEN = "\x02"  # how pdfium gives a hyphen that parts a word between two lines
HYPHENATED = re.compile(rf"(\w+)(?:{LINE_END_HYPHEN}\r?\n?|[-\u2010]\r?\n(?=[^\W\d_A-Z]))(\w+)")
LEADERS = re.compile(r"(?:\.\s?){4,}\s*[\divxlc]+\s*$")  # a line of a table of contents
LEAST_REPEATS = 3  # pages that share a line at their top or bottom: a running title
LEAST_LINES = 4  # of a page that has a running title
EDGE_LINES = 2
# A line that reaches this share of the page's width goes on in the next one.
FULL_LINE = 0.75
LEAST_MEASURED = 10  # lines that tell how wide the text is
TEXT_WIDTH = 0.75  # the share of a page between its margins
LONGEST_NUMBER = 12  # characters before a heading in the text that its outline leaves out: "4.1.2 "


def read_pdf(path: Path) -> Iterator[Content]:
    """Yield the text of a PDF with marks of its pages and the headings of its outline.

    Running titles, page numbers and the lines of tables of contents are dropped; words parted
    between lines are joined.

    Raises:
        DocumentError: it is damaged, encrypted, too long, or has no text.
    """
    import pypdfium2

    try:
        with closing(pypdfium2.PdfDocument(path)) as book:
            texts = list(_page_texts(path, book))
            room = _room(book)
            headings = _outline(book)
            stated = book.get_metadata_dict()
    except (OSError, DocumentError):
        raise
    except Exception as error:
        if getattr(error, "err_code", None) == PASSWORD_ERROR or "assword" in str(error):
            raise DocumentError(f"{path} is an encrypted PDF; remove its password first") from error
        raise DocumentError(f"{path} is not a readable PDF; open and export it anew") from error
    if not any(text.strip() for text in texts):
        raise DocumentError(
            f"{path} is a PDF without text ({len(texts):,} pages), probably a scan; "
            "run OCR on it first"
        )
    known = Counter(re.findall(r"[\w-]+", " ".join(texts).lower()))
    lines_of_pages = [_lines(text, known) for text in texts]
    pages = _without_running_titles(lines_of_pages)
    usual = _width([line for lines in pages for line in lines], room)
    written = [
        f"{page_mark(number)}\n\n{_page(lines, headings.get(number, []), _width(lines, usual))}"
        for number, lines in enumerate(pages, start=1)
        if lines
    ]
    yield Content(
        "\n\n".join(written),
        title=stated.get("Title") or None,
        markdown=True,
        properties={
            name: stated.get(key, "")
            for name, key in (("created", "CreationDate"), ("modified", "ModDate"))
        },
        margin="\n".join(dict.fromkeys(_left_out(lines_of_pages, pages))),
    )


def _page_texts(path: Path, book: Any) -> Iterator[str]:
    characters = 0
    for number in range(len(book)):
        with closing(book[number]) as page, closing(page.get_textpage()) as text_page:
            text = str(text_page.get_text_bounded())
        characters += len(text)
        if characters > LONGEST_TEXT:
            raise DocumentError(
                f"{path} holds more than {LONGEST_TEXT / 1e6:.0f} million characters; "
                "split it into several"
            )
        yield text


def _room(book: Any) -> float:
    """Return how many characters a line has room for on the first page that has text."""
    for number in range(len(book)):
        with closing(book[number]) as page, closing(page.get_textpage()) as text_page:
            boxes = [text_page.get_rect(place) for place in range(text_page.count_rects())]
            if taken := sum(right - left for left, _, right, _ in boxes):
                return float(TEXT_WIDTH * page.get_width() * text_page.count_chars() / taken)
    return 0.0


def _width(lines: Sequence[str], usual: float) -> float:
    """Return the width of lines in characters, and the usual one if there are too few.

    The longest lines may be wider by a table.
    """
    if len(lines) < LEAST_MEASURED:
        return usual
    return sorted(map(len, lines))[int(0.9 * (len(lines) - 1))]


def _outline(book: Any) -> dict[int, list[tuple[int, str]]]:
    """Return the headings of each page, counted from 1: their levels, from 1, and titles."""
    headings: dict[int, list[tuple[int, str]]] = {}
    for entry in book.get_toc():
        place, title = entry.get_dest(), " ".join(clean(entry.get_title() or "").split())
        if place is not None and place.get_index() is not None and title:
            headings.setdefault(place.get_index() + 1, []).append((entry.level + 1, title))
    return headings


def _lines(text: str, known: Counter[str]) -> list[str]:
    def joined(parted: re.Match[str]) -> str:
        together = f"{parted[1]}{parted[2]}"
        apart = f"{parted[1]}-{parted[2]}"
        return apart if known[apart.lower()] > known[together.lower()] else together

    lines = clean(HYPHENATED.sub(joined, text)).split("\n")
    return [line for line in map(str.strip, lines) if line and not LEADERS.search(line)]


def _without_running_titles(pages: Sequence[list[str]]) -> list[list[str]]:
    """Drop lines at the top and bottom that several pages share but for their numbers."""
    seen = Counter(form for lines in pages for form in {*_edges(lines)})
    least = min(LEAST_REPEATS, max(2, len(pages)))

    def repeated(line: str) -> bool:
        return seen[_form(line)] >= least

    kept = []
    for lines in pages:
        left = list(lines)
        for place in (0, -1):
            for _ in range(EDGE_LINES):
                if len(left) >= LEAST_LINES and repeated(left[place]):
                    del left[place]
        kept.append(left)
    return kept


def _left_out(lines_of_pages: Sequence[list[str]], pages: Sequence[list[str]]) -> Iterator[str]:
    """Yield the running titles that were dropped."""
    for lines, kept in zip(lines_of_pages, pages, strict=True):
        left = Counter(lines) - Counter(kept)
        yield from left


def _edges(lines: Sequence[str]) -> Iterator[str]:
    if len(lines) >= LEAST_LINES:
        yield from map(_form, [*lines[:EDGE_LINES], *lines[-EDGE_LINES:]])


def _form(line: str) -> str:
    return re.sub(r"\d+|\b[ivxlc]+\b", "#", line)


def _page(lines: Sequence[str], headings: Sequence[tuple[int, str]], width: float) -> str:
    """Return the text of a page: its headings, and its lines joined to paragraphs."""
    titles = dict(_places(lines, headings))
    text = "".join(
        f"{'#' * min(level, 6)} {title}\n\n"
        for place, (level, title) in titles.items()
        if place < 0
    )
    for number, line in enumerate(lines):
        if number in titles:
            level, title = titles[number]
            text += f"\n\n{'#' * min(level, 6)} {title}\n\n"
        else:
            goes_on = len(line) >= FULL_LINE * width and number + 1 not in titles
            text += guard(line) + (" " if goes_on else "\n")
    return text.strip()


def _places(
    lines: Sequence[str], headings: Sequence[tuple[int, str]]
) -> Iterator[tuple[int, tuple[int, str]]]:
    """Yield for each heading the number of its line, or one below 0 if it has none."""
    forms = ["".join(filter(str.isalnum, line.lower())) for line in lines]
    start = 0
    for order, (level, title) in enumerate(headings):
        form = "".join(filter(str.isalnum, title.lower()))
        found = (
            place
            for place in range(start, len(lines))
            if forms[place].endswith(form) and len(forms[place]) <= len(form) + LONGEST_NUMBER
        )
        place = next(found, None)
        if place is None:
            yield order - len(headings), (level, title)
        else:
            yield place, (level, title)
            start = place + 1
