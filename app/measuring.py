"""The commands that measure: `fulcrum eval` and `fulcrum bench`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import settings as settings_module
from app.console import PATHS, example, out
from foundation.errors import InputError

if TYPE_CHECKING:
    from app.settings import Settings
    from control.model import LanguageModel
    from evaluation.conflict import Conflict


@click.group(name="eval")
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


@click.group()
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


@bench.command(
    name="index",
    epilog=example(
        "fulcrum bench index --out results/index", "fulcrum bench index --sizes 10000,100000"
    ),
)
@click.option(
    "--sizes",
    help="Numbers of passages, with commas between.  "
    "[default: 10000,100000,1000000; in PostgreSQL the first two]",
)
@click.option(
    "--index", "url", help="Measure this store, an empty PostgreSQL database.  [default: local]"
)
@click.option("--out", "target", type=PATHS, help="Directory for report.json.")
@click.pass_obj
def bench_index(
    given: dict[str, Any], sizes: str | None, url: str | None, target: Path | None
) -> None:
    """Build time, memory, recall and speed of the passage index as it grows."""
    url = url or settings_module.load(**given).index
    local = url in (None, "faiss")
    wanted = _sizes(sizes or ("10000,100000,1000000" if local else "10000,100000"))

    from tqdm import tqdm

    from evaluation import bench_index as benchmark
    from retrieval.embedding import open_embedding
    from retrieval.index import open_store

    draws = {"like passages": benchmark.passage_like(open_embedding())}
    if local:  # another database would have to be emptied for it
        draws["uniform"] = benchmark.uniform(384)
    with tqdm(desc="storing", unit=" passages", delay=2, disable=None) as bar:
        result = benchmark.run(
            wanted,
            draws,
            lambda folder: open_store(folder, url, benchmark.EMBEDDING_NAME),
            kind="local" if local else "PostgreSQL",
            progress=bar.update,
        )
    out.print(benchmark.table(result))
    if target is not None:
        benchmark.write(result, target)


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise InputError(f"--sizes {text}: give numbers from 1 up, such as 10000,100000")
    return sizes
