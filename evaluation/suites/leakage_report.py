"""The report of `fulcrum eval forgetting` as one JSON file and one HTML page."""

import io
import json
from pathlib import Path
from typing import Any

from evaluation.report import TEMPLATES
from evaluation.tables import columns, shown
from foundation.files import replacing


def write(report: dict[str, Any], target: Path) -> None:
    """Write ``report.json`` and ``report.html`` into ``target``."""
    tables = report["tables"]
    plots = [
        _bars("leaked, percent", tables["baselines"], "arm", "leaked"),
        _bars("leaked by kind of probe, percent", tables["leaks by kind"], "kind", "leaked"),
        _bars("neighbours spoiled, percent", tables["neighbours"], "kind", "over-blocked"),
    ]
    page = TEMPLATES.get_template("forgetting.html.jinja").render(
        report=report, plots=plots, columns=columns, shown=shown, percent=_percent
    )
    for name, text in (
        ("report.json", json.dumps(report, indent=1, ensure_ascii=False)),
        ("report.html", page),
    ):
        with replacing(target / name) as new:
            new.write_text(text, encoding="utf-8")


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _bars(title: str, rows: list[dict[str, Any]], label: str, value: str) -> str:
    """Rates with their intervals as horizontal bars, as SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1 + 0.28 * len(rows)), layout="constrained")
    axis = figure.subplots()
    rates = [row[value] for row in rows]
    ends = [row["ci"][value] for row in rows]
    around = [
        [rate - low for rate, (low, _) in zip(rates, ends, strict=True)],
        [high - rate for rate, (_, high) in zip(rates, ends, strict=True)],
    ]
    axis.barh([row[label] for row in rows], rates, xerr=around, capsize=2)
    axis.set(title=title, xlim=(0, None))
    axis.invert_yaxis()
    axis.grid(alpha=0.3, axis="x")
    written = io.StringIO()
    figure.savefig(written, format="svg")
    text = written.getvalue()
    return text[text.index("<svg") :]
