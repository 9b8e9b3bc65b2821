import json
import os
from pathlib import Path

import pytest
from llama_index.core.schema import Document, MetadataMode

from foundation.errors import DocumentError
from retrieval.ingest import encodings
from retrieval.ingest.chunking import split
from retrieval.ingest.documents import SkippedPath, read
from tests.retrieval.conftest import pdf

SENTENCE = "Le café de Zoë est fermé à Noël."


def read_all(*paths: Path) -> list[Document]:
    def refuse(skipped: SkippedPath) -> None:
        raise AssertionError(skipped)

    return list(read(paths, refuse))


def read_one(path: Path, data: bytes) -> Document:
    path.write_bytes(data)
    (document,) = read_all(path)
    return document


def text_of(document: Document) -> str:
    (node,) = split(document)
    return node.text


def error_of(path: Path) -> str:
    with pytest.raises(DocumentError) as caught:
        read_all(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_text_file(tmp_path: Path) -> None:
    path = tmp_path / "rivers of europe.txt"
    document = read_one(path, b"The Rhine is long.\r\n\r\n\r\n\r\nSo is the Elbe.\r\n")
    assert document.text == "The Rhine is long.\n\nSo is the Elbe."
    assert document.metadata["title"] == "rivers of europe"
    assert document.metadata["source"] == str(path)
    assert document.metadata["content_hash"].startswith(document.id_)


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-32", "latin-1", "cp1252"],
)
def test_encodings(tmp_path: Path, encoding: str) -> None:
    data = (
        b"\xff\xfe" + SENTENCE.encode("utf-16-le")
        if encoding == "utf-16-le-bom"
        else SENTENCE.encode(encoding)
    )
    assert read_one(tmp_path / "a.txt", data).text == SENTENCE


def test_longer_text_in_windows_encoding(tmp_path: Path) -> None:
    text = "\u201cMüller\u2019s Straße\u201d costs 5 €, he said to the façade\u2019s owner. " * 30
    assert read_one(tmp_path / "a.txt", text.encode("cp1252")).text == text.strip()


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("intro\n\n## The Rhine ##\n\nIt is long.", "The Rhine"),
        ("The Elbe\n========\n\nIt is long.", "The Elbe"),
        ("No heading here, only #hashtags.", "notes"),
    ],
)
def test_markdown_title(tmp_path: Path, text: str, title: str) -> None:
    assert read_one(tmp_path / "notes.md", text.encode()).metadata["title"] == title


@pytest.mark.parametrize(
    ("head", "kind", "title"),
    [
        (
            "---\ntitle: Rivers: a list\ndate: 2021-03-04\ntags: [a, b\n---",
            "YAML",
            "Rivers: a list",
        ),
        ('---\ntitle: "Rivers\ndate: 2021-03-04\n---', "YAML", "Rivers"),
        ("---\ntitle:Rivers\ndate: 2021-03-04\n# a note\nno field\nby: me\n---", "YAML", "Rivers"),
        (
            "---\ntitle: Rivers\n\ttags: x\ndate: 2021-03-04\nlist:\n- a: b: c\n---",
            "YAML",
            "Rivers",
        ),
        ("---\ntitle: Rivers\ndate: 2021-03-04\na: " + "[" * 5_000 + "\n---", "YAML", "Rivers"),
        ('---\ntitle: Rivers\ndate: 2021-03-04\na: "\\UFFFFFFFF"\n---', "YAML", "Rivers"),
        ("+++\ntitle = Rivers\ndate = 2021-03-04\n\n[more]\ntitle = 1\n+++", "TOML", "Rivers"),
    ],
)
def test_malformed_front_matter_is_no_text_and_is_told(
    tmp_path: Path, head: str, kind: str, title: str
) -> None:
    path = tmp_path / "a.md"
    path.write_text(f"{head}\n\nThe Rhine is long.\n")
    told: list[SkippedPath] = []
    (document,) = read([path], told.append)
    assert document.text == "The Rhine is long."
    assert (document.metadata["title"], document.metadata["date"]) == (title, "2021-03-04")
    [notice] = told
    assert notice.path == path
    assert str(path) in notice.reason
    assert kind in notice.reason
    assert "\n" not in notice.reason


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("date", "2024-13-45"),
        ("date", "2999-01-01"),
        ("date", "1066-10-14"),
        ("date", "soon"),
        ("date", "true"),
        ("lastUpdated", "2024-02-31"),
        ("published", "3000"),
    ],
)
@pytest.mark.parametrize("fence", ["---", "+++"])
def test_a_date_of_front_matter_that_is_none_is_told(
    tmp_path: Path, fence: str, field: str, value: str
) -> None:
    path = tmp_path / "a.md"
    line = f"{field}: {value}" if fence == "---" else f'{field} = "{value}"'
    path.write_text(f"{fence}\n{line}\n{fence}\n\nThe Rhine is long.\n")
    told: list[SkippedPath] = []
    (document,) = read([path], told.append)
    assert "date" not in document.metadata
    [notice] = told
    assert notice.partly
    assert notice.reason.startswith(f"{path}: the field {field} of the front matter, ")
    assert value in notice.reason.replace("True", "true")
    told.clear()
    (document,) = read([path], told.append, dated="2020")
    assert (document.metadata["date"], told) == ("2020", [])


