"""Cut documents into passages: the nodes that are embedded, retrieved and cited."""

from functools import cache
from itertools import pairwise
from typing import Any

from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import (
    Document,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)

from retrieval.embedding import packaged_model
from retrieval.ingest.documents import TRUST_KEY, hidden_keys

CHUNK_TOKENS = 200  # the embedding model reads 256 word pieces: the rest is for the title
OVERLAP_TOKENS = 30  # one sentence of ordinary length; a longer one is not repeated
# A word of more than 100 characters is one unknown piece to the tokenizer; counting at least one
# piece for ten characters keeps base64 and the like from becoming one endless passage.
CHARACTERS_PER_TOKEN = 10
ABBREVIATIONS = {
    *("dr", "prof", "mr", "mrs", "ms", "st", "sr", "jr", "rev", "gen", "col", "sgt", "lt", "capt"),
    *("e.g", "i.e", "etc", "vs", "cf", "al", "ca", "approx", "no", "vol", "fig", "p", "pp", "ed"),
    *("u.s", "u.k", "inc", "ltd", "co", "corp", "jan", "feb", "aug", "sept", "oct", "nov", "dec"),
}


def split(document: Document) -> list[TextNode]:
    """Cut a document into passages of whole sentences, about 200 word pieces each.

    A document within that size stays whole, and its passage has the document's id; the passages of
    a longer one add their place to it. The same content ingested again gives the same ids.
    """
    texts = _splitter().split_text(document.text)
    ids = [document.id_] if len(texts) == 1 else [f"{document.id_}:{n}" for n in range(len(texts))]
    return [
        passage(node_id, document.id_, text, document.metadata)
        for node_id, text in zip(ids, texts, strict=True)
    ]


def split_text(
    text: str, document_id: str, title: str = "", trust: float | None = None
) -> list[NodeWithScore]:
    """Cut a text that is given with a question into passages; they have no score."""
    metadata: dict[str, Any] = {"title": title, "content_hash": ""}
    if trust is not None:
        metadata[TRUST_KEY] = trust
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


@cache
def _splitter() -> SentenceSplitter:
    from tokenizers import Tokenizer  # only ingestion needs it

    tokenizer = Tokenizer.from_file(str(packaged_model() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def tokens(text: str) -> range:
        pieces = len(tokenizer.encode(text, add_special_tokens=False).ids)
        return range(max(pieces, len(text) // CHARACTERS_PER_TOKEN))

    # LlamaIndex's own sentence tokenizer loads NLTK data, and downloads it where the variable
    # NLTK_DATA names another folder; Punkt itself needs none.
    return SentenceSplitter(
        chunk_size=CHUNK_TOKENS,
        chunk_overlap=OVERLAP_TOKENS,
        paragraph_separator="\n\n",
        tokenizer=tokens,
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
