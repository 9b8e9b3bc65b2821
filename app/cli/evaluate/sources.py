"""How claims of sources are measured: `fulcrum eval sources`; and where the harness's tasks are."""

from pathlib import Path
from typing import Any

import click

from app.cli.console import PATHS, REPORT, batch_size, count, example
from app.cli.evaluate.report import own_settings, write_report
from foundation.errors import InputError

SOURCE_TASKS = (  # of evaluation.suites.sources, which is too slow to import for --help
    "claims",
    "values",
    "verdicts",
    "memory",
    "versions",
    "versions-beside",
    "documents",
    "files",
    "files-calibration",
    "sentences",
    "corrections",
    "held-out",
    "ramdocs",
)


@click.command(
    epilog=example(
        "fulcrum eval sources --out results/sources",
        "fulcrum eval sources --task claims --task verdicts --limit 20 --out results/sources",
        "fulcrum eval sources --task ramdocs --data ramdocs_test.jsonl --out results/ramdocs",
    )
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    type=click.Choice(SOURCE_TASKS),
    help="What is measured; repeatable, see docs/evaluation.md.  [default: all but corrections, "
    "files-calibration, held-out and ramdocs]",
)
@click.option("--data", type=PATHS, help="The file of RAMDocs, for --task ramdocs.")
@count("--limit", help="Only so many records of each task, drawn evenly.")
@batch_size(8)
@REPORT
@click.pass_obj
def sources(
    given: dict[str, Any],
    tasks: tuple[str, ...],
    data: Path | None,
    limit: int | None,
    batch_size: int,
    target: Path,
) -> None:
    """Whether what each source claims is found, told and followed rightly."""
    settings = own_settings(given, target)
    if (data is None) == ("ramdocs" in tasks):
        raise InputError("--data and --task ramdocs go together; give both or neither")

    from app import evaluation_setup
    from evaluation.suites import sources as sources_suite

    tasks = tasks or sources_suite.USUAL_TASKS
    system = evaluation_setup.source_system(settings, corpus="documents" in tasks)
    run = sources_suite.Run(system, target, limit, batch_size)
    result = sources_suite.run(run, tasks, data)
    result |= {"model": system.assistant.model.name, "data": data.name if data else "built-in"}
    write_report(result | {"split": None}, target, hidden=sources_suite.HIDDEN)


@click.command(
    epilog=example(
        "fulcrum eval harness",
        'lm_eval run --include_path "$(fulcrum eval harness)" --tasks fulcrum_conflicts_passage',
    )
)
def harness() -> None:
    """Print the directory of the tasks for EleutherAI's lm-evaluation-harness.

    They ask the conflicts of `eval dial` of any model that the harness runs, see
    docs/evaluation.md; this command itself measures nothing.
    """
    from evaluation.harness import DIRECTORY

    click.echo(DIRECTORY)
