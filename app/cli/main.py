"""The command line: `fulcrum [GLOBAL OPTIONS] COMMAND`."""

import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from app.cli import ask, bench, correct, evaluate, forget, ingest, serve, train
from app.cli.console import PATHS, Directory, error_line, example
from foundation.errors import FulcrumError, InputError

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130


ADMINISTRATION = {"forget", "correct"}  # show the records, and what they hold


class ClearedGroup(click.Group):
    """The commands, whose errors are cleared of forgotten facts."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command.

        Raises:
            FulcrumError: A mistake of the user.
            click.ClickException: The same, of the command line itself.
        """
        try:
            return super().invoke(context)
        except (FulcrumError, click.UsageError) as error:
            if context.invoked_subcommand in ADMINISTRATION:
                raise
            given = {name: value for name, value in context.params.items() if name != "verbose"}
            told = error.message if isinstance(error, click.UsageError) else str(error)
            cleared = error_line(told, given)
            if cleared == told or isinstance(error, click.exceptions.NoArgsIsHelpError):
                raise
            raise InputError(cleared) from None


@click.group(
    cls=ClearedGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=example(
        "fulcrum ingest data/passages.jsonl", 'fulcrum ask "What is the capital of Peru?"'
    ),
)
@click.option("--home", type=Directory(file_okay=True), help="Directory that holds all state.")
@click.option(
    "--model",
    help="Hugging Face id, model directory, .gguf file, or URL of an OpenAI-compatible server "
    "(http://127.0.0.1:8000/v1, with #name where it has several models).",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "transformers", "llama.cpp"]),
    help="What runs a .gguf file.  [default: llama.cpp]",
)
@click.option(
    "--embedding",
    help="Embedding model: Hugging Face id, directory that sentence-transformers saved, or URL of "
    "an OpenAI-compatible server (http://127.0.0.1:8000/v1, with #name where it has several "
    "models).",
)
@click.option(
    "--reader",
    help="What reads claims: Hugging Face id or directory of a model for extractive question "
    "answering, trained also on questions without an answer (SQuAD 2.0).",
)
@click.option(
    "--adapter",
    type=PATHS,
    help="PEFT adapter directory, or LoRA .gguf for llama.cpp, to put on the model.",
)
@click.option("--calibration", type=PATHS, help="Calibration file; by default the model's own.")
@click.option("--index", help="URL of the passage index; by default it lies in the home directory.")
@click.option(
    "--threads",
    type=click.IntRange(1, 1_024),
    help="Threads to compute with.  [default: the cores that are free at the start, for serve all]",
)
@click.option("--verbose", is_flag=True, help="Log what the libraries do.")
@click.version_option(package_name="fulcrum-rag")
@click.pass_context
def cli(context: click.Context, verbose: bool, **given: Any) -> None:
    """Answers from documents and from a model's memory, with a dial between the two."""
    _set_up_logging(verbose)
    context.obj = given


for command in (
    ask.ask,
    ingest.ingest,
    correct.correct,
    forget.forget,
    evaluate.evaluate,
    train.train,
    bench.bench,
    serve.serve,
):
    cli.add_command(command)


def _set_up_logging(verbose: bool) -> None:
    """Keep the libraries' chatter off the terminal unless it is asked for."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr
    )
    if not verbose:
        warnings.simplefilter("ignore", FutureWarning)  # of one library about another
        for name in (
            "transformers",
            "sentence_transformers",
            "httpx",
            "openai",
            "huggingface_hub",
        ):
            logging.getLogger(name).setLevel(logging.ERROR)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    try:
        cli.main(arguments, prog_name="fulcrum", standalone_mode=False)
    except FulcrumError as error:
        return _report_mistake(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_MISTAKE
    except click.ClickException as error:
        return _report_mistake(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        click.echo("fulcrum: interrupted; what was finished is kept", err=True)
        return EXIT_INTERRUPTED
    return 0


def _report_mistake(message: str) -> int:
    shown = " ".join(message.encode("utf-8", "replace").decode().split())  # a file name may be none
    click.echo(f"fulcrum: {shown}", err=True)
    return EXIT_MISTAKE


def entry() -> None:
    """The `fulcrum` command."""
    sys.exit(main())