@pytest.mark.parametrize("trust", ["3", "0.9", "high"])
def test_a_trust_of_front_matter_is_told_not_to_be_read(tmp_path: Path, trust: str) -> None:
    path = tmp_path / "a.md"
    path.write_text(f"---\ntrust: {trust}\n---\n\nThe Rhine is long.\n")
    told: list[SkippedPath] = []
    (document,) = read([path], told.append)
    assert "trust" not in document.metadata
    [notice] = told
    assert notice.partly
    assert notice.reason.startswith(f"{path}: the field trust of the front matter is not read; ")
    assert "--trust" in notice.reason
    told.clear()
    (document,) = read([path], told.append, trust=0.2)
    assert (document.metadata["trust"], told) == (0.2, [])


@pytest.mark.parametrize(
    "head",
    ["date: 2021-03-04", "date: 20210304", "date:", "published: true", "status: draft", "trust:"],
)
def test_front_matter_that_is_used_or_says_nothing_is_not_told(tmp_path: Path, head: str) -> None:
    read_one(tmp_path / "a.md", f"---\n{head}\n---\n\nThe Rhine is long.\n".encode())


@pytest.mark.parametrize(
    "rest", ["\nIt is long.", "\nIt is long.\n\n---\n\nSo is the Elbe.", "# The Rhine\nIt is long."]
)
def test_front_matter_without_an_end_is_no_text_and_is_told(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "a.md"
    path.write_text(f"---\ntitle: Rivers\ndate: 2021-03-04\ntags:\n- a\n  - b\n{rest}\n")
    told: list[SkippedPath] = []
    (document,) = read([path], told.append)
    assert document.text == read_one(tmp_path / "b.md", rest.encode()).text
    assert (document.metadata["title"], document.metadata["date"]) == ("Rivers", "2021-03-04")
    [notice] = told
    assert "---" in notice.reason


@pytest.mark.parametrize(
    "text",
    [
        "---\ntitle: Rivers\ndate: 2021-03-04\nThe Rhine is long.\n\nSo is the Elbe.",
        "---\nTo: Anna\nFrom: Bob\n\nThe Rhine is long.",
        "---\nnote: it is long\n\nSo is the Elbe.",
        "---\nrhine: long: so\nelbe: too\n\nSo is the Elbe.",
        "---\ntitle: Rivers\ndate: 2021-03-04\n",
        "---\n\ntitle: Rivers\ndate: 2021-03-04\n\nThe Rhine is long.",
        "---\nThe Rhine is long.\n\n---\nSo is the Elbe.",
        "---\nThe Rhine is long.\n---\nSo is the Elbe.",
        "---\nNote: this is so: it is long.\nThe Rhine is long.\n\n---\nSo is the Elbe.",
        "---\nTo: Anna: Ulm\nFrom: Bob\n\nThe Rhine is long.\n\n---\nSo is the Elbe.",
        "---\nNote:here\n---\nThe Rhine is long. So is the Elbe.",
        "---\n# Note\n\nA: b: c\n\nThe Rhine is long.\n\n---\nSo is the Elbe.",
        "---\n- The Rhine is long.\n- So is the Elbe.\n---\nA: b",
    ],
)
def test_text_between_rules_is_no_front_matter(tmp_path: Path, text: str) -> None:
    def words(shown: str) -> list[str]:
        return [word for word in shown.split() if word.strip("#-")]

    assert words(read_one(tmp_path / "a.md", text.encode()).text) == words(text)


def test_front_matter_stands_at_the_beginning_of_a_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = "---\ntitle: Rhine\n---\nThe Rhine is long.\n\n"
    monkeypatch.setattr(encodings, "PART_BYTES", len(first))
    path = tmp_path / "a.md"
    path.write_text(f"{first}---\ntitle: Elbe\n---\n\nSo is the Elbe.")
    texts = [document.text for document in read_all(path)]
    assert texts[0] == "The Rhine is long."
    assert "title: Elbe" in texts[1]


def test_html_keeps_sentences_and_drops_what_is_not_read(tmp_path: Path) -> None:
    page = """<html><head><title> Rivers &amp; Lakes </title><style>p {}</style>
      <script>var hidden = 1;</script></head><body><nav>Home</nav>
      <p>The <b>Rhine</b> is
         1,233&nbsp;km long<sup>1</sup>.</p><!-- secret --><ul><li>Elbe<li>Oder</ul>
      <table><tr><td>Po</td><td>652</td></tr></table></body></html>"""
    document = read_one(tmp_path / "page.HTM", page.encode())
    assert document.metadata["title"] == "Rivers & Lakes"
    assert document.text.split("\n") == [
        "The Rhine is 1,233 km long1.",
        "",
        "- Elbe",
        "- Oder",
        "",
        "Po",
        "",
        "652",
    ]


def test_html_charset_is_honoured(tmp_path: Path) -> None:
    page = f'<html><head><meta charset="iso-8859-1"></head><body>{SENTENCE}</body></html>'
    assert read_one(tmp_path / "page.html", page.encode("latin-1")).text == SENTENCE


def test_pdf(tmp_path: Path) -> None:
    document = read_one(tmp_path / "r.pdf", pdf("The Rhine is long.", title="Rivers"))
    assert (text_of(document), document.metadata["title"]) == ("The Rhine is long.", "Rivers")
    assert read_one(tmp_path / "s.pdf", pdf("The Elbe.")).metadata["title"] == "s"


def test_pdf_with_empty_password_opens(tmp_path: Path) -> None:
    document = read_one(tmp_path / "r.pdf", pdf("The Rhine.", password=""))
    assert text_of(document) == "The Rhine."


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(
        "\ufeff"
        + json.dumps({"id": 7, "title": "Rhine", "text": "It is long.", "year": 2020, "tags": [1]})
        + "\n\n"
        + json.dumps({"text": "The Elbe.", "source": "https://example.org", "ok": True})
        + "\n"
    )
    first, second = read_all(path)
    assert (first.id_, first.metadata["title"], first.metadata["year"]) == ("7", "Rhine", 2020)
    assert "tags" not in first.metadata
    assert second.metadata["source"] == "https://example.org"
    assert second.metadata["title"] == "facts"
    assert second.metadata["content_hash"].startswith(second.id_)


def test_only_title_and_text_are_embedded_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"title": "Rhine", "text": "It is long.", "year": 2020}))
    (document,) = read_all(path)
    for mode in (MetadataMode.EMBED, MetadataMode.LLM):
        assert document.get_content(mode) == "Rhine\n\nIt is long."


