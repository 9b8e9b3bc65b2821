"""The numbers of `fulcrum eval forgetting`: what leaked where, what suffered, what it cost."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from math import comb
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from evaluation import metrics
from evaluation.datasets.probes import ORDINARY, Neighbour
from evaluation.judges import leak as leaks
from evaluation.suites.forgetting import ALONE, Results, differs, fact_number
from evaluation.suites.replies import ReplyCase, ReplyRow

BEST_OF = (1, 5, 20)
SHOWN_LEAKS = 50

T = TypeVar("T")
Leaks = dict[tuple[str, str], list[bool]]
"""By arm and id, whether each draw leaked"""


def report(results: Results, judge: leaks.Judge = leaks.leaked) -> dict[str, Any]:
    """The report of the command contract, with tables for a reader.

    Rates count the probes of facts that leak without forgetting, or that leaked in spite of it;
    ``all_probes`` says the rate over all. All are shares in [0, 1]; in ``tables`` percent, with
    exact 95 % intervals (Clopper and Pearson), which bound a rate from above where nothing leaked.
    ``utility``: hit and token F1 on ordinary questions, or on the neighbours where there are none.

    A neighbour is over-blocked if it is refused, or right without forgetting and wrong with it,
    asked alone in both; what differs in batches alone is rounding, and is told apart in ``tables``.

    ``by_layer``: ``retrieval``, a passage that states the fact reached the prompt; ``prompt``, the
    router let the question through; ``output``, the fact was in the answer.
    """
    leaked = _judge_replies(results, judge)
    counted_facts = {fact_number(id) for (_, id), flags in leaked.items() if any(flags)}
    probes = [case for case in results.probes if fact_number(case.id) in counted_facts]
    kinds = _grouped(probes, lambda case: case.probe.kind if case.probe else "")
    by_kind = {
        kind: _share(leaked["guarded", case.id][0] for case in kinds.get(kind, ()))
        for kind in sorted({case.probe.kind for case in results.probes if case.probe})
    }
    worst = max(by_kind, key=lambda kind: by_kind[kind], default="")
    beside = neighbour_report(results)
    layers = _layers(results, leaked, probes)
    out = beside | {
        "n_facts_counted": len(counted_facts),
        "n": len(results.probes),
        "n_counted": len(probes),
        "leak_rate": layers["output"],
        "all_probes": _share(leaked["guarded", case.id][0] for case in results.probes),
        "by_kind": by_kind,
        "by_layer": layers,
        "worst_kind": {"kind": worst, "leak_rate": by_kind.get(worst, 0.0)},
        "success_at": _success(results, leaked, counted_facts),
        "added_ms": _added_ms(results),
        "leaks": [
            _leak_row(case, results.rows["guarded", case.id])
            for case in results.probes
            if leaked["guarded", case.id][0]
        ][:SHOWN_LEAKS],
    }
    return out | {
        "tables": {
            "baselines": _baselines(results, leaked, counted_facts),
            "leaks by kind": [
                {"kind": kind}
                | _rate("leaked", [leaked["guarded", case.id][0] for case in cases])
                | {
                    f"past {layer}": 100 * share
                    for layer, share in _layers(results, leaked, cases).items()
                    if layer != "output"
                }
                for kind, cases in sorted(kinds.items())
            ],
            **beside["tables"],
            **_truth_table(results),
        }
    }


def neighbour_report(results: Results) -> dict[str, Any]:
    """The part of the report that tells of neighbours and ordinary questions."""
    spoiled = _neighbour_rows(results)
    kinds = _grouped(spoiled, lambda row: row["kind"])
    near = [row for row in spoiled if row["kind"] != ORDINARY]
    return {
        "n_facts": results.facts,
        "n": len(spoiled),
        "over_block_rate": _share(row["blocked"] for row in near),
        "over_block_by_kind": {
            kind: _share(row["blocked"] for row in rows)
            for kind, rows in kinds.items()
            if kind != ORDINARY
        },
        "utility": {which: _quality(kinds.get(ORDINARY, near), which) for which in ("off", "on")},
        "blocked": [row for row in near if row["blocked"]][:SHOWN_LEAKS],
        "tables": {
            "neighbours": [
                {"kind": kind}
                | _rate("over-blocked", [row["blocked"] for row in rows])
                | {
                    "refused": 100 * _share(row["refused"] for row in rows),
                    "lost in batches alone": 100 * _share(row["flipped"] > 0 for row in rows),
                    "won in batches alone": 100 * _share(row["flipped"] < 0 for row in rows),
                }
                | {
                    f"{what} {which}": 100 * value
                    for which in ("off", "on")
                    for what, value in _quality(rows, which).items()
                }
                for kind, rows in sorted(kinds.items(), key=lambda one: one[0] == ORDINARY)
            ]
        },
    }


def _judge_replies(results: Results, judge: leaks.Judge) -> Leaks:
    """Every answer to a probe, judged."""
    cases = {case.id: case for case in (*results.probes, *results.asked)}
    return {
        (arm, id): [judge(case.secret, case.probe.prompt, text) for text in row.texts]
        for (arm, id), row in tqdm(results.rows.items(), desc="judging", unit=" rows", delay=2)
        if (case := cases.get(id)) and case.secret and case.probe
    }


def _layers(results: Results, leaked: Leaks, cases: Sequence[ReplyCase]) -> dict[str, float]:
    rows = [results.rows["guarded", case.id] for case in cases]
    return {
        "retrieval": _share(row.stated for row in rows),
        "prompt": _share(not row.routed for row in rows),
        "output": _share(leaked["guarded", case.id][0] for case in cases),
    }


def _success(results: Results, leaked: Leaks, facts: set[str]) -> dict[str, float]:
    """Success@B: the chance that one of B draws leaks, unbiased from all draws (Chen et al. 2021).

    1 - C(n - c, B) / C(n, B) for c leaks among n draws, the mean over the probes; B beyond n is
    taken as n.
    """
    drawn = [
        leaked["sampled", case.id] for case in results.sampled if fact_number(case.id) in facts
    ]
    rates = {}
    for wanted in BEST_OF:
        chances = []
        for flags in drawn:
            n, best = len(flags), min(wanted, len(flags))
            chances.append(1 - comb(n - sum(flags), best) / comb(n, best))
        rates[str(wanted)] = float(np.mean(chances)) if chances else 0.0
    return rates


def _baselines(results: Results, leaked: Leaks, facts: set[str]) -> list[dict[str, Any]]:
    """The same probes, guarded and not."""
    cases = [case for case in results.baselines if fact_number(case.id) in facts]
    arms = {
        "no guard": [leaked["off", case.id][0] for case in cases],
        "instruction only": [leaked["instruction", case.id][0] for case in cases],
        "string filter only": [
            leaked["off", case.id][0] and not _filtered(case, results.rows["off", case.id])
            for case in cases
        ],
    }
    if any(arm == "unrouted" for arm, _ in results.rows):
        arms["without the router"] = [leaked["unrouted", case.id][0] for case in cases]
    arms["Fulcrum"] = [leaked["guarded", case.id][0] for case in cases]
    return [{"arm": arm} | _rate("leaked", flags) for arm, flags in arms.items()]


def _filtered(case: ReplyCase, row: ReplyRow) -> bool:
    """Whether a filter on the record's very answers would have kept the text back."""
    return case.request is not None and any(
        span in row.texts[0] for span in case.request.fact.spans
    )


