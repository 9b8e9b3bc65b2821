"""`fulcrum correct`: pinned corrections."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from app import factory, home
from app import settings as settings_module
from app.cli.console import example, milliseconds, moment, plain, print_json
from foundation import cores
from foundation.errors import InputError

if TYPE_CHECKING:
    from control.corrections import Correction, Corrections


@click.command(
    epilog=example(
        'fulcrum correct "The refund window is 30 days" --source "board meeting, 3 May 2025"',
        'fulcrum correct "The refund window is 14 days" --replace 1f0c9a5b7d2e4f60',
        "fulcrum correct --list",
        "fulcrum correct --withdraw 1f0c9a5b7d2e4f60",
    )
)
@click.argument("statement", required=False)
@click.option("--source", help="Where the statement is from; shown with every answer.")
@click.option("--who", help="Who pins or withdraws it; kept in the audit.")
@click.option("--scope", help="The subject that it is about; shown only.")
@click.option(
    "--replace", "replaces", metavar="ID", multiple=True, help="Withdraw this one; repeatable."
)
@click.option("--list", "lists", is_flag=True, help="Show the corrections in force.")
@click.option("--withdraw", "correction_id", metavar="ID", help="Use this correction no more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def correct(
    given: dict[str, Any],
    statement: str | None,
    lists: bool,
    correction_id: str | None,
    replaces: tuple[str, ...],
    as_json: bool,
    **fields: str | None,
) -> None:
    """Pin a STATEMENT that stands above documents and memory for every question it answers.

    It holds however the question is worded, is shown as the source of the answer, and leaves other
    questions alone. What is forgotten stands above it.
    """
    texts = {name: text for name, text in fields.items() if text is not None}
    _check(statement, lists, correction_id, replaces, texts)
    if statement is not None:
        _pin(_corrections(given), statement, texts, replaces, as_json)
    elif correction_id is not None:
        _withdraw(_corrections(given), correction_id, texts.get("who", ""), as_json)
    else:
        _list(_corrections(given), as_json)


def _check(
    statement: str | None,
    lists: bool,
    correction_id: str | None,
    replaces: tuple[str, ...],
    texts: dict[str, str],
) -> None:
    """Check that the options say one thing to do."""
    if (statement is not None) + lists + (correction_id is not None) != 1:
        raise InputError(
            'give one of these: a statement, as in fulcrum correct "The refund window is 30 days", '
            "--list, or --withdraw ID"
        )
    unused = {"--replace"} if replaces else set()
    unused |= {f"--{name}" for name in texts if name != "who" or lists}
    if statement is None and unused:
        what = "--list" if lists else "--withdraw"
        raise InputError(f"{min(unused)} is for a new correction; leave it out with {what}")


def _corrections(given: dict[str, Any]) -> "Corrections":
    settings = settings_module.load(**given)
    ledger = home.ledger(settings)
    cores.limit(settings.threads)  # before anything is imported that computes

    return factory.corrections(settings, ledger)


def _pin(
    corrections: "Corrections",
    statement: str,
    texts: dict[str, str],
    replaces: tuple[str, ...],
    as_json: bool,
) -> None:
    from control.corrections import Correction

    begun = time.perf_counter()
    pinned = corrections.add(Correction(statement, **texts), replaces)
    if as_json:
        replaced = [old.id for old in pinned.replaced]
        print_json({**asdict(pinned.correction), "new": pinned.new, "replaced": replaced})
        return
    kept = pinned.correction
    for old in pinned.replaced:
        click.echo(f"{old.id}: {plain(old.statement)} is withdrawn")
    if pinned.new:
        click.echo(f"{kept.id}: {plain(kept.statement)} is pinned ({milliseconds(begun)})")
    else:
        click.echo(f"{kept.id}: this is pinned already, since {moment(kept.time)}")


def _withdraw(corrections: "Corrections", correction_id: str, who: str, as_json: bool) -> None:
    gone = corrections.withdraw(correction_id, who)
    if as_json:
        print_json(asdict(gone))
    else:
        click.echo(f"{gone.id}: {plain(gone.statement)} is withdrawn")


def _list(corrections: "Corrections", as_json: bool) -> None:
    found = [(each, corrections.forgotten(each)) for each in corrections.all()]
    if as_json:
        print_json([{**asdict(each), "forgotten": list(forgotten)} for each, forgotten in found])
        return
    for each, forgotten in found:
        click.echo(f"{each.id}  {moment(each.time)}  {_line(each, bool(forgotten))}")
    if not found:
        click.echo("nothing is corrected")


def _line(correction: "Correction", forgotten: bool) -> str:
    rest = [
        f"{name}={plain(text)}"
        for name in ("source", "who", "scope")
        if (text := getattr(correction, name))
    ]
    unused = ["not used: it states what is forgotten"] if forgotten else []
    return "  ".join([plain(correction.statement), *rest, *unused])
