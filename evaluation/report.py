"""A report as one JSON file and one HTML page that needs nothing else."""

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jinja2
from rich.table import Table

from foundation.files import replacing

METRICS = ("ConR", "ParR", "MR", "hit")
STATES = ("correction", "resistance", "agreement")
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True
)


def write(report: dict[str, Any], target: Path) -> None:
    """Write ``report.json`` and ``report.html`` into ``target``."""
    sections = [
        ("Known facts, counterfactual passage", {"metrics": METRICS, "rows": report["known"]}),
        ("All facts, counterfactual passage", {"metrics": METRICS, "rows": report["all"]}),
        ("Unknown facts, true passage", {"metrics": ("right",), "rows": report["unknown"]}),
    ]
    page = TEMPLATES.get_template("report.html.jinja").render(
        report=report, plots=_plots(report), sections=sections, states=STATES
    )
    for name, text in (
        ("report.json", json.dumps(report, indent=1, ensure_ascii=False)),
        ("report.html", page),
    ):
        with replacing(target / name) as new:
            new.write_text(text, encoding="utf-8")


def table(report: dict[str, Any]) -> Table:
    """The rows on known facts, for a terminal, with Q and what asking for reliance gave."""
    right = {(row["rule"], row["alpha"]): row["right"] for row in report["unknown"]}
    view = Table(title=f"{report['model']}: {report['n_known']} known of {report['n']} facts")
    for column in ("rule", "alpha", *METRICS, "unknown right"):
        view.add_column(column, justify="left" if column == "rule" else "right")
    for row in report["known"]:
        unknown = right.get((row["rule"], row["alpha"]))
        view.add_row(
            row["rule"],
            str(row["alpha"]),
            *(f"{row[metric]:.1f}" for metric in METRICS),
            "" if unknown is None else f"{unknown:.1f}",
        )
    view.caption = "  ".join(
        f"Q({rule}) {'-' if value is None else f'{value:.1f}'}"
        for rule, value in report["Q"].items()
    )
    if report["reliance"]:
        view.caption += "\nreliance asked/realised: " + "  ".join(
            f"{row['asked']:.0f}/{row['MR']:.0f}" for row in report["reliance"]
        )
    return view


def _plots(report: dict[str, Any]) -> list[str]:
    """MR and hit on known facts, and right answers on unknown ones, along alpha, as SVG."""
    return [
        _plot("MR, known facts", report["known"], "MR", report["Q"]),
        _plot("hit, known facts", report["known"], "hit", report["Q"]),
        _plot("right, unknown facts, true passage", report["unknown"], "right", report["Q"]),
        _trade_off(report),
    ]


def _trade_off(report: dict[str, Any]) -> str:
    """Right answers on unknown facts against MR on known ones, along each rule's dial."""
    right = {(row["rule"], row["alpha"]): row["right"] for row in report["unknown"]}
    axis, drawing = _axis("known against unknown", "MR, known facts", "right, unknown facts")
    for rule in report["Q"]:
        rows = _dialled(report["known"], rule)
        axis.plot(
            [row["MR"] for row in rows],
            [right[rule, row["alpha"]] for row in rows],
            marker="o",
            label=rule,
        )
    plain = next(row["MR"] for row in report["known"] if row["alpha"] == "plain")
    axis.plot(plain, right["plain", "plain"], "k*", markersize=12, label="plain RAG")
    axis.set(xlim=(-2, 102))
    return drawing()


def _plot(title: str, rows: list[dict[str, Any]], metric: str, rules: Iterable[str]) -> str:
    axis, drawing = _axis(title, "alpha", "percent")
    for rule in rules:
        dialled = _dialled(rows, rule)
        alphas = [row["alpha"] for row in dialled]
        axis.plot(alphas, [row[metric] for row in dialled], marker="o", label=rule)
        low, high = zip(*(row["ci"][metric] for row in dialled), strict=True)
        axis.fill_between(alphas, low, high, alpha=0.15)
    plain = next(row[metric] for row in rows if row["alpha"] == "plain")
    axis.axhline(plain, color="0.5", linestyle="--", label="plain RAG")
    axis.set(xlim=(-0.02, 1.02))
    return drawing()


def _dialled(rows: list[dict[str, Any]], rule: str) -> list[dict[str, Any]]:
    """The rows of a rule along its dial."""
    return [row for row in rows if row["rule"] == rule and isinstance(row["alpha"], int | float)]


def _axis(title: str, x: str, y: str) -> tuple[Any, Callable[[], str]]:
    """An empty plot up to 100 percent, and what turns it into SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3.8), layout="constrained")
    axis = figure.subplots()
    axis.set(title=title, xlabel=x, ylabel=y, ylim=(-2, 102))
    axis.grid(alpha=0.3)

    def drawing() -> str:
        # Below the axes, where it covers no line.
        figure.legend(loc="outside lower center", ncols=3, fontsize="small")
        written = io.StringIO()
        figure.savefig(written, format="svg")
        text = written.getvalue()
        return text[text.index("<svg") :]

    return axis, drawing
