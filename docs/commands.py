"""Write docs/commands.md from the commands' own help: `python docs/commands.py`."""

from collections.abc import Iterator
from pathlib import Path

import click

from app.cli.main import cli

TARGET = Path(__file__).with_name("commands.md")
WIDTH = 100
HEAD = "# Commands\n\nWhat `fulcrum COMMAND --help` says, of every command.\n"


def main() -> None:
    """Write the file."""
    TARGET.write_text(written(), encoding="utf-8")


def written() -> str:
    """Every command's help, under its name."""
    return HEAD + "".join(
        f"\n## {context.command_path}\n\n```text\n{context.get_help()}\n```\n"
        for context in _contexts(_context(cli, "fulcrum"))
    )


def _contexts(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            if command is not None and not command.hidden:
                yield from _contexts(_context(command, name, context))


def _context(
    command: click.Command, name: str, parent: click.Context | None = None
) -> click.Context:
    return command.context_class(
        command,
        info_name=name,
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        **command.context_settings,
    )


if __name__ == "__main__":
    main()
