"""The commands that measure: `fulcrum eval`."""

import click

from app.cli.evaluate import dial, forgetting, preference, retrieval, sources


@click.group(name="eval")
def evaluate() -> None:
    """Measure; each evaluation writes report.json and report.html."""


for command in (
    dial.dial,
    retrieval.retrieval,
    forgetting.forgetting,
    forgetting.judge,
    preference.preference,
    sources.sources,
    sources.harness,
):
    evaluate.add_command(command)
