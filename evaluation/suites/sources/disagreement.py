"""Tasks on sources that disagree: documents with each other, and memory with documents."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from control.conflict.sources import Policy, SourceOptions
from control.state import Query
from evaluation import metrics
from evaluation.datasets import conflicts, sources
from evaluation.datasets.conflicts import BUILT_IN_CONFLICTS, Conflict
from evaluation.datasets.sources import GivenPassages, Passage, RightAndWrong
from evaluation.suites.sources.checks import Check, Table, failures, holds, shares
from evaluation.suites.sources.system import AnswerRow, Key, Run, given, place
from foundation.errors import InputError

KNOWN = 75  # known facts with the counterfactual passage, and as many with the true one
WRONG, TRUE = "counterfactual passage", "true passage"
PRECISION = "conflict: precision on known facts"
PRECISION_OF_ALL = "conflict: precision on known facts and invented questions"
PLAIN, DEFAULT = "plain", "default"
RAMDOCS_POLICIES: dict[str, Policy | None] = {DEFAULT: None, "majority": "majority", "all": "all"}


def verdicts(run: Run) -> dict[str, Table]:
    """Whether passages that disagree are told from those that do not, and what is answered."""
    items = sources.verdicts(run.limit)
    rows = _verdict_rows(run, items)
    checks = [check for item in items for check in _verdict_checks(item, rows[DEFAULT, item.id])]
    return {"verdicts": shares(checks), "failures": failures("verdicts", checks)}


def _verdict_rows(run: Run, items: Sequence[GivenPassages]) -> Mapping[Key, AnswerRow]:
    rows = run.rows("verdicts", items)
    queries = {
        (DEFAULT, item.id): Query(item.question, given(item.id, item.passages)) for item in items
    }
    run.answers(rows, queries, "verdicts")
    return rows


def _verdict_checks(item: GivenPassages, row: AnswerRow) -> list[Check]:
    said = bool(row.settled)
    told = row.settled or "nothing of a disagreement"
    shown = " | ".join(f"{claim['source']}: {claim['says']}" for claim in row.claims)
    checks = []
    if item.disagree:
        checks.append(
            Check("disagree: recall", item.id, said, item.question, item.kind, told, item.kind)
        )
    if said:
        checks.append(
            Check("disagree: precision", item.id, item.disagree, item.question, item.kind, told)
        )
    for number, claim in enumerate(item.claims):
        found = any(
            place(one["source"]) in claim.passages and holds(one["says"], claim.says)
            for one in row.from_documents
        )
        name = f"{item.id} {number}"
        checks.append(
            Check("claim found", name, found, item.question, claim.says[0], shown, item.kind)
        )
    checks.append(
        Check(
            "memory said to remember",
            item.id,
            row.remembers,
            item.question,
            "nothing is remembered of what is invented",
            shown,
            item.kind,
            wanted=0,
        )
    )
    if item.claims:
        every = all(holds(row.answer, claim.says) for claim in item.claims)
        expected = " and ".join(claim.says[0] for claim in item.claims)
        checks.append(
            Check(
                "every value told", item.id, every, item.question, expected, row.answer, item.kind
            )
        )
    return checks


def memory(run: Run) -> dict[str, Table]:
    """Whether memory and a passage are said to disagree where they do, on facts that are known.

    Half of the known facts come with their counterfactual passage, half with their true one; the
    invented questions of `verdicts` count as questions without any such conflict, too.
    """
    every = [item for item in conflicts.conflicts(BUILT_IN_CONFLICTS, "test") if item.true_context]
    each = KNOWN if run.limit is None else min(KNOWN, run.limit)
    known = run.system.known(every, 2 * each, run.target / "known")
    arms = {item.id: (WRONG, TRUE)[number % 2] for number, item in enumerate(known)}
    rows = run.rows("memory", known)
    queries = {
        (arms[item.id], item.id): Query(
            item.question, given(item.id, [Passage(_text(item, arms[item.id]))])
        )
        for item in known
    }
    run.answers(rows, queries, "memory")
    invented = sources.verdicts(run.limit)
    other = _verdict_rows(run, invented)
    checks = [
        check
        for item in known
        for check in _conflict_checks(item, arms[item.id], rows[arms[item.id], item.id])
    ]
    checks += [
        Check(PRECISION_OF_ALL, item.id, False, item.question, "no conflict", _said(row))
        for item in invented
        if (row := other[DEFAULT, item.id]).conflict
    ]
    lost = failures("memory", [check for check in checks if check.measure != PRECISION])
    return {"memory": shares(checks), "failures": lost}


def _text(item: Conflict, arm: str) -> str:
    return item.context if arm == WRONG else item.true_context or ""


def _conflict_checks(item: Conflict, arm: str, row: AnswerRow) -> list[Check]:
    is_one = arm == WRONG
    about = (item.question, "a conflict" if is_one else "no conflict", _said(row))
    checks = []
    if is_one:
        checks.append(Check("conflict: recall", item.id, row.conflict, *about))
    else:
        checks.append(Check("conflict: false alarm", item.id, row.conflict, *about, wanted=0))
    if row.conflict:
        checks += [Check(name, item.id, is_one, *about) for name in (PRECISION, PRECISION_OF_ALL)]
    return checks


def _said(row: AnswerRow) -> str:
    """What was said about a conflict, for a line of the failures."""
    if row.verdict is None:
        return f"{'a' if row.conflict else 'no'} conflict without a verdict: {row.answer}"
    return f"passages: {row.verdict['passages_say']} | memory: {row.verdict['memory_says']}"


def ramdocs(run: Run, path: Path | None) -> dict[str, Table]:
    """Exact match on RAMDocs: every right answer is given, and no wrong one.

    Plain RAG reads all documents; the policies choose between them, or tell all.

    Raises:
        InputError: There is no file.
    """
    if path is None:
        raise InputError("--task ramdocs needs its file; give it by --data")
    items = sources.ramdocs(path, run.limit)
    rows = run.rows("ramdocs", items)
    arms = (PLAIN, *RAMDOCS_POLICIES)
    for arm in arms:
        options = SourceOptions(RAMDOCS_POLICIES.get(arm))
        queries = {
            (arm, item.id): Query(item.question, given(item.id, item.documents), sources=options)
            for item in items
        }
        run.answers(rows, queries, arm, run.system.plain() if arm == PLAIN else None)
    checks = [_exact_match(item, arm, rows[arm, item.id]) for arm in arms for item in items]
    return {"ramdocs": shares(checks, PLAIN), "failures": failures("ramdocs", checks)}


def _exact_match(item: RightAndWrong, arm: str, row: AnswerRow) -> Check:
    exact = all(metrics.holds(row.answer, [right]) for right in item.right)
    exact = exact and not metrics.holds(row.answer, item.wrong)
    return Check(
        "exact match",
        item.id,
        exact,
        item.question,
        f"{' and '.join(item.right)}; not {' or '.join(item.wrong) or 'anything else'}",
        row.answer,
        "one right answer" if len(item.right) == 1 else "several right answers",
        arm,
    )
