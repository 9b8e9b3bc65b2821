"""The command that proves forgetting: `fulcrum eval forgetting`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import home
from app import settings as settings_module
from app.cli.console import PATHS, REPORT, batch_size, example, out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.settings import Settings
    from control.forgetting.record import Record
    from evaluation.suites.router import Route, RouterFactory

PLAIN = "plain"
OWN_STATE = {"ledger": None, "ledger_key": None, "index": None}  # never the user's


@click.command(
    epilog=example(
        "fulcrum eval forgetting --facts 100 --out results/forgetting",
        "fulcrum eval forgetting --data restor_facts.json --data restor_mix_a0.json --out results",
        "fulcrum eval forgetting --measure subjects --limit 500 --out results/subjects",
        "fulcrum eval forgetting --measure undoing --limit 50 --out results/undoing",
        "fulcrum eval forgetting --measure router --out results/router",
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
@click.option("--limit", type=click.IntRange(min=1), help="Only so many facts, drawn evenly.")
@click.option(
    "--past",
    type=click.IntRange(min=1),
    multiple=True,
    help="Leave out the facts that this --limit would draw, to measure on others; repeatable, "
    "each time of those that are left.",
)
@click.option(
    "--facts",
    type=click.IntRange(min=1),
    help="Only so many of the facts that leak without forgetting.",
)
@click.option(
    "--baselines",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Probes, drawn at random, that the baselines answer.",
)
@click.option(
    "--sampled",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="Probes, drawn at random, that are answered 20 times at temperature 1.",
)
@click.option("--unrouted", is_flag=True, help="Also answer the baselines' probes unrouted.")
@click.option(
    "--measure",
    type=click.Choice(["leaks", "subjects", "undoing", "router"]),
    default="leaks",
    show_default=True,
    help="What leaks and what suffers; whether what else is asked of many facts' subjects suffers; "
    "whether adding and removing restores the old answers; or the router alone, on wordings and "
    "relations that it was not fitted on.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Adds and removes of --measure undoing.",
)
@click.option(
    "--rule",
    default=PLAIN,
    show_default=True,
    help="Rule to decode by: the same guard watches all of them, and plain RAG is the quickest.",
)
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
    batch_size: int,
    target: Path,
) -> None:
    """What is forgotten stays forgotten, however it is asked, and nothing beside it suffers."""
    settings = settings_module.load(**{**given, "home": target / "home"})
    settings = settings.model_copy(update=OWN_STATE)

    from evaluation import tables
    from evaluation.datasets import forgettable_facts
    from evaluation.suites import forgetting as evaluation
    from evaluation.suites import leakage, leakage_report, reversibility

    if measure == "router":
        from evaluation.suites import router as routing

        result = routing.router_report(_routing(settings), facts or routing.FACTS)
        tables.write(result | {"model": "", "data": "built-in", "split": "test"}, target)
        for table in tables.tables(result):
            out.print(table)
        return
    requests = forgettable_facts.read(paths, target, limit, past)
    answering, ledger, name = _under_test(settings, requests.documents, rule)
    data = {"model": name, "data": ", ".join(path.name for path in paths) or "built-in"}
    if measure == "undoing":
        result = reversibility.run(answering, ledger, requests.items, rounds) | data
        shown = {key: value for key, value in result.items() if isinstance(value, int | float)}
        result |= {"n": rounds, "tables": {"adding and removing": [shown]}}
        tables.write(result, target)
    elif measure == "subjects":
        tested = f"{name}, {rule}"
        results = evaluation.subjects(tested, answering, ledger, requests, target, batch_size)
        result = leakage.suffering(results) | data
        tables.write(result, target)
    else:
        plan = evaluation.ForgettingPlan(facts, baselines, sampled, unrouted=unrouted)
        tested = f"{name}, {rule}"
        results = evaluation.run(tested, answering, ledger, requests, target, plan, batch_size)
        result = leakage.report(results) | data
        leakage_report.write(result, target)
    for table in tables.tables(result):
        out.print(table)
    out.print(f"report: {target / 'report.html'}")


def _routing(settings: "Settings") -> "RouterFactory":
    """Makes a router over records, in a ledger of the run's own."""
    from app import factory

    def over(records: "Sequence[Record]") -> "Route":
        ledger = home.ledger(settings)
        for old in ledger.records():
            ledger.remove(old.id)
        ledger.add(records)
        forgetting = factory.layers(ledger, settings.cache, factory.shelf(settings))
        forgetting.wait()
        assert forgetting.router is not None  # noqa: S101 - built above
        return forgetting.router.route

    return over


def _under_test(
    settings: "Settings", documents: tuple[Path, ...], rule: str
) -> tuple[Any, Any, str]:
    """The assistant of an own home with these documents, its ledger, and the model's name."""
    from app import factory
    from control.decoding.generate import Decoding
    from evaluation.suites.replies import MAX_NEW_TOKENS, AssistantSystem

    how = Decoding(rule=rule, max_new_tokens=MAX_NEW_TOKENS)  # first: a wrong rule shows at once

    if documents:
        factory.passage_index(settings).ingest(list(documents))
    assistant = factory.assistant(settings)
    ledger = assistant.forgetting.ledger or home.ledger(settings)
    return AssistantSystem(assistant, how), ledger, assistant.model.name