def _neighbour_rows(results: Results) -> list[dict[str, Any]]:
    """Each neighbour: right or wrong without and with forgetting, and whether it was spoiled.

    One that is told something else with forgetting on is judged by what both arms say to it alone.
    ``flipped``: right in one arm and wrong in the other in the batches, and not so alone.
    """
    rows = []
    for id, one in results.beside.items():
        arms = [results.rows["off", id], results.rows["guarded", id]]
        batched = [_scored(one, row) for row in arms]
        if differs(results.rows, id):
            arms = [results.rows[f"{arm}{ALONE}", id] for arm in ("off", "guarded")]
        before, after = (_scored(one, row) for row in arms)
        turned = batched[0]["hit"] - batched[1]["hit"]
        rows.append(
            {
                "kind": one.kind,
                "question": one.question,
                "blocked": arms[1].refused or before["hit"] > after["hit"],
                "refused": arms[1].refused,
                "flipped": turned if turned != before["hit"] - after["hit"] else 0.0,
                "off": {"text": arms[0].texts[0], **before},
                "on": {"text": arms[1].texts[0], **after},
            }
        )
    return rows


def _scored(one: Neighbour, row: ReplyRow) -> dict[str, float]:
    text = row.texts[0]
    return {
        "hit": float(metrics.holds(text, one.answers)),
        "F1": max(metrics.token_f1(text, right) for right in one.answers),
    }


def _quality(rows: Sequence[dict[str, Any]], which: str) -> dict[str, float]:
    """Mean hit and token F1 without ("off") or with ("on") forgetting."""
    return {what: _share(row[which][what] for row in rows) for what in ("hit", "F1")}


def _added_ms(results: Results) -> dict[str, float]:
    spent = [row.added_ms for (arm, _), row in results.rows.items() if arm == "timed"]
    if not spent:
        return {"p50": 0.0, "p95": 0.0}
    p50, p95 = np.percentile(spent, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}


def _truth_table(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Where facts are lies of documents: is the truth back once the lie is forgotten?"""
    lies = [case for case in results.asked if case.lie]
    arms = {
        "poisoned documents": "off",
        "the lie forgotten": "guarded",
        "the same without the router": "unrouted",
        "no documents": "closed-book",
    }
    rows = [
        {"state": state, "n": len(there)}
        | {
            what: 100 * _share(said == what for said in there)
            for what in ("clean", "corrupted", "refused", "other")
        }
        for state, arm in arms.items()
        if (
            there := [
                _classify_reply(case, row)
                for case in lies
                if (row := results.rows.get((arm, case.id)))
            ]
        )
    ]
    return {"is the truth back": rows} if rows else {}


def _classify_reply(case: ReplyCase, row: ReplyRow) -> str:
    text = row.texts[0]
    if case.secret and case.probe and leaks.leaked(case.secret, case.probe.prompt, text):
        return "corrupted"
    if case.request and metrics.holds(text, case.request.truth):
        return "clean"
    return "refused" if row.refused else "other"


def _rate(name: str, flags: Sequence[bool]) -> dict[str, Any]:
    """How many, and the share in percent with its interval."""
    interval = [100 * end for end in metrics.exact_interval(sum(flags), len(flags))]
    return {"n": len(flags), name: 100 * _share(flags), "ci": {name: interval}}


def _leak_row(case: ReplyCase, row: ReplyRow) -> dict[str, Any]:
    return {
        "kind": case.probe.kind if case.probe else "",
        "prompt": case.query.question,
        "said": row.texts[0],
    }


def _grouped(cases: Iterable[T], kind: Callable[[T], str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = defaultdict(list)
    for case in cases:
        groups[kind(case)].append(case)
    return groups


def _share(flags: Iterable[float]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0
