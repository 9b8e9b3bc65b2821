"""What all commands share: the consoles, options, and the wording of help and errors."""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from app import factory
from app import settings as settings_module
from foundation import cores
from foundation.errors import FulcrumError, InputError

if TYPE_CHECKING:
    from app.settings import Settings
    from retrieval.ingest.documents import SkippedPath

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

SECONDS_WIDTH = 19  # of an ISO time: the date and the time of day, to the second


class NamedPath(click.Path):
    """A path; never the current directory by an empty name."""

    wanted = "a file or a directory"

    def __init__(self, file_okay: bool = True) -> None:
        super().__init__(file_okay=file_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; as `click.Path.convert`."""
        if not os.fspath(value):
            self.fail(f"the name is empty; give {self.wanted}", param, ctx)
        return super().convert(value, param, ctx)


class Directory(NamedPath):
    """A directory that need not exist yet."""

    wanted = "a directory"

    def __init__(self, file_okay: bool = False) -> None:
        super().__init__(file_okay)


class Range(click.FloatRange):
    """A finite number of a range; "nan" is in none, though it compares with no end of it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; as `click.FloatRange.convert`."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            limits = self._describe_range()
            self.fail(f"{number} is no number in the range {limits}.", param, ctx)
        return number


PATHS = NamedPath()
DIRECTORY = Directory()


def example(*lines: str) -> str:
    """An epilog that keeps its line breaks."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


REPORT = click.option(
    "--out",
    "target",
    type=DIRECTORY,
    required=True,
    help="Directory for the report; run again to resume.",
)
TIMES = click.option("--out", "target", type=DIRECTORY, help="Directory for report.json.")


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


def model_settings(given: dict[str, Any], local: bool = False, **own: Any) -> "Settings":
    """The settings of a command that loads models, checked; the number of threads is set.

    Called before anything is imported that computes.

    Args:
        given: The global options.
        local: Whether the command needs a model that transformers runs.
        own: The command's own options among the settings.

    Raises:
        InputError: A setting cannot be used.
        ModelError: There is no such model.
    """
    settings = settings_module.load(**given, **own)
    factory.check(settings, local)
    cores.limit(settings.threads)
    return settings


def warn_of_skipped(skipped: "Sequence[SkippedPath]", settings: "Settings") -> None:
    """Print the files that could not be read, or not wholly, to standard error."""
    if not skipped:
        return
    clear = factory.door(settings).open()
    from retrieval.ingest.documents import summarize_skipped

    for partly, word in ((False, "skipped"), (True, "note")):
        for line in summarize_skipped([each for each in skipped if each.partly is partly]):
            shown = line.encode("utf-8", "replace").decode()  # a file name may be no text
            err.print(f"{word}: {clear.line(shown)}", style="yellow", markup=False, soft_wrap=True)


def error_line(message: str, given: dict[str, Any]) -> str:
    """What an error says, cleared of the forgotten facts of the home that was to be used.

    Args:
        message: Of the error.
        given: The global options.
    """
    try:
        settings = settings_module.load(**given)
    except FulcrumError:
        return message  # about the settings themselves; nothing was read
    try:
        return factory.door(settings).line(message)
    except FulcrumError as damage:
        return str(damage)


def milliseconds(begun: float) -> str:
    """The time since then, of `time.perf_counter`."""
    return f"{1000 * (time.perf_counter() - begun):,.0f} ms"


def moment(iso: str) -> str:
    """An ISO time to the second."""
    return iso[:SECONDS_WIDTH].replace("T", " ")


def plain(text: str) -> str:
    """One line without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else "�" for sign in " ".join(text.split()))


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=1))


def install_hint(extra: str) -> str:
    """Return what to do where the packages of an extra are missing."""
    return f"run in Fulcrum's checkout: pip install '.[{extra}]'"


def require_packages(what: str, extra: str, *packages: str) -> None:
    """Check that an extra's packages are installed, without importing them.

    Args:
        what: What needs them, with its verb, to begin the message.
        extra: The extra that installs them.
        packages: Their import names.

    Raises:
        InputError: Some are missing.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise InputError(f"{what} {' and '.join(missing)}; {install_hint(extra)}")
