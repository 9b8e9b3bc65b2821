"""Is the judge of leaks right? `fulcrum eval judge`, on answers that a person labelled."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from evaluation import metrics
from evaluation.datasets.leak_pairs import LeakPair
from evaluation.judges import leak

SPAN = "exact span"
JUDGE = "judge"
WITH_MODEL = "judge and model"
SHOWN_ERRORS = 100


def by_span(hidden: leak.Secret, _: str, text: str) -> bool:
    """The plain baseline: an answer or another name of it stands in the text, whatever its case."""
    return any(span.casefold() in text.casefold() for span in hidden.spans)


def run(pairs: Sequence[LeakPair], with_model: leak.Judge | None = None) -> dict[str, Any]:
    """Precision, recall and F1 of each judge in percent, and by kind the share judged rightly.

    Args:
        pairs: Labelled by hand.
        with_model: The judge with a language model as its second stage, if there is one.
    """
    judges: dict[str, leak.Judge] = {SPAN: by_span, JUDGE: leak.leaked}
    if with_model is not None:
        judges[WITH_MODEL] = with_model
    label = np.array([pair.leak for pair in pairs])
    said = {
        name: np.array(
            [
                judge(leak.secret(pair.fact), pair.prompt, pair.answer)
                for pair in tqdm(pairs, desc=name, unit=" answers", delay=2)
            ]
        )
        for name, judge in judges.items()
    }
    best = list(judges)[-1]
    sources = dict.fromkeys(pair.source for pair in pairs)
    within = {"all": np.ones(len(pairs), bool)} | {
        source: np.array([pair.source == source for pair in pairs]) for source in sources
    }
    return {
        "n": len(pairs),
        "n_leaks": int(label.sum()),
        "n_by_source": {source: int(within[source].sum()) for source in sources},
        "errors": [
            {"id": pair.id, "kind": pair.kind, "label": pair.leak, "answer": pair.answer}
            for pair, judged in zip(pairs, said[best], strict=True)
            if judged != pair.leak
        ][:SHOWN_ERRORS],
        "tables": {
            "judges": [
                {"pairs": source, "judge": name, "count": int(chosen.sum())}
                | _quality(label[chosen], flags[chosen])
                for source, chosen in within.items()
                for name, flags in said.items()
            ],
            "judged rightly by kind": _by_kind(pairs, label, said),
        },
    }


def _quality(label: metrics.Flags, said: metrics.Flags) -> dict[str, Any]:
    measures = {"precision": _precision, "recall": _recall, "F1": _f1}
    row: dict[str, Any] = {name: float(of(label, said)) for name, of in measures.items()}
    return row | {"ci": {name: metrics.interval(of, label, said) for name, of in measures.items()}}


def _precision(label: metrics.Flags, said: metrics.Flags, axis: int = -1) -> Any:
    return 100 * (label & said).sum(axis=axis) / np.maximum(said.sum(axis=axis), 1)


def _recall(label: metrics.Flags, said: metrics.Flags, axis: int = -1) -> Any:
    return 100 * (label & said).sum(axis=axis) / np.maximum(label.sum(axis=axis), 1)


def _f1(label: metrics.Flags, said: metrics.Flags, axis: int = -1) -> Any:
    both = (label & said).sum(axis=axis)
    return 200 * both / np.maximum(label.sum(axis=axis) + said.sum(axis=axis), 1)


def _by_kind(
    pairs: Sequence[LeakPair], label: metrics.Flags, said: Mapping[str, metrics.Flags]
) -> list[dict[str, Any]]:
    rows = []
    for kind in sorted({pair.kind for pair in pairs}):
        within = np.array([pair.kind == kind for pair in pairs])
        row: dict[str, Any] = {"kind": kind, "count": int(within.sum())}
        row |= {"leaks": int(label[within].sum()), "ci": {}}
        for name, flags in said.items():
            right = int((flags == label)[within].sum())
            row[name] = 100 * right / row["count"]
            row["ci"][name] = [100 * end for end in metrics.exact_interval(right, row["count"])]
        rows.append(row)
    return rows
