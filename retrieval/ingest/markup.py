"""HTML and what is turned into HTML on the way: Markdown, reStructuredText, EPUB."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from foundation.errors import DocumentError
from retrieval.ingest import encodings
from retrieval.ingest.content import (
    FENCE,
    GUARD,
    LONGEST_TEXT,
    UNREAD,
    VERSION_KEY,
    Content,
    Scalar,
    check_size,
    guard,
)
from retrieval.ingest.spans import widths, write_out_spans
from retrieval.ingest.tables import to_line

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

LONGEST_HTML = 20_000_000  # bytes; its tree takes 50 times as much memory
PARSER = "lxml"
UNREAD_ROLES = ("navigation", "banner", "contentinfo", "search", "menu", "menubar", "toolbar")
# Where a <footer> is none of the page: by HTML's rules for the role "contentinfo", and what quotes.
PARTS_WITH_FOOTERS = ("article", "aside", "main", "section", "blockquote", "figure", "td")
# Parts of a page that are its navigation where they are made of links.
MADE_OF_LINKS = (
    *("ul", "ol", "dl", "table", "div", "section", "aside", "header", "footer", "p"),
    *("body", "main", "article"),
)
PARTS_OF_TABLES = ("tr", "td", "th", "thead", "tbody", "tfoot", "caption")
LEAST_LINKS = 2
# Share of a part's letters inside links above which it is navigation; jusText, which sorts the
# paragraphs of web pages in this way, takes 0.2 for paragraphs. Lists of a manual whose items
# are links with a short description must stay.
MOST_LINKED = 0.8
# An inline style by which a browser shows nothing, or shows the text as struck out.
HIDING = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)"
    r"|text-decoration(?:-line)?\s*:[^;]*\bline-through\b[^;]*)\s*(?:!\s*important\s*)?(?:;|$)",
    re.IGNORECASE,
)
WHOLE_PAGE = ("html", "body")  # their style may hide them until a script shows them
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
STRUCTURED_DATE = re.compile(r'"(datePublished|dateModified)"\s*:\s*"([^"]+)"')
MALFORMED = "{path}: the front matter {fault}; correct it"
PERMALINK = re.compile(r"^[¶§#\s]*$")


def read_html(path: Path) -> Iterator[Content]:
    """Yield the text of a page, without its navigation.

    Raises:
        DocumentError: it is binary, in no known encoding, too big, or made of links only.
    """
    check_size(path, path.stat().st_size, LONGEST_HTML, "HTML")
    data = path.read_bytes()
    if b"\0" in data and not encodings.has_byte_order_mark(data):
        raise DocumentError(f"{path} holds binary data, not HTML; give a text version of it")
    page = _parse(data)  # bytes, so that <meta charset> is honoured
    if page.contains_replacement_characters:
        raise encodings.unknown_encoding(path)
    title = page.title.get_text(" ", strip=True) if page.title else None
    has_links = page.find("a") is not None
    had_text = any((page.body or page).stripped_strings)
    properties, margin = _page_dates(page), _page_footer(page)
    text = to_markdown(page)
    if had_text and has_links and not text:
        raise DocumentError(f"{path} holds links and no text of its own; leave it out")
    yield Content(text, title=title, markdown=True, properties=properties, margin=margin)


def read_markdown(path: Path) -> Iterator[Content]:
    """Yield the text of a Markdown file, of a big one in parts.

    Raises:
        DocumentError: it is binary, or in no known encoding.
    """
    from retrieval.ingest.front_matter import FrontMatter, split_front_matter
    from retrieval.ingest.markdown import to_html

    title = None
    for number, part in enumerate(encodings.read_texts(path)):
        source = part.lstrip("\ufeff").replace("\r\n", "\n")
        header = FrontMatter(source) if number else split_front_matter(source)
        named = header.fields.get("title")
        text = html_to_markdown(to_html(header.text))
        title = title or (str(named) if isinstance(named, str | int) else None)
        title = title or first_heading(text)
        version = header.fields.get(VERSION_KEY)
        details = dict[str, Scalar]()
        if isinstance(version, str | int | date) and str(version):
            details[VERSION_KEY] = str(version)
        yield Content(
            text,
            title=title,
            markdown=True,
            front_matter=header.fields,
            details=details,
            notice=MALFORMED.format(path=path, fault=header.fault) if header.fault else "",
        )


def read_rst(path: Path) -> Iterator[Content]:
    """Yield the text of a reStructuredText file; directives of Sphinx keep their content.

    Raises:
        DocumentError: it is binary, in no known encoding, or cannot be parsed.
    """
    from retrieval.ingest.restructured import to_html

    check_size(path, path.stat().st_size, LONGEST_TEXT, "reStructuredText")
    source = "".join(encodings.read_texts(path))
    text = html_to_markdown(to_html(path, source))
    yield Content(text, title=first_heading(text), markdown=True)


def read_epub(path: Path) -> Iterator[Content]:
    """Yield the text of a book: its chapters in reading order.

    Raises:
        DocumentError: it is damaged, protected, or holds too much.
    """
    from bs4 import BeautifulSoup

    from retrieval.ingest.office import open_archive

    with open_archive(path, "EPUB") as archive:
        names = set(archive.namelist())
        if "META-INF/rights.xml" in names or "META-INF/sinf.xml" in names:
            raise DocumentError(f"{path} is a protected EPUB; give a version without protection")
        container = BeautifulSoup(archive.read("META-INF/container.xml"), "xml")
        package_name = str(container.find("rootfile")["full-path"])  # type: ignore[index]
        package = BeautifulSoup(archive.read(package_name), "xml")
        files = {
            item["id"]: str(PurePosixPath(package_name).parent / unquote(str(item["href"])))
            for item in package.find_all("item")
        }
        order = [files.get(item["idref"], "") for item in package.find_all("itemref")]
        chapters = [to_markdown(_parse(archive.read(name))) for name in order if name in names]
        title = package.find("title")
        dates = {
            str(tag.get("property") or "date"): str(tag.get_text(strip=True))
            for tag in package.find_all(["date", "meta"])
            if tag.name == "date" or tag.get("property") == "dcterms:modified"
        }
    yield Content(
        "\n\n".join(filter(None, chapters)),
        title=title.get_text(" ", strip=True) if title else None,
        markdown=True,
        properties=dates,
    )


def html_to_markdown(html: str) -> str:
    """Return the text of HTML as Markdown; as `to_markdown`."""
    return to_markdown(_parse(html))


def first_heading(text: str) -> str | None:
    """The first heading of Markdown, as its title."""
    found = HEADING.search(text)
    return found[1] if found else None


def to_markdown(page: "BeautifulSoup") -> str:
    """Return the text of a page as Markdown: headings, paragraphs, lists, tables and code.

    What is not text (images, badges), what is hidden or struck out, and what is navigation (by
    its tag or role, or because it is made of links), is removed from ``page``. Emphasis and the
    targets of links are dropped.
    """
    _remove_unread(page)
    _unfold_layout(page)
    _remove_navigation(page)
    try:
        return _tidy(_converter().convert_soup(page))
    except RecursionError:  # thousands of tags within each other: its text without structure
        return guard(page.get_text("\n", strip=True))


def _parse(html: str | bytes) -> "BeautifulSoup":
    from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning  # heavy, and few runs read HTML

    with warnings.catch_warnings():  # XHTML is read as HTML, for its pages are often neither
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)
        return BeautifulSoup(html, PARSER)


def _remove_unread(page: "BeautifulSoup") -> None:
    from bs4 import Comment, Doctype, ProcessingInstruction

    for note in page.find_all(string=lambda it: isinstance(it, Comment | Doctype)):
        note.extract()
    for note in page.find_all(string=lambda it: isinstance(it, ProcessingInstruction)):
        note.extract()
    _remove(page.find_all(UNREAD))
    _remove(page.find_all(_is_hidden))
    in_parts = _below(page, lambda tag: tag.name in PARTS_WITH_FOOTERS)
    _remove(tag for tag in page.find_all("footer") if id(tag) not in in_parts)
    in_notes = _below(page, lambda tag: tag.name == "sup")
    in_links = _below(page, _is_inner_link)
    for link in page.find_all(_is_inner_link):  # the sign beside a heading; a footnote's mark
        if id(link) in in_links:
            continue
        words = link.get_text()
        if words and (PERMALINK.match(words) or id(link) in in_notes or link.find("sup")):
            link.decompose()


def _remove(tags: "Iterable[Tag]") -> None:
    for tag in tags:
        if not tag.decomposed:  # as part of another
            tag.decompose()


def _page_dates(page: "BeautifulSoup") -> dict[str, object]:
    """Return what a page's <meta> tags and its data for search engines say, by name."""
    stated: dict[str, object] = {}
    for tag in page.find_all("meta", content=True):
        name = tag.get("property") or tag.get("name") or tag.get("itemprop") or ""
        stated[re.split(r"[:.](?=\w+$)", str(name))[-1]] = str(tag["content"])
    for tag in page.find_all("script", type="application/ld+json"):
        for name, value in STRUCTURED_DATE.findall(tag.get_text()):
            stated[name] = value
    return stated


