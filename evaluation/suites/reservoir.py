"""What reservoir and trigger save: questions fill it, similar ones follow (ERM4's protocol)."""

from pathlib import Path
from typing import Any

import numpy as np

from control.engines.base import Engine
from evaluation import metrics
from evaluation.datasets import builtin_facts
from evaluation.datasets.conflicts import spread
from evaluation.datasets.questions import PLAIN_KIND, RetrievalQuestion
from evaluation.suites.retrieval import Arm, Modules, RetrievalRow, plain_query, run

FILLING, FOLLOWING = 100, 200
TAUS = (0.4, 0.6, 0.8)
THETAS = (1, 2, 3)


def build_questions(split: str) -> tuple[list[RetrievalQuestion], list[RetrievalQuestion]]:
    """100 questions, and 200 that ask for the same facts in other words."""
    corpus = builtin_facts.corpus()
    facts = [fact for fact in corpus.facts if fact.split == split]
    filling, following = list[RetrievalQuestion](), list[RetrievalQuestion]()
    each = FOLLOWING // FILLING
    for fact in spread(facts, FILLING):
        asked = [form.format(**fact.row) for form in corpus.forms[fact.relation]]
        others = [
            text[0].upper() + text[1:] for text in asked if text.lower() != fact.question.lower()
        ]
        for number, text in enumerate([fact.question, *others[:each]]):
            item = RetrievalQuestion(
                f"{fact.id}-{number}", PLAIN_KIND, text, (), tuple(fact.answers), ((fact.id,),)
            )
            (following if number else filling).append(item)
    return filling, following


def reservoir_report(
    language_model: Engine, modules: Modules, target: Path, split: str = "test"
) -> dict[str, Any]:
    """External passages, seconds and hits of the 200, without and with the reservoir.

    ``external passages`` are the distinct ones that the index returned to each search, of which
    the best ten go on to the filter. ``seconds`` are those until the passages are there; ``with
    answer`` adds decoding. The curve over tau and theta searches the questions themselves, without
    the rewriter.
    """
    filling, following = build_questions(split)
    asked = [*filling, *following]
    ways = [
        Arm("without", modules.rewrite, modules.search, modules.judge, modules.reads),
        _reservoir_arm("reservoir", modules, target / "reservoir", None, None),
    ]
    curve = {f"tau {tau}, theta {theta}": (tau, theta) for tau in TAUS for theta in THETAS}
    for name, (tau, theta) in curve.items():
        ways.append(_reservoir_arm(name, modules, target / name, tau, theta))
    rows = run(language_model, asked, ways, target)
    table = []
    for arm in ways:
        later = [row for row in rows if row.arm == arm.name][len(filling) :]
        table.append({"arm": arm.name} | _row(following, later))
    return {"n": len(following), "tables": {"reservoir": table[:2], "curve": table[2:]}}


def _reservoir_arm(
    name: str, modules: Modules, folder: Path, tau: float | None, theta: int | None
) -> Arm:
    rewrite, triggered, remembered = modules.with_reservoir(folder, tau, theta, False)
    return Arm(name, plain_query if tau else rewrite, triggered, remembered, modules.reads)


def _row(items: list[RetrievalQuestion], rows: list[RetrievalRow]) -> dict[str, Any]:
    hits = np.array(
        [metrics.holds(row.answer, item.answers) for row, item in zip(rows, items, strict=True)],
        dtype=bool,
    )
    found = [sum(s for step, s in row.seconds.items() if step != "decode") for row in rows]
    external = [row.counts.get("passages_external", 0) for row in rows]
    return {
        "n": len(rows),
        "external passages": float(np.mean(external)),
        "seconds": float(np.mean(found)),
        "with answer": float(np.mean([sum(row.seconds.values()) for row in rows])),
        "hit": metrics.percent(hits),
        "ci": {"hit": metrics.interval(metrics.percent, hits)},
    }
