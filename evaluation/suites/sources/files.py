"""The task on ordinary files: what is answered of them, by plain RAG, with memory, and without."""

import re
from collections.abc import Iterator

from control.conflict.sources import SourceOptions
from control.state import Query
from evaluation.datasets import sources
from evaluation.datasets.sources import FileQuestion
from evaluation.suites.sources.checks import Check, Table, failures, holds, shares
from evaluation.suites.sources.documents import ONLY, USUAL
from evaluation.suites.sources.system import AnswerRow, Run
from foundation.errors import InputError

PLAIN = "plain RAG"
YES_OR_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def files(run: Run, split: str = "test") -> dict[str, Table]:
    """Questions over an index of the files, the ways to answer tested against plain RAG.

    Args:
        run: The run.
        split: ``test``, or ``calibration`` to choose by.

    Raises:
        InputError: The system can ingest no files.
    """
    if run.system.over is None:
        raise InputError("--task files: the system that is measured ingests no files; leave it out")
    task = "files" if split == "test" else f"files-{split}"
    items = sources.files(run.limit, split)
    rows, system = run.rows(task, items), run.system.over(sources.FILES / split)
    checks = []
    for arm in (PLAIN, USUAL, ONLY):
        asked = [item for item in items if item.answers or arm != PLAIN]
        options = SourceOptions(only_documents=arm == ONLY)
        queries = {(arm, item.id): Query(item.question, sources=options) for item in asked}
        run.answers(rows, queries, arm, system.plain() if arm == PLAIN else system)
        checks += [check for item in asked for check in _checks(item, arm, rows[arm, item.id])]
    return {task: shares(checks, PLAIN), "failures": failures(task, checks)}


def _checks(item: FileQuestion, arm: str, row: AnswerRow) -> Iterator[Check]:
    asked, said = (item.id,), (item.question, _expected(item), row.answer)
    right = bool(item.answers) and _right(item, row.answer)
    if item.answers:
        yield Check("right", *asked, right, *said, of=item.kind, arm=arm)
    else:
        yield Check("left open: answered", *asked, not row.abstained, *said, arm=arm, wanted=0)
    if arm != PLAIN and not row.abstained:
        measure = "right: cited" if right else "wrong or left open: cited"
        yield Check(measure, *asked, bool(row.cited), *said, arm=arm, wanted=float(right))


def _expected(item: FileQuestion) -> str:
    each = (" | ".join(forms) for forms in item.answers)
    return "; ".join(each) or "that the documents do not say"


def _right(item: FileQuestion, answer: str) -> bool:
    if item.kind == "yesno":
        said, [[right]] = YES_OR_NO.search(answer), item.answers
        return said is not None and said[0].lower() == right.lower()
    return all(holds(answer, forms) for forms in item.answers)
