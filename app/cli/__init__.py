"""The command line: `fulcrum [GLOBAL OPTIONS] COMMAND`, a module or package for each command."""

from app.cli.main import entry, main

__all__ = ["entry", "main"]
