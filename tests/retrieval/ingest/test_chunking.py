import socket
from itertools import pairwise
from pathlib import Path

import pytest
from llama_index.core.schema import Document, MediaResource, MetadataMode
from tokenizers import Tokenizer

from retrieval.embedding import packaged_model
from retrieval.ingest.chunking import split
from retrieval.ingest.documents import MARKDOWN, read

LIMIT = 256  # word pieces that the embedding model reads


def document(tmp_path: Path, text: str) -> Document:
    path = tmp_path / "report.txt"
    path.write_text(text)
    return next(read([path], lambda _: None))


def pieces(text: str) -> int:
    tokenizer = Tokenizer.from_file(str(packaged_model() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return len(tokenizer.encode(text).ids)


def test_short_document_stays_whole(tmp_path: Path) -> None:
    text = "The Rhine is long. It flows through six countries.\n\nThe Elbe is shorter."
    (node,) = split(document(tmp_path, text))
    assert node.text == text


def test_long_document_is_cut_between_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("the splitter used the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "no nltk data here"))
    sentences = [f"Dr. Smith measured river {n} of the U.S. for us." for n in range(200)]
    source = document(tmp_path, " ".join(sentences))
    nodes = split(source)
    assert len(nodes) > 10
    for node in nodes:
        assert node.text.startswith("Dr. Smith")
        assert node.text.endswith("for us.")
        assert pieces(node.get_content(MetadataMode.EMBED)) <= LIMIT
        assert node.ref_doc_id == source.id_
        assert node.metadata == source.metadata
    for n, sentence in enumerate(sentences):
        assert any(sentence in node.text for node in nodes), n
    overlaps = [a.text.split(". D")[-1] in b.text for a, b in pairwise(nodes)]
    assert all(overlaps)


def test_ids_are_stable_and_distinct(tmp_path: Path) -> None:
    text = "The Rhine is long. " * 200
    ids = [node.node_id for node in split(document(tmp_path, text))]
    assert ids == [node.node_id for node in split(document(tmp_path, text))]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "text",
    [
        "".join(chr(0x4E00 + n % 2_000) for n in range(6_000)),
        ";".join(f"river,{n},long" for n in range(2_000)),
        "/".join(f"the-long-path/number-{n}" for n in range(1_000)),
    ],
)
def test_text_without_sentences_is_still_cut(tmp_path: Path, text: str) -> None:
    nodes = split(document(tmp_path, text))
    assert len(nodes) > 1
    assert "".join(node.text for node in nodes).count(text[0]) >= text.count(text[0])
    assert max(len(node.text) for node in nodes) <= 2_000


def test_a_passage_stays_on_its_page_but_for_the_end_of_a_sentence() -> None:
    rivers = {n: f"River {n} rises in the hills of its country. " * 3 for n in (1, 2, 3)}
    text = (
        f"# Rivers\n\n<!-- page 1 -->\n\n{rivers[1]}It was measured by\n\n"
        f"<!-- page 2 -->\n\na boat of the town. {rivers[2]}\n\n"
        f"<!-- page 3 -->\n\n{rivers[3]}\n\n| Bank | Side |\n| --- | --- |\n| Low | left |\n\n"
        "<!-- page 4 -->\n\n| Bank | Side |\n| --- | --- |\n| High | right |"
    )
    resource = MediaResource(text=text, mimetype=MARKDOWN)
    source = Document(text_resource=resource, metadata={"title": "", "content_hash": ""})
    nodes = split(source)
    assert [node.metadata["page"] for node in nodes] == [1, 2, 3, 4]
    for node, number in zip(nodes, rivers, strict=False):
        others = {f"River {other}" for other in rivers if other != number}
        assert f"River {number}" in node.text
        assert not any(other in node.text for other in others)
    assert nodes[0].text.endswith("It was measured by a boat of the town.")
    assert nodes[3].text.endswith("Bank: High; Side: right")
