"""What several evaluations share: settings without the user's state, and the report."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.console import model_settings, out

if TYPE_CHECKING:
    from app.settings import Settings
    from evaluation.report import Layout

OWN_STATE = ("ledger", "ledger_key", "ledger_checkpoint", "index")  # never the user's


def own_settings(given: dict[str, Any], target: Path) -> "Settings":
    """The settings with a home in the directory of the report, and nothing of the user's state."""
    settings = model_settings({**given, "home": target / "home"})
    return settings.model_copy(update=dict.fromkeys(OWN_STATE))


def write_report(
    result: dict[str, Any],
    target: Path,
    layout: "Layout" = "tables",
    announce: bool = True,
    hidden: Collection[str] = (),
) -> None:
    """Write the report and print its tables, but for the long ones that are hidden."""
    from evaluation import report

    report.write(result, target, layout)
    shown = {name: rows for name, rows in result["tables"].items() if name not in hidden}
    for table in report.tables(result | {"tables": shown}):
        out.print(table)
    if announce:
        out.print(f"report: {target / 'report.html'}")
