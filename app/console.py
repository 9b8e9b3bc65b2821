"""What all commands print to, and how their help is written."""

from pathlib import Path

import click
from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

PATHS = click.Path(path_type=Path)


def example(*lines: str) -> str:
    """An epilog that keeps its line breaks."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
