"""The commands that measure: `fulcrum eval`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import settings as settings_module
from app.cli.console import PATHS, REPORT, batch_size, example, out
from app.cli.evaluate_forgetting import forgetting
from app.cli.evaluate_preference import preference
from foundation.errors import InputError

if TYPE_CHECKING:
    from app.settings import Settings
    from control.engines.transformers import LanguageModel
    from evaluation.datasets.conflict import Conflict


@click.group(name="eval")
def evaluate() -> None:
    """Measure; each evaluation writes report.json and report.html."""


evaluate.add_command(forgetting)
evaluate.add_command(preference)


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
@batch_size(16)
@REPORT
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

    from app import factory
    from control.decoding.rules import CHOICES
    from evaluation import report
    from evaluation.datasets import conflicts
    from evaluation.suites import dial as dial_evaluation

    if unknown := set(rules) - set(CHOICES):
        raise InputError(f"rule is {min(unknown)!r}; choose one of {', '.join(CHOICES)}")
    if calibrate and split is None and data is None:
        split = "calibration"
    data = data or conflicts.BUILT_IN_CONFLICTS
    items = conflicts.spread(conflicts.conflicts(data, split), limit)
    model = factory.language_model(settings)
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
        factory.calibration(settings, model),
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
    from app import factory
    from evaluation.suites import calibration

    observations = calibration.run(model, items, target, batch_size)
    measured = calibration.fit(model, observations)
    calibration.fit(model, observations, any_model=True).save(target / "any.json")
    kept = factory.keep(measured, model, settings, target)
    out.print(calibration.table(measured))
    out.print(f"the dial of {model.name} now uses {kept}", soft_wrap=True)


@evaluate.command(
    epilog=example(
        "fulcrum eval retrieval --limit 150 --out results/retrieval",
        "fulcrum eval retrieval --measure reservoir --out results/reservoir",
    )
)
@click.option(
    "--data",
    type=PATHS,
    help="RAMDocs, or questions with their documents in its form.  [default: the built-in ones]",
)
@click.option("--split", default="test", show_default=True, help="Of the built-in questions.")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many of each kind.")
@click.option("--kind", "kinds", multiple=True, help="Only this kind of question; repeatable.")
@click.option(
    "--measure",
    type=click.Choice(["modules", "filter", "reservoir"]),
    default="modules",
    show_default=True,
    help="What each module adds; how well the filter judges; what the reservoir saves.",
)
@REPORT
@click.pass_obj
def retrieval(
    given: dict[str, Any],
    data: Path | None,
    split: str,
    limit: int | None,
    kinds: tuple[str, ...],
    measure: str,
    target: Path,
) -> None:
    """What rewriter, filter, reservoir and trigger add to retrieval."""
    settings = settings_module.load(**{**given, "home": target / "home"})

    from app import factory
    from evaluation import tables
    from evaluation.datasets import questions as asked
    from evaluation.suites import filter as judging
    from evaluation.suites import reservoir as sparing
    from evaluation.suites import retrieval as evaluation

    if data is None:
        items, corpus = asked.built_in(split, limit), asked.PASSAGES
    else:
        items, corpus = asked.ramdocs(data, limit), asked.corpus(data, target)
    if kinds:
        there = dict.fromkeys(item.kind for item in items)
        if unknown := set(kinds) - set(there):
            raise InputError(f"--kind {min(unknown)}: there is {', '.join(there)}")
        items = [item for item in items if item.kind in kinds]
    index = factory.passage_index(settings)
    index.ingest([corpus])
    model = factory.language_model(settings)
    if measure == "filter":
        result = judging.filter_report(factory.judges(settings, model), items, index)
    else:
        modules = factory.modules(settings, index, model)
        if measure == "reservoir":
            result = sparing.reservoir_report(model, modules, target, split)
        else:
            result = evaluation.modules_report(model, modules, items, target)
    result |= {"model": model.name, "data": data.name if data else "built-in"}
    result |= {"split": split if data is None else None}
    tables.write(result, target)
    for table in tables.tables(result):
        out.print(table)
    out.print(f"report: {target / 'report.html'}")
