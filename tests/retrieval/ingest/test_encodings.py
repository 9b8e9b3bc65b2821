"""Files that are big, or many and empty."""

import json
import resource
from pathlib import Path

import pytest

from foundation.errors import DocumentError
from retrieval.index import PassageIndex
from retrieval.ingest import encodings, markup, readers
from retrieval.ingest.documents import SkippedPath, read, summarize_skipped

PARAGRAPH = "Die Oder fließt durch Wrocław und mündet in die Ostsee. " * 3


def texts(path: Path) -> list[str]:
    return [document.text for document in read([path], lambda _: None)]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "PART_BYTES", 2000)
    monkeypatch.setattr(encodings, "BLOCK_BYTES", 1001)  # cuts characters of two bytes


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_big_text_becomes_documents_of_whole_paragraphs(tmp_path: Path, encoding: str) -> None:
    paragraphs = [f"{n}. {PARAGRAPH}".strip() for n in range(100)]
    if encoding == "cp1252":
        paragraphs = [text.replace("ł", "l") for text in paragraphs]
    path = tmp_path / "oder.txt"
    path.write_bytes("\n\n".join(paragraphs).encode(encoding))
    parts = texts(path)
    assert len(parts) > 5
    assert "\n\n".join(parts) == "\n\n".join(paragraphs)
    assert max(map(len, parts)) < 5000


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("times", [1, 60])
def test_damaged_bytes_spoil_no_other_characters_of_utf8(tmp_path: Path, times: int) -> None:
    path = tmp_path / "menu.txt"
    line = "The café serves naïve guests at 5 € a transatlantic soup.\n\n"
    path.write_bytes((line * times).encode() + b"Caf\xff closes at nine.\n\nto be cut: \xe2\x80")
    text = "\n\n".join(texts(path))
    assert text.count(line.strip()) == times
    assert "closes at nine." in text


@pytest.mark.parametrize("encoding", ["cp1252", "koi8-r", "shift_jis"])
def test_a_text_in_an_older_encoding_is_no_damaged_utf8(tmp_path: Path, encoding: str) -> None:
    said = {
        "cp1252": "Grüße aus Köln. ",
        "koi8-r": "Привет из Москвы. ",
        "shift_jis": "東京の天気。",
    }
    path = tmp_path / "a.txt"
    path.write_bytes((said[encoding] * 30).encode(encoding))
    assert texts(path) == [(said[encoding] * 30).strip()]


@pytest.mark.usefixtures("small_parts")
def test_a_big_text_without_a_gap_is_cut_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    text = "".join(chr(0x4E00 + n) for n in range(9000))
    path.write_text(text)
    assert "".join(texts(path)) == text


@pytest.mark.usefixtures("small_parts")
def test_parts_of_markdown_share_the_title(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# The Oder\n\n" + f"{PARAGRAPH}\n\n" * 50)
    titles = {document.metadata["title"] for document in read([path], lambda _: None)}
    assert titles == {"The Oder"}


@pytest.mark.usefixtures("small_parts")
def test_characters_that_could_not_be_read_are_counted_in_one_line(tmp_path: Path) -> None:
    path, sound = tmp_path / "a.txt", tmp_path / "b.txt"
    line = "Ferries to Öland and Årsta leave at noon, the café closes later. "
    path.write_bytes(line.encode() * 99 + b"Caf\xff, \xfe.")
    sound.write_text("Cafés close at nine.", encoding="utf-8")
    skipped: list[SkippedPath] = []
    list(read([path, sound], skipped.append))
    [line] = summarize_skipped(skipped)
    assert line.startswith(f"{path}: 2 characters in it could not be read")


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("first", "cafe"), [("", "Caf\xe9"), ("Öland, Årsta. ", "Caf\N{REPLACEMENT CHARACTER}")]
)
def test_a_big_text_of_plain_letters_is_read_though_a_byte_at_its_end_is_none_of_utf8(
    tmp_path: Path, first: str, cafe: str
) -> None:
    path = tmp_path / "a.txt"
    line = "The ferry to Elm leaves at noon. "
    path.write_bytes(first.encode() + line.encode() * 200 + b"\n\nCaf\xe9 closes at nine.")
    text = "".join(texts(path))
    assert text.count(line.strip()) == 200
    assert text.endswith(f"{cafe} closes at nine.")


@pytest.mark.parametrize("end", [b"\0", b"\xff\xfe\0\0"])
def test_a_big_binary_file_is_refused_before_its_first_text(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(PARAGRAPH.encode() * 100 + end)
    with pytest.raises(DocumentError, match="binary data"):
        next(read([path], lambda _: None))


@pytest.mark.usefixtures("small_parts")
def test_a_big_blank_file_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(" \n" * 5000)
    with pytest.raises(DocumentError, match="is empty"):
        texts(path)


def test_200_megabytes_stream(tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    with path.open("w") as file:
        for _ in range(200):
            file.write((PARAGRAPH.replace("ł", "l") + "\n\n") * (1_000_000 // len(PARAGRAPH)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    characters = sum(len(document.text) for document in read([path], lambda _: None))
    assert characters > 190_000_000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # kilobytes


def test_documents_too_big_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "LONGEST_TEXT", 1000)
    monkeypatch.setattr(readers, "LONGEST_LINE", 5000)
    monkeypatch.setattr(markup, "LONGEST_HTML", 5000)
    text, line, page = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "c.html"
    text.write_text(json.dumps({"text": "x " * 1000}))
    line.write_text('{"text": "short"}\n' + json.dumps({"text": "x " * 5000}))
    page.write_text("<p>x</p>" * 1000)
    for path, words in (
        (text, "a document may have"),
        (line, "line 2: longer than .*; split its text"),
        (page, "HTML is read up to"),
    ):
        with pytest.raises(DocumentError, match=words) as caught:
            texts(path)
        assert "\n" not in str(caught.value)


def test_10_000_empty_files_are_one_line(index: PassageIndex, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for n in range(10_000):
        (folder / f"e{n}.txt").touch()
    (folder / "z.txt").write_text("The Rhine.")
    report = index.ingest([folder])
    assert (report.documents, len(report.skipped)) == (1, 10_000)
    [line] = summarize_skipped(report.skipped)
    assert "e0.txt is empty" in line
    assert "9,999 more files" in line


def test_many_reasons_are_cut_short() -> None:
    skipped = [SkippedPath(Path(f"{n}.txt"), f"{n}.txt has fault {n}") for n in range(50)]
    lines = summarize_skipped(skipped)
    assert lines[0] == "0.txt has fault 0"
    assert lines[20:] == ["and 30 more files for other reasons"]
