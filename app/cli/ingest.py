"""`fulcrum ingest`: add documents to the index."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

import click

from app import factory
from app.cli.console import (
    PATHS,
    Range,
    err,
    example,
    model_settings,
    out,
    warn_of_skipped,
)
from foundation.errors import FulcrumError
from foundation.text import counted
from retrieval.ingest.dates import parse_dated
from retrieval.ingest.readers import check_paths

if TYPE_CHECKING:
    from tqdm import tqdm

    from control.forgetting.clearing import Door
    from retrieval.index import IngestReport

LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal


@click.command(
    epilog=example(
        "fulcrum ingest data/passages.jsonl",
        "fulcrum ingest notes/ paper.pdf",
        "fulcrum ingest --dated 2025-03-01 prices.csv",
    )
)
@click.argument("paths", nargs=-1, required=True, type=PATHS)
@click.option(
    "--trust",
    type=Range(0, 1),
    help="How far these documents are trusted against memory: 0 = not at all, 1 = fully.  "
    "[default: 0.5, or what a document says]",
)
@click.option(
    "--dated",
    metavar="DATE",
    help="The date of these documents: YYYY-MM-DD, YYYY-MM or YYYY.  "
    "[default: what a document says]",
)
@click.pass_obj
def ingest(
    given: dict[str, Any], paths: tuple[Path, ...], trust: float | None, dated: str | None
) -> None:
    """Add documents or directories of them to the index.

    Read are .txt .md .rst .html .pdf .docx .pptx .xlsx .csv .tsv .epub .eml and .jsonl files.
    """
    check_paths(paths)
    if dated is not None:
        parse_dated(dated)
    settings = model_settings(given)

    from retrieval.index import IngestReport
    from retrieval.ingest.documents import total_bytes

    index = factory.swept_index(settings)
    report = IngestReport()
    door = factory.door(settings)
    with _progress(total_bytes(paths), report, door) as progress:
        index.ingest(
            paths,
            progress=progress.embedded,
            trust=trust,
            dated=dated,
            on_read=progress.read,
            report=report,
            on_file=progress.begun,
        )
    warn_of_skipped(report.skipped, settings)
    skipped = sum(not each.partly for each in report.skipped)
    out.print(
        f"{counted(report.documents, 'document')} in {counted(report.passages, 'passage')} added, "
        f"{report.replaced:,} replaced, {report.duplicates:,} already there, "
        f"{skipped:,} skipped; the index holds {counted(index.count(), 'passage')}"
    )
    if index.redacted:
        out.print(
            f"{counted(index.redacted, 'stored passage')} redacted, since what is forgotten was "
            "stated there"
        )


class Progress:
    """Shows how far an ingestion is: a bar, or without a terminal a line every ten seconds.

    The lines come from a thread of their own, so also while one big file is read.
    """

    def __init__(self, bar: "tqdm[Any]", total: int, report: "IngestReport", door: "Door") -> None:
        self._door = door
        self._bar = bar
        self._total = total
        self._report = report
        self._bytes = self._passages = 0
        self._file: Path | None = None
        self._started = time.monotonic()
        self._ended = Event()
        self._lines = Thread(target=self._write_lines, daemon=True)

    def __enter__(self) -> Self:
        if self._bar.disable:
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._bar.disable:
            self._lines.join()

    def begun(self, file: Path) -> None:
        """Name the file that is being read."""
        self._file = file

    def read(self, size: int) -> None:
        """Count bytes of files."""
        self._bytes += size
        self._bar.update(size)

    def embedded(self, passages: int) -> None:
        """Count passages."""
        self._passages += passages
        self._bar.set_postfix_str(counted(self._passages, "passage"))

    def _write_lines(self) -> None:
        from retrieval.ingest.documents import shown_name

        while not self._ended.wait(LINE_SECONDS):
            rate = self._passages / (time.monotonic() - self._started)
            at = f", at {self._door.line(shown_name(self._file))}" if self._file else ""
            err.print(
                f"ingesting: {self._bytes / 1e6:,.1f} of {self._total / 1e6:,.1f} MB read, "
                f"{counted(self._report.documents, 'document')} stored, "
                f"{counted(self._passages, 'passage')}, "
                f"{rate:,.0f} a second{at}",
                soft_wrap=True,
                markup=False,
            )


@contextmanager
def _progress(total: int, report: "IngestReport", door: "Door") -> Iterator[Progress]:
    from tqdm import tqdm

    with tqdm(
        desc="ingesting",
        total=total,
        unit="B",
        unit_scale=True,
        delay=2,
        disable=not sys.stderr.isatty(),
    ) as bar:
        try:
            with Progress(bar, total, report, door) as progress:
                yield progress
        except (KeyboardInterrupt, FulcrumError) as error:
            bar.close()
            stopped = isinstance(error, KeyboardInterrupt)
            if stopped or report.documents:
                rest = "does the rest" if stopped else "does the rest once what follows is mended"
                err.print(
                    f"{counted(report.documents, 'document')} in "
                    f"{counted(report.passages, 'passage')} stored; the same command {rest}",
                    soft_wrap=True,
                )
            raise
