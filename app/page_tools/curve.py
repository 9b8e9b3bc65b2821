"""The curve of the dial as SVG in the page's colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 34


@dataclass(frozen=True)
class CurveLine:
    """One measure along the dial.

    Attributes:
        name: Of the measure.
        style: Class of its stroke, in ``page.css``.
        points: In SVG units.
        path: The same as an SVG path.
        band: The outline of its 95 % interval.
    """

    name: str
    style: str
    points: tuple[tuple[float, float], ...]
    path: str
    band: str


@dataclass(frozen=True)
class CurveRow:
    """The measures at one setting, in percent; ``None`` where there is none."""

    dial: str
    memory: float | None
    hit: float | None
    right: float | None


@dataclass(frozen=True)
class Curve:
    """The whole drawing.

    Attributes:
        lines: The measures.
        rows: The same as a table, plain RAG first.
        ticks: Position and value on the axis of the dial.
        heights: Position and value on the axis in percent.
    """

    lines: tuple[CurveLine, ...]
    rows: tuple[CurveRow, ...]
    ticks: tuple[tuple[float, float], ...]
    heights: tuple[tuple[float, int], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT


def curve(report: dict[str, Any]) -> Curve:
    """Draw a report of `evaluation.suites.dial`."""
    known = report["known"] if report["n_known"] else []
    unknown = [row for row in report["unknown"] if row["n"]]
    lines = [
        _line("memory wins (known facts)", "memory", known, "MR"),
        _line("follows either side (known facts)", "both", known, "hit"),
        _line("right from the passage (unknown facts)", "context", unknown, "right"),
    ]
    alphas = [row["alpha"] for row in report["known"] if _dialled(row)]
    return Curve(
        tuple(line for line in lines if line),
        tuple(_row(alpha, known, unknown) for alpha in ("plain", *alphas)),
        tuple((_across(alpha), alpha) for alpha in alphas),
        tuple((_up(percent), percent) for percent in range(0, 101, 25)),
    )


def _line(name: str, style: str, rows: Sequence[dict[str, Any]], measure: str) -> CurveLine | None:
    dialled = [row for row in rows if _dialled(row)]
    if not dialled:
        return None
    points = [(_across(row["alpha"]), _up(row[measure])) for row in dialled]
    low, high = (
        [(_across(row["alpha"]), _up(row["ci"][measure][end])) for row in dialled] for end in (0, 1)
    )
    return CurveLine(
        name,
        style,
        tuple(points),
        _path(points),
        f"{_path([*high, *reversed(low)])} Z",
    )


def _row(
    alpha: float | str, known: Sequence[dict[str, Any]], unknown: Sequence[dict[str, Any]]
) -> CurveRow:
    asked = next((row for row in known if row["alpha"] == alpha), {})
    told = next((row for row in unknown if row["alpha"] == alpha), {})
    name = "plain RAG" if alpha == "plain" else f"{alpha:g}"
    return CurveRow(name, asked.get("MR"), asked.get("hit"), told.get("right"))


def _dialled(row: dict[str, Any]) -> bool:
    return isinstance(row["alpha"], int | float)


def _across(alpha: float) -> float:
    return round(LEFT + alpha * (WIDTH - LEFT - RIGHT), 1)


def _up(percent: float) -> float:
    return round(HEIGHT - BOTTOM - percent / 100 * (HEIGHT - TOP - BOTTOM), 1)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M " + " L ".join(f"{x} {y}" for x, y in points)
