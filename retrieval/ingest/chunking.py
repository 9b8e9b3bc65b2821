"""Cut documents into passages: the nodes that are embedded, retrieved and cited."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import (
    Document,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)

from retrieval.embedding import packaged_model
from retrieval.ingest.cleaning import is_junk
from retrieval.ingest.content import FENCE
from retrieval.ingest.documents import MARKDOWN, TRUST_KEY, hidden_keys
from retrieval.ingest.sections import Kind, Section, read_sections

CHUNK_TOKENS = 200  # the embedding model reads 256 word pieces: the rest is for the title
HEADING_TOKENS = 40  # of the 200, where a passage begins with its headings
HEADING_CHARACTERS = 120  # of those headings, about 30 word pieces
OVERLAP_TOKENS = 30  # one sentence of ordinary length; a longer one is not repeated
# A section below this is merged with its neighbours of the same page: a passage of one short
# sentence is found for little, and tells the model less.
TINY_TOKENS = 50
NUMBERING = re.compile(r"^(?:\d+\.)*\d*[.:)]?\s+(?=\S)")
PAGE_KEY = "page"
HEADING_KEY = "heading"
# A word of more than 100 characters is one unknown piece to the tokenizer; counting at least one
# piece for ten characters keeps base64 and the like from becoming one endless passage.
CHARACTERS_PER_TOKEN = 10
ABBREVIATIONS = {
    *("dr", "prof", "mr", "mrs", "ms", "st", "sr", "jr", "rev", "gen", "col", "sgt", "lt", "capt"),
    *("e.g", "i.e", "etc", "vs", "cf", "al", "ca", "approx", "no", "vol", "fig", "p", "pp", "ed"),
    *("u.s", "u.k", "inc", "ltd", "co", "corp", "jan", "feb", "aug", "sept", "oct", "nov", "dec"),
}


class Piece(NamedTuple):
    """A part of a passage: its text, word pieces, kind and page."""

    text: str
    tokens: int
    kind: Kind
    page: int | None


@dataclass
class Draft:
    """A passage in the making: pieces under one heading."""

    path: tuple[str, ...]
    pieces: list[Piece] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Its word pieces, without those of its headings."""
        return sum(piece.tokens for piece in self.pieces)

    @property
    def page(self) -> int | None:
        """On which its pieces are."""
        return self.pieces[0].page if self.pieces else None


def split(document: Document) -> list[TextNode]:
    """Cut a document into passages of whole sentences, about 200 word pieces each.

    A plain text within that size stays whole. Markdown is cut at its headings: a passage does not
    cross one unless the sections are tiny, and no page but to end a sentence. It begins with the
    headings that it stands under, and its metadata hold them in ``heading`` and its page in
    ``page``. The rows of a table name their
    columns; code stays in its lines. Parts without words are dropped, and repeated passages.

    If there is one passage it has the document's id; several add their place to it. The same
    content ingested again gives the same ids.
    """
    if document.text_resource is not None and document.text_resource.mimetype == MARKDOWN:
        drafts = _structured(document.text, str(document.metadata.get("title", "")))
    else:
        texts = _splitter(CHUNK_TOKENS).split_text(document.text)
        drafts = [(text, {}) for text in texts if not is_junk(text)] or [(t, {}) for t in texts]
    kept = list({text: (text, own) for text, own in drafts}.values())
    ids = [document.id_] if len(kept) == 1 else [f"{document.id_}:{n}" for n in range(len(kept))]
    return [
        passage(node_id, document.id_, text, {**document.metadata, **own})
        for node_id, (text, own) in zip(ids, kept, strict=True)
    ]


def split_text(
    text: str, document_id: str, title: str = "", trust: float | None = None, date: str = ""
) -> list[NodeWithScore]:
    """Cut a text that is given with a question into passages; they have no score."""
    metadata: dict[str, Any] = {"title": title, "content_hash": ""}
    metadata |= {} if trust is None else {TRUST_KEY: trust}
    metadata |= {"date": date} if date else {}
    document = Document(id_=document_id, text=text, metadata=metadata)
    return [NodeWithScore(node=node) for node in split(document)]


