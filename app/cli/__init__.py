"""The command line: `fulcrum [GLOBAL OPTIONS] COMMAND`, one file for each command."""

from app.cli.main import entry, main

__all__ = ["entry", "main"]
