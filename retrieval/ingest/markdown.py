"""Markdown to HTML by markdown-it-py; placeholders such as ``<n>`` and ``<host:path>`` are text."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

from lxml.html import defs
from markdown_it import MarkdownIt
from markdown_it.common.html_blocks import block_names
from markdown_it.common.html_re import attribute
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.html_block import html_block
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline, autolink
from markdown_it.token import Token

from retrieval.ingest.content import UNREAD

ELEMENTS = defs.tags | set(block_names) | set(UNREAD)  # neither library knows all of HTML
# Elements that say something without attributes and without an end tag: by HTML's rules it may be
# left out, or there is none.
ALONE = (
    *("br", "hr", "wbr", "col", "p", "li", "dt", "dd", "rt", "rp"),
    *("caption", "colgroup", "thead", "tbody", "tfoot", "tr", "td", "th"),
)
# A comment or declaration, else a tag; of one that is malformed the name alone.
TAG = re.compile(
    r"<!--.*?(?:-->|\Z)|<[!?][^>]*"
    rf"|<(?P<end>/?)(?P<name>[A-Za-z][^\s/<>]*)(?P<rest>{attribute}*\s*/?>)?",
    re.DOTALL,
)
# By Markdown any word with a colon behind it begins an address.
ADDRESS = re.compile(r"<(?:[a-z][a-z0-9+.-]*://|mailto:|[^\s<>@]+@[^\s<>@]+\.)", re.IGNORECASE)


def to_html(source: str) -> str:
    """Return Markdown as HTML.

    Of the tags that stand in it, those are kept that are HTML's: their name is that of an
    element, and a start tag without attributes has an end tag, unless it needs none. The others
    are placeholders (``--title <title>``), and become text, and so does what only looks like an
    address (``<host:path>``).
    """
    return str(_parser().render(source))


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    parser.block.ruler.at(
        "html_block", _html_block, {"alt": ["paragraph", "reference", "blockquote"]}
    )
    parser.inline.ruler.at("autolink", _autolink)
    parser.core.ruler.after("inline", "placeholders", _escape_placeholders)
    return parser


def _html_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Read a block of HTML, unless it begins with a placeholder: what follows is Markdown."""
    line = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    tag = TAG.match(line)
    if tag and tag["name"] and tag["name"].lower() not in ELEMENTS:
        return False
    return html_block(state, start, end, silent)


def _autolink(state: StateInline, silent: bool) -> bool:
    return bool(ADDRESS.match(state.src, state.pos)) and autolink(state, silent)


def _escape_placeholders(state: StateCore) -> None:
    ends: Counter[str] = Counter()  # end tags after a place, by their names
    for token in reversed(list(_html(state.tokens))):
        tags = list(TAG.finditer(token.content))
        kept = [_is_html(tag, ends) for tag in reversed(tags)][::-1]
        if not all(kept):
            pieces, last = [], 0
            for tag, is_html in zip(tags, kept, strict=True):
                if not is_html:
                    pieces += [token.content[last : tag.start()], "&lt;"]
                    last = tag.start() + 1
            token.content = "".join([*pieces, token.content[last:]])


def _html(tokens: Iterable[Token]) -> Iterator[Token]:
    """Yield the tokens of HTML, those within paragraphs, too."""
    for token in tokens:
        if token.type in {"html_block", "html_inline"}:
            yield token
        yield from _html(token.children or ())


def _is_html(tag: re.Match[str], ends: Counter[str]) -> bool:
    """Whether a tag is one of HTML, and no placeholder.

    Args:
        tag: As found by ``TAG``; the last one of a text first.
        ends: The end tags after it that no start tag after it has; changed.
    """
    if tag["name"] is None:
        return True
    name = tag["name"].lower()
    if name not in ELEMENTS:
        return False
    if tag["end"]:
        ends[name] += 1
        return True
    has_end = ends[name] > 0
    ends[name] -= has_end
    bare = tag["rest"] is not None and tag["rest"].strip() == ">"
    return has_end or name in ALONE or not bare
