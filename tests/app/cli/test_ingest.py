"""What `fulcrum ingest` says meanwhile, and where a file ends it."""

from pathlib import Path
from threading import Event

import pytest

from app.cli import ingest
from control.forgetting.clearing import Door
from foundation.errors import DataError
from retrieval.index import IngestReport


def test_a_line_names_the_file_while_it_is_still_being_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    written = Event()

    def write(line: str, **_: object) -> None:
        if line.endswith("at reports/[1] big.pdf"):
            lines.append(line)
            written.set()

    monkeypatch.setattr(ingest, "LINE_SECONDS", 0.01)
    monkeypatch.setattr(ingest.err, "print", write)
    with ingest._progress(2_000_000, IngestReport(), Door()) as progress:
        progress.begun(Path("reports/[1] big.pdf"))
        assert written.wait(timeout=60)
    assert lines[-1].startswith("ingesting: 0.0 of 2.0 MB read")


def test_what_was_stored_before_a_file_that_ends_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(ingest.err, "print", lambda line, **_: lines.append(line))
    for documents in (0, 2):
        report = IngestReport(documents=documents, passages=3 * documents)
        with pytest.raises(DataError), ingest._progress(1, report, Door()):
            raise DataError("b.pdf is not a readable PDF")
    assert lines == [
        "2 documents in 6 passages stored; the same command does the rest once what follows is "
        "mended"
    ]
