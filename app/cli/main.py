"""The command line: `fulcrum [GLOBAL OPTIONS] COMMAND`."""

import json
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import settings as settings_module
from app.cli import bench, evaluate, forget, serve, train
from app.cli.console import PATHS, err, example, out
from foundation.errors import FulcrumError, InputError

if TYPE_CHECKING:
    from retrieval.ingest.documents import Skipped

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=example(
        "fulcrum ingest data/passages.jsonl", 'fulcrum ask "What is the capital of Peru?"'
    ),
)
@click.option("--home", type=PATHS, help="Directory that holds all state.")
@click.option("--model", help="Hugging Face id, model directory or .gguf file.")
@click.option("--adapter", type=PATHS, help="PEFT adapter directory to put on the model.")
@click.option("--calibration", type=PATHS, help="Calibration file; by default the model's own.")
@click.option("--index", help="URL of the passage index; by default it lies in the home directory.")
@click.option("--verbose", is_flag=True, help="Log what the libraries do.")
@click.version_option(package_name="fulcrum-rag")
@click.pass_context
def cli(context: click.Context, verbose: bool, **given: Any) -> None:
    """Answers from documents and from a model's memory, with a dial between the two."""
    _quieten(verbose)
    context.obj = given


@cli.command(
    epilog=example(
        'fulcrum ask "What is the capital of Peru?" --alpha 0.2',
        'fulcrum ask "Who wrote Emma?" --context notes.md --json',
    )
)
@click.argument("question")
@click.option(
    "--alpha",
    metavar="NUMBER|auto",
    help="0 = passages, 0.5 = plain RAG, 1 = memory, auto = by confidence.  [default: 0.5]",
)
@click.option(
    "--reliance",
    type=click.FloatRange(0, 1),
    help="Instead of --alpha: the share of conflicts over known facts that memory should settle.",
)
@click.option("--rule", default=None, help="How to decode; a wrong name lists the ways.")
@click.option(
    "--context",
    "contexts",
    multiple=True,
    type=PATHS,
    help="Read this file instead of the index; repeatable.",
)
@click.option(
    "--history",
    type=PATHS,
    help='The conversation so far, JSON Lines: {"question": "...", "answer": "..."}.',
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(["rewriter", "filter", "reservoir"]),
    help="Leave out a retrieval module; repeatable.",
)
@click.option("--closed-book", is_flag=True, help="Ask the model's memory alone.")
@click.option("--top-k", type=int, help="Passages to read.  [default: 3]")
@click.option(
    "--temperature",
    type=float,
    default=0.0,
    show_default=True,
    help="0 is greedy; above it, sample.",
)
@click.option(
    "--top-p",
    type=float,
    default=1.0,
    show_default=True,
    help="Share of probability that sampling keeps.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sampling.")
@click.option(
    "--max-new-tokens", type=int, default=128, show_default=True, help="Longest answer, in tokens."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def ask(
    given: dict[str, Any],
    question: str,
    alpha: str | None,
    reliance: float | None,
    rule: str | None,
    contexts: tuple[Path, ...],
    history: Path | None,
    without: tuple[str, ...],
    closed_book: bool,
    top_k: int | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Answer QUESTION and show where each token came from."""
    if closed_book and contexts:
        raise InputError("--closed-book and --context contradict each other; give one of them")
    if alpha is not None and reliance is not None:
        raise InputError("--alpha and --reliance both set the dial; give one of them")
    settings = settings_module.load(**given, top_k=top_k, without=without or None)

    from app import factory
    from app.cli import terminal
    from app.cli.history import read as conversation
    from control.assistant import check_question
    from control.decoding.generate import Decoding
    from control.decoding.rules import DEFAULT_RULE

    how = Decoding(
        rule=rule or DEFAULT_RULE, alpha=_alpha(alpha or "0.5"), reliance=reliance, **sampling
    )
    question = check_question(question)
    skipped: list[Skipped] = []
    passages = factory.given_passages(list(contexts), skipped.append) if contexts else None
    _tell(skipped)
    if closed_book:
        passages = []
    show = None if as_json else lambda _, token: terminal.token(out, token)
    said = conversation(history) if history else ()
    answer = factory.assistant(settings).ask(question, how, passages, on_token=show, history=said)
    if as_json:
        click.echo(json.dumps(asdict(answer), ensure_ascii=False))
    else:
        terminal.summary(out, answer)


@cli.command(
    epilog=example("fulcrum ingest data/passages.jsonl", "fulcrum ingest notes/ paper.pdf")
)
@click.argument("paths", nargs=-1, required=True, type=PATHS)
@click.option(
    "--trust",
    type=click.FloatRange(0, 1),
    help="How far these documents are trusted against memory: 0 = not at all, 1 = fully.  "
    "[default: 0.5, or what a document says]",
)
@click.pass_obj
def ingest(given: dict[str, Any], paths: tuple[Path, ...], trust: float | None) -> None:
    """Add documents (.txt .md .html .pdf .jsonl) or directories of them to the index."""
    settings = settings_module.load(**given)

    from tqdm import tqdm

    from app import factory

    index = factory.passage_index(settings)
    with tqdm(desc="ingesting", unit=" passages", delay=2, disable=None) as bar:
        report = index.ingest(paths, progress=bar.update, trust=trust)
    _tell(report.skipped)
    out.print(
        f"{report.documents:,} documents in {report.passages:,} passages added, "
        f"{report.replaced:,} replaced, {report.duplicates:,} already there, "
        f"{len(report.skipped):,} skipped; the index holds {index.count():,} passages"
    )


cli.add_command(evaluate.evaluate)
cli.add_command(bench.bench)
cli.add_command(train.train)
cli.add_command(forget.forget)
cli.add_command(serve.serve)


def _tell(skipped: "Sequence[Skipped]") -> None:
    from retrieval.ingest.documents import summary

    for line in summary(skipped):
        err.print(f"skipped: {line}", style="yellow", markup=False, soft_wrap=True)


def _alpha(text: str) -> Any:
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"--alpha {text}: not a number; give one from 0 (passages) to 1 (memory), or auto"
        ) from None


def _quieten(verbose: bool) -> None:
    """Keep the libraries' chatter off the terminal unless it is asked for."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr
    )
    if not verbose:
        warnings.simplefilter("ignore", FutureWarning)  # of one library about another
        for name in ("transformers", "sentence_transformers", "httpx", "huggingface_hub", "pypdf"):
            logging.getLogger(name).setLevel(logging.ERROR)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    try:
        cli.main(arguments, prog_name="fulcrum", standalone_mode=False)
    except FulcrumError as error:
        return _mistake(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_MISTAKE
    except click.ClickException as error:
        return _mistake(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        click.echo("fulcrum: interrupted; what was finished is kept", err=True)
        return EXIT_INTERRUPTED
    return 0


def _mistake(message: str) -> int:
    click.echo(f"fulcrum: {' '.join(message.split())}", err=True)
    return EXIT_MISTAKE


def entry() -> None:
    """The `fulcrum` command."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
