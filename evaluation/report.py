"""Reports: one JSON file, one HTML page that needs nothing else, and tables for a terminal."""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jinja2
from rich.table import Table

from foundation.files import replacing

METRICS = ("ConR", "ParR", "MR", "hit")
STATES = ("correction", "resistance", "agreement")
HIDDEN = ("ci",)
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True
)

Layout = Literal["dial", "forgetting", "tables"]
"""A template of the page"""


def write(report: dict[str, Any], target: Path, layout: Layout = "tables") -> None:
    """Write ``report.json`` and ``report.html`` into ``target``."""
    page = TEMPLATES.get_template(f"{layout}.html.jinja").render(
        report=report, **PARTS[layout](report)
    )
    write_json(report, target)
    with replacing(target / "report.html") as new:
        new.write_text(page, encoding="utf-8")


def write_json(report: dict[str, Any], target: Path) -> None:
    """Write ``report.json`` into ``target``."""
    with replacing(target / "report.json") as new:
        new.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")


def tables(report: dict[str, Any]) -> list[Table]:
    """The report's tables for a terminal."""
    return [
        table(
            f"{title}, n = {report['n']:,}",
            columns(rows),
            ([cell(row, column) for column in columns(rows)] for row in rows),
            left=[name for name in columns(rows) if not numeric(rows[0][name])],
        )
        for title, rows in report["tables"].items()
    ]


def table(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str | None = None,
    left: Sequence[str] | None = None,
) -> Table:
    """A table for a terminal; columns are aligned right but for those in ``left``, or the first."""
    view = Table(title=title, caption=caption)
    for heading in headings:
        to_left = heading in (headings[:1] if left is None else left)
        view.add_column(heading, justify="left" if to_left else "right")
    for row in rows:
        view.add_row(*row)
    return view


def dial_table(report: dict[str, Any]) -> Table:
    """The rows on known facts, for a terminal, with Q and the MR of each requested reliance."""
    right = {(row["rule"], row["alpha"]): f"{row['right']:.1f}" for row in report["unknown"]}
    caption = "  ".join(
        f"Q({rule}) {'-' if value is None else f'{value:.1f}'}"
        for rule, value in report["Q"].items()
    )
    if report["reliance"]:
        caption += "\nreliance asked/realised: " + "  ".join(
            f"{row['asked']:.0f}/{row['MR']:.0f}" for row in report["reliance"]
        )
    for rule, options in report["options"].items():
        caption += f"\n{rule}: {options_text(options)}"
    return table(
        f"{report['model']}: {report['n_known']} known of {report['n']} facts",
        ("rule", "alpha", *METRICS, "unknown right"),
        (
            (
                row["rule"],
                str(row["alpha"]),
                *(f"{row[metric]:.1f}" for metric in METRICS),
                right.get((row["rule"], row["alpha"]), ""),
            )
            for row in report["known"]
        ),
        caption,
    )


def options_text(options: Mapping[str, Any]) -> str:
    """Options of a rule as one writes them, such as ``epsilon=3, head=paper``."""
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, int | float) else f"{name}={value}"
        for name, value in options.items()
    )


def columns(rows: list[dict[str, Any]]) -> list[str]:
    """The columns that are shown."""
    return [name for name in rows[0] if name not in HIDDEN]


def cell(row: dict[str, Any], column: str) -> str:
    """A value as text, with its interval if it has one."""
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}"
    if interval := row.get("ci", {}).get(column):
        text += f" [{interval[0]:.0f}, {interval[1]:.0f}]"
    return text


def numeric(value: Any) -> bool:
    """Whether a value's column is one of numbers."""
    return isinstance(value, int | float)


def _dial_parts(report: dict[str, Any]) -> dict[str, Any]:
    sections = [
        ("Known facts, counterfactual passage", {"metrics": METRICS, "rows": report["known"]}),
        ("All facts, counterfactual passage", {"metrics": METRICS, "rows": report["all"]}),
        ("Unknown facts, true passage", {"metrics": ("right",), "rows": report["unknown"]}),
    ]
    plots = [
        _dial_plot("MR, known facts", report["known"], "MR", report["Q"]),
        _dial_plot("hit, known facts", report["known"], "hit", report["Q"]),
        _dial_plot("right, unknown facts, true passage", report["unknown"], "right", report["Q"]),
        _trade_off_plot(report),
    ]
    return {"plots": plots, "sections": sections, "states": STATES, "options_text": options_text}