def passage(node_id: str, document_id: str, text: str, metadata: dict[str, Any]) -> TextNode:
    """Return the node of a passage; ``metadata`` must hold ``title`` and ``content_hash``."""
    return TextNode(
        id_=node_id,
        text=text,
        metadata=dict(metadata),
        excluded_embed_metadata_keys=hidden_keys(metadata),
        excluded_llm_metadata_keys=hidden_keys(metadata),
        metadata_template="{value}",
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document_id)},
    )


def _structured(text: str, title: str) -> list[tuple[str, dict[str, Any]]]:
    """Cut Markdown at its headings; return the texts of the passages and their own metadata."""
    drafts = [draft for section in read_sections(text) for draft in _fill(section)]
    merged = list(_merge_tiny(drafts))
    return [_write(draft, title) for draft in merged if not _is_junk(draft)] or [
        _write(draft, title) for draft in merged
    ]


def _is_junk(draft: Draft) -> bool:
    """Whether a passage has no words; the rows of a table say what their numbers are."""
    return all(piece.kind is not Kind.ROW and is_junk(piece.text) for piece in draft.pieces)


def _fill(section: Section) -> Iterator[Draft]:
    """Fill the blocks of a section into passages, in order; none goes on over a page."""
    room = CHUNK_TOKENS - (HEADING_TOKENS if section.path else 0)
    draft = Draft(section.path)
    for piece in _pieces(section, room):
        if draft.pieces and (piece.page != draft.page or draft.tokens + piece.tokens > room):
            yield draft
            draft = Draft(section.path)
        draft.pieces.append(piece)
    if draft.pieces:
        yield draft


def _pieces(section: Section, room: int) -> Iterator[Piece]:
    for kind, blocks in _runs(section):
        if kind is Kind.PROSE:
            yield from _prose(blocks, room)
            continue
        for text, page in blocks:
            if (tokens := _count(text)) <= room:
                yield Piece(text, tokens, kind, page)
            elif kind is Kind.CODE:
                yield from (Piece(t, _count(t), kind, page) for t in _cut_code(text, room))
            else:
                parts = _splitter(room).split_text(text)
                yield from (Piece(part, _count(part), kind, page) for part in parts)


def _runs(section: Section) -> Iterator[tuple[Kind, list[tuple[str, int | None]]]]:
    """Group neighbouring blocks of one kind."""
    run: list[tuple[str, int | None]] = []
    kind = Kind.PROSE
    for block in section.blocks:
        if run and block.kind is not kind:
            yield kind, run
            run = []
        kind = block.kind
        run.append((block.text, block.page))
    if run:
        yield kind, run


def _prose(blocks: Sequence[tuple[str, int | None]], room: int) -> Iterator[Piece]:
    """Cut the paragraphs of each page by sentences."""
    for text, page in _by_page(blocks):
        parts = _splitter(room).split_text(text)
        yield from (Piece(part, _count(part), Kind.PROSE, page) for part in parts)


def _by_page(blocks: Sequence[tuple[str, int | None]]) -> Iterator[tuple[str, int | None]]:
    """Join the paragraphs of each page; a sentence that goes on over it stays where it began."""
    text, at = blocks[0]
    for block, page in blocks[1:]:
        if page == at:
            text += f"\n\n{block}"
            continue
        rest = block
        if text[-1].isalnum() and block[0].islower():
            line = block.split("\n", 1)[0]  # it ends a paragraph of the page
            end = _sentences(line)[0]
            text += f" {end.rstrip()}"
            rest = block[len(end) :].lstrip()
        if rest:
            yield text, at
            text, at = rest, page
    yield text, at


