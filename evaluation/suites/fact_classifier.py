"""The classifier of forgotten facts, and redaction by it, on facts held out of its training.

Those of ``plain_facts.jsonl`` are by an author of their own, of relations that nothing was learned
from.

What both do in the system, `fulcrum eval forgetting` measures otherwise.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from control.forgetting.classifier import FactJudge, asked, in_passage, stated
from control.forgetting.ledger import Changes
from control.forgetting.matcher import find_answers
from control.forgetting.record import Record
from control.forgetting.redaction import Redactor
from evaluation import metrics
from training import fact_classifier
from training.fact_classifier import FactExample

PLAIN = Path(__file__).parents[1] / "datasets" / "plain_facts.jsonl"
SEED = 0  # of the forms in which records are given
THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
# Kinds of texts that concern a fact, and of those that do not.
PAIRS = {
    "messages": ("asking", "beside"),
    "messages about something similar": ("asking", "others"),
    "sentences": ("stating", "not_stating"),
    "sentences without the answer": ("stating", "masked"),
    "sentences in passages on several subjects": ("stating in passages", "beside in passages"),
    "sentences in prose": ("stating in prose", "beside in prose"),
    "messages on plain facts": ("asking plainly", "beside plainly"),
    "sentences on plain facts": ("stating plainly", "not_stating plainly"),
    "messages on other relations": ("asking of others", "beside of others"),
    "sentences on other relations": ("stating of others", "not_stating of others"),
}


def report(judge: FactJudge) -> dict[str, Any]:
    """The area under the ROC curve of each kind of text, and what each threshold finds.

    Args:
        judge: The classifier.
    """
    draw = random.Random(SEED)  # noqa: S311 - a reproducible choice, nothing secret
    facts = fact_classifier.written(True)
    examples = [
        one
        for fact in facts
        for several in (
            fact_classifier.of_fact(fact, draw),
            fact_classifier.of_passages(fact, draw),
            fact_classifier.of_others(fact, draw),
        )
        for one in several
    ]
    for relation in fact_classifier.written(True, path=fact_classifier.PLAIN):
        examples += fact_classifier.of_relation(relation, draw)
    examples += _of_other_relations()
    likely = np.array(judge.asks([(one.text, one.fact) for one in examples]))
    rows = [_row(kind, pair, examples, likely) for kind, pair in PAIRS.items()]
    curve = [
        {"text": kind, "threshold": threshold} | _shares(pair, examples, likely, threshold)
        for kind, pair in PAIRS.items()
        for threshold in THRESHOLDS
    ]
    return {
        "n": len(examples),
        "facts": len(facts),
        "tables": {
            "classifier": rows,
            "thresholds": curve,
            "redaction": [redaction(facts, judge, name) for name in fact_classifier.TEXTS],
        },
    }


def _of_other_relations() -> Iterator[FactExample]:
    """Texts on plain facts, as `FactExample`, each with its relation and one question."""
    for fact in map(json.loads, PLAIN.read_text(encoding="utf-8").splitlines()):
        record = Record(
            fact["subject"],
            (),
            fact["relation"],
            (fact["question"],),
            (fact["answer"],),
            tuple(fact["answer_aliases"]),
        )
        for kind, concerns in (("asking", True), ("beside", False)):
            for text in fact[kind]:
                yield FactExample(f"{kind} of others", text, asked(record), concerns)
        for kind, concerns in (("stating", True), ("not_stating", False)):
            for text in fact[kind]:
                told = stated(record)
                yield FactExample(f"{kind} of others", in_passage(text), told, concerns)


class _OneRecord:
    """A ledger of one record."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def changes(self, version: int) -> Changes:
        return Changes(1, [] if version else [self._record])


def redaction(facts: Sequence[dict[str, Any]], judge: FactJudge, name: str) -> dict[str, Any]:
    """How redaction treats the sentences of passages.

    Args:
        facts: Facts with their passages, as of `fact_classifier.written`.
        judge: The classifier.
        name: Which passages, of `fact_classifier.TEXTS`.

    Returns:
        Of the sentences that state their fact and give its answer, the share in which it is left;
        of the others, the share that is not left as it was.
    """
    draw = random.Random(SEED)  # noqa: S311 - a reproducible choice, nothing secret
    left, changed = list[bool](), list[bool]()
    for number, fact in enumerate(facts):
        whole = replace(fact_classifier.record_of(fact), id=f"{number}")
        for passage in fact[name]:
            text = " ".join(one["text"] for one in passage["sentences"])
            record = fact_classifier.as_entered(whole, f"{passage['title']} {text}", draw)
            redactor = Redactor(_OneRecord(record), judge)
            kept = redactor.redact(text, passage["title"]).text
            for one in passage["sentences"]:
                if not one["states"]:
                    changed.append(one["text"] not in kept)
                elif find_answers(one["text"], record):
                    left.append(one["text"] in kept)
    flags = {"answer left": np.array(left), "others changed": np.array(changed)}
    return {
        "passages": name,
        "n stating": len(left),
        "n others": len(changed),
        **{name: round(share, 1) for name, share in metrics.percents(flags).items()},
        "ci": metrics.intervals(flags),
    }


def _row(
    kind: str, pair: tuple[str, str], examples: Sequence[FactExample], likely: Any
) -> dict[str, Any]:
    chosen = np.array([one.kind in pair for one in examples])
    concerns = np.array([one.concerns for one in examples])
    area = metrics.auroc(concerns[chosen], likely[chosen])
    return {"text": kind, "n": int(chosen.sum()), "AUROC": round(area, 4)}


def _shares(
    pair: tuple[str, str], examples: Sequence[FactExample], likely: Any, threshold: float
) -> dict[str, float]:
    kinds = np.array([one.kind for one in examples])
    found, wrongly = (likely[kinds == kind] >= threshold for kind in pair)
    return {
        "found": round(metrics.percent(found), 1),
        "others taken for it": round(metrics.percent(wrongly), 1),
    }
