"""An answer's words, each with the source that it comes from, and what its sentences rest on."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import regex
from markupsafe import Markup, escape

from app.page.markup import MarkedText, cut
from control.decoding.trace import Choice, TokenTrace

LEAST_SHARE = 0.01  # smaller ones are shown as "< 1 %"
SOURCES = {"context": "from the passages", "memory": "from memory", "both": "both say it"}
BOUNDARY = regex.compile(r"(?V1w)\b")  # of words, by Unicode's rules (UAX 29): 3.5 is one
SENTENCE = Markup('<span class="sentence" data-sentence="{}" data-cites="{}">{}</span>')
UNSUPPORTED = "no passage supports this"


@dataclass(frozen=True)
class CitedSentence:
    """A sentence of an answer.

    Attributes:
        start: Its first character in the answer.
        end: The character after its last one.
        numbers: Of the passages that support it, from 1; empty where none does.
    """

    start: int
    end: int
    numbers: tuple[int, ...]


def to_html(
    text: str,
    tokens: Sequence[TokenTrace],
    sentences: Sequence[CitedSentence] = (),
    place: str = "",
    live: bool = False,
) -> Markup:
    """Render an answer's Markdown, its words coloured by source.

    Args:
        text: The answer.
        tokens: Its tokens; without any, no word has a source.
        sentences: Those with something to cite, in order.
        place: Names the turn in the links to its passages.
        live: Whether more of it will come; its words explain themselves later.
    """
    marked, words = MarkedText(text), _Words(text, tokens, live)
    spans = [(sentence.start, sentence.end) for sentence in sentences]
    # A sentence may end in markup, so its citations follow the last of its text.
    last = {
        number: end
        for piece in marked.pieces
        for _, end, number in cut(piece.start, piece.start + len(piece.text), spans)
    }

    def draw(piece: str, start: int) -> Markup:
        drawn = Markup("")
        for left, right, number in cut(start, start + len(piece), spans):
            told = piece[left - start : right - start]
            if number is None:
                drawn += words.html(told, left)
                continue
            sentence = sentences[number]
            inner = words.html(told, left, supported=bool(sentence.numbers))
            cites = " ".join(f"{place}-{cited}" for cited in sentence.numbers)
            drawn += SENTENCE.format(number, cites, inner)
            if last[number] == right:
                drawn += _citations(sentence, place)
        return drawn

    return marked.html(draw)


class _Words:
    """Draws words by the tokens that made them."""

    def __init__(self, text: str, tokens: Sequence[TokenTrace], live: bool) -> None:
        self._tokens = [token for token in tokens if token.text]
        joined = "".join(token.text for token in self._tokens)
        before = max(joined.find(text), 0)  # the answer is the tokens' text without blanks around
        self._ends = [end - before for end in accumulate(len(each.text) for each in self._tokens)]
        self._live, self._first = live, True

    def html(self, text: str, start: int, supported: bool = True) -> Markup:
        """Draw a piece of the answer that begins at a character of it.

        What was written with the passages and is supported by none is not drawn as from them.
        """
        drawn, at = Markup(""), start
        for word in BOUNDARY.split(text):
            token = self._decisive(at, at + len(word)) if _worded(word) else None
            drawn += escape(word) if token is None else self._word(word, token, supported)
            at += len(word)
        return drawn

    def _decisive(self, start: int, end: int) -> TokenTrace | None:
        """The token that decided a word: the first on which the branches differ, else the first."""
        first = bisect_right(self._ends, start)
        own = self._tokens[first : bisect_right(self._ends, end - 1) + 1]
        differing = (token for token in own if token.source != "both")
        return next(differing, own[0] if own else None)

    def _word(self, word: str, token: TokenTrace, supported: bool) -> Markup:
        if self._live:
            return Markup('<span class="token {}">{}</span>').format(token.source, word)
        gain = "" if token.confidence_gain is None else f"{token.confidence_gain:+.2f}"
        tabindex, self._first = (0 if self._first else -1), False
        kind, told = f"token {token.source}", SOURCES[token.source]
        if token.source == "context" and not supported:
            kind, told = "token", UNSUPPORTED
        return Markup(
            '<span class="{}" tabindex="{}" data-told="{}" data-gain="{}"'
            ' data-passages="{}" data-memory="{}">{}</span>'
        ).format(
            kind,
            tabindex,
            told,
            gain,
            _choices(token.context_choices),
            _choices(token.memory_choices),
            word,
        )


def percent(share: float) -> str:
    """A share in [0, 1] in words."""
    return f"{100 * share:.0f} %" if share >= LEAST_SHARE else "< 1 %"


def _worded(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _citations(sentence: CitedSentence, place: str) -> Markup:
    if not sentence.numbers:
        return Markup(
            '<span class="cite unsupported" data-told="{0}"><span class="unseen">({0})</span>'
            '<span aria-hidden="true">?</span></span>'
        ).format(UNSUPPORTED)
    link = Markup('<a class="cite" href="#{}-{}" aria-label="passage {}">{}</a>')
    return Markup("").join(
        link.format(place, number, number, number) for number in sentence.numbers
    )


def _choices(choices: Sequence[Choice]) -> str:
    return ", ".join(
        f"{choice.text.strip() or repr(choice.text)} {percent(choice.probability)}"
        for choice in choices
    )
