"""Facts forgotten and remembered again in random order: is each answer as it was before?"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from control.forgetting.aliases import with_aliases
from control.forgetting.ledger import Ledger
from evaluation.datasets.probes import ForgetRequest, questions
from evaluation.judges import leak as leaks
from evaluation.suites.replies import GuardedSystem, ProbeQuery

SEED = 0


@dataclass(frozen=True)
class ReversibilityStep:
    """One step: a fact was forgotten, or remembered again, and then asked for."""

    subject: str
    added: bool
    before: str
    after: str
    right: bool


def run(
    system: GuardedSystem, ledger: Ledger, items: Sequence[ForgetRequest], rounds: int = 1000
) -> dict[str, Any]:
    """Add and remove facts in random order, and ask for each after its change.

    Args:
        system: The system under test; it follows the ledger.
        ledger: One of its own; what an interrupted run left in it is removed first.
        items: The facts; one of each subject is taken, so that no other touches its answer.
        rounds: Adds and removes together.

    Returns:
        ``n_added`` and ``kept`` (share of adds after which the fact did not leak), ``n_removed``
        and ``restored`` (share of removes after which the answer is, word for word, the one
        before anything was forgotten), ``chain`` ("whole", or what is broken), ``failures``.
    """
    for record in ledger.records():
        ledger.remove(record.id)
    draw = random.Random(SEED)  # noqa: S311 - an order, nothing secret
    items = list({item.fact.subject: item for item in items}.values())
    asked = [ProbeQuery(questions(item.fact)[0]) for item in items]
    # One by one, as below: in a batch, rounding may choose another word.
    before = [system([query], "guarded")[0][0].text for query in asked]
    active: dict[int, str] = {}
    steps: list[ReversibilityStep] = []
    for _ in tqdm(range(rounds), desc="adding and removing", delay=2):
        at = draw.randrange(len(items))
        if at in active:
            ledger.remove(active.pop(at))
        else:
            [record] = ledger.add([with_aliases(items[at].fact)])
            active[at] = record.id
        [[reply]] = system([asked[at]], "guarded")
        steps.append(_step(items[at], at in active, before[at], reply.text))
    added = [step for step in steps if step.added]
    removed = [step for step in steps if not step.added]
    return {
        "n_added": len(added),
        "kept": sum(step.right for step in added) / max(len(added), 1),
        "n_removed": len(removed),
        "restored": sum(step.right for step in removed) / max(len(removed), 1),
        "chain": ledger.verify() or "whole",
        "failures": [vars(step) for step in steps if not step.right],
    }


def _step(item: ForgetRequest, added: bool, before: str, after: str) -> ReversibilityStep:
    kept = not leaks.leaked(leaks.secret(item.fact), questions(item.fact)[0], after)
    return ReversibilityStep(
        item.fact.subject, added, before, after, kept if added else after == before
    )
