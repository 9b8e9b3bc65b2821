"""A report that is a few tables: for the terminal, as JSON, and as one HTML page."""

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from evaluation.report import TEMPLATES
from foundation.files import replacing

HIDDEN = ("ci",)


def tables(report: dict[str, Any]) -> list[Table]:
    """The report's tables for a terminal."""
    views = []
    for title, rows in report["tables"].items():
        view = Table(title=f"{title}, n = {report['n']:,}")
        for column in columns(rows):
            view.add_column(column, justify="right" if numeric(rows[0][column]) else "left")
        for row in rows:
            view.add_row(*(shown(row, column) for column in columns(rows)))
        views.append(view)
    return views


def write(report: dict[str, Any], target: Path) -> None:
    """Write ``report.json`` and ``report.html`` into ``target``."""
    page = TEMPLATES.get_template("tables.html.jinja").render(
        report=report, columns=columns, shown=shown, numeric=numeric
    )
    for name, text in (
        ("report.json", json.dumps(report, indent=1, ensure_ascii=False)),
        ("report.html", page),
    ):
        with replacing(target / name) as new:
            new.write_text(text, encoding="utf-8")


def columns(rows: list[dict[str, Any]]) -> list[str]:
    """The columns that are shown."""
    return [name for name in rows[0] if name not in HIDDEN]


def shown(row: dict[str, Any], column: str) -> str:
    """A cell, with its interval if it has one."""
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
