"""What all commands print to, how their help is written, and the options they share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

PATHS = click.Path(path_type=Path)


def example(*lines: str) -> str:
    """An epilog that keeps its line breaks."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


REPORT = click.option(
    "--out",
    "target",
    type=PATHS,
    required=True,
    help="Directory for the report; run again to resume.",
)
TIMES = click.option("--out", "target", type=PATHS, help="Directory for report.json.")


def count(
    *names: str, help: str, default: int | None = None, least: int = 1, multiple: bool = False
) -> Callable[[Any], Any]:
    """An option that takes a whole number from ``least`` up."""
    return click.option(
        *names,
        type=click.IntRange(min=least),
        default=default,
        show_default=default is not None,
        multiple=multiple,
        help=help,
    )


def batch_size(default: int) -> Callable[[Any], Any]:
    """The option that says how many questions are answered at a time."""
    return count("--batch-size", default=default, help="Questions at a time.")
