"""Markdown as HTML in which every character still knows its place in the text.

Raw HTML in the text is shown as text, and nothing is fetched: an image is its description.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

Draw = Callable[[str, int], Markup]
"""Renders a piece of literal text, given with the place of its first character in the source"""

DEEPEST = 6  # HTML has no heading below h6
BELOW = 2  # a text's headings stand below those of the page and of the question


@dataclass(frozen=True)
class Piece:
    """A piece of literal text, without any markup.

    Attributes:
        text: What is shown.
        start: Its first character in the source.
    """

    text: str
    start: int


class MarkedText:
    """A parsed text.

    Attributes:
        source: The text, in Markdown.
    """

    def __init__(self, source: str) -> None:
        """Parse a text."""
        self.source = source
        self._tokens = _parser().parse(source)
        self._lines = [0]
        for line in source.split("\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)
        self._at = 0
        for token in self._tokens:
            self._place(token)

    @cached_property
    def pieces(self) -> Sequence[Piece]:
        """All literal text, in order."""
        return [
            piece
            for block in self._tokens
            for token in (block, *(block.children or ()))
            for piece in token.meta.get("pieces", ())
        ]

    def html(self, draw: Draw) -> Markup:
        """Render the text, each piece of it by ``draw``."""
        parser = _parser()
        return Markup(parser.renderer.render(self._tokens, parser.options, {"draw": draw}))  # noqa: S704 each text is escaped

    def _place(self, token: Token) -> None:
        """Find where the literal text of a token stands in the source."""
        if token.map and token.type in {"inline", "fence"}:
            first = token.map[0] + (token.type == "fence")  # the line after the fence
            self._at = max(self._at, self._lines[min(first, len(self._lines) - 1)])
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(int(token.tag[1]) + BELOW, DEEPEST)}"
        elif token.type == "link_open":
            token.attrs |= {"rel": "noopener noreferrer nofollow", "target": "_blank"}
        elif token.type in LITERAL:
            token.meta["pieces"] = list(self._pieces(token.content))
        for child in token.children or ():
            if token.type != "image":
                self._place(child)

    def _pieces(self, text: str) -> Sequence[Piece]:
        """Cut a text where the source has something else in between."""
        found = self.source.find(text, self._at)
        if found >= 0:
            self._at = found + len(text)
            return [Piece(text, found)]
        # Of indented lines, escaped signs and entities the source has no copy in one piece.
        pieces: list[Piece] = []
        for character in text:
            at = self.source.find(character, self._at)
            at = self._at if at < 0 else at
            if pieces and at == pieces[-1].start + len(pieces[-1].text):
                pieces[-1] = Piece(pieces[-1].text + character, pieces[-1].start)
            else:
                pieces.append(Piece(character, at))
            self._at = at + 1
        return pieces


def cut(
    start: int, end: int, spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, int | None]]:
    """Cut a range at the ends of spans.

    Args:
        start: The range's first character.
        end: The character after its last one.
        spans: In order, none over another.

    Yields:
        Each part (start, end, number of its span or ``None``).
    """
    for number, (first, last) in enumerate(spans):
        left, right = max(start, first), min(end, last)
        if left >= right:
            continue
        if start < left:
            yield start, left, None
        yield left, right, number
        start = right
    if start < end:
        yield start, end, None


def _drawn(token: Token, env: dict[str, Any]) -> Markup:
    return Markup("").join(env["draw"](piece.text, piece.start) for piece in token.meta["pieces"])


class _Renderer(RendererHTML):
    """Hands each literal text to ``env["draw"]``."""

    def text(self, tokens: Sequence[Token], at: int, _options: Any, env: Any) -> str:
        return _drawn(tokens[at], env)

    def code_inline(self, tokens: Sequence[Token], at: int, _options: Any, env: Any) -> str:
        return f"<code>{_drawn(tokens[at], env)}</code>"

    def fence(self, tokens: Sequence[Token], at: int, _options: Any, env: Any) -> str:
        return f'<pre tabindex="0"><code>{_drawn(tokens[at], env)}</code></pre>\n'

    def image(self, tokens: Sequence[Token], at: int, _options: Any, _env: Any) -> str:
        return str(escape(tokens[at].content))


LITERAL = frozenset({"text", "code_inline", "fence"})


def _parser() -> MarkdownIt:
    """A parser of its own for each call: one must not be used by several threads."""
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}, renderer_cls=_Renderer)
    # An indented line of a plain text is no code.
    return parser.enable(["table", "strikethrough"]).disable(["code", "html_block", "html_inline"])
