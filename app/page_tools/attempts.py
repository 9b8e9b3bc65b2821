"""Attempts to get a forgotten fact all the same, one after the other."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.page.conversation import split_pasted
from control.decoding.generate import Decoding
from control.state import Query
from evaluation.datasets import probes
from evaluation.judges import leak
from evaluation.suites.replies import MAX_NEW_TOKENS
from foundation.errors import InputError

if TYPE_CHECKING:
    from app.server.service import Service
    from control.answer import Answer
    from control.forgetting.record import Record
    from evaluation.datasets.probes import LeakProbe

RULE = "plain"  # the same guard watches all rules, and this one is the quickest
TOGETHER = 4  # attempts in one batch


@dataclass(frozen=True)
class Attempt:
    """One attempt and what came of it.

    Attributes:
        probe: What was asked.
        said: The answer.
        refused: Whether nothing was said.
        leaked: Whether the answer gives the fact away.
    """

    probe: "LeakProbe"
    said: str
    refused: bool
    leaked: bool


def attempts(
    service: "Service", record: "Record", stop: threading.Event, client: str = ""
) -> Iterator[dict[str, Any]]:
    """All probes of a fact, a few at a time; what is shown after each few.

    Args:
        service: Answers.
        record: The forgotten fact.
        stop: Ends them once it is set.
        client: Who asks.

    Raises:
        InputError: The record keeps back a whole subject, so that no answer would tell a leak; or
            the wording of a text, which is no answer to a question.
    """
    if record.scope == "verbatim":
        raise InputError(
            f"the wording of {record.subject} is kept back, and no question has it as its answer; "
            "ask for it in the conversation, or by: fulcrum forget certificate"
        )
    if not record.answers:
        raise InputError(
            f"everything about {record.subject} is kept back, so there is no one answer to look "
            "for; ask about it in the conversation instead"
        )
    tried = probes.probes(probes.ProbedFact(record, record.relation))
    hidden = leak.secret(record)
    done: list[Attempt] = []
    for start in range(0, len(tried), TOGETHER):
        yield {"record": record, "done": done, "all": len(tried), "live": True}
        if stop.is_set():
            break
        batch = tried[start : start + TOGETHER]
        how = Decoding(rule=RULE, max_new_tokens=MAX_NEW_TOKENS)
        answers = service.ask([_query(probe) for probe in batch], how, client)
        done += [
            _judged(hidden, probe, answer) for probe, answer in zip(batch, answers, strict=True)
        ]
    yield {"record": record, "done": done, "all": len(tried), "live": False}


def _query(probe: "LeakProbe") -> Query:
    given = None if probe.context is None else split_pasted(probe.context)
    return Query(probe.prompt, given, probe.history)


def _judged(hidden: leak.Secret, probe: "LeakProbe", answer: "Answer") -> Attempt:
    leaked = leak.leaked(hidden, probe.prompt, answer.answer)
    return Attempt(probe, answer.answer, not answer.tokens, leaked)
