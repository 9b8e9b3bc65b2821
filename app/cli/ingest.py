"""`fulcrum ingest`: add documents to the index."""

from pathlib import Path
from typing import Any

import click

from app.cli.console import PATHS, example, model_settings, out, warn_of_skipped
from retrieval.ingest.readers import check_paths


@click.command(
    epilog=example("fulcrum ingest data/passages.jsonl", "fulcrum ingest notes/ paper.pdf")
)
@click.argument("paths", nargs=-1, required=True, type=PATHS)
@click.option(
    "--trust",
    type=click.FloatRange(0, 1),
    help="How far these documents are trusted against memory: 0 = not at all, 1 = fully.  "
    "[default: 0.5, or what a document says]",
)
@click.pass_obj
def ingest(given: dict[str, Any], paths: tuple[Path, ...], trust: float | None) -> None:
    """Add documents (.txt .md .html .pdf .jsonl) or directories of them to the index."""
    check_paths(paths)
    settings = model_settings(given)

    from tqdm import tqdm

    from app import factory

    index = factory.passage_index(settings)
    with tqdm(desc="ingesting", unit=" passages", delay=2, disable=None) as bar:
        report = index.ingest(paths, progress=bar.update, trust=trust)
    warn_of_skipped(report.skipped)
    out.print(
        f"{report.documents:,} documents in {report.passages:,} passages added, "
        f"{report.replaced:,} replaced, {report.duplicates:,} already there, "
        f"{len(report.skipped):,} skipped; the index holds {index.count():,} passages"
    )
