"""The command that measures preference: `fulcrum eval preference`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import settings as settings_module
from app.cli.console import PATHS, REPORT, example, out
from foundation.errors import InputError

if TYPE_CHECKING:
    from app.settings import Settings

SHIPPED = "knowpo"


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
@click.option("--split", default="test", show_default=True, help="Of the built-in conflicts.")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many facts, drawn evenly.")
@click.option(
    "--known",
    type=click.IntRange(min=1),
    help="At most so many of the facts that the model knows are asked with passages.",
)
@click.option("--unknown", type=click.IntRange(min=0), help="And of those that it does not know.")
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
    split: str,
    limit: int | None,
    known: int | None,
    unknown: int | None,
    trained: tuple[str, ...],
    no_dial: bool,
    target: Path,
) -> None:
    """Whether answers follow passages that bear on the question, and only those."""
    settings = settings_module.load(**given)

    from app import factory
    from control.engines import adapters
    from evaluation import tables
    from evaluation.datasets import contexts
    from evaluation.suites import preference as evaluation

    named = _named(settings, trained)
    items = contexts.read(data, split, limit, factory.vectors)
    model = factory.language_model(settings.model_copy(update={"adapter": None}))
    use_adapter = [(name, adapters.read(model, folder)) for name, folder in named]
    result = evaluation.run(
        model,
        items,
        use_adapter,
        factory.calibration(settings, model),
        target,
        evaluation.PreferencePlan(known, unknown, dialled=not no_dial),
    )
    result |= {"model": model.name, "data": items.name, "split": None if data else split}
    tables.write(result, target)
    for table in tables.tables(result):
        out.print(table)
    out.print(f"report: {target / 'report.html'}")


def _named(settings: "Settings", trained: tuple[str, ...]) -> list[tuple[str, Path]]:
    """The adapters to measure, by name."""
    from app.factory import ADAPTERS

    if not trained:
        folder = settings.adapter or ADAPTERS / SHIPPED
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
