import json

import pytest

from app.server import uploads
from app.server.uploads import ParserLimits, safe_name
from foundation.errors import DocumentError
from tests.retrieval.conftest import pdf

PLENTY = ParserLimits(seconds=100.0)


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("notes.md", "notes.md"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("/etc/cron.d/job.txt", "job.txt"),
        (".bashrc", "bashrc"),
        ("..", "document"),
        ("", "document"),
        ("a\0b\n<img src=x>.html", "a_b_img src=x_.html"),
        ("Überblick 2024 (neu).pdf", "Überblick 2024 (neu).pdf"),
        ("x" * 300 + ".txt", "x" * 116 + ".txt"),
        ("name." + "y" * 300, "name." + "y" * 10),
    ],
)
def test_names_of_uploads_are_harmless_and_still_tell_what_they_are(given, safe):
    assert safe_name(given) == safe


def test_documents_come_as_reading_them_here_would_give_them(tmp_path):
    path = tmp_path / "lines.jsonl"
    lines = [{"id": "a", "text": "One.", "trust": 0.2}, {"title": "Two", "text": "Twö."}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    first, second = uploads.documents(path, PLENTY, trust=0.7)
    assert (first.id_, first.text, first.metadata["trust"]) == ("a", "One.", 0.2)
    assert (second.text, second.metadata["title"], second.metadata["trust"]) == ("Twö.", "Two", 0.7)
    assert first.metadata["source"] == "lines.jsonl"
    assert "source" in first.excluded_embed_metadata_keys


def test_what_could_not_be_used_is_told_by_the_file_s_name_alone(tmp_path):
    path, told = tmp_path / "lines.jsonl", []
    path.write_text('{"text": "One.", "date": "soon"}\n{"text": "Two.", "date": "soon"}\n', "utf-8")
    assert len(list(uploads.documents(path, PLENTY, on_notice=told.append))) == 2
    [notice] = told
    assert notice.startswith("lines.jsonl: the date 'soon' is none")


def test_a_broken_file_is_told_by_its_name_alone(tmp_path):
    path = tmp_path / "broken.pdf"
    path.write_bytes(b"%PDF-1.4 nonsense")
    with pytest.raises(DocumentError) as caught:
        list(uploads.documents(path, PLENTY))
    assert str(caught.value).startswith("broken.pdf ")


def test_reading_that_takes_too_long_is_ended(tmp_path):
    path = tmp_path / "slow.txt"
    path.write_text("text", "utf-8")
    with pytest.raises(DocumentError, match=r"slow\.txt takes longer than 0 s"):
        list(uploads.documents(path, ParserLimits(seconds=0.0)))


def test_reading_that_takes_too_much_memory_is_ended(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("A line of text.\n" * 4_000_000, "utf-8")
    with pytest.raises(DocumentError, match=r"long\.txt takes more than .* of memory"):
        list(uploads.documents(path, ParserLimits(seconds=100.0, memory=20_000_000)))


def test_a_pdf_is_read(tmp_path):
    path = tmp_path / "river.pdf"
    path.write_bytes(pdf("The Rhine is long."))
    [document] = uploads.documents(path, PLENTY)
    assert "Rhine" in document.text