def _page_footer(page: "BeautifulSoup") -> str:
    tags = page.find_all(lambda tag: tag.name == "footer" or tag.get("role") == "contentinfo")
    return "\n".join(tag.get_text("\n" if tag.find("p") else " ", strip=True) for tag in tags)


def _below(page: "BeautifulSoup", is_outer: "Callable[[Tag], bool]") -> set[int]:
    """Return the ids of the tags that stand within such a tag.

    One pass: to climb from each tag, or to search in each, is quadratic where tags are nested.
    """
    below: set[int] = set()
    for tag in page.find_all(True):  # parents come before what is in them
        parent = tag.parent
        if parent is not None and (id(parent) in below or is_outer(parent)):
            below.add(id(tag))
    return below


def _add_up(tags: "Sequence[Tag]", counts: Counter[int]) -> None:
    """Add the counts of tags, by their ids, to those of all tags that they stand within."""
    for tag in reversed(tags):  # what is in a tag comes before it
        counts[id(tag.parent)] += counts[id(tag)]


def _is_inner_link(tag: "Tag") -> bool:
    return tag.name == "a" and str(tag.get("href", "")).startswith("#")


def _is_hidden(tag: "Tag") -> bool:
    return (
        tag.has_attr("hidden")
        or tag.get("aria-hidden") == "true"
        or tag.get("role") in UNREAD_ROLES
        or (tag.name not in WHOLE_PAGE and HIDING.search(str(tag.get("style", ""))) is not None)
    )


