"""Progress of `fulcrum ingest` without a terminal."""

from pathlib import Path
from threading import Event

import pytest

from app.cli import ingest
from control.forgetting.clearing import Door
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
