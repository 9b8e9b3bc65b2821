"""What a reader makes of a file: texts, and the marks that chunking reads in them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from foundation.errors import DocumentError

Scalar = str | int | float | bool

# A document is cut and embedded whole: one of 10 million characters takes 0.3 GB meanwhile.
LONGEST_TEXT = 10_000_000
PAGE_MARK = re.compile(r"<!-- page (\d+) -->")  # a comment: Markdown shows none
FENCE = "```"
VERSION_KEY = "version"  # of a document, in its front matter
# Elements of HTML that are no text, or none that belongs to the document's.
UNREAD = (
    *("script", "style", "noscript", "template", "title", "svg", "math", "img", "picture"),
    *("nav", "button", "select", "input", "iframe", "object", "video", "audio", "canvas"),
    *("s", "strike", "del"),  # struck out by the author; ~~ of Markdown becomes <s>
)
# Before a sign that is text and would be read as Markdown; an invisible one that no text needs.
GUARD = "\u2060"
SIGNS = re.compile(r"^(?=#{1,6}[ \t]|\||```|<!--)", re.MULTILINE)


@dataclass(frozen=True)
class Content:
    """One text of a file.

    Attributes:
        text: As the reader made it.
        title: ``None`` if the file has none.
        document_id: ``None`` if the file states none.
        details: Further metadata.
        markdown: Whether the text is Markdown, with headings, tables, code and page marks, by
            which it is cut into passages; otherwise it is plain text.
        front_matter: The fields of a YAML or TOML header.
        properties: Dates that the file states outside of its text, by what they are of.
        margin: Text that is no part of it but may date it: page footers, running titles.
        notice: What the user is told of how it was read; empty if nothing.
    """

    text: str
    title: str | None = None
    document_id: str | None = None
    details: dict[str, Scalar] = field(default_factory=dict)
    markdown: bool = False
    front_matter: Mapping[str, object] = field(default_factory=dict)
    properties: Mapping[str, object] = field(default_factory=dict)
    margin: str = ""
    notice: str = ""


def page_mark(number: int) -> str:
    """A line of Markdown that says where a page, or a slide, begins."""
    return f"<!-- page {number} -->"


def guard(text: str) -> str:
    """Keep the lines of a text from being read as headings, tables, code or page marks."""
    return SIGNS.sub(GUARD, text)


def check_size(path: Path, size: int, most: int, what: str) -> None:
    """Refuse what would take too much memory.

    Args:
        path: The file.
        size: In bytes, of the file or of what is packed in it.
        most: Of such a file.
        what: The format, for the message.

    Raises:
        DocumentError: ``size`` is above ``most``.
    """
    if size > most:
        raise DocumentError(
            f"{path} has {size / 1e6:,.0f} MB, and {what} is read up to {most / 1e6:,.0f} MB; "
            "split it, or give its text as .txt, which may be of any size"
        )
