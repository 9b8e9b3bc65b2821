"""The command line: `fulcrum [GLOBAL OPTIONS] COMMAND`."""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from app import settings as settings_module
from foundation.errors import FulcrumError, InputError

if TYPE_CHECKING:
    from app.settings import Settings
    from control.model import LanguageModel
    from evaluation.conflict import Conflict
    from retrieval.documents import Skipped

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130

PATHS = click.Path(path_type=Path)


def example(*lines: str) -> str:
    """An epilog that keeps its line breaks."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


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
@click.version_option(package_name="fulcrum")
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
    settings = settings_module.load(**given, top_k=top_k)

    from app import build, terminal
    from control.assistant import checked
    from control.decoding import Decoding
    from control.rules import DEFAULT_RULE

    how = Decoding(
        rule=rule or DEFAULT_RULE, alpha=_alpha(alpha or "0.5"), reliance=reliance, **sampling
    )
    question = checked(question)
    passages = build.given_passages(list(contexts), _skipped) if contexts else None
    if closed_book:
        passages = []
    show = None if as_json else lambda _, token: terminal.token(out, token)
    answer = build.assistant(settings).ask(question, how, passages, on_token=show)
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

    from app import build

    index = build.passage_index(settings)
    with tqdm(desc="ingesting", unit=" passages", delay=2, disable=None) as bar:
        report = index.ingest(paths, progress=bar.update, trust=trust)
    for skipped in report.skipped:
        _skipped(skipped)
    out.print(
        f"{report.documents:,} documents in {report.passages:,} passages added, "
        f"{report.replaced:,} replaced, {report.duplicates:,} already there, "
        f"{len(report.skipped):,} skipped; the index holds {index.count():,} passages"
    )


@cli.group(name="eval")
def evaluate() -> None:
    """Measure; each evaluation writes report.json and report.html."""


@evaluate.command(epilog=example("fulcrum eval dial --limit 50 --out results/dial"))
@click.option(
    "--data",
    type=PATHS,
    help="Conflicts as JSON Lines or a published data set, see docs/evaluation.md.  "
    "[default: the built-in ones]",
)
@click.option("--split", help='Only items of this split, such as "calibration".')
@click.option("--limit", type=click.IntRange(min=1), help="Only so many items, drawn evenly.")
@click.option(
    "--rule", "rules", multiple=True, help="Rule; repeatable.  [default: the rule in use]"
)
@click.option(
    "--alpha",
    "alphas",
    multiple=True,
    type=click.FloatRange(0, 1),
    help="Setting of the dial for token rules; repeatable.  [default: 0, 0.25, 0.5, 0.75, 1]",
)
@click.option("--adaptive", is_flag=True, help="Also judge alpha auto, in three states.")
@click.option("--trust", is_flag=True, help="Also answer from doubtful and from reliable passages.")
@click.option(
    "--unknown",
    "unknown_limit",
    type=click.IntRange(min=1),
    help="At most so many facts that the model does not know, drawn evenly.",
)
@click.option(
    "--known-only",
    is_flag=True,
    help="Ask only known facts with their counterfactual passage, which saves time.",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Measure the model instead and keep the result for its dial.  "
    "[data: the split calibration of the built-in ones]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Questions at a time.",
)
@click.option(
    "--out",
    "target",
    type=PATHS,
    required=True,
    help="Directory for the report; run again to resume.",
)
@click.pass_obj
def dial(
    given: dict[str, Any],
    data: Path | None,
    split: str | None,
    limit: int | None,
    rules: tuple[str, ...],
    alphas: tuple[float, ...],
    adaptive: bool,
    unknown_limit: int | None,
    known_only: bool,
    trust: bool,
    calibrate: bool,
    batch_size: int,
    target: Path,
) -> None:
    """How far the dial moves answers between passages and memory."""
    settings = settings_module.load(**given)

    from app import build
    from control.rules import CHOICES
    from evaluation import datasets, report
    from evaluation import dial as dial_evaluation

    if unknown := set(rules) - set(CHOICES):
        raise InputError(f"rule is {min(unknown)!r}; choose one of {', '.join(CHOICES)}")
    if calibrate and split is None and data is None:
        split = "calibration"
    data = data or datasets.BUILT_IN_CONFLICTS
    items = datasets.spread(datasets.conflicts(data, split), limit)
    model = build.language_model(settings)
    if calibrate:
        _calibrate(settings, model, items, target, batch_size)
        return
    result = dial_evaluation.run(
        model,
        items,
        target,
        rules,
        batch_size,
        adaptive,
        build.calibration(settings, model),
        sorted(alphas) or dial_evaluation.ALPHAS,
        known_only,
        trust,
        unknown_limit,
    )
    result |= {"data": data.name, "split": split}
    report.write(result, target)
    out.print(report.table(result))
    out.print(f"report: {target / 'report.html'}")


def _calibrate(
    settings: "Settings",
    model: "LanguageModel",
    items: "Sequence[Conflict]",
    target: Path,
    batch_size: int,
) -> None:
    from app import build
    from evaluation import calibration, fitting

    observations = calibration.run(model, items, target, batch_size)
    measured = fitting.fit(model, observations)
    fitting.fit(model, observations, any_model=True).save(target / "any.json")
    kept = build.keep(measured, model, settings, target)
    out.print(fitting.table(measured))
    out.print(f"the dial of {model.name} now uses {kept}", soft_wrap=True)


@cli.group()
def bench() -> None:
    """Time the parts that have to be fast."""


@bench.command(epilog=example("fulcrum bench decoding --out results/decoding"))
@click.option(
    "--tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Tokens to decode."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Questions at a time.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=7,
    show_default=True,
    help="Repetitions, interleaved.",
)
@click.option("--out", "target", type=PATHS, help="Directory for report.json.")
@click.pass_obj
def decoding(
    given: dict[str, Any], tokens: int, batch_size: int, rounds: int, target: Path | None
) -> None:
    """Two branches in one batch against plain generation and against two separate forwards."""
    settings = settings_module.load(**given)

    from app import build
    from evaluation import bench as benchmarks

    result = benchmarks.decoding(build.language_model(settings), tokens, rounds, batch_size)
    out.print(benchmarks.table(result))
    if target is not None:
        benchmarks.write(result, target)


@bench.command(name="dial", epilog=example("fulcrum bench dial --out results/dial-speed"))
@click.option(
    "--tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Longest answer."
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=12, show_default=True, help="Questions."
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Repetitions, interleaved.",
)
@click.option("--out", "target", type=PATHS, help="Directory for report.json.")
@click.pass_obj
def bench_dial(
    given: dict[str, Any], tokens: int, limit: int, rounds: int, target: Path | None
) -> None:
    """The dial's answers against plain generation, with and without a conflict."""
    settings = settings_module.load(**given)

    from app import build
    from evaluation import bench as benchmarks
    from evaluation import datasets

    items = datasets.conflicts(datasets.BUILT_IN_CONFLICTS, "calibration")
    model = build.language_model(settings)
    result = benchmarks.dial(
        model, build.calibration(settings, model), datasets.spread(items, limit), tokens, rounds
    )
    out.print(benchmarks.dial_table(result))
    if target is not None:
        benchmarks.write(result, target)


def _skipped(skipped: "Skipped") -> None:
    err.print(f"skipped {skipped.path}: {skipped.reason}", style="yellow", markup=False)


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