def _unfold_layout(page: "BeautifulSoup") -> None:
    """Make plain blocks of the tables that are the layout of a page or of a note."""
    tables = page.find_all("table")
    held = Counter(id(table) for table in tables)
    _add_up(page.find_all(True), held)
    layout = {id(table) for table in tables if held[id(table)] > 1 or not _is_data(table)}
    unfolded = _below(page, lambda tag: id(tag) in layout)
    for tag in page.find_all(("table", *PARTS_OF_TABLES)):
        if id(tag) in layout or id(tag) in unfolded:
            tag.name = "div"
    _remove(tag for tag in page.find_all(("colgroup", "col")) if id(tag) in unfolded)


def _is_data(table: "Tag") -> bool:
    """Whether a table without others in it is one, and not layout."""
    rows = table.find_all("tr")
    if len(rows) < 2:  # noqa: PLR2004
        return False
    return sorted(widths(table))[len(rows) // 2] > 1


def _remove_navigation(page: "BeautifulSoup") -> None:
    tags = page.find_all(True)
    in_links = _below(page, lambda tag: tag.name == "a" and tag.has_attr("href"))
    letters: Counter[int] = Counter()  # in each tag, by its id
    for text in page.strings:
        letters[id(text.parent)] += _letters(text)
    _add_up(tags, letters)
    links = Counter(id(tag) for tag in page.find_all("a", href=True))
    linked = Counter({link: letters[link] for link in links if link not in in_links})
    _add_up(tags, links)
    _add_up(tags, linked)
    _remove(
        tag
        for tag in tags
        if tag.name in MADE_OF_LINKS
        and links[id(tag)] >= LEAST_LINKS
        and linked[id(tag)] >= MOST_LINKED * letters[id(tag)]
        and not (tag.name == "table" and tag.find("th"))
    )


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))


@cache
def _converter() -> Any:  # markdownify has no type information for its methods
    from markdownify import ATX, MarkdownConverter

    class Converter(MarkdownConverter):
        """Markdown of what is read: no emphasis, no link targets, fenced code."""

        def process_text(self, el: Any, parent_tags: Any = None) -> str:
            tags = parent_tags or set()
            text = str(super().process_text(el, parent_tags=tags))  # type: ignore[misc]
            if "pre" in tags:
                return text
            before = el.previous_sibling  # a text, too, where what stood between was removed
            if isinstance(before, str) and before[-1:].isspace():
                text = text.lstrip(" ")
            return guard(text)

        def convert_td(self, el: Any, text: str, parent_tags: Any) -> str:
            el.string = " ".join(text.replace(GUARD, "").split())
            return to_line([el.string]).removeprefix("|")

        convert_th = convert_td

        def convert_table(self, el: Any, text: str, parent_tags: Any) -> str:
            return f"\n\n{write_out_spans(el, text).strip()}\n\n"

        def convert_pre(self, el: Any, text: str, parent_tags: Any) -> str:
            code = el.get_text().strip("\n").replace(FENCE, "'''")
            return f"\n\n{FENCE}\n{code}\n{FENCE}\n\n" if code.strip() else ""

        def convert_sup(self, el: Any, text: str, parent_tags: Any) -> str:
            before = el.previous_sibling
            after_digit = isinstance(before, str) and before[-1:].isdigit()
            power = after_digit and text.strip("-\u2212").isdigit()
            return f"^{text}" if power else text  # 10^6 is not 106

        def convert_dt(self, el: Any, text: str, parent_tags: Any) -> str:
            return f"\n\n{' '.join(text.split())}\n" if text.strip() else ""

        def convert_dd(self, el: Any, text: str, parent_tags: Any) -> str:
            return f"{text.strip()}\n\n" if text.strip() else ""

    return Converter(
        heading_style=ATX,
        bullets="-",
        strip=["a", "b", "strong", "i", "em", "code", "kbd", "samp", "sub"],
        escape_asterisks=False,
        escape_underscores=False,
        escape_misc=False,
        table_infer_header=True,
        newline_style="backslash",
        wrap=True,  # a line end of the source is no more than a space
        wrap_width=None,
    )


def _tidy(text: str) -> str:
    lines = [line.rstrip().removesuffix("\\") for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
