"""`fulcrum ask`: answer one question."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import factory
from app.cli.console import PATHS, Range, err, example, model_settings, out, warn_of_skipped
from control.conflict.sources import POLICIES, Policy, SourceOptions
from control.decoding.options import (
    DEFAULT_RULE,
    WITHOUT_DIAL,
    Alpha,
    Decoding,
    check_rule,
    read_rule_options,
)
from control.question import check_question
from foundation.errors import InputError
from retrieval.ingest.readers import check_paths

if TYPE_CHECKING:
    from retrieval.ingest.documents import SkippedPath


class AlphaType(click.ParamType):
    """A setting of the dial: a number, or ``auto``."""

    name = "alpha"

    def convert(self, value: Any, _param: Any, _context: Any) -> Alpha:
        """The value of ``--alpha``.

        Raises:
            InputError: It is neither a number nor ``auto``.
        """
        if value == "auto":
            return "auto"
        try:
            return float(value)
        except ValueError:
            raise InputError(
                f"--alpha {value or repr('')}: not a number; give one from 0 (passages) to 1 "
                "(memory), or auto"
            ) from None


@click.command(
    epilog=example(
        'fulcrum ask "What is the capital of Peru?" --alpha 0.2',
        'fulcrum ask "Who wrote Emma?" --context notes.md --json',
        'fulcrum ask "How long may I wait?" --only-documents --as-of 2024-06-30',
    )
)
@click.argument("question")
@click.option(
    "--alpha",
    type=AlphaType(),
    metavar="NUMBER|auto",
    help="0 = passages, 0.5 = both, 1 = memory, auto = by confidence.  [default: 0.5]",
)
@click.option(
    "--reliance",
    type=Range(0, 1),
    help="Instead of --alpha: the share of conflicts over known facts that memory should settle.",
)
@click.option("--rule", default=None, help="How to decode; a wrong name lists the ways.")
@click.option(
    "--rule-option",
    "rule_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of the rule, such as epsilon=3; a wrong name lists them; repeatable.",
)
@click.option(
    "--only-documents",
    is_flag=True,
    help="Answer only what a document claims, and nothing from memory.",
)
@click.option(
    "--policy",
    type=click.Choice(POLICIES),
    help="Which documents to follow where they disagree; all tells every claim.  [default: the "
    "trusted or else the newest ones, if that can be told]",
)
@click.option(
    "--as-of",
    metavar="DATE",
    default="",
    help="Follow no document of a later date, such as 2024-06-30 or 2024.",
)
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
    type=click.Choice(["rewriter", "filter", "reservoir", "reader"]),
    help="Leave out a module; repeatable.",
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
    alpha: Alpha | None,
    reliance: float | None,
    rule: str | None,
    rule_options: tuple[str, ...],
    contexts: tuple[Path, ...],
    history: Path | None,
    without: tuple[str, ...],
    closed_book: bool,
    only_documents: bool,
    policy: Policy | None,
    as_of: str,
    top_k: int | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Answer QUESTION and show where each token came from."""
    if closed_book and contexts:
        raise InputError("--closed-book and --context contradict each other; give one of them")
    if closed_book and only_documents:
        raise InputError("--closed-book and --only-documents contradict each other; give one")
    if alpha is not None and reliance is not None:
        raise InputError("--alpha and --reliance both set the dial; give one of them")
    if rule is not None:
        check_rule(rule)
    if rule in WITHOUT_DIAL and alpha not in (None, "auto"):
        raise InputError(f"--alpha {alpha}: rule {rule} has no dial; leave --alpha out")
    decoding = Decoding(
        rule=rule or DEFAULT_RULE,
        alpha=0.5 if alpha is None else alpha,
        reliance=reliance,
        rule_options=read_rule_options(rule_options),
        **sampling,
    )
    question = check_question(question)
    check_paths(contexts)
    turns = read_history(history) if history else []
    sources = SourceOptions(policy, as_of, only_documents or None)
    settings = model_settings(given, top_k=top_k, without=without or None)

    from app.cli import terminal

    skipped: list[SkippedPath] = []
    passages = (
        factory.given_passages(settings, list(contexts), skipped.append) if contexts else None
    )
    warn_of_skipped(skipped, settings)
    if closed_book:
        passages = []
    on_token = None if as_json else lambda _, token: terminal.token(out, token)
    assistant = factory.assistant(settings)
    if decoding.rule == DEFAULT_RULE:  # no other one judges by a calibration
        terminal.tell_of_model(err, assistant.model, assistant.calibration, settings.cache)
    answer = assistant.ask(
        question, decoding, passages, on_token=on_token, history=turns, sources=sources
    )
    if as_json:
        click.echo(json.dumps(asdict(answer), ensure_ascii=False))
    else:
        terminal.summary(out, answer)
        if settings.model is None:
            terminal.recommend(out, settings.cache)


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
