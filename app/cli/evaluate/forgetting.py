"""How forgetting and its judge are measured: `fulcrum eval forgetting` and `judge`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from app import factory
from app.cli.console import PATHS, REPORT, batch_size, count, example, model_settings
from app.cli.evaluate.report import own_settings, write_report
from control.decoding.options import check_rule
from foundation.errors import InputError

JUDGE_MODEL = click.option(
    "--judge",
    metavar="MODEL",
    help="Also ask this language model about answers in which no leak was found, for "
    "descriptions; as --model, and best another one.",
)
PLAIN = "plain"


@click.command(
    epilog=example(
        "fulcrum eval forgetting --facts 100 --out results/forgetting",
        "fulcrum eval forgetting --data restor_facts.json --data restor_mix_a0.json --out results",
        "fulcrum eval forgetting --measure subjects --limit 500 --out results/subjects",
        "fulcrum eval forgetting --measure undoing --limit 50 --out results/undoing",
        "fulcrum eval forgetting --measure router --out results/router",
        "fulcrum eval forgetting --measure tofu --data tofu_forget10_perturbed.jsonl --out results",
        "fulcrum eval forgetting --judge model-1.5b.gguf --facts 20 --out results/judged",
    )
)
@click.option(
    "--data",
    "paths",
    type=PATHS,
    multiple=True,
    help="Facts with probes and neighbours as JSON Lines, or the files of RESTOR or TOFU; "
    "repeatable, see docs/evaluation.md.  [default: the built-in facts]",
)
@count("--limit", help="Only so many facts, drawn evenly.")
@count(
    "--past",
    multiple=True,
    help="Leave out the facts that this --limit would draw, to measure on others; repeatable, "
    "each time of those that are left.",
)
@count("--facts", help="Only so many of the facts that leak without forgetting.")
@count(
    "--baselines", default=1000, help="Probes, drawn at random, that the baselines answer.", least=0
)
@count(
    "--sampled",
    default=200,
    help="Probes, drawn at random, that are answered 20 times at temperature 1.",
    least=0,
)
@click.option("--unrouted", is_flag=True, help="Also answer the baselines' probes unrouted.")
@click.option(
    "--measure",
    type=click.Choice(["leaks", "subjects", "undoing", "guesses", "tofu", "router", "classifier"]),
    default="leaks",
    show_default=True,
    help="What leaks and what suffers; whether what else is asked of many facts' subjects suffers; "
    "whether adding and removing restores the old answers; whether right guesses are told from "
    "wrong ones; forget quality and model utility of TOFU, with --limit questions of each of its "
    "parts; the router alone, on wordings and relations that it was not trained on; or the "
    "classifier alone, on facts that it was not trained on.",
)
@count("--rounds", default=1000, help="Adds and removes of --measure undoing.")
@click.option(
    "--rule",
    default=PLAIN,
    show_default=True,
    help="Rule to decode by: the same guard watches all of them, and plain RAG is the quickest.",
)
@JUDGE_MODEL
@batch_size(32)
@REPORT
@click.pass_obj
def forgetting(
    given: dict[str, Any],
    paths: tuple[Path, ...],
    limit: int | None,
    past: tuple[int, ...],
    facts: int | None,
    baselines: int,
    sampled: int,
    unrouted: bool,
    measure: str,
    rounds: int,
    rule: str,
    judge: str | None,
    batch_size: int,
    target: Path,
) -> None:
    """What is forgotten stays forgotten, however it is asked, and nothing beside it suffers."""
    check_rule(rule)
    if judge is not None and measure != "leaks":
        raise InputError(
            f"--judge with --measure {measure}: it judges leaks; leave one of them out"
        )
    settings = own_settings(given, target)
    judge_settings = None if judge is None else model_settings({**given, "model": judge})

    from app import evaluation_setup
    from evaluation.datasets import forgettable_facts
    from evaluation.suites import fact_classifier, guesses, leakage, reversibility, router, tofu
    from evaluation.suites import forgetting as forgetting_suite

    if measure == "router":
        result = router.router_report(
            evaluation_setup.router_factory(settings), facts or router.FACTS
        )
        result |= {"model": "", "data": "built-in", "split": "test"}
        write_report(result, target, announce=False)
        return
    if measure == "classifier":
        result = fact_classifier.report(factory.fact_classifier())
        write_report(
            result | {"model": "", "data": "held out of the training"}, target, announce=False
        )
        return
    if measure == "tofu":
        benchmark, everything, retained = forgettable_facts.read_tofu(paths, target, limit)
        with_all, without, ledger = evaluation_setup.tofu_systems(
            settings, everything, retained, rule
        )
        name = with_all.assistant.model.name
        result = tofu.run(
            f"{name}, {rule}", with_all, without, ledger, benchmark, target, batch_size
        )
        data = {"model": name, "data": ", ".join(path.name for path in paths)}
        write_report(result | data, target)
        return
    requests = forgettable_facts.read(paths, target, limit, past)
    system, ledger = evaluation_setup.guarded_assistant(settings, requests.documents, rule)
    name = system.assistant.model.name
    data = {"model": name, "data": ", ".join(path.name for path in paths) or "built-in"}
    if measure == "undoing":
        result = reversibility.run(system, ledger, requests.items, rounds) | data
        shown = {key: value for key, value in result.items() if isinstance(value, int | float)}
        write_report(result | {"n": rounds, "tables": {"adding and removing": [shown]}}, target)
        return
    if measure == "guesses":
        as_served = replace(system, assistant=replace(system.assistant, even_time=True))
        write_report(guesses.run(as_served, ledger, requests.items) | data, target)
        return
    run = (f"{name}, {rule}", system, ledger, requests, target)
    if measure == "subjects":
        results = forgetting_suite.run_subjects(*run, batch_size)
        write_report(leakage.neighbour_report(results) | data, target)
    else:
        plan = forgetting_suite.ForgettingPlan(facts, baselines, sampled, unrouted=unrouted)
        results = forgetting_suite.run(*run, plan, batch_size)
        judged = evaluation_setup.leak_judge(judge_settings)
        report = leakage.report(results, judged) | data | {"judge": judge}
        write_report(report, target, "forgetting")


@click.command(
    epilog=example(
        "fulcrum eval judge --out results/judge",
        "fulcrum eval judge --judge model-1.5b.gguf --limit 100 --out results/judge-model",
    )
)
@click.option(
    "--data",
    type=PATHS,
    help="Labelled answers as JSON Lines, see docs/evaluation.md.  [default: the built-in ones]",
)
@click.option(
    "--split",
    type=click.Choice(["development", "test"]),
    default="test",
    show_default=True,
    help="The bars of the judge were set on development.",
)
@count("--limit", help="Only so many answers, drawn evenly.")
@JUDGE_MODEL
@REPORT
@click.pass_obj
def judge(
    given: dict[str, Any],
    data: Path | None,
    split: str,
    limit: int | None,
    judge: str | None,
    target: Path,
) -> None:
    """Whether the judge of leaks is right, on answers that a person labelled."""
    settings = None if judge is None else model_settings({**given, "model": judge})

    from app import evaluation_setup
    from evaluation.datasets import leak_pairs
    from evaluation.datasets.conflicts import spread
    from evaluation.suites import judging

    pairs = spread(leak_pairs.read(data or leak_pairs.BUILT_IN, split), limit)
    with_model = None if settings is None else evaluation_setup.leak_judge(settings)
    result = judging.run(pairs, with_model)
    result |= {"model": judge or "", "data": data.name if data else "built-in", "split": split}
    write_report(result, target)
