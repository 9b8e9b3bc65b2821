"""How the dial is measured and calibrated: `fulcrum eval dial`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import factory
from app.cli.console import PATHS, REPORT, Range, batch_size, count, example, model_settings, out
from app.cli.evaluate.report import write_report
from control.decoding.options import check_rule
from foundation.errors import InputError

# Facts asked closed-book, and of those that it knows, and does not, asked with passages; see
# `evaluation.suites.calibration.fit_bars`.
QUICK, QUICK_EACH = 144, 24

if TYPE_CHECKING:
    from app.settings import Settings
    from control.conflict.calibration import Calibration
    from control.engines.base import Engine
    from evaluation.datasets.conflicts import Conflict


@click.command(
    epilog=example(
        "fulcrum eval dial --limit 50 --out results/dial",
        "fulcrum --model MODEL.gguf eval dial --calibrate --quick --out results/calibration",
        "fulcrum eval dial --tune --rule ck_plug --rule grd --out results/tuned",
        "fulcrum eval dial --rule fulcrum --rule ck_plug --tuned results/tuned/tuned.json "
        "--out results/dial",
    )
)
@click.option(
    "--data",
    type=PATHS,
    help="Conflicts as JSON Lines or a published data set, see docs/evaluation.md.  "
    "[default: the built-in ones]",
)
@click.option(
    "--split",
    help='Only items of this split, such as "calibration".  [default: with --tuned, test]',
)
@count("--limit", help="Only so many items, drawn evenly.")
@click.option(
    "--rule", "rules", multiple=True, help="Rule; repeatable.  [default: the rule in use]"
)
@click.option(
    "--alpha",
    "alphas",
    multiple=True,
    type=Range(0, 1),
    help="Setting of the dial for token rules; repeatable.  [default: 0, 0.25, 0.5, 0.75, 1]",
)
@click.option("--adaptive", is_flag=True, help="Also judge alpha auto, in three states.")
@click.option("--trust", is_flag=True, help="Also answer from doubtful and from reliable passages.")
@count(
    "--unknown",
    "unknown_limit",
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
    "[data: the split calibration of the built-in ones and of those in natural text]",
)
@click.option(
    "--quick",
    is_flag=True,
    help="With --calibrate: ask 144 facts, or --limit, 48 of them with passages, and choose only "
    "how far alpha goes; all else is as for a model that is not calibrated.",
)
@click.option(
    "--tune",
    is_flag=True,
    help="Choose the options of token rules for this model instead: all rules, or those of "
    "--rule.  [data: as of --calibrate]",
)
@click.option(
    "--tuned",
    type=PATHS,
    help="Use the options that --tune wrote to this file; other rules are as published.",
)
@click.option(
    "--pool",
    "pools",
    type=PATHS,
    multiple=True,
    help="With --calibrate: the --out of another model's, for the calibration for any model; "
    "repeatable.",
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
    quick: bool,
    tune: bool,
    tuned: Path | None,
    pools: tuple[Path, ...],
    batch_size: int,
    target: Path,
) -> None:
    """How far the dial moves answers between passages and memory."""
    for rule in rules:
        check_rule(rule)
    if calibrate + tune + (tuned is not None) > 1:
        raise InputError("--calibrate, --tune and --tuned are three runs; give one of them")
    if quick and not calibrate:
        raise InputError("--quick is a way to calibrate; give --calibrate too")
    if quick and pools:
        raise InputError("--pool needs all that --calibrate measures; leave out --quick")
    settings = model_settings(given)

    from evaluation.datasets import conflicts

    limit = limit or (QUICK if quick else None)
    if data is None and split is None and (calibrate or tune):
        split, items = "calibration", conflicts.for_calibration(limit)
    else:
        split = "test" if data is None and split is None and tuned else split
        data = data or conflicts.BUILT_IN_CONFLICTS
        items = conflicts.spread(conflicts.conflicts(data, split), limit)
    named = {"data": data.name if data else "built-in and natural", "split": split}

    from evaluation import report
    from evaluation.suites import dial as dial_suite

    model = factory.language_model(settings)
    if quick:
        _calibrate_quickly(settings, model, items, target, batch_size)
        return
    if calibrate:
        _calibrate(settings, model, items, target, batch_size, pools)
        return
    from evaluation.suites import tuning

    if tune:
        result = tuning.run(model, items, target, rules, batch_size, unknown_limit)
        write_report(result | named, target, hidden=[tuning.TRIED])
        out.print(f"options: {target / tuning.TUNED}", soft_wrap=True)
        return
    options = tuning.read(tuned, model) if tuned else None
    result = dial_suite.run(
        model,
        items,
        target,
        rules,
        batch_size,
        adaptive,
        factory.calibration(settings, model),
        sorted(alphas) or dial_suite.ALPHAS,
        known_only,
        trust,
        unknown_limit,
        reader=factory.reader(settings),
        options=options,
    )
    result |= named | {"tuned": tuned.name if tuned else None}
    report.write(result, target, "dial")
    out.print(report.dial_table(result))
    out.print(f"report: {target / 'report.html'}")


def _calibrate_quickly(
    settings: "Settings",
    model: "Engine",
    items: "Sequence[Conflict]",
    target: Path,
    batch_size: int,
) -> None:
    from control.conflict.calibration import ANY_MODEL, shipped
    from evaluation.suites import calibration, observations

    base = shipped(model)
    if base.model != ANY_MODEL:
        raise InputError(f"{model.name} comes with its calibration; leave out --quick")
    reader = factory.reader(settings)
    observed = observations.run(model, items, target, batch_size, reader, QUICK_EACH)
    measured = calibration.fit_bars(base, model.identity, model.name, observed)
    _keep(measured, model, settings, target)


def _keep(measured: "Calibration", model: "Engine", settings: "Settings", target: Path) -> None:
    from evaluation.suites import calibration

    kept = factory.keep(measured, model, settings, target)
    out.print(calibration.table(measured))
    out.print(f"the dial of {model.name} now uses {kept}", soft_wrap=True)


def _calibrate(
    settings: "Settings",
    model: "Engine",
    items: "Sequence[Conflict]",
    target: Path,
    batch_size: int,
    pools: Sequence[Path],
) -> None:
    from control.engines.transformers import LanguageModel
    from evaluation.suites import calibration, observations

    others = {path.name: observations.read(path) for path in pools}
    made_up = [observations.read(path, observations.INVENTED_THINGS) for path in pools]
    reader = factory.reader(settings)
    observed = observations.run(model, items, target, batch_size, reader)
    documents, invented = (
        observations.of_passages(model, asked, target / f"{name}.jsonl", batch_size, reader)
        for name, asked in (
            (observations.DOCUMENTS, observations.in_documents(len(items))),
            (observations.INVENTED_THINGS, observations.about_invented(len(items))),
        )
    )
    own = [invented] if invented else []
    measured = calibration.fit(
        model.identity, model.name, observed, invented=own, documents=documents
    )
    made_up = [*own, *filter(None, made_up)]
    pooled = {model.name: observed, **others}
    calibration.fit_any(pooled, invented=made_up).save(target / "any.json")
    if not isinstance(model, LanguageModel) and model.capabilities.scores:
        drafts = calibration.fit_any(pooled, drafts_only=True, invented=made_up)
        drafts.save(target / "any-drafts.json")
    for source, came_to in calibration.transfer(observed, invented).items():
        told = "  ".join(f"{name} {value}" for name, value in came_to.items())
        out.print(f"fitted without {source}, on {source}: {told}")
    _keep(measured, model, settings, target)
