"""`fulcrum ask`: answer one question."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import settings as settings_module
from app.cli.console import PATHS, example, out, warn_of_skipped
from foundation.errors import InputError

if TYPE_CHECKING:
    from control.decoding.generate import Alpha
    from retrieval.ingest.documents import SkippedPath


@click.command(
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
@click.option(
    "--top-k", type=int, help="Passages to read at most.  [default: by the model's window]"
)
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
    dial = parse_alpha(alpha or "0.5")
    turns = read_history(history) if history else []
    settings = settings_module.load(**given, top_k=top_k, without=without or None)

    from control.assistant import check_question
    from control.decoding.generate import Decoding
    from control.decoding.rules import DEFAULT_RULE

    decoding = Decoding(rule=rule or DEFAULT_RULE, alpha=dial, reliance=reliance, **sampling)
    question = check_question(question)

    from app import factory
    from app.cli import terminal

    skipped: list[SkippedPath] = []
    passages = factory.given_passages(list(contexts), skipped.append) if contexts else None
    warn_of_skipped(skipped)
    if closed_book:
        passages = []
    on_token = None if as_json else lambda _, token: terminal.token(out, token)
    answer = factory.assistant(settings).ask(
        question, decoding, passages, on_token=on_token, history=turns
    )
    if as_json:
        click.echo(json.dumps(asdict(answer), ensure_ascii=False))
    else:
        terminal.summary(out, answer)
        if settings.model is None:
            terminal.recommend(out, settings.cache)


def parse_alpha(text: str) -> "Alpha":
    """Return the value of ``--alpha``: a number or ``auto``.

    Raises:
        InputError: It is neither.
    """
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"--alpha {text}: not a number; give one from 0 (passages) to 1 (memory), or auto"
        ) from None


def read_history(path: Path) -> list[tuple[str, str]]:
    """Return the questions and answers of a JSON Lines file, oldest first.

    Raises:
        InputError: The file cannot be read, or a line is no turn.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--history {path}: cannot be read ({error}); give JSON Lines") from error
    turns = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                turn = json.loads(line)
                turns.append((str(turn["question"]), str(turn["answer"])))
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"--history {path}, line {number}: must be "
                    '{"question": "...", "answer": "..."}'
                ) from None
    return turns
