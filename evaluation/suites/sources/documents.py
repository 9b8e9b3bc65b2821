"""The task on answers from the documents alone: what they do not say, and what they contradict."""

from control.conflict.sources import SourceOptions
from control.state import Query
from evaluation.datasets import sources
from evaluation.datasets.sources import CorpusQuestion
from evaluation.suites.sources.checks import Check, Table, failures, holds, holds_only, shares
from evaluation.suites.sources.system import AnswerRow, Run

ONLY, USUAL = "only documents", "documents and memory"


def documents(run: Run) -> dict[str, Table]:
    """Questions over the corpus with and without memory, tested against each other."""
    items = sources.only_documents(run.limit)
    rows = run.rows("documents", items)
    for arm in (USUAL, ONLY):
        options = SourceOptions(only_documents=arm == ONLY)
        queries = {(arm, item.id): Query(item.question, sources=options) for item in items}
        run.answers(rows, queries, arm)
    checks = [
        check
        for arm in (USUAL, ONLY)
        for item in items
        for check in _checks(item, arm, rows[arm, item.id])
    ]
    return {"documents": shares(checks, USUAL), "failures": failures("documents", checks)}


def _checks(item: CorpusQuestion, arm: str, row: AnswerRow) -> list[Check]:
    answered = not row.abstained

    def check(measure: str, score: bool, expected: str, wanted: float = 1) -> Check:
        return Check(
            measure, item.id, score, item.question, expected, row.answer, arm=arm, wanted=wanted
        )

    if item.kind == "unanswered":
        return [check("unanswered: answered", answered, "that the documents do not say", wanted=0)]
    expected = " | ".join(item.answers)
    if item.kind == "false claim":
        right = holds_only(row.answer, item.answers, [item.claimed])
        return [check("false claim contradicted", right, f"{expected}; not {item.claimed}")]
    right = holds(row.answer, item.answers)
    checks = [check("answered: answered", answered, expected)]
    if answered:
        checks.append(check("answered: right, of those answered", right, expected))
    return [*checks, check("answered: right, of all", answered and right, expected)]
