"""What sources claim: whether claims are found, disagreements told, and answers rest on sources."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.suites.sources import (
    citations,
    corrections,
    disagreement,
    documents,
    files,
    held_out,
    spans,
    versions,
)
from evaluation.suites.sources.checks import Table
from evaluation.suites.sources.system import Run, SourceSystem

__all__ = ["HIDDEN", "TASKS", "USUAL_TASKS", "Run", "SourceSystem", "run"]

FAILURES = "failures"
HIDDEN = (FAILURES, "versions: dates", "versions-beside: dates")  # tables of single records
RAMDOCS = "ramdocs"
HELD_OUT = "held-out"
CORRECTIONS = "corrections"
FILES_TO_CHOOSE_BY = "files-calibration"
TASKS: dict[str, Callable[[Run], dict[str, Table]]] = {
    "claims": spans.claims,
    "values": spans.compared,
    "verdicts": disagreement.verdicts,
    "memory": disagreement.memory,
    "versions": versions.versions,
    "versions-beside": partial(versions.versions, beside=True),
    "documents": documents.documents,
    "files": files.files,
    FILES_TO_CHOOSE_BY: partial(files.files, split="calibration"),
    "sentences": citations.sentences,
    CORRECTIONS: corrections.corrections,
    HELD_OUT: held_out.held_out,
    RAMDOCS: partial(disagreement.ramdocs, path=None),
}
"""The tasks by name; that of RAMDocs is given its file by `run`"""

UNUSUAL_TASKS = (CORRECTIONS, FILES_TO_CHOOSE_BY, HELD_OUT, RAMDOCS)
USUAL_TASKS = tuple(name for name in TASKS if name not in UNUSUAL_TASKS)


def run(given: Run, tasks: Sequence[str] = USUAL_TASKS, data: Path | None = None) -> dict[str, Any]:
    """Measure each task; rows are stored in ``rows/TASK.jsonl`` as they come.

    Args:
        given: The system under test and where its rows are.
        tasks: Names of `TASKS`.
        data: The file of RAMDocs.

    Returns:
        The report: ``n`` records, for each task a table of shares, for some more, and ``failures``.

    Raises:
        DataError: The directory holds rows of another run.
        InputError: The system lacks what a task needs.
    """
    chosen = TASKS | {RAMDOCS: partial(disagreement.ramdocs, path=data)}
    tables: dict[str, Table] = {}
    lost: Table = []
    for name in dict.fromkeys(tasks):
        found = chosen[name](given)
        lost += found.pop(FAILURES)
        tables |= found
    if lost:
        tables[FAILURES] = lost
    return {"n": sum(given.counts.values()), "tables": tables}