def test_id_depends_on_content_and_not_on_name(tmp_path: Path) -> None:
    first = read_one(tmp_path / "a.txt", b"The Rhine.")
    assert read_one(tmp_path / "b.txt", b"The Rhine.\r\n").id_ == first.id_
    assert read_one(tmp_path / "c.txt", b"The Elbe.").id_ != first.id_


def test_trust_is_kept_with_the_document_and_shown_to_no_model(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text('{"text": "The Rhine.", "trust": 1}\n{"text": "The Elbe."}\n')
    stated, told = read([path], lambda _: None, trust=0.2)
    assert (stated.metadata["trust"], told.metadata["trust"]) == (1.0, 0.2)  # its own word first
    for mode in (MetadataMode.EMBED, MetadataMode.LLM):
        assert told.get_content(mode) == "facts\n\nThe Elbe."
    assert ["trust" in document.metadata for document in read_all(path)] == [True, False]


def test_trust_changes_what_is_stored_and_not_which_document_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("The Rhine.")
    documents = [next(read([path], lambda _: None, trust)) for trust in (None, 0.1, 0.9, 0.9)]
    assert len({document.id_ for document in documents}) == 1
    hashes = [document.metadata["content_hash"] for document in documents]
    assert len(set(hashes)) == 3
    assert hashes[2] == hashes[3]


@pytest.mark.parametrize("trust", ['"high"', "true", "1.01", "-0.1", '""'])
def test_trust_that_is_no_share_is_refused(tmp_path: Path, trust: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "The Rhine.", "trust": {trust}}}')
    assert "must be a number from 0 (doubtful) to 1 (reliable)" in error_of(path)