def _forgetting_parts(report: dict[str, Any]) -> dict[str, Any]:
    tables = report["tables"]
    plots = [
        _bar_plot("leaked, percent", tables["baselines"], "arm", "leaked"),
        _bar_plot("leaked by kind of probe, percent", tables["leaks by kind"], "kind", "leaked"),
        _bar_plot("neighbours spoiled, percent", tables["neighbours"], "kind", "over-blocked"),
    ]
    return {"plots": plots, "percent": lambda share: f"{100 * share:.2f}", **_table_parts(report)}


def _table_parts(_: dict[str, Any]) -> dict[str, Any]:
    return {"columns": columns, "cell": cell, "numeric": numeric}


PARTS: dict[Layout, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "dial": _dial_parts,
    "forgetting": _forgetting_parts,
    "tables": _table_parts,
}
"""What each template shows beside the report"""


def _trade_off_plot(report: dict[str, Any]) -> str:
    """Right answers on unknown facts against MR on known ones, along each rule's dial."""
    right = {(row["rule"], row["alpha"]): row["right"] for row in report["unknown"]}
    figure, axis = _percent_plot("known against unknown", "MR, known facts", "right, unknown facts")
    for rule in report["Q"]:
        without_dial = [
            row for row in report["known"] if (row["rule"], row["alpha"]) == (rule, "auto")
        ]
        rows = _dial_rows(report["known"], rule) or without_dial
        axis.plot(
            [row["MR"] for row in rows],
            [right[rule, row["alpha"]] for row in rows],
            marker="o",
            label=rule,
        )
    plain = next(row["MR"] for row in report["known"] if row["alpha"] == "plain")
    axis.plot(plain, right["plain", "plain"], "k*", markersize=12, label="plain RAG")
    axis.set(xlim=(-2, 102))
    return _svg(figure, legend=True)


def _dial_plot(title: str, rows: list[dict[str, Any]], metric: str, rules: Iterable[str]) -> str:
    """A metric along alpha, with its intervals."""
    figure, axis = _percent_plot(title, "alpha", "percent")
    for rule in rules:
        dialled = _dial_rows(rows, rule)
        if not dialled:
            continue
        alphas = [row["alpha"] for row in dialled]
        axis.plot(alphas, [row[metric] for row in dialled], marker="o", label=rule)
        low, high = zip(*(row["ci"][metric] for row in dialled), strict=True)
        axis.fill_between(alphas, low, high, alpha=0.15)
    plain = next(row[metric] for row in rows if row["alpha"] == "plain")
    axis.axhline(plain, color="0.5", linestyle="--", label="plain RAG")
    axis.set(xlim=(-0.02, 1.02))
    return _svg(figure, legend=True)


def _dial_rows(rows: list[dict[str, Any]], rule: str) -> list[dict[str, Any]]:
    """The rows of a rule along its dial."""
    return [row for row in rows if row["rule"] == rule and isinstance(row["alpha"], int | float)]


def _percent_plot(title: str, x: str, y: str) -> tuple[Any, Any]:
    """An empty plot up to 100 percent: figure and axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3.8), layout="constrained")
    axis = figure.subplots()
    axis.set(title=title, xlabel=x, ylabel=y, ylim=(-2, 102))
    axis.grid(alpha=0.3)
    return figure, axis


def _bar_plot(title: str, rows: list[dict[str, Any]], label: str, value: str) -> str:
    """Rates with their intervals as horizontal bars."""
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
    return _svg(figure)


def _svg(figure: Any, legend: bool = False) -> str:
    """A figure as SVG; its legend stands below the axes, where it covers no line."""
    if legend:
        figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    written = io.StringIO()
    figure.savefig(written, format="svg")
    text = written.getvalue()
    return text[text.index("<svg") :]
