"""What reservoir and trigger save: questions fill it, then come again and in other words.

ERM4's protocol, with the same questions asked again beside the similar ones.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from control.engines.base import Engine
from evaluation import metrics
from evaluation.datasets import builtin_facts
from evaluation.datasets.conflicts import spread
from evaluation.datasets.questions import PLAIN_KIND, RetrievalQuestion
from evaluation.suites.retrieval import Arm, Modules, RetrievalRow, run, with_history
from retrieval.trigger import TAU

FILLING, FOLLOWING = 100, 200
TAUS = (0.9, 0.8, 0.6)  # below the default, to show what they would save and lose
FIRST, AGAIN, REWORDED = "first", "again", "in other words"


def build_questions(split: str) -> dict[str, list[RetrievalQuestion]]:
    """100 questions, the same again, and 200 that ask for the same facts in other words."""
    corpus = builtin_facts.corpus()
    facts = [fact for fact in corpus.facts if fact.split == split]
    asked: dict[str, list[RetrievalQuestion]] = {FIRST: [], AGAIN: [], REWORDED: []}
    each = FOLLOWING // FILLING
    for fact in spread(facts, FILLING):
        forms = [form.format(**fact.row) for form in corpus.forms[fact.relation]]
        others = [
            text[0].upper() + text[1:] for text in forms if text.lower() != fact.question.lower()
        ]
        texts = {FIRST: [fact.question], AGAIN: [fact.question], REWORDED: others[:each]}
        for time, of_time in texts.items():
            for number, text in enumerate(of_time):
                name = f"{fact.id}-{time}-{number}"
                answers, evidence = tuple(fact.answers), ((fact.id,),)
                item = RetrievalQuestion(name, PLAIN_KIND, text, (), answers, evidence)
                asked[time].append(item)
    return asked


def reservoir_report(
    language_model: Engine,
    modules: Modules,
    asked: Mapping[str, Sequence[RetrievalQuestion]],
    target: Path,
) -> dict[str, Any]:
    """External passages, seconds, recall and hits, without and with the reservoir.

    ``external passages`` are the distinct ones that the index returned to each search. ``seconds``
    are those until the passages are there; ``with answer`` adds decoding. ``found`` and ``read``
    are the shares of questions with the answering passage among those found and read. The questions
    themselves are searched, without the rewriter; of a follow-up question its conversation too.

    Args:
        language_model: Answers from what was read.
        modules: The parts of the pipeline.
        asked: How questions are asked, in order, and so asked.
        target: Directory of the rows.
    """
    items = [item for of_time in asked.values() for item in of_time]
    ways = [
        Arm("without", with_history, modules.search, modules.judge, modules.reads),
        *(_reservoir_arm(f"tau {tau}", modules, target, tau) for tau in (TAU, *TAUS)),
    ]
    rows = {(row.arm, row.id): row for row in run(language_model, items, ways, target)}
    table = [
        {"arm": arm.name, "asked": time}
        | _row(of_time, [rows[arm.name, item.id] for item in of_time])
        for arm in ways
        for time, of_time in asked.items()
    ]
    return {"n": len(items), "tables": {"reservoir": table}}


def _reservoir_arm(name: str, modules: Modules, target: Path, tau: float) -> Arm:
    _, triggered = modules.with_reservoir(target / name, tau)
    return Arm(name, with_history, triggered, modules.judge, modules.reads)


def _row(items: Sequence[RetrievalQuestion], rows: Sequence[RetrievalRow]) -> dict[str, Any]:
    pairs = list(zip(rows, items, strict=True))
    hits = np.array([metrics.holds(row.answer, item.answers) for row, item in pairs], dtype=bool)
    external = [row.counts.get("passages_external", 0) for row in rows]
    return {
        "n": len(rows),
        "external passages": float(np.mean(external)),
        "seconds": float(np.mean([row.seconds_before for row in rows])),
        "with answer": float(np.mean([sum(row.seconds.values()) for row in rows])),
        "found": 100 * float(np.mean([item.recalled(row.found) for row, item in pairs])),
        "read": 100 * float(np.mean([item.recalled(row.read) for row, item in pairs])),
        "hit": metrics.percent(hits),
        "ci": {"hit": metrics.interval(metrics.percent, hits)},
    }