def test_what_no_store_takes_is_removed(tmp_path: Path) -> None:
    document = read_one(tmp_path / "a.jsonl", b'{"text": "a\\u0000b \\ud800 c"}')
    assert document.text == "ab ? c"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("empty.txt", b"", "is empty"),
        ("blank.txt", b" \n\t\n", "is empty"),
        ("image.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" * 9, "binary data"),
        ("page.html", b"<html>\0\0\1\2</html>", "binary data"),
        ("page.html", b"<html><script>1</script></html>", "is empty"),
        ("cut.txt", b"\xff\xfea", "no known text encoding"),
        ("locked.pdf", pdf("The Rhine.", password="x"), "encrypted"),
        ("scan.pdf", pdf(""), "run OCR"),
        ("broken.pdf", b"%PDF-1.4\ngarbage", "not a readable PDF"),
        ("sheet.xlsx", b"PK", "not a readable .xlsx"),
        ("song.ogg", b"OggS", "'.ogg'"),
        ("README", b"text", "has no suffix"),
        ("a.jsonl", b"\n\n", "is empty"),
    ],
)
def test_unreadable_file(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert words in error_of(path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "not valid JSON"),
        (b'{"text": "a", "n": NaN}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'["text"]', "not an object"),
        (b'{"title": "a"}', '"text" is missing'),
        (b'{"text": "  "}', '"text" is "  "'),
        (b'{"text": 5}', '"text" is 5'),
        (b'{"text": "a", "title": []}', '"title" is []'),
        (b'{"text": "a", "id": true}', '"id" is true'),
        (b'{"text": "a", "id": ""}', '"id" is ""'),
        (b'{"text": "caf\xe9"}', "not UTF-8"),
    ],
)
def test_wrong_line_is_named_before_any_document_comes(
    tmp_path: Path, line: bytes, words: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "fine"}\n\n' + line + b"\n")
    with pytest.raises(DocumentError) as caught:
        next(read([path], lambda _: None))
    assert words in str(caught.value)
    assert f"{path}, line 3:" in str(caught.value)


def test_missing_path_is_named_before_any_document_comes(tmp_path: Path) -> None:
    good = tmp_path / "a.txt"
    good.write_text("The Rhine.")
    with pytest.raises(DocumentError, match="nowhere does not exist"):
        next(read([good, tmp_path / "nowhere"], lambda _: None))


def test_directory_is_walked_sorted_and_bad_files_are_reported(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/.hidden.txt", ".git/config.txt", "A.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text of {name}")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.txt")
    skipped: list[SkippedPath] = []
    texts = [document.text for document in read([tmp_path], skipped.append)]
    assert texts == ["text of A.txt", "text of b.txt", "text of a/z.md"]
    reasons = {skip.path.name: skip.reason for skip in skipped}
    assert set(reasons) == {"empty.txt", "photo.jpg", "gone.txt", "pipe.txt"}
    assert "not a regular file" in reasons["pipe.txt"]


def test_directory_with_nothing_readable(tmp_path: Path) -> None:
    assert "it has no files" in error_of(tmp_path)
    (tmp_path / "photo.jpg").touch()
    skipped: list[SkippedPath] = []
    with pytest.raises(DocumentError, match="ends in"):
        list(read([tmp_path], skipped.append))
    assert len(skipped) == 1


def test_long_title_leaves_room_for_the_text(tmp_path: Path) -> None:
    document = read_one(tmp_path / "a.md", b"# " + b"word " * 500 + b"\n\ntext")
    assert len(document.metadata["title"]) <= 160
