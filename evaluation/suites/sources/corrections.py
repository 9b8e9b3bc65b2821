"""The task on corrections: what they answer however it is asked, and what they must leave alone."""

from control.state import Query
from evaluation.datasets import sources
from evaluation.datasets.sources import LabelledCorrection
from evaluation.runner import Rows
from evaluation.suites.sources.checks import Check, Table, failures, holds, holds_only, shares
from evaluation.suites.sources.system import AnswerRow, Key, Run, given
from foundation.errors import InputError
from foundation.text import normalise

WITHOUT, WITH = "without", "pinned"


def corrections(run: Run) -> dict[str, Table]:
    """Each correction pinned alone; its questions and neighbours are asked with it and without.

    They are asked one at a time: in a batch, rounding alone changes some answers.

    Raises:
        InputError: The system takes no corrections.
    """
    pin = run.system.pin
    if pin is None:
        raise InputError("--task corrections needs an assistant that takes corrections")
    items = sources.corrections(run.limit)
    rows: Rows[Key, AnswerRow] = run.rows("corrections", items)
    for item in items:
        run.answers(rows, _queries(item, WITHOUT), item.id, alone=True)
        pinned = _queries(item, WITH)
        if any(key not in rows for key in pinned):
            with pin(item.statement):
                run.answers(rows, pinned, item.id, alone=True)
    checks = [check for item in items for check in _checks(item, rows)]
    return {"corrections": shares(checks, WITHOUT), "failures": failures("corrections", checks)}


def _queries(item: LabelledCorrection, arm: str) -> dict[Key, Query]:
    asked = [(question, item.passages) for question in item.questions]
    asked += [(neighbour.question, neighbour.passages) for neighbour in item.neighbours]
    return {
        (arm, f"{item.id} {number}"): Query(question, given(item.id, passages))
        for number, (question, passages) in enumerate(asked)
    }


def _checks(item: LabelledCorrection, rows: Rows[Key, AnswerRow]) -> list[Check]:
    checks = []
    for number, question in enumerate(item.questions):
        name = f"{item.id} {number}"
        answer = rows[WITH, name].answer
        checks.append(
            Check(
                "answered by the correction",
                name,
                holds_only(answer, [item.answer], [item.old]),
                question,
                f"{item.answer}; not {item.old}",
                answer,
                "paraphrase" if number else "question",
            )
        )
    for number, neighbour in enumerate(item.neighbours, start=len(item.questions)):
        name = f"{item.id} {number}"
        before, after = rows[WITHOUT, name].answer, rows[WITH, name].answer
        same = normalise(before) == normalise(after)
        right_before, right_after = (
            holds(answer, [neighbour.answer]) for answer in (before, after)
        )
        about = (neighbour.question, before, after)
        checks.append(Check("neighbour answered as without it", name, same, *about))
        if right_before:
            checks.append(Check("neighbour still right, of those right", name, right_after, *about))
    return checks
