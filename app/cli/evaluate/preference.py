"""How trained adapters are measured: `fulcrum eval preference`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import factory
from app.cli.console import PATHS, REPORT, count, example, model_settings
from app.cli.evaluate.report import write_report
from foundation.errors import InputError

if TYPE_CHECKING:
    from app.settings import Settings

SHIPPED_ADAPTER = "knowpo"


@click.command(
    epilog=example(
        "fulcrum eval preference --limit 600 --out results/preference",
        "fulcrum eval preference --trained sft=runs/knowpo/sft --trained dpo=runs/knowpo/adapter "
        "--out results/preference",
        "fulcrum eval preference --data counterfact.json --limit 400 --out results/counterfact",
    )
)
@click.option(
    "--data",
    type=PATHS,
    help="Conflicts with a true passage, CounterFact or RAMDocs, see docs/evaluation.md.  "
    "[default: the built-in conflicts]",
)
@click.option("--split", help="Only facts of this split.  [default: test, of the built-in ones]")
@count("--limit", help="Only so many facts, drawn evenly.")
@count("--known", help="At most so many of the facts that the model knows are asked with passages.")
@count("--unknown", help="And of those that it does not know.", least=0)
@click.option(
    "--trained",
    multiple=True,
    metavar="NAME=DIR",
    help="Adapter to measure; repeatable, each is tested against the one before it.  "
    "[default: that of --adapter, else the shipped one]",
)
@click.option("--no-dial", is_flag=True, help="Leave out the answers with the dial.")
@REPORT
@click.pass_obj
def preference(
    given: dict[str, Any],
    data: Path | None,
    split: str | None,
    limit: int | None,
    known: int | None,
    unknown: int | None,
    trained: tuple[str, ...],
    no_dial: bool,
    target: Path,
) -> None:
    """Whether answers follow passages that bear on the question, and only those."""
    settings = model_settings(given, local=True)
    named = _named(settings, trained)

    from control.engines import adapters
    from evaluation.datasets import contexts
    from evaluation.suites import preference as preference_suite

    items = contexts.read(data, split, limit, factory.vectors)
    model = factory.local_model(settings.model_copy(update={"adapter": None}))
    loaded = [(name, adapters.read(model, folder)) for name, folder in named]
    result = preference_suite.run(
        model,
        items,
        loaded,
        factory.calibration(settings, model),
        target,
        preference_suite.PreferencePlan(known, unknown, dialled=not no_dial),
    )
    result |= {"model": model.name, "data": items.name, "split": split}
    write_report(result, target)


def _named(settings: "Settings", trained: tuple[str, ...]) -> list[tuple[str, Path]]:
    """The adapters to measure, by name."""
    if not trained:
        folder = settings.adapter or factory.ADAPTERS / SHIPPED_ADAPTER
        return [(folder.name, folder)]
    pairs = []
    for one in trained:
        name, _, given = one.partition("=")
        if not (name and given):
            raise InputError(f"--trained {one!r}: give a name and a directory, as sft=runs/k/sft")
        pairs.append((name, Path(given).expanduser()))
    if len({name for name, _ in pairs}) < len(pairs):
        raise InputError("--trained: two adapters have the same name; give each its own")
    return pairs