def _cut_code(text: str, room: int) -> Iterator[str]:
    """Cut code between its lines; a line that is too long is cut where it must be."""
    lines: list[str] = []
    used = 0
    for line in text.split("\n"):
        tokens = _count(line)
        for part in [line] if tokens <= room else _splitter(room).split_text(line):
            tokens = tokens if part is line else _count(part)
            if lines and used + tokens > room:
                yield "\n".join(lines)
                lines, used = [], 0
            lines.append(part)
            used += tokens
    if lines:
        yield "\n".join(lines)


def _merge_tiny(drafts: Iterable[Draft]) -> Iterator[Draft]:
    """Merge passages of which one is tiny into its neighbour on the same page."""
    last: Draft | None = None
    for draft in drafts:
        if last is not None and _fits(last, draft):
            shared = _shared(last.path, draft.path)
            last = Draft(shared, [*_under(last, shared), *_under(draft, shared)])
            continue
        if last is not None:
            yield last
        last = draft
    if last is not None:
        yield last


def _fits(one: Draft, other: Draft) -> bool:
    path = _shared(one.path, other.path)
    room = CHUNK_TOKENS - (HEADING_TOKENS if path else 0)
    return (
        min(one.tokens, other.tokens) < TINY_TOKENS
        and one.page == other.page
        and one.tokens + other.tokens + _count(" ".join((*one.path, *other.path))) <= room
    )


def _shared(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    pairs = enumerate(zip(one, other, strict=False))
    length = next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
    return tuple(one[:length])


def _under(draft: Draft, path: Sequence[str]) -> list[Piece]:
    own = draft.path[len(path) :]
    if not own:
        return draft.pieces
    heading = " > ".join(own)
    return [Piece(heading, _count(heading), Kind.PROSE, draft.page), *draft.pieces]


def _write(draft: Draft, title: str) -> tuple[str, dict[str, Any]]:
    parts: list[str] = []
    for before, piece in pairwise([None, *draft.pieces]):
        assert piece is not None  # noqa: S101 - pairwise does not tell mypy
        text = f"{FENCE}\n{piece.text}\n{FENCE}" if piece.kind is Kind.CODE else piece.text
        row = before is not None and before.kind is piece.kind is Kind.ROW
        parts += ["" if before is None else "\n" if row else "\n\n", text]
    own: dict[str, Any] = {}
    path = [name for name in draft.path if _letters(name) != _letters(title)]
    if path:
        own[HEADING_KEY] = " > ".join(path)
        while len(path) > 1 and len(" > ".join(path)) > HEADING_CHARACTERS:
            del path[0]
        parts.insert(0, f"{' > '.join(path)[:HEADING_CHARACTERS]}\n\n")
    if draft.page is not None:
        own[PAGE_KEY] = draft.page
    return "".join(parts), own


def _letters(title: str) -> str:
    """A title without the number before it, and signs, to compare it with another form of it."""
    return "".join(filter(str.isalnum, NUMBERING.sub("", title.lower())))


def _count(text: str) -> int:
    return len(_tokens(text))


def _tokens(text: str) -> range:
    pieces = len(_tokenizer().encode(text, add_special_tokens=False).ids)
    return range(max(pieces, len(text) // CHARACTERS_PER_TOKEN))


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer  # only ingestion needs it

    tokenizer = Tokenizer.from_file(str(packaged_model() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@lru_cache(maxsize=4)
def _splitter(tokens: int) -> SentenceSplitter:
    # LlamaIndex's own sentence tokenizer loads NLTK data, and downloads it where the variable
    # NLTK_DATA names another folder; Punkt itself needs none.
    return SentenceSplitter(
        chunk_size=tokens,
        chunk_overlap=OVERLAP_TOKENS,
        paragraph_separator="\n\n",
        tokenizer=_tokens,
        chunking_tokenizer_fn=_sentences,
    )


def _sentences(text: str) -> list[str]:
    """Cut text into sentences whose concatenation is the text again."""
    starts = [start for start, _ in _punkt().span_tokenize(text)]
    edges = [0, *starts[1:], len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@cache
def _punkt() -> Any:  # nltk has no type information
    # Importing nltk takes 0.7 s, and only documents above one passage need it.
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    return PunktSentenceTokenizer(parameters)
